"""Watch what an agent answers in production: Databricks scores a sample of its traces, by scorers that are ours."""
