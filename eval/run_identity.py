"""What the answers of a run depend on. Runs of one identity are the same run; caches are keyed by it."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import program
import retrieval
from program.identity import answer_identity
from program.settings import Settings

_CODE = (".py", ".html", ".css", ".js")


def run_identity(settings: Settings, index_hash: str) -> dict[str, Any]:
    """Everything that an answer depends on: passages, settings, compiled programs, and our own code."""
    return {**answer_identity(settings, index_hash), "code": code_hash()}


@cache
def code_hash() -> str:
    """A hash of the code that answers, so that changed code never passes for what it was.

    Taken once: what a process runs stays what it was when it began.
    """
    return _hash_of(*program.__path__, *retrieval.__path__)


@cache
def scoring_hash() -> str:
    """A hash of the code that scores and draws reports, their templates too. Taken once, as `code_hash` is."""
    return _hash_of(str(Path(__file__).parent))


def _hash_of(*directories: str) -> str:
    digest = hashlib.sha256()
    for directory in directories:
        for file in sorted(Path(directory).rglob("*")):
            if file.suffix in _CODE:
                digest.update(file.read_bytes())
    return digest.hexdigest()
