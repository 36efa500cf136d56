"""Where documents come from, piece by piece, so that what did not change is not read again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from retrieval.types import Document


@dataclass(slots=True)
class Source:
    """One file, or one line of a file of many documents: what it is costs a stat and a hash, nothing is parsed.

    `place` says where it is, for messages, and is how it is known again when it turns bad: a path relative
    to the corpus, with `:12` for a line. `fingerprint` is 32 hexadecimal digits of the bytes and of all else
    that makes documents of them (the settings, the reader's version, and the path where an address or a
    title comes from it): sources of equal fingerprint make equal documents. `load` makes them.

    Raises:
        CorpusError: by `load`, if the source is not usable; other sources may be.
    """

    # Not frozen, which would make a million of them take a second more.
    place: str
    fingerprint: str
    load: Callable[[], list[Document]]
