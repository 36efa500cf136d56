"""Secrets come from the environment or the user who asks, and never get into a message."""

from __future__ import annotations

import os
import re

from retrieval.asking_user import user_token

_SECRET_NAMES = ("KEY", "TOKEN", "SECRET", "PASSWORD")
_SHORTEST_SECRET = 8
_SHAPES = (
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}"), r"\1 $TOKEN"),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*"), "$TOKEN"),  # a JSON web token
    (re.compile(r"\bdapi[0-9a-f]{32}(-\d+)?\b"), "$DATABRICKS_TOKEN"),
    (re.compile(r"(://[^/\s:@]*):[^/\s@]+@"), r"\1:$PASSWORD@"),
    (re.compile(r"(?i)\b(password|client_secret)=(?!\$)('[^']*'|[^\s&;'\"]+)"), r"\1=$SECRET"),
)
"""What a secret looks like that no variable holds: tokens that were fetched, passwords in addresses."""


def hide_secrets(text: str) -> str:
    """`text` with secrets replaced by their names: of variables named like one, of the user who asks, by their shape.

    Values shorter than 8 characters are left: they would be found in ordinary words.
    """
    for name, value in os.environ.items():
        if name.upper().endswith(_SECRET_NAMES) and len(value) >= _SHORTEST_SECRET:
            text = text.replace(value, f"${name}")
    if token := user_token():
        text = text.replace(token, "$USER_TOKEN")
    for shape, shown in _SHAPES:
        text = shape.sub(shown, text)
    return text
