"""Text as PostgreSQL can keep it."""

from __future__ import annotations

import re

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def storable(text: str) -> str:
    """`text` with each character that no PostgreSQL text holds (NUL, half of a pair) replaced by U+FFFD.

    One for one, so that offsets stay what they are.
    """
    return text if text.isascii() and "\x00" not in text else _UNSTORABLE.sub("\ufffd", text)
