"""The directory of an embedded index: generations, the manifest that names the current one, and the lock.

    <path>/manifest.json        replaced last and atomically: it decides which generation is the index
    <path>/generation-000007/   immutable once it is named; what a crash leaves is removed by the next writer
    <path>/write.lock           held by the one writer through the operating system, and so never stale

A new generation starts empty, or as hard links to the files of the current one, which tantivy never
changes in place. Readers of an old generation go on with what they have open.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import AcquireReturnProxy, FileLock, Timeout

from retrieval.analysis import ANALYZER_VERSION
from retrieval.chunking import ChunkingSettings
from retrieval.errors import IndexMissingError, IndexUnusableError, StorageError

FORMAT_VERSION = 3
"""Raised with every change of what is on disk."""

TANTIVY_VERSION = version("tantivy")

MANIFEST = "manifest.json"
_LOCK = "write.lock"
_GENERATION = re.compile(r"generation-(\d{6,})")
_OURS = re.compile(rf"{_GENERATION.pattern}|{re.escape(MANIFEST)}(\.new)?|{re.escape(_LOCK)}")
_KIND = "citeqa index"
_BUILD = "Build it: citeqa index --config …"
_REBUILD = "Rebuild it: citeqa index --config …"


@dataclass(frozen=True, slots=True)
class EmbeddedWith:
    """The model that vectors are of: what people call it, what tells it from others, their length."""

    name: str
    fingerprint: str
    dimension: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an index was built from and with. `files` gives the bytes of each file of the generation.

    `rows` is the number of passages that were ever added, and so the row of the next one. Without
    `embedder`, the index has no vectors.
    Indexes of equal `content_hash` hold the same passages and analyze them alike.
    """

    generation: str
    chunking: ChunkingSettings
    documents: int
    passages: int
    rows: int
    content_hash: str
    files: Mapping[str, int]
    embedder: EmbeddedWith | None = None
    created: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))
    kind: str = _KIND
    format_version: int = FORMAT_VERSION
    analyzer_version: int = ANALYZER_VERSION
    tantivy_version: str = TANTIVY_VERSION


def read_manifest(path: Path) -> Manifest:
    """The manifest of the index at `path`, which this version of citeqa can read.

    Raises:
        IndexMissingError: if there is no index yet.
        IndexUnusableError: if what is there is not an index, is damaged, or is of another version.
    """
    try:
        ensure_ours(path)
        raw = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        _check_versions(path, raw)
        embedder = EmbeddedWith(**raw["embedder"]) if raw.get("embedder") else None
        return Manifest(**{**raw, "chunking": ChunkingSettings(**raw["chunking"]), "embedder": embedder})
    except FileNotFoundError:
        raise IndexMissingError(f"No index at '{path}'. {_BUILD}") from None
    except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        raise IndexUnusableError(f"Cannot read {path / MANIFEST} ({error}). {_REBUILD}") from error


def _check_versions(path: Path, raw: Mapping[str, Any]) -> None:
    for name, ours in (("format_version", FORMAT_VERSION), ("analyzer_version", ANALYZER_VERSION)):
        theirs = raw[name]
        if theirs != ours:
            age, mend = (
                ("a newer", "Upgrade citeqa, or rebuild the index")
                if theirs > ours
                else ("an older", "Rebuild it")
            )
            raise IndexUnusableError(
                f"The index at '{path}' was built by {age} citeqa ({name.replace('_', ' ')} {theirs}, "
                f"this one reads {ours}). {mend}: citeqa index --config …"
            )


def ensure_ours(path: Path) -> None:
    """Raise IndexUnusableError if there is something at `path` that may belong to somebody else."""
    if not path.exists():
        return
    reason = "is a file" if not path.is_dir() else _reason_foreign(path)
    if reason:
        raise IndexUnusableError(
            f"'{path}' is not a citeqa index: it {reason}. Choose an empty or new directory."
        )


def _reason_foreign(path: Path) -> str:
    names = sorted(entry.name for entry in path.iterdir())
    if MANIFEST in names:
        kind = _recorded(path).get("kind", _KIND if any(map(_GENERATION.fullmatch, names)) else "")
        return "" if kind == _KIND else f"holds a {MANIFEST} of something else"
    foreign = [name for name in names if not _OURS.fullmatch(name)]
    return f"holds {foreign[0]!r} and no {MANIFEST}" if foreign else ""


def _recorded(path: Path) -> Mapping[str, Any]:
    """The manifest as it is, whatever version wrote it; empty when there is none or it is damaged."""
    try:
        raw = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return raw if isinstance(raw, dict) else {}


def check_files(path: Path, manifest: Manifest) -> None:
    """Raise IndexUnusableError unless the generation has every file in its full length."""
    for name, size in manifest.files.items():
        file = path / manifest.generation / name
        try:
            found = file.stat().st_size
        except OSError as error:
            raise IndexUnusableError(f"The index at '{path}' lacks its file {file}. {_REBUILD}") from error
        if found != size:
            raise unusable(path, f"{file} has {found} bytes of {size}")


def unusable(path: Path, reason: object) -> IndexUnusableError:
    """The error of a damaged index."""
    return IndexUnusableError(f"The index at '{path}' is damaged ({reason}). {_REBUILD}")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Be the only writer of `path`. What crashed writers left is removed, and afterwards what is not current.

    Raises:
        IndexUnusableError: if `path` is a file or somebody else's directory.
        StorageError: if another process is writing, or the disk refuses.
    """
    with storage_errors(path):
        ensure_ours(path)
        path.mkdir(parents=True, exist_ok=True)
        lock = _acquire(path)
    with lock:
        _remove_leftovers(path)
        try:
            yield
        finally:
            _remove_leftovers(path)


def _acquire(path: Path) -> AcquireReturnProxy:
    try:
        return FileLock(path / _LOCK).acquire(timeout=0)
    except Timeout:
        raise StorageError(
            f"Another process is writing the index at '{path}'. Try again when it is done."
        ) from None


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """What the disk refuses is a StorageError."""
    try:
        yield
    except OSError as error:
        raise refused(path, error) from error


def refused(path: Path, reason: object) -> StorageError:
    """The error of a disk that cannot be written."""
    return StorageError(
        f"Cannot write the index at '{path}': {reason}. Check free space and permissions, or choose another "
        "directory. An index that was there is unchanged."
    )


def new_generation(path: Path, like: Manifest | None = None) -> Path:
    """A new directory for the next generation: empty, or with the files of the generation of `like`."""
    with storage_errors(path):
        numbers = [int(match[1]) for entry in path.iterdir() if (match := _GENERATION.fullmatch(entry.name))]
        generation = path / f"generation-{max(numbers, default=0) + 1:06d}"
        generation.mkdir()
        for name in like.files if like else ():
            _link(path / like.generation / name, generation / name)  # type: ignore[union-attr]
    return generation


def _link(source: Path, target: Path) -> None:
    # The JSON files list the segments: tantivy replaces them, and they are small.
    if source.suffix != ".json":
        try:
            os.link(source, target)
            return
        except OSError:  # a file system without hard links, such as a mounted object store
            pass
    shutil.copyfile(source, target)


def publish(path: Path, manifest: Manifest) -> None:
    """Make `manifest` the index: from here on, readers open its generation."""
    draft = path / f"{MANIFEST}.new"
    with storage_errors(path):
        with draft.open("w", encoding="utf-8") as file:
            json.dump(asdict(manifest), file, indent=1, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path / MANIFEST)


def file_sizes(generation: Path) -> dict[str, int]:
    """The bytes of each file of a generation, without tantivy's locks."""
    files = (entry for entry in sorted(generation.iterdir()) if entry.suffix != ".lock")
    return {file.name: file.stat().st_size for file in files}


def _remove_leftovers(path: Path) -> None:
    with storage_errors(path):
        current = _recorded(path).get("generation")
        entries = list(path.iterdir())
    for entry in entries:
        if _GENERATION.fullmatch(entry.name) and entry.name != current:
            # Where open files cannot be removed, the next writer tries again.
            shutil.rmtree(entry, ignore_errors=True)
