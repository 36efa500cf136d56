"""Wait for files to change: bursts as one change, whatever happens to the folder meanwhile."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from retrieval.errors import CiteqaError, StorageError
from retrieval.extras import needs_extra

_QUIET_MS = 300
"""So long nothing must change until a burst is over."""
_LONGEST_BURST_MS = 5000
_TURN_MS = 200

_RETRY_S = 5.0
"""After so long it is tried again where a disk refused or another process was writing."""

Identity = tuple[int, int] | None


def keep_in_step(
    update: Callable[[], None], paths: Sequence[Path], ignored: Path, tell: Callable[[str], None]
) -> None:
    """Call `update` now and after each burst of changes in `paths`, until interrupted (Ctrl-C, SIGTERM).

    What an update raises is told, once for the same reason, and watching goes on.

    Raises:
        ConfigurationError: if what watches is not installed.
    """
    is_due, not_before, told = True, 0.0, ""
    try:
        with _terminating_as_interrupt():
            for is_changed in watch_files(paths, ignored):
                if is_changed:
                    is_due, told = True, ""
                if not is_due or time.monotonic() < not_before:
                    continue
                is_due = False
                try:
                    update()
                    told = ""
                except Exception as error:  # noqa: BLE001 - told, and the next change may mend it
                    reason = (
                        str(error) if isinstance(error, CiteqaError) else f"{type(error).__name__}: {error}"
                    )
                    if reason != told:
                        tell(f"Error: {reason} The index is as it was; watching goes on.")
                    told = reason
                    if isinstance(error, StorageError):
                        is_due, not_before = True, time.monotonic() + _RETRY_S
    except KeyboardInterrupt:
        return


@contextmanager
def _terminating_as_interrupt() -> Iterator[None]:
    """SIGTERM ends an update as Ctrl-C does: what was begun is cleaned up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def watch_files(paths: Sequence[Path], ignored: Path) -> Iterator[bool]:
    """Yield when something in `paths` changed (True), and several times a second when nothing did (False).

    The first yield is when watching has begun. A burst of changes is one. Hidden files and what is below
    `ignored` do not count. A path that is replaced is watched on, and one that is gone, once it is there again.

    Raises:
        ConfigurationError: if what watches is not installed.
        KeyboardInterrupt: when interrupted.
    """
    with needs_extra("watch", "watching files"):
        from watchfiles import watch

    # It tells of every change, which whoever watches tells better.
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
    is_relevant = _Relevance(paths, ignored)
    before: list[Identity] = []
    while True:
        folders = _folders(paths)
        identities = [_identity(folder) for folder in folders]
        is_other = bool(before) and identities != before
        before = identities
        try:
            for changes in watch(
                *folders,
                watch_filter=is_relevant,
                step=_QUIET_MS,
                debounce=_LONGEST_BURST_MS,
                rust_timeout=_TURN_MS,
                yield_on_timeout=True,
                raise_interrupt=True,
                recursive=any(path.is_dir() for path in paths),
            ):
                yield is_other or bool(changes)
                is_other = False
                if [_identity(folder) for folder in _folders(paths)] != identities:
                    break
        except FileNotFoundError:  # gone since we looked
            time.sleep(_TURN_MS / 1000)


class _Relevance:
    """Whether a change is one of the files that are watched."""

    def __init__(self, paths: Sequence[Path], ignored: Path) -> None:
        self._roots = [path.resolve() for path in paths]
        self._ignored = ignored.resolve()

    def __call__(self, change: object, path: str) -> bool:
        file = Path(path)
        if file.is_relative_to(self._ignored):
            return False
        for root in self._roots:
            if file == root:
                return True
            if file.is_relative_to(root):
                return not any(part.startswith(".") for part in file.relative_to(root).parts)
        return False


def _folders(paths: Sequence[Path]) -> list[Path]:
    """What to watch for changes of `paths`: editors replace files, which only their folder tells."""
    resolved = [path.resolve() for path in paths]
    return [path if path.is_dir() else path.parent for path in resolved if path.parent.is_dir()]


def _identity(path: Path) -> Identity:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
