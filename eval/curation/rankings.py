"""What runs retrieved, whatever they are: runs of ours on disk or in MLflow, or TREC run files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

from eval.comparison.loading import read_scored_run
from eval.formats.trec_runs import distinct_documents, read_trec_run, retrieved_documents
from program.settings import TrackingSettings

Rankings: TypeAlias = Mapping[str, Mapping[str, str]]
"""Question id to its documents, best first: normalized URI to the spelling it first came with."""


def read_rankings(source: str, tracking: TrackingSettings, normalize: Callable[[str], str]) -> Rankings:
    """The rankings of a run that `citeqa compare` could read, or of a TREC run file (any other file).

    Raises:
        DataError: if there is no such run, or it cannot be read.
        StorageError: if the tracking store cannot be reached.
    """
    path = Path(source)
    if path.is_file() and not path.name.endswith((".jsonl", ".json")):
        return {id_: distinct_documents(uris, normalize) for id_, uris in read_trec_run(path).items()}
    run = read_scored_run(source, tracking)
    return {id_: retrieved_documents(run.row(id_), normalize) for id_ in run.questions}
