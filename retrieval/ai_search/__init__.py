"""What the retriever over a Databricks Vector Search (AI Search) index is made of."""
