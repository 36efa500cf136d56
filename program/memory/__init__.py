"""Conversations that are kept, so that a request can go on with one by its id. Off unless `memory.store` is set."""
