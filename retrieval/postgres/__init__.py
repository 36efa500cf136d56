"""PostgreSQL with pgvector: a corpus in tables, and what everything that is kept there shares to reach it."""
