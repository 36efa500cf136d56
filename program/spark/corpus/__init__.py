"""Build a corpus on Spark: documents become passages in a Delta table, which a Vector Search index follows."""
