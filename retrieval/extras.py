"""Packages that only some need: what is missing is said with the command that brings it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from retrieval.errors import ConfigurationError


@contextmanager
def needs_extra(extra: str, purpose: str) -> Iterator[None]:
    """Import inside: what is not installed becomes a ConfigurationError that says `pip install 'citeqa[extra]'`."""
    try:
        yield
    except ImportError as error:
        missing = (error.name or str(error)).partition(".")[0]
        raise ConfigurationError(
            f"The package '{missing}' is not installed, and {purpose} needs it: pip install 'citeqa[{extra}]'"
        ) from error
