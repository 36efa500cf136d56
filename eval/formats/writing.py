"""Files that are whole or not there: written beside their place, and moved to it when they are complete."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from retrieval.errors import StorageError


@contextmanager
def drafted(target: Path) -> Iterator[Path]:
    """A path to write to; what is there takes the place of `target` when the block ends without an error.

    The folder is made where it is not there. What the disk refuses is a StorageError.
    """
    draft = target.with_name(f".{target.name}.new")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        draft.replace(target)
    except OSError as error:
        raise StorageError(
            f"'{target}' cannot be written: {error.strerror or error}. Free or change the place."
        ) from error
    finally:
        if draft.exists():
            draft.unlink()


def write_lines(target: Path, lines: Iterable[bytes]) -> None:
    """Replace `target` by `lines`, each of which gets its newline; gzipped where the name ends in `.gz`.

    Raises:
        StorageError: if the disk refuses.
    """
    with drafted(target) as draft, draft.open("wb") as raw:
        if target.suffix == ".gz":
            # Without name and time, the same lines make the same file.
            with gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
                file.writelines(line + b"\n" for line in lines)
        else:
            raw.writelines(line + b"\n" for line in lines)
