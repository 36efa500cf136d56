"""TREC run files: what a system retrieved, `topic Q0 document rank score tag`, one line each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.formats.trec_topics import SPACES
from eval.formats.writing import write_lines
from eval.scored_runs import ScoredRun
from retrieval.errors import DataError, GroundTruthError
from retrieval.tables import read_lines

_COLUMNS = "topic, Q0, document, rank, score and tag"


@dataclass(frozen=True, slots=True)
class WrittenRun:
    """How many questions have lines in a written run file, and which have none (failed, or nothing found)."""

    questions: int
    without_lines: Sequence[str]


def read_trec_run(path: str | Path) -> Mapping[str, list[str]]:
    """Each question's documents, best first: by score as trec_eval does, whatever the column of ranks says.

    Ties keep the order of the lines (trec_eval breaks them by document name). A document that comes twice
    counts where it comes first.

    Raises:
        DataError: if a line is not of six columns, or its score is not a finite number.
    """
    path = Path(path)
    scored: dict[str, list[tuple[float, str]]] = {}
    for number, line in read_lines(path, DataError):
        cells = SPACES.split(line.strip(" \t\r\n"))
        if cells == [""]:
            continue
        try:
            topic, _, doc_uri, _, score, _ = cells
            value = float(score)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise DataError(
                f"{path}:{number}: expected {_COLUMNS}, the score a number, not {line.strip()!r:.80}. "
                "Mend or remove the line."
            )
        scored.setdefault(topic, []).append((-value, doc_uri))
    # Sorting by the score alone is stable.
    return {
        topic: list(dict.fromkeys(doc for _, doc in sorted(rows, key=lambda row: row[0])))
        for topic, rows in scored.items()
    }


def write_trec_run(run: ScoredRun, target: str | Path, normalize: Callable[[str], str] = str) -> WrittenRun:
    """Write what a run retrieved as trec_eval reads it, under the run's name.

    Passages roll up to documents by first occurrence under normalized URIs. A document that the gold names is
    spelled as there, so that it is found in qrels written from the same ground truth. Scores are the ranks
    from below, since trec_eval compares in 32 bits and breaks ties by name. Questions without a line count as
    zero only with `trec_eval -c`.

    Raises:
        GroundTruthError: if an id or URI holds white space.
        StorageError: if the disk refuses.
    """
    tag = SPACES.sub("-", run.name.strip()) or "citeqa"
    written, without = 0, []

    def lines() -> Iterator[bytes]:
        nonlocal written
        for topic in run.questions:
            row = run.row(topic)
            documents = retrieved_documents(row, normalize)
            spelled = {normalize(uri): uri for alternatives in row.get("gold", ()) for uri in alternatives}
            written += bool(documents)
            if not documents:
                without.append(topic)
            for rank, (key, uri) in enumerate(documents.items(), 1):
                score = len(documents) - rank + 1
                cells = (topic, "Q0", spelled.get(key, uri), str(rank), str(score), tag)
                yield " ".join(map(_cell, cells)).encode()

    write_lines(Path(target), lines())
    return WrittenRun(written, without)


def retrieved_documents(row: Mapping[str, Any], normalize: Callable[[str], str]) -> dict[str, str]:
    """The documents that a question's line of `scores.jsonl` says were retrieved; as `distinct_documents`."""
    return distinct_documents((passage["doc_uri"] for passage in row.get("retrieved") or ()), normalize)


def distinct_documents(uris: Iterable[str], normalize: Callable[[str], str]) -> dict[str, str]:
    """The documents in order, normalized URI to the spelling it first came with."""
    documents: dict[str, str] = {}
    for uri in uris:
        documents.setdefault(normalize(uri), uri)
    return documents


def _cell(text: str) -> str:
    if not text or text.split() != [text]:
        raise GroundTruthError(
            f"{text!r} cannot stand in a run file, whose cells end at white space. Change the id or the doc_uri."
        )
    return text
