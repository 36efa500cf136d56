"""Answer a question from retrieved passages, with verified citations: what is deployed."""
