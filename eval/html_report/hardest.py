"""The questions that most configurations fail, and what the winner and the baseline made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from eval.html_report.depth import gold_ranks
from eval.html_report.formatting import count, enumerate_names, is_counted, language
from eval.html_report.rows import GoldOf, Row, read_rows
from eval.sweep.results import Objective, SweepResult, Trial

SHOWN_AT_MOST = 10
_RETRIEVED_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Source:
    """A document that was retrieved or cited; `href` is its address where a browser may follow it."""

    uri: str
    href: str | None
    is_gold: bool
    rank: int = 0


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one configuration made of a question. `happened` says in words where its gold went."""

    trial: Trial
    value: float | None
    happened: str
    retrieved: Sequence[Source]
    more_retrieved: int
    answer: str
    abstained: bool
    cited: Sequence[Source]
    lang: str | None


@dataclass(frozen=True, slots=True)
class HardQuestion:
    """A question with its mean over the `trials` that scored it. `gold` lists alternatives together."""

    id: str
    mean: float
    trials: int
    question: str = ""
    lang: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    gold: Sequence[Sequence[Source]] = ()
    attempts: Sequence[Attempt] = ()


class Difficulty:
    """Adds up each question's values of one metric while the rows of many trials pass by."""

    def __init__(self, metric: str) -> None:
        self._metric = metric
        self._totals: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def take(self, row: Row) -> None:
        """Count a row in, unless the metric does not apply or the question is unscored."""
        value = row["metrics"].get(self._metric)
        if value is not None:
            self._totals[row["id"]] = self._totals.get(row["id"], 0.0) + value
            self._counts[row["id"]] = self._counts.get(row["id"], 0) + 1

    def always_worst(self, *, minimize: bool) -> int:
        """How many questions have the worst value there is from every configuration."""
        means = [total / self._counts[id_] for id_, total in self._totals.items()]
        return (
            means.count(max(means) if minimize else min(means)) if means and min(means) != max(means) else 0
        )

    def hardest(self, *, minimize: bool) -> list[HardQuestion]:
        """The worst first; questions as good as the best are no hard ones."""
        means = {id_: total / self._counts[id_] for id_, total in self._totals.items()}
        if not means:
            return []
        best = min(means.values()) if minimize else max(means.values())
        worst_first = sorted(
            (id_ for id_ in means if means[id_] != best), key=means.__getitem__, reverse=minimize
        )
        return [HardQuestion(id_, means[id_], self._counts[id_]) for id_ in worst_first[:SHOWN_AT_MOST]]


def difficulty_metric(result: SweepResult) -> Objective | None:
    """The first objective that is a metric of answers, not of what they cost; None if there is none."""
    return next((objective for objective in result.objectives if not is_counted(objective.name)), None)


def with_evidence(
    hard: Sequence[HardQuestion], trials: Sequence[Trial], metric: str, gold_of: GoldOf
) -> list[HardQuestion]:
    """The same questions with their gold, and with what each of `trials` retrieved, said and cited."""
    wanted = {question.id for question in hard}
    rows = {
        trial.number: {row["id"]: row for row in read_rows(trial) if row["id"] in wanted} for trial in trials
    }
    found = []
    for question in hard:
        attempts = [(trial, row) for trial in trials if (row := rows[trial.number].get(question.id))]
        if attempts:
            found.append(_describe(question, attempts, metric, gold_of))
    return found


def _describe(
    question: HardQuestion, attempts: Sequence[tuple[Trial, Row]], metric: str, gold_of: GoldOf
) -> HardQuestion:
    row = attempts[0][1]
    tags = {str(name): str(value) for name, value in (row.get("tags") or {}).items()}
    text = str(row.get("question", ""))
    lang = language(text, tags.get("lang"))
    return HardQuestion(
        id=question.id,
        mean=question.mean,
        trials=question.trials,
        question=text,
        lang=lang,
        tags=tags,
        gold=[[_source(uri, frozenset()) for uri in alternatives] for alternatives in row.get("gold", ())],
        attempts=[_attempt(trial, row, metric, gold_of, lang) for trial, row in attempts],
    )


def _attempt(trial: Trial, row: Row, metric: str, gold_of: GoldOf, lang: str | None) -> Attempt:
    gold = frozenset().union(*(group.members for group in gold_of(row)))
    is_gold = frozenset(uri for uri in _uris(row) if gold_of.normalize(uri) in gold)
    retrieved = [found["doc_uri"] for found in row.get("retrieved", ())]
    answer = str(row.get("answer", ""))
    return Attempt(
        trial=trial,
        value=row["metrics"].get(metric),
        happened=_what_happened(row, gold_of, is_gold),
        retrieved=[
            _source(uri, is_gold, rank) for rank, uri in enumerate(retrieved[:_RETRIEVED_SHOWN], start=1)
        ],
        more_retrieved=max(0, len(retrieved) - _RETRIEVED_SHOWN),
        answer=answer,
        abstained=bool(row.get("abstained")),
        cited=[_source(uri, is_gold) for uri in row.get("cited_uris", ())],
        lang=language(answer, lang),
    )


def _uris(row: Row) -> list[str]:
    return [*(found["doc_uri"] for found in row.get("retrieved", ())), *row.get("cited_uris", ())]


def _source(uri: str, gold: frozenset[str], rank: int = 0) -> Source:
    # Whoever wrote the corpus chose its URIs: only these two schemes may become a link.
    href = uri if uri.lower().startswith(("https://", "http://")) else None
    return Source(uri, href, uri in gold, rank)


def _what_happened(row: Row, gold_of: GoldOf, is_gold: frozenset[str]) -> str:
    if row.get("error") is not None:
        return f"Unscored: {row['error']}"
    groups = gold_of(row)
    if not groups:
        return "Has no gold: it should not be answered." + (
            " It abstained." if row.get("abstained") else " It answered."
        )
    ranks, documents = gold_ranks(row, groups, gold_of)
    if not ranks:
        return f"No gold among {count(documents, 'retrieved document')}." + _answered(row)
    where = enumerate_names(map(str, sorted(ranks)))
    found = (
        f"Gold at document rank {where}"
        if len(ranks) == len(groups)
        else (f"{len(ranks)} of {len(groups)} gold documents found, at rank {where}")
    )
    if row.get("abstained"):
        return f"{found}, but it abstained."
    if not any(uri in is_gold for uri in row.get("cited_uris", ())):
        return f"{found}, but not cited."
    return f"{found}, and cited."


def _answered(row: Row) -> str:
    return " It abstained." if row.get("abstained") else " It answered from other documents."
