"""Sweeps to report on: made-up answers, scored, compared and written to disk by the real parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from eval.metrics import default_metrics, score_questions
from eval.paired import Pair, PairedDifference, compare_pairs
from eval.questions import GoldItem, Question
from eval.records import AnswerRecord, Retrieved, RunDirectory
from eval.run import RunResult, score_row
from eval.summary import aggregate
from eval.sweep.results import FactorEffect, FinalCheck, Objective, Spending, SweepResult, Trial, total

SITE = "https://docs.example/"
DOCUMENTS = 12
RECALL = Objective("recall@3")
LATENCY = Objective("latency_ms", minimize=True)
FACTORS: dict[str, Sequence[Any]] = {"retrieval.k": [3, 5], "reader.max_sentences": [1, 2]}

MakeSweep = Callable[..., SweepResult]


def make_question(number: int) -> Question:
    """Every fourth is Japanese, every tenth has no answer, every seventh has two documents as gold."""
    japanese = number % 4 == 0
    text = f"{number}番目の設定はどう変えますか" if japanese else f"How is setting {number} changed?"
    kind = "unanswerable" if number % 10 == 9 else "two" if number % 7 == 0 else "lookup"
    first = number % DOCUMENTS
    documents = {"unanswerable": [], "two": [first, (first + 1) % DOCUMENTS]}.get(kind, [first])
    return Question(
        id=f"q{number:04d}",
        question=text,
        gold=tuple((GoldItem(f"{SITE}{document}"),) for document in documents),
        tags={"type": kind, "lang": "ja" if japanese else "en"},
    )


def make_record(question: Question, parameters: Mapping[str, Any], random: Random) -> AnswerRecord:
    """The deeper it looks and the more it says, the more gold it finds, never less, and the longer it takes."""
    k, sentences = int(parameters.get("retrieval.k", 3)), int(parameters.get("reader.max_sentences", 1))
    found = [f"{SITE}other-{random.randrange(DOCUMENTS)}" for _ in range(k)]
    for place, alternatives in enumerate(question.gold):
        if Random(f"{question.id}/{place}").random() < 0.3 + 0.25 * (sentences - 1) + 0.05 * k:
            found[(place + random.randrange(2)) % 3] = alternatives[0].doc_uri
    return AnswerRecord(
        id=question.id,
        answer=f"それは{k}です。 [1]" if question.tags.get("lang") == "ja" else f"It is {k}. [1]",
        retrieved=tuple(
            Retrieved(doc_uri=uri, chunk_id=f"c{n}", score=1 / (n + 1)) for n, uri in enumerate(found)
        ),
        cited_uris=tuple(dict.fromkeys(found))[:sentences],
        latency_ms=10.0 * k + sentences + random.random(),
        usage={"prompt_tokens": 100 * k, "completion_tokens": 10 * sentences},
    )


def write_trial(
    path: Path,
    number: int,
    parameters: Mapping[str, Any],
    objectives: Sequence[Objective],
    asked: Sequence[AnswerRecord],
    questions: Sequence[Question],
) -> tuple[Trial, dict[str, dict[str, float | None]]]:
    records = {record.id: record for record in asked}
    observations = {id_: record.observation() for id_, record in records.items()}
    scores = score_questions(questions, observations, default_metrics([1, 3]))
    summary = aggregate(scores, questions, resamples=200)
    result = RunResult(path, questions, records, scores, summary, answered_now=0)
    with RunDirectory(path) as directory:
        directory.write_scores(score_row(question, result) for question in questions)
        directory.write_summary(asdict(summary))
    tokens = sum(sum(record.usage.values()) for record in asked)
    spending = Spending(
        usd=tokens / 1e6, input_tokens=tokens, output_tokens=0, calls=len(asked) if tokens else 0
    )
    intervals = summary.overall.intervals
    values: dict[str, float | None] = {
        "usd": (spending.usd or 0) / len(asked),
        **{name: interval.mean for name, interval in intervals.items()},
    }
    means = {objective.name: values.get(objective.name) for objective in objectives}
    return Trial(number, dict(parameters), "complete", "", path, means, summary, spending), scores


def compare(
    reference: int, scores: Mapping[int, Mapping[str, Mapping[str, float | None]]], metric: str
) -> dict[int, PairedDifference]:
    def column(number: int) -> np.ndarray:
        return np.array([row.get(metric) for row in scores[number].values()], dtype=np.float64)

    return compare_pairs(
        {number: Pair(metric, column(reference), column(number)) for number in scores if number != reference},
        resamples=500,
    )


def effects_of(
    trials: Sequence[Trial], factors: Mapping[str, Sequence[Any]], objective: str
) -> list[FactorEffect]:
    effects = []
    for factor in factors:
        groups: dict[str, list[float]] = {}
        for trial in trials:
            if (value := trial.objectives[objective]) is not None:
                groups.setdefault(str(trial.parameters[factor]), []).append(value)
        means = {name: (sum(values) / len(values), len(values)) for name, values in groups.items()}
        effects.append(FactorEffect(factor, means, 0.5 / (len(effects) + 1)))
    return effects


def assemble(
    path: Path,
    trials: Sequence[Trial],
    scores: Mapping[int, Mapping[str, Mapping[str, float | None]]],
    objectives: Sequence[Objective],
    factors: Mapping[str, Sequence[Any]],
    questions: int,
    baseline: int | None,
) -> SweepResult:
    first = objectives[0]
    ranking = sorted(
        (trial.number for trial in trials),
        key=lambda n: (trials[n - 1].objectives[first.name] or 0.0) * (1 if first.minimize else -1),
    )
    winner = ranking[0]
    return SweepResult(
        name="nightly",
        path=path,
        dataset="handbook",
        split="dev",
        questions=questions,
        objectives=objectives,
        factors=factors,
        trials=trials,
        ranking=ranking,
        pareto=ranking[:1] if len(objectives) == 1 else ranking[:2],
        winner=winner,
        baseline=baseline,
        against_baseline=compare(baseline, scores, first.name) if baseline else {},
        against_winner=compare(winner, scores, first.name),
        effects=effects_of(trials, factors, first.name),
        final=None,
        spent=total(trial.spending for trial in trials),
        stopped_early="",
        settings={"chunking": {"max_tokens": 200}, "retrieval.index": "build/index"},
        provenance={"citeqa": "0.1.0", "seed": 0, "begun": "2026-11-25"},
    )


def sweep_maker(folder: Path) -> MakeSweep:
    """A sweep of the product of `factors` over some questions; keyword arguments replace parts of the result.

    `question` and `record` may make other questions and answers than the usual ones.
    """

    def make(
        factors: Mapping[str, Sequence[Any]] = FACTORS,
        *,
        questions: int = 40,
        objectives: Sequence[Objective] = (RECALL,),
        baseline: int | None = 1,
        question: Callable[[int], Question] = make_question,
        record: Callable[[Question, Mapping[str, Any], Random], AnswerRecord] = make_record,
        **parts: Any,
    ) -> SweepResult:
        asked = [question(number) for number in range(questions)]
        trials: list[Trial] = []
        scores = {}
        for number, values in enumerate(product(*factors.values()), start=1):
            parameters = dict(zip(factors, values, strict=True))
            answers = [record(one, parameters, Random(f"{one.id}/{number}")) for one in asked]
            path = folder / f"trial-{number:03d}"
            trial, scores[number] = write_trial(path, number, parameters, objectives, answers, asked)
            trials.append(trial)
        return replace(assemble(folder, trials, scores, objectives, factors, questions, baseline), **parts)

    return make


@pytest.fixture
def make_sweep(tmp_path: Path) -> MakeSweep:
    """As `sweep_maker`, in a directory of the test's own."""
    return sweep_maker(tmp_path)


@pytest.fixture(scope="session")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> SweepResult:
    """Four configurations, of which #1 is the baseline and #4 the best. Its directories are not to be touched."""
    return sweep_maker(tmp_path_factory.mktemp("sweep"))()


@pytest.fixture
def make_pair() -> Callable[..., PairedDifference]:
    """A paired difference of 40 questions with the named parts."""

    def make(mean: float, p: float, **parts: Any) -> PairedDifference:
        from eval.stats import Interval

        pair = PairedDifference(
            metric="recall@3",
            n=40,
            mean_a=0.5,
            mean_b=0.5 + mean,
            difference=Interval(mean, mean - 0.05, mean + 0.05, 40),
            p_value=p / 3,
            p_adjusted=p,
            wins=12,
            losses=4,
            ties=24,
            effect_size=0.3,
            detectable=0.08,
            questions_needed=700,
        )
        return replace(pair, **parts)

    return make


@pytest.fixture
def make_final(make_pair: Callable[..., PairedDifference], tmp_path: Path) -> Callable[..., FinalCheck]:
    """A held-out check on 30 questions in which the winner gains `mean` with `p`."""

    def make(mean: float, p: float, **parts: Any) -> FinalCheck:
        pair = make_pair(mean, p, p_value=p)
        final = FinalCheck("test", 30, "recall@3", 0.82, 0.78, 0.78 - mean, pair, tmp_path, tmp_path)
        return replace(final, **parts)

    return make
