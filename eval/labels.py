"""People's labels of answers, from a file or from MLflow's traces, beside what judges said of the same answers.

A file is a table (`.jsonl`, `.csv`, `.parquet`) with the columns

    id      the question's id; or `trace_id`, the trace of the answer
    judge   whose question the person answered: `correctness` or `judge_correctness`
    label   yes or no (also true/false, 1/0, pass/fail)
    answer  optional: the answer that was labelled. A label of another answer than the run's is left out

Several labels of one answer count by majority; a tie is left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.agreement import Agreement, measure_agreement
from eval.judges.judgements import Judgements
from eval.metric_names import JUDGE_PREFIX
from eval.records import AnswerRecord
from retrieval.errors import GroundTruthError
from retrieval.tables import read_rows

_YES = ("yes", "true", "1", "1.0", "pass")
_NO = ("no", "false", "0", "0.0", "fail")


@dataclass(frozen=True, slots=True)
class Label:
    """One person's yes or no to what one judge was asked. Names the question or else the trace."""

    metric: str
    value: bool
    question_id: str | None = None
    trace_id: str | None = None
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class LabelReport:
    """The agreement of each judge that people labelled, and how many labels tell nothing of it.

    Attributes:
        agreements: by judge.
        elsewhere: labels of questions or traces that are not in the run, or of judges without a verdict on them.
        outdated: labels of another answer than the run's.
        tied: answers on which as many people say yes as no.
    """

    agreements: Sequence[Agreement]
    elsewhere: int = 0
    outdated: int = 0
    tied: int = 0

    def metrics(self) -> Iterator[tuple[str, float]]:
        """As MLflow metrics."""
        for agreement in self.agreements:
            yield f"{agreement.metric}.labels", float(agreement.n)
            yield f"{agreement.metric}.agreement", agreement.raw.mean
            if agreement.kappa is not None:
                yield f"{agreement.metric}.kappa", agreement.kappa.mean


def read_labels(path: Path) -> list[Label]:
    """The labels of a file.

    Raises:
        GroundTruthError: if it cannot be read, or a row is not usable: names the place and the value.
    """
    if not path.exists():
        raise GroundTruthError(f"No labels at '{path}'. Check the path.")
    labels = [_to_label(row, place) for place, row in read_rows(path, GroundTruthError)]
    if not labels:
        raise GroundTruthError(f"{path} holds no label.")
    return labels


def to_value(label: Any) -> bool | None:
    """Whether a label says yes; None if it says neither yes nor no."""
    text = str(label).strip().lower()
    return True if text in _YES else False if text in _NO else None


def compare_with_labels(
    labels: Iterable[Label], judgements: Judgements, records: Mapping[str, AnswerRecord]
) -> LabelReport:
    """How far each judge agrees with the labels of the answers that it judged.

    Verdicts that are shares of passages and not yes or no are compared with nothing.
    """
    questions = {record.trace_id: id_ for id_, record in records.items() if record.trace_id}
    votes: dict[tuple[str, str], list[bool]] = defaultdict(list)
    elsewhere = outdated = tied = 0
    for label in labels:
        id_ = label.question_id or questions.get(label.trace_id or "")
        judgement = judgements.get(id_ or "", {}).get(label.metric)
        if id_ is None or judgement is None or judgement.value not in (0, 1):
            elsewhere += 1
        elif label.answer is not None and label.answer != records[id_].answer:
            outdated += 1
        else:
            votes[label.metric, id_].append(label.value)
    pairs: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    for (metric, id_), said in sorted(votes.items()):
        if 2 * sum(said) == len(said):
            tied += 1
        else:
            pairs[metric].append((judgements[id_][metric].value == 1, 2 * sum(said) > len(said)))
    agreements = [
        measure_agreement(metric, [judge for judge, _ in found], [people for _, people in found])
        for metric, found in pairs.items()
    ]
    return LabelReport(agreements, elsewhere, outdated, tied)


def _to_label(row: Mapping[str, Any], place: str) -> Label:
    question_id, trace_id = row.get("id") or row.get("question_id"), row.get("trace_id")
    judge = row.get("judge") or row.get("metric")
    if not (question_id or trace_id) or not judge:
        raise GroundTruthError(
            f"{place}: a label needs `id` (of the question) or `trace_id`, and `judge`; there are: {', '.join(row)}."
        )
    value = to_value(row.get("label"))
    if value is None:
        raise GroundTruthError(f"{place}: label is {row.get('label')!r}. Write yes or no, or remove the row.")
    answer = row.get("answer")
    return Label(
        metric=JUDGE_PREFIX + str(judge).removeprefix(JUDGE_PREFIX),
        value=value,
        question_id=str(question_id) if question_id else None,
        trace_id=str(trace_id) if trace_id else None,
        answer=str(answer) if answer else None,
    )
