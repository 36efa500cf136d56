"""Secrets come from the environment, and never get into a message."""

from __future__ import annotations

import os

_SECRET_NAMES = ("KEY", "TOKEN", "SECRET", "PASSWORD")
_SHORTEST_SECRET = 8


def hide_secrets(text: str) -> str:
    """`text` with the value of each environment variable that is named like a secret replaced by its name.

    Values shorter than 8 characters are left: they would be found in ordinary words.
    """
    for name, value in os.environ.items():
        if name.upper().endswith(_SECRET_NAMES) and len(value) >= _SHORTEST_SECRET:
            text = text.replace(value, f"${name}")
    return text
