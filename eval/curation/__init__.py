"""Look after a ground truth: leaks, gold and labels that are missing, splits, counts and copies."""
