"""Compare scored runs, pair by pair and question by question."""
