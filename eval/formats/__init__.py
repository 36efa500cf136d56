"""Ground truth in the formats that others read and write."""
