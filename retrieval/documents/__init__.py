"""Readers, a module for each format: the bytes of a file become text with title, language, anchors and metadata."""
