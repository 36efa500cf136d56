"""Two scored runs compared: every metric, the slices, and what was compared at all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from math import inf
from typing import Any

import numpy as np

from eval.comparison.pairing import Pairing, pair_questions, pair_values
from eval.metric_names import is_lower_better
from eval.paired import Pair, PairedDifference, compare_pairs, correct_family
from eval.scored_runs import ScoredRun
from retrieval.errors import ConfigurationError, DataError

_AT_K = ("recall", "ndcg")
_OTHERS = ("citation_precision", "citation_recall", "fact_recall", "abstention_accuracy")
_HEADLINES_OF_OTHERS = 6
_RETRIEVED, _KIND = "retrieval.k", "program.kind"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What B does better and worse than A on the questions that both answered.

    Attributes:
        a, b: the runs.
        pairing: which of their questions were compared.
        headline: metric to difference: the metrics that were asked for, or those that sum a run up. Holm's
            correction is over these.
        others: the other common metrics, for exploring: a family of their own.
        slices: tag, value, metric to difference, of the headline metrics; the family is all of them.
        slice_sizes: tag and value to the number of questions compared.
        unscored_a, unscored_b: common question (its id in A) to the reason why that run has no value for it.
        settings: the settings in which they differ, each with A's value and B's; None where one has none.
        confidence: of all intervals.
    """

    a: ScoredRun
    b: ScoredRun
    pairing: Pairing
    headline: Mapping[str, PairedDifference]
    others: Mapping[str, PairedDifference]
    slices: Mapping[str, Mapping[str, Mapping[str, PairedDifference]]]
    slice_sizes: Mapping[str, Mapping[str, int]]
    unscored_a: Mapping[str, str]
    unscored_b: Mapping[str, str]
    settings: Mapping[str, tuple[Any, Any]]
    confidence: float = 0.95

    @property
    def differences(self) -> Mapping[str, PairedDifference]:
        """All metrics, the headline first."""
        return {**self.headline, **self.others}

    def warnings(self) -> list[str]:
        """What a reader must know before trusting a figure: one sentence each."""
        return _warnings(self)


def compare_runs(
    a: ScoredRun,
    b: ScoredRun,
    metrics: Sequence[str] | None = None,
    by: Sequence[str] = ("type", "lang"),
    *,
    explore: bool = True,
    confidence: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Compare B with A on the questions that both have, metric by metric and slice by slice.

    With `metrics` these alone are compared, as one family. Without, those that sum a run up (`recall` and `ndcg`
    at the largest cutoff that one of them reaches, citations, facts, abstention) are one family, and the other
    common metrics another, unless `explore` is off. A question without a value in one of the runs is in no
    comparison of that metric. `by` are tags to slice by; one that no question has makes no slices.

    Raises:
        DataError: if they have no question or no metric in common.
        ConfigurationError: if a metric is not in both; names the nearest that is.
    """
    pairing = pair_questions(a, b)
    common = _common_metrics(a, b)
    headline = _asked_for(metrics, a, b, common) if metrics else _headline(common, _retrieved(a, b))
    chosen = common if explore and not metrics else headline
    pairs = {metric: pair_values(a, b, pairing, metric) for metric in chosen}
    compared = compare_pairs(pairs, confidence=confidence, seed=seed)
    sliced = _slices(a, b, pairing, [pairs[metric] for metric in headline], by)
    slices = compare_pairs(
        {(tag, value, pair.metric): pair for (tag, value), part in sliced.items() for pair in part},
        confidence=confidence,
        seed=seed,
    )
    return Comparison(
        a=a,
        b=b,
        pairing=pairing,
        headline=correct_family({metric: compared[metric] for metric in headline if metric in compared}),
        others=correct_family({m: found for m, found in compared.items() if m not in headline}),
        slices=_nested(slices),
        slice_sizes=_sizes(sliced),
        unscored_a={id_a: a.unscored[id_a] for id_a, _ in pairing.pairs if id_a in a.unscored},
        unscored_b={id_a: b.unscored[id_b] for id_a, id_b in pairing.pairs if id_b in b.unscored},
        settings=_differing(a.settings, b.settings),
        confidence=confidence,
    )


def improvement(difference: PairedDifference) -> PairedDifference:
    """The same with the sign that makes more of it better: turned round where a lower value is better."""
    if not is_lower_better(difference.metric):
        return difference
    interval = difference.difference
    turned = replace(interval, mean=-interval.mean, low=-interval.high, high=-interval.low)
    return replace(
        difference,
        difference=turned,
        wins=difference.losses,
        losses=difference.wins,
        effect_size=-difference.effect_size,
    )


def _common_metrics(a: ScoredRun, b: ScoredRun) -> list[str]:
    common = [metric for metric in a.values if metric in b.values]
    if not common:
        raise DataError(
            f"'{a.name}' and '{b.name}' have no metric in common: {_listed(a.values)} there, {_listed(b.values)} "
            "here. Score both with the same metrics."
        )
    return common


def _listed(metrics: Mapping[str, Any]) -> str:
    return ", ".join(metrics) or "none"


def _asked_for(metrics: Sequence[str], a: ScoredRun, b: ScoredRun, common: Sequence[str]) -> list[str]:
    for metric in metrics:
        if metric not in common:
            run = a.name if metric not in a.values else b.name
            near = get_close_matches(metric, common, n=1)
            advice = f"Did you mean {near[0]!r}?" if near else f"Both have: {', '.join(common)}"
            raise ConfigurationError(f"'{run}' has no metric {metric!r}. {advice}")
    return list(dict.fromkeys(metrics))


def _headline(common: Sequence[str], retrieved: float) -> list[str]:
    """The metrics that sum up a run of ours; of another's, the first few.

    A cutoff beyond what was `retrieved` would repeat the last one under a better-sounding name.
    """
    cutoffs: dict[str, list[int]] = defaultdict(list)
    for name in common:
        measure, _, cutoff = name.partition("@")
        if measure in _AT_K and cutoff.isdecimal():
            cutoffs[measure].append(int(cutoff))
    wanted = [
        f"{measure}@{max((k for k in cutoffs[measure] if k <= retrieved), default=min(cutoffs[measure]))}"
        for measure in _AT_K
        if measure in cutoffs
    ]
    wanted += [metric for metric in common if metric in _OTHERS]
    return wanted or list(common[:_HEADLINES_OF_OTHERS])


def _retrieved(*runs: ScoredRun) -> float:
    """How many passages the one that retrieves most retrieves; infinite where that is not known."""
    if any(run.settings.get(_KIND) == "react" for run in runs):
        return inf  # as many as the model wants
    ks = [str(run.settings.get(_RETRIEVED, "")) for run in runs]
    return max(int(k) for k in ks) if all(k.isdecimal() for k in ks) else inf


def _slices(
    a: ScoredRun, b: ScoredRun, pairing: Pairing, pairs: Sequence[Pair], by: Sequence[str]
) -> dict[tuple[str, str], list[Pair]]:
    found: dict[tuple[str, str], list[Pair]] = {}
    for tag in by:
        values = [a.tags.get(i, {}).get(tag) or b.tags.get(j, {}).get(tag) for i, j in pairing.pairs]
        if not any(values):
            continue
        labels = np.array([value or f"(no {tag})" for value in values])
        for value in sorted(set(labels.tolist())):
            inside = labels == value
            found[tag, value] = [Pair(p.metric, p.a[inside], p.b[inside]) for p in pairs]
    return found


def _nested(
    slices: Mapping[tuple[str, str, str], PairedDifference],
) -> dict[str, dict[str, dict[str, PairedDifference]]]:
    nested: dict[str, dict[str, dict[str, PairedDifference]]] = defaultdict(lambda: defaultdict(dict))
    for (tag, value, metric), difference in slices.items():
        nested[tag][value][metric] = difference
    return {tag: dict(values) for tag, values in nested.items()}


def _sizes(sliced: Mapping[tuple[str, str], Sequence[Pair]]) -> dict[str, dict[str, int]]:
    sizes: dict[str, dict[str, int]] = defaultdict(dict)
    for (tag, value), pairs in sliced.items():
        sizes[tag][value] = len(pairs[0].a)
    return dict(sizes)


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Values are compared as text, as which MLflow keeps them; 60 and 60.0 are one."""
    if not a or not b:
        return {}
    keys = dict.fromkeys([*a, *b])
    return {key: (a.get(key), b.get(key)) for key in keys if _as_text(a.get(key)) != _as_text(b.get(key))}


def _as_text(value: Any) -> str:
    if isinstance(value, bool) or value in (None, "", {}, [], ()):
        return str(value or None)
    try:
        return f"{float(value):.12g}"
    except (TypeError, ValueError):
        return "None" if value in ("{}", "[]", "()") else str(value)


def _warnings(comparison: Comparison) -> list[str]:
    a, b, pairing = comparison.a, comparison.b, comparison.pairing
    said = []
    if pairing.only_a or pairing.only_b:
        said.append(
            f"The runs are not over the same questions: {len(pairing.pairs)} are compared, {len(pairing.only_a)} "
            f"are only in A, {len(pairing.only_b)} only in B."
        )
    if pairing.complete and a.dataset and b.dataset and a.dataset != b.dataset:
        said.append(
            f"The questions are the same, but from two versions of the dataset ({a.dataset[:10]}, {b.dataset[:10]}): "
            "their gold may differ."
        )
    if pairing.changed:
        said.append(
            f"{len(pairing.changed)} questions have the same id and another text, such as {pairing.changed[0]!r}: "
            "they are not compared."
        )
    if pairing.ambiguous:
        said.append(
            f"{len(pairing.ambiguous)} questions are asked more than once and have no id to tell them apart: they "
            "are not compared."
        )
    for name, run, unscored in (("A", a, comparison.unscored_a), ("B", b, comparison.unscored_b)):
        if unscored:
            reason = next(iter(unscored.values()))
            said.append(
                f"{len(unscored)} of the {len(pairing.pairs)} common questions are unscored in {name} "
                f"('{run.name}') and in no figure, the first because: {' '.join(reason.split())[:200]}"
            )
    said += _uneven(comparison)
    return said


def _uneven(comparison: Comparison) -> list[str]:
    """Metrics that a run has for some of the questions that it scored, where the other has more."""
    unscored = {*comparison.unscored_a, *comparison.unscored_b}
    lost = {}
    for metric in comparison.headline:
        pair = pair_values(comparison.a, comparison.b, comparison.pairing, metric)
        one_sided = np.isnan(pair.a) != np.isnan(pair.b)
        ids = [id_a for id_a, _ in comparison.pairing.pairs]
        lost[metric] = sum(id_ not in unscored for id_, lone in zip(ids, one_sided, strict=True) if lone)
    return [
        f"{metric}: {count} questions have a value in one run alone, and are not compared."
        for metric, count in lost.items()
        if count
    ]
