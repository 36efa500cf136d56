"""Many configurations over one question set, with what they share done once."""
