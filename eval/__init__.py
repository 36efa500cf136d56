"""Measure and improve: ground truth, metrics, runs and statistics. Nothing in production imports it."""
