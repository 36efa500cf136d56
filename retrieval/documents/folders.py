"""The files of a folder, in a fixed order, whatever links and other things are in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from retrieval.errors import CorpusError

Entry = tuple[str, Path | CorpusError]
"""The path relative to the folder, and the file, or why it is not read."""


def walk(folder: Path, wanted: Callable[[str], bool]) -> Iterator[Entry]:
    """The files of `folder` and its subfolders whose names are wanted; hidden ones are skipped.

    A link to a file within the folder is read as a file; one to a folder within is skipped, as what it leads to
    is read where it is. A link that leads out of the folder is refused, so that a corpus can not show what is not
    in it.
    """
    root = os.path.realpath(folder)
    pending = [""]
    while pending:
        below = pending.pop()
        try:
            entries = sorted(os.scandir(folder / below), key=lambda entry: entry.name)
        except OSError as error:
            yield below or ".", _unreadable(below or str(folder), error)
            continue
        folders = []
        for entry in entries:
            relative = f"{below}/{entry.name}" if below else entry.name
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append(relative)
            elif (found := _check(folder, root, relative, wanted)) is not None:
                yield relative, found
        pending += reversed(folders)


def chosen(folder: Path, relatives: Iterable[str], wanted: Callable[[str], bool]) -> Iterator[Entry]:
    """Those of the files at `relatives` whose names are wanted, as `walk` gives them."""
    root = os.path.realpath(folder)
    for relative in relatives:
        if (found := _check(folder, root, relative, wanted)) is not None:
            yield relative, found


def _check(
    folder: Path, root: str, relative: str, wanted: Callable[[str], bool]
) -> Path | CorpusError | None:
    """The file at `relative`, why it is not read, or None where it is of no interest.

    `root` is the real path of the folder.
    """
    file = folder / relative
    if file.is_symlink():
        is_folder = file.is_dir()
        if not is_folder and not wanted(file.name):
            return None
        if not within(root, file):
            return CorpusError(
                f"{relative}: a link out of the folder (to {file.readlink()}). Copy what it leads to, or index "
                "that as a corpus of its own."
            )
        if is_folder:
            return None
    return file if wanted(file.name) and file.is_file() else None


def within(root: str, file: Path) -> bool:
    """Whether `file` really is in the folder whose real path is `root`."""
    real = os.path.realpath(file)
    return real == root or real.startswith(root.rstrip(os.sep) + os.sep)


def _unreadable(place: str, error: OSError) -> CorpusError:
    return CorpusError(f"{place}: cannot be read ({error.strerror}). Check its permissions.")
