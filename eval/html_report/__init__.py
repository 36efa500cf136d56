"""One HTML file that shows a sweep: offline, light and dark."""
