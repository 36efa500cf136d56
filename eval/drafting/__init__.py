"""Questions that a language model drafts from a corpus, for people to review."""
