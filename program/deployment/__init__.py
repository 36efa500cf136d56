"""What is done so that others can ask the agent: log it, check it, serve it on Databricks, take it back."""
