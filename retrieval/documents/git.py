"""What Git tracks of a folder, and the commit that it is at."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from retrieval.errors import CorpusError


@dataclass(frozen=True, slots=True)
class Checkout:
    """`root` is the folder's path within the repository, with a slash at its end unless it is empty."""

    root: str
    commit: str
    branch: str


def describe(folder: Path) -> Checkout:
    """Where the folder is in its repository, and at which commit.

    Raises:
        CorpusError: if it is in none, or Git is not there.
    """
    root, commit, branch = _git(folder, "rev-parse", "--show-prefix", "HEAD", "--abbrev-ref", "HEAD").split(
        "\n"
    )[:3]
    return Checkout(root, commit, branch)


def tracked_files(folder: Path) -> list[str]:
    """The paths below `folder` that Git tracks, in order.

    Raises:
        CorpusError: as `describe`.
    """
    return sorted(filter(None, _git(folder, "ls-files", "-z").split("\0")))


def _git(folder: Path, *arguments: str) -> str:
    # No program that the folder's own configuration names is run.
    safe = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null")
    command = ["git", "-C", str(folder), *safe, *arguments]
    try:
        ran = subprocess.run(command, capture_output=True, check=True)
    except FileNotFoundError:
        raise CorpusError(
            "corpus.layout: git needs the program 'git', which is not there. Install it."
        ) from None
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().split("\n")[0]
        raise CorpusError(
            f"'{folder}' cannot be read as a Git folder ({said}). Commit it, or set corpus.layout: folder."
        ) from None
    return ran.stdout.decode("utf-8", "surrogateescape")
