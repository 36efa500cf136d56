"""The candidates of an optimizer on disk, each once, as soon as they are known."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eval.compiling.results import SavedCandidate
from eval.compiling.task import Candidate
from eval.records import disk_refusals, write_json
from program.content_store import content_key
from program.qa import CitedQA
from program.state import save_state

_FINISHED = "optimized.json"
_HASH = 10


class CandidateShelf:
    """Saves programs that differ from the seed and from one another.

    Whatever ends the optimizer, they stay; what it was asked is kept, too, so that it comes to them again.
    """

    def __init__(self, directory: Path, seed: CitedQA, provenance: Mapping[str, Any]) -> None:
        self.directory = directory
        self._provenance = dict(provenance)
        self._seed = state_key(seed)
        self._saved: dict[str, SavedCandidate] = {}
        with disk_refusals(directory):
            directory.mkdir(parents=True, exist_ok=True)

    @property
    def candidates(self) -> tuple[SavedCandidate, ...]:
        """What is saved, in the order in which it came; one that came again is where it came last."""
        return tuple(self._saved.values())

    def keep(self, candidate: Candidate) -> None:
        """Save a candidate, unless it is the seed."""
        key = state_key(candidate.program)
        if key == self._seed:
            return
        path = self.directory / f"candidate-{key[:_HASH]}.json"
        save_state(
            candidate.program,
            path,
            {**self._provenance, "note": candidate.note, "optimizer_score": candidate.score},
        )
        self._saved.pop(key, None)
        self._saved[key] = SavedCandidate(path, candidate.note, candidate.score)

    def finish(self, key: str, asked: Mapping[str, Any]) -> None:
        """The optimizer came to its end: the next call need not run it."""
        rows = [{"path": c.path.name, "note": c.note, "score": c.score} for c in self._saved.values()]
        write_json(self.directory / _FINISHED, {"key": key, "candidates": rows, "asked": dict(asked)})

    def finished(self, key: str) -> dict[str, Any] | None:
        """What `finish` was told with this key, with its candidates on the shelf; None when it was not."""
        try:
            body: dict[str, Any] = json.loads((self.directory / _FINISHED).read_bytes())
        except (OSError, ValueError):
            return None
        rows = body.get("candidates", [])
        if body.get("key") != key or not all((self.directory / row["path"]).exists() for row in rows):
            return None
        self._saved = {
            row["path"]: SavedCandidate(self.directory / row["path"], row["note"], row["score"])
            for row in rows
        }
        return body


def state_key(program: CitedQA) -> str:
    """A hash of what compiling changes: instructions, names of fields and demonstrations, predictor by predictor."""
    parts = [
        (
            name,
            predictor.signature.instructions,
            [(field, stated.json_schema_extra) for field, stated in predictor.signature.fields.items()],
            [dict(demo) for demo in predictor.demos],
        )
        for name, predictor in program.named_predictors()
    ]
    return content_key(parts)
