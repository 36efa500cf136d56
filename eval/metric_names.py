"""The metrics by name: one value with one spelling (`recall@10`) in code, settings, tables and results."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from retrieval.errors import ConfigurationError

NEEDS_CUTOFF = ("recall", "precision", "hit")
MAY_HAVE_CUTOFF = ("mrr", "ndcg", "map")
RANKING = (*NEEDS_CUTOFF, *MAY_HAVE_CUTOFF)
ANSWER = (
    "citation_precision",
    "citation_recall",
    "token_f1",
    "fact_recall",
    "abstention_accuracy",
    "answered_unanswerable",
    "abstained_answerable",
    "dropped_markers",
    "latency_ms",
    "usd",
    "tokens",
)
PASSAGE_PREFIX = "passage_"
LOWER_IS_BETTER = frozenset(
    ("answered_unanswerable", "abstained_answerable", "dropped_markers", "latency_ms", "usd", "tokens")
)
JUDGE_PREFIX = "judge_"
"""What a language model judged (`eval.judges`), rather than what is computed."""

_SPELLING = re.compile(r"(?P<measure>[a-z0-9_]+?)(?:@(?P<cutoff>[1-9][0-9]*))?")


@dataclass(frozen=True, slots=True)
class Metric:
    """A measure with its cutoff (ranking measures only) and its level. `str(metric)` is its spelling."""

    measure: str
    cutoff: int | None = None
    passage_level: bool = False

    @property
    def name(self) -> str:
        """The one spelling: `recall@5`, `passage_mrr`, `token_f1`."""
        prefix = PASSAGE_PREFIX if self.passage_level else ""
        return prefix + self.measure + (f"@{self.cutoff}" if self.cutoff else "")

    @property
    def mlflow_name(self) -> str:
        """The name in MLflow, which allows no `@` in the names of metrics: `recall_at_5`."""
        return self.name.replace("@", "_at_")

    @property
    def is_ranking(self) -> bool:
        """Whether it judges what was retrieved, rather than what was answered."""
        return self.measure in RANKING

    @property
    def is_judged(self) -> bool:
        """Whether a language model gave its values, which nothing here can compute."""
        return self.measure.startswith(JUDGE_PREFIX)

    def __str__(self) -> str:
        return self.name


def parse_metrics(names: Iterable[str]) -> list[Metric]:
    """The metrics of these names, in their order, each once.

    Raises:
        ConfigurationError: if a name is not a metric; names the nearest one that is.
    """
    return list(dict.fromkeys(parse_metric(name) for name in names))


def parse_metric(name: str) -> Metric:
    """The metric of this name. Raises as `parse_metrics` does."""
    spelling = _SPELLING.fullmatch(name)
    if spelling is None:
        raise ConfigurationError(f"No metric is called {name!r}. {_advice(name)}")
    measure, cutoff = spelling["measure"], int(spelling["cutoff"] or 0) or None
    passage_level = measure.startswith(PASSAGE_PREFIX)
    metric = Metric(measure.removeprefix(PASSAGE_PREFIX), cutoff, passage_level)
    if metric.is_judged and not passage_level and cutoff is None:
        return metric
    if not metric.is_ranking and (passage_level or metric.measure not in ANSWER):
        raise ConfigurationError(f"No metric is called {name!r}. {_advice(name)}")
    if metric.measure in NEEDS_CUTOFF and cutoff is None:
        raise ConfigurationError(f"Metric {name!r} needs a cutoff, for example '{name}@5'.")
    if metric.measure in ANSWER and cutoff is not None:
        raise ConfigurationError(f"Metric {name!r} takes no cutoff. Write {metric.measure!r}.")
    return metric


def is_metric(name: str) -> bool:
    """Whether a metric is called so."""
    try:
        parse_metric(name)
    except ConfigurationError:
        return False
    return True


def is_lower_better(name: str) -> bool:
    """Whether a smaller value of the metric of this name is a better one: mistakes, times and costs."""
    return name.partition("@")[0] in LOWER_IS_BETTER


def default_metrics(ks: Iterable[int] = (1, 3, 5, 10)) -> list[Metric]:
    """Every ranking metric at each k, at document and at passage level, then every answer metric.

    MRR and MAP take the whole list. Raises ConfigurationError if a k is below 1.
    """
    cutoffs = sorted(set(ks))
    if cutoffs and cutoffs[0] < 1:
        raise ConfigurationError(f"k = {cutoffs[0]} is not a cutoff. Use whole numbers from 1 on.")
    return [
        *_ranking_metrics(cutoffs, passage_level=False),
        *_ranking_metrics(cutoffs, passage_level=True),
        *(Metric(measure) for measure in ANSWER),
    ]


def _ranking_metrics(cutoffs: list[int], *, passage_level: bool) -> list[Metric]:
    at_k = [Metric(measure, k, passage_level) for measure in (*NEEDS_CUTOFF, "ndcg") for k in cutoffs]
    return [*at_k, Metric("mrr", None, passage_level), Metric("map", None, passage_level)]


def _advice(name: str) -> str:
    wanted, _, cutoff = name.lower().replace("_at_", "@").partition("@")
    passage_names = [PASSAGE_PREFIX + measure for measure in RANKING]
    nearest = get_close_matches(wanted, [*RANKING, *ANSWER, *passage_names], n=1)
    if not nearest:
        return f"Metrics are: {', '.join([f'{m}@k' for m in RANKING] + list(ANSWER))}."
    takes_cutoff = nearest[0].removeprefix(PASSAGE_PREFIX) in RANKING
    suffix = f"@{int(cutoff)}" if takes_cutoff and cutoff.isdecimal() and int(cutoff) else ""
    if not suffix and nearest[0].removeprefix(PASSAGE_PREFIX) in NEEDS_CUTOFF:
        suffix = "@5"
    return f"Did you mean {nearest[0] + suffix!r}?"
