"""Keep keys out of what a person or a trace gets to see."""

from __future__ import annotations

import os
from collections.abc import Iterator

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


def hide_secrets_in(error: BaseException) -> None:
    """Rewrite the messages of an error and its causes: a gateway may have repeated the key that it refused."""
    for link in _chain(error):
        link.args = tuple(hide_secrets(arg) if isinstance(arg, str) else arg for arg in link.args)
        if isinstance(message := getattr(link, "message", None), str):
            link.message = hide_secrets(message)  # type: ignore[attr-defined]


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
