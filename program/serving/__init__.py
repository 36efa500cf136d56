"""Serve an agent over HTTP: the Responses API as it streams, the playground, feedback, metrics and traces."""
