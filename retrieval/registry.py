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
from typing import Any, BinaryIO

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

    `fingerprints`, `counts` (of documents) and `places` are by source, `uris` and `hashes` by document. A place is
    where a source was when it was read; "" for a document that came from nowhere in particular. The sources, or the
    first of them, are also counted out into groups, of which those have the fingerprint `UNKNOWN` that are none.

    Raises:
        ValueError: when it is read, if the file is damaged.
    """

    fingerprints: Digests
    counts: Rows
    hashes: Digests
    uris: Texts
    places: Texts
    group_fingerprints: Digests
    group_counts: Rows
    group_places: Texts

    @classmethod
    def read(cls, file: Path | BinaryIO) -> Registry:
        """What `RegistryDraft.write` wrote."""
        with _opened(file) as entries:
            registry = cls(
                fingerprints=_numbers(entries.read("fingerprints"), "<u8"),
                counts=_numbers(entries.read("counts"), "<u4").astype(np.int64),
                hashes=_numbers(entries.read("hashes"), "<u8"),
                uris=_texts(entries, "uris", "uri_lengths"),
                places=_texts(entries, "places", "place_lengths"),
                group_fingerprints=_numbers(entries.read("group_fingerprints"), "<u8"),
                group_counts=_numbers(entries.read("group_counts"), "<u4").astype(np.int64),
                group_places=_texts(entries, "group_places", "group_place_lengths"),
            )
        sources, documents, groups = (
            len(registry.fingerprints),
            len(registry.hashes),
            len(registry.group_counts),
        )
        if (
            (len(registry.counts), len(registry.places)) != (sources, sources)
            or (len(registry.uris), registry.counts.sum()) != (documents, documents)
            or (len(registry.group_fingerprints), len(registry.group_places)) != (groups, groups)
            or registry.group_counts.sum() > sources
        ):
            raise ValueError("the list of documents contradicts itself")
        return registry

    @classmethod
    def empty(cls) -> Registry:
        """The registry of an index that holds nothing."""
        return RegistryDraft().as_registry()

    def first_documents(self) -> Rows:
        """The row of the first document of each source; and, after them, the number of documents."""
        return np.concatenate((np.zeros(1, np.int64), np.cumsum(self.counts)))


class Texts:
    """Many short texts, one after the other in UTF-8; those that are asked for are made of it."""

    def __init__(self, content: bytes, lengths: NDArray[np.uint32]) -> None:
        """`lengths` are in bytes.

        Raises:
            ValueError: if they are not those of `content`.
        """
        self._content = content
        self._lengths = lengths
        self._ends = np.cumsum(lengths, dtype=np.int64).data
        self._all: list[str] | None = None
        if (self._ends[-1] if len(lengths) else 0) != len(content):
            raise ValueError("the list of documents contradicts itself")

    def __len__(self) -> int:
        return len(self._lengths)

    def __getitem__(self, row: int) -> str:
        if self._all is not None:
            return self._all[row]
        return self._content[self._start(row) : self._ends[row]].decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        return iter(self.all())

    def all(self) -> list[str]:
        """All of them, made once."""
        if self._all is None:
            self._all = _slices(self._content, self._lengths.tolist())
        return self._all

    def packed(self, rows: slice) -> tuple[bytes, bytes]:
        """Some that follow each other: their content and their lengths (u4) in bytes."""
        start, stop = self._start(rows.start), self._start(rows.stop)
        return self._content[start:stop], self._lengths[rows].astype(np.uint32).tobytes()

    def _start(self, row: int) -> int:
        return self._ends[row - 1] if row else 0


def read_uris(content: bytes) -> list[str]:
    """The identities of the documents, out of the content of the file, in order.

    Raises:
        ValueError: if it is damaged.
    """
    with _opened(BytesIO(content)) as entries:
        return _texts(entries, "uris", "uri_lengths").all()


@contextmanager
def _opened(file: Path | BinaryIO) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(file) as entries:
            yield entries
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError) as error:
        raise ValueError(f"the list of documents cannot be read: {error}") from error


class RegistryDraft:
    """A registry in the making: sources are added in order, new ones and those of the one before."""

    def __init__(self, base: Registry | None = None) -> None:
        """`base` is the registry that sources are kept of."""
        self._fingerprints = array("Q")
        self._counts = array("I")
        self._hashes = array("Q")
        self._uris = _TextsDraft()
        self._places = _TextsDraft()
        self._group_fingerprints = array("Q")
        self._group_counts = array("I")
        self._group_places = _TextsDraft()
        self._grouped = 0
        self._base = base
        self._first = (base.first_documents() if base else np.zeros(1, np.int64)).data
        # Sources of the base that follow each other there, and are copied all at once.
        self._run = slice(0, 0)

    @property
    def sources(self) -> int:
        """The number of sources so far."""
        return len(self._fingerprints) + self._run.stop - self._run.start

    @property
    def documents(self) -> int:
        """The number of documents so far."""
        return len(self._hashes) + self._first[self._run.stop] - self._first[self._run.start]

    def add(self, fingerprint: int, place: str, uris: Sequence[str], hashes: Sequence[int]) -> None:
        """Add a source with its documents."""
        self._copy_run()
        self._fingerprints.append(fingerprint)
        self._counts.append(len(uris))
        self._hashes.extend(hashes)
        self._uris.extend(uris)
        self._places.extend((place,))

    def keep(self, sources: slice) -> None:
        """Add sources of the base that follow each other there, with all of their documents, as they were."""
        if sources.start == self._run.stop and self._run.stop > self._run.start:
            self._run = slice(self._run.start, sources.stop)
        else:
            self._copy_run()
            self._run = sources

    def keep_elsewhere(self, sources: slice, places: Sequence[str]) -> None:
        """As `keep`, and they are at other places now."""
        self._copy_run()
        self._copy(sources)
        self._places.extend(places)

    def end_group(self, fingerprint: int, place: str, first: int) -> None:
        """The sources from the row `first` on are a group."""
        if first > self._grouped:  # what was added before, and to none
            self._group_fingerprints.append(UNKNOWN)
            self._group_counts.append(first - self._grouped)
            self._group_places.extend(("",))
        self._grouped = self.sources
        self._group_fingerprints.append(fingerprint)
        self._group_counts.append(self._grouped - first)
        self._group_places.extend((place,))

    def _copy_run(self) -> None:
        run, self._run = self._run, slice(0, 0)
        if self._base is not None and run.stop > run.start:
            self._copy(run)
            self._places.extend_packed(*self._base.places.packed(run))

    def _copy(self, sources: slice) -> None:
        assert self._base is not None
        documents = slice(self._first[sources.start], self._first[sources.stop])
        self._fingerprints.frombytes(self._base.fingerprints[sources].tobytes())
        self._counts.frombytes(self._base.counts[sources].astype(np.uint32).tobytes())
        self._hashes.frombytes(self._base.hashes[documents].tobytes())
        self._uris.extend_packed(*self._base.uris.packed(documents))

    def places_of(self, uris: Set[str]) -> dict[str, str]:
        """Where those of the documents `uris` came from that are among those so far."""
        if not uris:
            return {}
        self._copy_run()
        places, documents = self._places.all(), self._uris.all()
        rows = (place for place, count in zip(places, self._counts, strict=True) for _ in range(count))
        return {uri: place for uri, place in zip(documents, rows, strict=True) if uri in uris}

    def digest_documents(self) -> bytes:
        """Equal for the same documents in any order."""
        self._copy_run()
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
        self._copy_run()
        with zipfile.ZipFile(file, "w") as entries:
            for name, content, compress in (
                ("fingerprints", _bytes(self._fingerprints, "<u8"), False),
                ("counts", _bytes(self._counts, "<u4"), True),
                ("hashes", _bytes(self._hashes, "<u8"), False),
                ("uris", bytes(self._uris.content), True),
                ("uri_lengths", _bytes(self._uris.lengths, "<u4"), True),
                ("places", bytes(self._places.content), True),
                ("place_lengths", _bytes(self._places.lengths, "<u4"), True),
                ("group_fingerprints", _bytes(self._group_fingerprints, "<u8"), False),
                ("group_counts", _bytes(self._group_counts, "<u4"), True),
                ("group_places", bytes(self._group_places.content), True),
                ("group_place_lengths", _bytes(self._group_places.lengths, "<u4"), True),
            ):
                # Without the time of writing, so that equal registries are equal files.
                entry = zipfile.ZipInfo(name)
                entry.compress_type = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
                entries.writestr(entry, content, compresslevel=_LEVEL)


class KnownSources:
    """Finds sources and groups of a registry by their fingerprints, and the documents of sources.

    Mostly, they come in the order in which they came before: the one after the last is looked at first.
    """

    def __init__(self, registry: Registry) -> None:
        self._fingerprints = registry.fingerprints
        self._groups: list[int] = registry.group_fingerprints.tolist()
        self._in_groups: list[int] = [0, *np.cumsum(registry.group_counts).tolist()]
        # One number of a memoryview costs a third of one of numpy.
        self._known = self._fingerprints.data
        self._first = registry.first_documents().data
        self._counts = registry.counts
        self._next = self._missed = self._next_group = 0
        self._sorted: tuple[Rows, Digests] | None = None
        self._group_rows: dict[int, int] | None = None

    def find(self, fingerprint: int) -> int:
        """The row of a source of the fingerprint, and -1 where there is none."""
        if not len(self._known):
            return -1
        # Those between were changed, or else put in.
        for expected in (self._next + self._missed, self._next):
            if expected < len(self._known) and self._known[expected] == fingerprint != UNKNOWN:
                return self._found(expected)
        if self._sorted is None:
            order: Rows = np.argsort(self._fingerprints, kind="stable")
            self._sorted = order, self._fingerprints[order]
        order, ordered = self._sorted
        at = int(np.searchsorted(ordered, np.uint64(fingerprint)))
        if fingerprint != UNKNOWN and at < len(ordered) and ordered[at] == fingerprint:
            return self._found(int(order[at]))
        self._missed += 1
        return -1

    def missed(self) -> int:
        """The row of the source in whose place the one may be that was looked for last, and not found."""
        return min(self._next + max(self._missed - 1, 0), len(self._known))

    def find_group(self, fingerprint: int) -> int:
        """The row of a group of the fingerprint, and -1 where there is none."""
        row = self._next_group
        if row >= len(self._groups) or self._groups[row] != fingerprint:
            if self._group_rows is None:
                self._group_rows = {known: row for row, known in enumerate(self._groups) if known != UNKNOWN}
            row = self._group_rows.get(fingerprint, -1)
        if row >= 0:
            self._next_group = row + 1
            self._next, self._missed = self._in_groups[row + 1], 0
        return row

    def of_group(self, group: int) -> slice:
        """The rows of the sources of a group."""
        return slice(self._in_groups[group], self._in_groups[group + 1])

    def documents(self, sources: slice) -> slice:
        """The rows of the documents of sources that follow each other."""
        return slice(self._first[sources.start], self._first[sources.stop])

    def owners(self) -> Rows:
        """The row of each document's source."""
        return np.repeat(np.arange(len(self._counts)), self._counts)

    def _found(self, row: int) -> int:
        self._next, self._missed = row + 1, 0
        return row


class _TextsDraft:
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

    def extend_packed(self, content: bytes, lengths: bytes) -> None:
        """As `Texts.packed` has them."""
        self._pack()
        self._content += content
        self._lengths.frombytes(lengths)

    @property
    def content(self) -> bytearray:
        self._pack()
        return self._content

    @property
    def lengths(self) -> array[int]:
        self._pack()
        return self._lengths

    def all(self) -> list[str]:
        return _slices(bytes(self.content), self.lengths)

    def _pack(self) -> None:
        if not self._waiting:
            return
        joined = "".join(self._waiting)
        if joined.isascii():
            self._content += joined.encode()
            self._lengths.extend(map(len, self._waiting))
        else:
            encoded = [text.encode("utf-8", "surrogatepass") for text in self._waiting]
            self._content += b"".join(encoded)
            self._lengths.extend(map(len, encoded))
        self._waiting.clear()


def _texts(entries: zipfile.ZipFile, content: str, lengths: str) -> Texts:
    return Texts(entries.read(content), _numbers(entries.read(lengths), "<u4"))


def _slices(content: bytes, lengths: Iterable[int]) -> list[str]:
    start = 0
    text = content.decode("utf-8", "surrogatepass")
    if len(text) == len(content):
        return [text[start : (start := end)] for end in accumulate(lengths)]
    ends = accumulate(lengths)
    return [content[start : (start := end)].decode("utf-8", "surrogatepass") for end in ends]


def _numbers(content: bytes, kind: str) -> NDArray[Any]:
    return np.frombuffer(content, kind)


def _bytes(numbers: array[int], kind: str) -> bytes:
    return np.frombuffer(numbers, f"u{numbers.itemsize}").astype(kind).tobytes()
