"""What an embedded index holds, source by source and document by document: one compact file of a generation.

A million documents take some 25 MB on disk and a fraction of a second to read or write: digests are 64 bits
of BLAKE2b (that a change goes unseen has a chance of 1 to 10^19, and as often as a million to it where it
could be taken for any other source), and names, which resemble each other, are compressed.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

Digests = NDArray[np.uint64]
Rows = NDArray[np.int64]

UNKNOWN = 0
"""The digest of a source that must be read again, whatever it holds."""

_LEVEL = 1
_TEXTS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class Registry:
    """Sources in the order in which they were read, and the documents of each one after the other.

    `fingerprints` and `counts` (of documents) are by source, `uris` and `hashes` by document.

    Raises:
        ValueError: when it is read, if the file is damaged.
    """

    fingerprints: Digests
    counts: Rows
    hashes: Digests
    uris: list[str]
    _places: tuple[bytes, bytes]

    @classmethod
    def read(cls, file: Path | BinaryIO) -> Registry:
        """What `RegistryDraft.write` wrote."""
        with _opened(file) as entries:
            registry = cls(
                fingerprints=_numbers(entries.read("fingerprints"), "<u8"),
                counts=_numbers(entries.read("counts"), "<u4").astype(np.int64),
                hashes=_numbers(entries.read("hashes"), "<u8"),
                uris=_split(entries.read("uris"), entries.read("uri_lengths")),
                _places=(entries.read("places"), entries.read("place_lengths")),
            )
        documents = len(registry.uris)
        if len(registry.hashes) != documents or registry.counts.sum() != documents:
            raise ValueError("the list of documents contradicts itself")
        return registry

    @classmethod
    def empty(cls) -> Registry:
        """The registry of an index that holds nothing."""
        return RegistryDraft().as_registry()

    def places(self) -> list[str]:
        """Where each source was when it was read; "" for a document that came from nowhere in particular."""
        return _split(*self._places)


def read_uris(content: bytes) -> list[str]:
    """The identities of the documents, out of the content of the file, in order.

    Raises:
        ValueError: if it is damaged.
    """
    with _opened(BytesIO(content)) as entries:
        return _split(entries.read("uris"), entries.read("uri_lengths"))


@contextmanager
def _opened(file: Path | BinaryIO) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(file) as entries:
            yield entries
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError) as error:
        raise ValueError(f"the list of documents cannot be read: {error}") from error


class RegistryDraft:
    """A registry in the making: sources are added in order."""

    def __init__(self) -> None:
        self._fingerprints = array("Q")
        self._counts = array("I")
        self._hashes = array("Q")
        self._uris = _Texts()
        self._places = _Texts()

    @property
    def documents(self) -> int:
        """The number of documents so far."""
        return len(self._hashes)

    def add(self, fingerprint: int, place: str, uris: Sequence[str], hashes: Sequence[int]) -> None:
        """Add a source with its documents."""
        self._fingerprints.append(fingerprint)
        self._counts.append(len(uris))
        self._hashes.extend(hashes)
        self._uris.extend(uris)
        self._places.extend((place,))

    def add_known(self, registry: Registry, sources: Rows, documents: Rows, places: Sequence[str]) -> None:
        """Add sources of another registry with all of their documents, and where they are now."""
        if not len(sources):
            return
        self._fingerprints.frombytes(registry.fingerprints[sources].tobytes())
        self._counts.frombytes(registry.counts[sources].astype(np.uint32).tobytes())
        self._hashes.frombytes(registry.hashes[documents].tobytes())
        first, last = (int(documents[0]), int(documents[-1])) if len(documents) else (0, -1)
        if last - first + 1 == len(documents) and (np.diff(documents) == 1).all():
            self._uris.extend(registry.uris[first : last + 1])
        else:
            self._uris.extend(list(map(registry.uris.__getitem__, documents.tolist())))
        self._places.extend(places)

    def places_of(self, uris: Set[str]) -> dict[str, str]:
        """Where those of the documents `uris` came from that are among those so far."""
        if not uris:
            return {}
        places, documents = self._places.texts(), iter(self._uris.texts())
        rows = (place for place, count in zip(places, self._counts, strict=True) for _ in range(count))
        return {uri: place for uri, place in zip(documents, rows, strict=True) if uri in uris}

    def digest_documents(self) -> bytes:
        """Equal for the same documents in any order."""
        return np.sort(np.frombuffer(self._hashes, np.uint64)).astype("<u8").tobytes()

    def as_registry(self) -> Registry:
        """What `write` would write, as it would be read."""
        file = BytesIO()
        self._write(file)
        file.seek(0)
        return Registry.read(file)

    def write(self, path: Path) -> None:
        """Write the file anew, and onto the disk."""
        # A new file: this one may be a link to that of the generation before.
        path.unlink(missing_ok=True)
        with path.open("wb") as file:
            self._write(file)
            file.flush()
            os.fsync(file.fileno())

    def _write(self, file: BinaryIO) -> None:
        with zipfile.ZipFile(file, "w") as entries:
            for name, content, compress in (
                ("fingerprints", _bytes(self._fingerprints, "<u8"), False),
                ("counts", _bytes(self._counts, "<u4"), True),
                ("hashes", _bytes(self._hashes, "<u8"), False),
                ("uris", bytes(self._uris.content), True),
                ("uri_lengths", _bytes(self._uris.lengths, "<u4"), True),
                ("places", bytes(self._places.content), True),
                ("place_lengths", _bytes(self._places.lengths, "<u4"), True),
            ):
                # Without the time of writing, so that equal registries are equal files.
                entry = zipfile.ZipInfo(name)
                entry.compress_type = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
                entries.writestr(entry, content, compresslevel=_LEVEL)


class KnownSources:
    """Finds sources of a registry by their fingerprints, and the documents of sources."""

    def __init__(self, registry: Registry) -> None:
        self._fingerprints = registry.fingerprints
        self._next = 0
        self._order: Rows = np.argsort(registry.fingerprints, kind="stable")
        self._sorted = registry.fingerprints[self._order]
        self._counts = registry.counts
        self._first: Rows = np.cumsum(registry.counts) - registry.counts

    def find(self, fingerprints: Digests) -> Rows:
        """The row of a source of each fingerprint, and -1 where there is none."""
        if not len(self._sorted):
            return np.full(len(fingerprints), -1, np.int64)
        # Mostly, they come in the order in which they came before.
        expected = self._next + np.arange(len(fingerprints))
        expected[expected >= len(self._fingerprints)] = 0
        is_expected = (self._fingerprints[expected] == fingerprints) & (fingerprints != UNKNOWN)
        found = np.where(is_expected, expected, -1)
        others = np.flatnonzero(~is_expected)
        if len(others):
            wanted = fingerprints[others]
            at = np.searchsorted(self._sorted, wanted)
            at[at == len(self._sorted)] = 0
            is_known = (self._sorted[at] == wanted) & (wanted != UNKNOWN)
            found[others] = np.where(is_known, self._order[at], -1)
        known = np.flatnonzero(found >= 0)
        if len(known):
            last = int(known[-1])
            self._next = int(found[last]) + len(fingerprints) - last
        return found

    def documents(self, sources: Rows) -> Rows:
        """The rows of the documents of `sources`, in their order."""
        counts = self._counts[sources]
        before = np.cumsum(counts) - counts
        return np.repeat(self._first[sources] - before, counts) + np.arange(counts.sum())

    def owners(self) -> Rows:
        """The row of each document's source."""
        return np.repeat(np.arange(len(self._counts)), self._counts)


class _Texts:
    """Many short texts in little memory."""

    def __init__(self) -> None:
        self._content = bytearray()
        self._lengths = array("I")
        # Many at once cost a fraction of one by one.
        self._waiting: list[str] = []

    def extend(self, texts: Sequence[str]) -> None:
        self._waiting += texts
        if len(self._waiting) >= _TEXTS_AT_ONCE:
            self._pack()

    @property
    def content(self) -> bytearray:
        self._pack()
        return self._content

    @property
    def lengths(self) -> array[int]:
        self._pack()
        return self._lengths

    def texts(self) -> list[str]:
        return _slices(self.content.decode("utf-8", "surrogatepass"), self.lengths)

    def _pack(self) -> None:
        self._content += "".join(self._waiting).encode("utf-8", "surrogatepass")
        self._lengths.extend(map(len, self._waiting))
        self._waiting.clear()


def _split(content: bytes, lengths: bytes) -> list[str]:
    return _slices(content.decode("utf-8", "surrogatepass"), _numbers(lengths, "<u4").tolist())


def _slices(text: str, lengths: Iterable[int]) -> list[str]:
    start = 0
    return [text[start : (start := end)] for end in accumulate(lengths)]


def _numbers(content: bytes, kind: str) -> NDArray[np.uint64]:
    return np.frombuffer(content, kind)


def _bytes(numbers: array[int], kind: str) -> bytes:
    return np.frombuffer(numbers, f"u{numbers.itemsize}").astype(kind).tobytes()
