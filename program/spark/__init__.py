"""Answer batches on Spark: tables in, tables out, the logged agent on every executor."""
