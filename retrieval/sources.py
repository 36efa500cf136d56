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


@dataclass(slots=True)
class SourceGroup:
    """Sources that stand next to each other, such as lines of a file, and are known again all at once.

    A group costs little more than a source, so that of a million lines those are looked at one by one that stand
    near a change. `fingerprint` is as a source's: groups of equal fingerprint hold equal sources in the same order,
    and those of equal `place` besides at the same places. `places` are those of its sources, which `load` makes.
    """

    place: str
    fingerprint: str
    places: Callable[[], list[str]]
    load: Callable[[], list[Source]]
