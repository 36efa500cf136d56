"""What a person may have meant by a name that is not known."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """The nearest of `names` as a question, `Did you mean 'dev'? `, with a space after it; else nothing."""
    nearest = get_close_matches(name, list(names), n=1)
    return f"Did you mean {nearest[0]!r}? " if nearest else ""


def there_is(names: Iterable[str]) -> str:
    """`names` as a list to read, or `none`."""
    return ", ".join(names) or "none"
