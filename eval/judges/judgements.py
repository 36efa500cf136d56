"""Verdicts on disk: each is kept as soon as it is known, beside the answers it is about, and asked for once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from pydantic import BaseModel, ConfigDict, ValidationError

from eval.judges.judge import Judge, evidence_key
from eval.questions import Question
from eval.records import AnswerRecord, disk_refusals, replace_file
from program.files import append_lines, complete_lines, to_json
from retrieval.errors import DataError

FILE = "judgements.jsonl"


class Judgement(BaseModel):
    """What one judge said of one answer. With an `error` there is no verdict, and that is no 0.

    `value` is 1 for yes and 0 for no, or a share where a judge looks at several passages. `judge` and
    `evidence` are the keys of who judged and of what was judged. `usage` and `cost_usd` are the judge's own,
    as first seen; a cost of None is not known. Of a failed call neither is known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    metric: str
    scorer: str
    model: str
    judge: str
    evidence: str
    value: float | None = None
    verdict: str = ""
    rationale: str = ""
    error: str | None = None
    usage: dict[str, int] = {}
    cost_usd: float | None = None
    latency_ms: float = 0.0


Judgements: TypeAlias = Mapping[str, Mapping[str, Judgement]]
"""By question id and metric."""


class JudgementFile:
    """The verdicts in a run directory, which whoever writes must hold. Raises StorageError if the disk refuses."""

    def __init__(self, run_directory: Path) -> None:
        self.path = run_directory / FILE

    def read(self) -> list[Judgement]:
        """All of them, in the order in which they came; what a crash cut short is dropped.

        Raises:
            DataError: if a line is no verdict, naming it.
        """
        with disk_refusals(self.path):
            return [
                _parse(line, f"{self.path}, line {number}")
                for number, (_, line) in enumerate(complete_lines(self.path), start=1)
            ]

    def append(self, judgement: Judgement) -> None:
        """Keep one."""
        with disk_refusals(self.path):
            append_lines(self.path, [to_json(judgement.model_dump())])

    def forget_failures(self) -> None:
        """Drop those without a verdict, so that they are asked for again."""
        kept = self.read()
        if any(judgement.error is not None for judgement in kept):
            lines = [to_json(j.model_dump()) + b"\n" for j in kept if j.error is None]
            replace_file(self.path, b"".join(lines))


def standing_judgements(
    kept: Iterable[Judgement],
    judges: Sequence[Judge],
    questions: Iterable[Question],
    records: Mapping[str, AnswerRecord],
) -> Judgements:
    """The verdicts on the answers as they are now, one judge for each metric.

    That is the configured judge, and where none is configured for a metric the one that was asked last: two
    models' verdicts are never averaged.
    """
    kept = list(kept)
    decides = {judgement.metric: judgement.judge for judgement in kept}
    decides |= {judge.metric: judge.key for judge in judges}
    of_question: dict[str, list[Judgement]] = {}
    for judgement in kept:
        if judgement.judge == decides[judgement.metric]:
            of_question.setdefault(judgement.id, []).append(judgement)
    standing: dict[str, dict[str, Judgement]] = {}
    for question in questions:
        record = records.get(question.id)
        if record is None or record.error is not None:
            continue
        found = {
            judgement.metric: judgement
            for judgement in of_question.get(question.id, ())
            if judgement.evidence == evidence_key(judgement.scorer, question, record)
        }
        if found:
            standing[question.id] = found
    return standing


def judged_values(judgements: Judgements) -> dict[str, dict[str, float | None]]:
    """The values by question and metric: None where a judge failed or does not apply, for every metric there is."""
    metrics = sorted({metric for row in judgements.values() for metric in row})
    return {
        id_: {metric: row[metric].value if metric in row else None for metric in metrics}
        for id_, row in judgements.items()
    }


@dataclass(frozen=True, slots=True)
class JudgingCost:
    """What the verdicts took, as first seen, and apart from what the answers took.

    `usd` is None where no call has a price; `unpriced` calls have none and are not in it. Of `failed` calls
    nobody knows what they took.
    """

    verdicts: int
    failed: int
    input_tokens: int
    output_tokens: int
    usd: float | None
    unpriced: int

    def metrics(self) -> Iterator[tuple[str, float]]:
        """As MLflow metrics."""
        yield "judge_verdicts", float(self.verdicts)
        yield "judge_failures", float(self.failed)
        yield "judge_input_tokens", float(self.input_tokens)
        yield "judge_output_tokens", float(self.output_tokens)
        if self.usd is not None:
            yield "judge_cost_usd", self.usd


def judging_cost(judgements: Judgements) -> JudgingCost:
    """The cost of all of `judgements` together."""
    all_ = [judgement for row in judgements.values() for judgement in row.values()]
    given = [judgement for judgement in all_ if judgement.error is None]
    prices = [judgement.cost_usd for judgement in given if judgement.cost_usd is not None]
    return JudgingCost(
        verdicts=len(given),
        failed=len(all_) - len(given),
        input_tokens=sum(judgement.usage.get("input_tokens", 0) for judgement in given),
        output_tokens=sum(judgement.usage.get("output_tokens", 0) for judgement in given),
        usd=sum(prices) if prices else None,
        unpriced=len(given) - len(prices),
    )


def _parse(line: bytes, place: str) -> Judgement:
    try:
        return Judgement.model_validate(json.loads(line))
    except ValueError as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise DataError(
            f"{place}: not a judgement ({reason}). Mend or remove the line; what is missing will be asked again."
        ) from None
