"""Counts, and the differences that so many questions can show."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from eval.curation.counts import assumed_spread, count_questions, observed_spread, render_counts
from eval.ground_truth import GoldItem, Question
from eval.paired import compare_paired
from eval.scored_runs import ScoredRun
from retrieval.errors import ConfigurationError

Ask = Callable[..., Question]


def scored(name: str, values: Sequence[float]) -> ScoredRun:
    return ScoredRun(name, name, {f"q{i}": "?" for i in range(len(values))}, {"mrr": np.array(values)})


def test_each_split_is_counted_and_all_of_them(ask: Ask) -> None:
    questions = [
        ask("a", "A?", "d1", "d2", split="dev", lang="ja"),
        Question("b", "B?", ((GoldItem("d1"), GoldItem("d2")), (GoldItem("d3", 0),)), tags={"split": "dev"}),
        Question("c", "C?", (), expected_response="12345", history=({"role": "user", "content": "x"},)),
    ]
    none, dev, total = count_questions(questions, 0.5)
    assert (none.split, none.questions, none.unanswerable, none.with_history, none.answer_length) == (
        ("(none)", 1, 1, 1, 5.0)
    )
    assert (dev.split, dev.questions, dev.unanswerable, dev.gold, dev.by_tag["lang"]) == (
        ("dev", 2, 0, 2.0, {"ja": 1})
    )
    assert (total.split, total.questions) == ("all", 3)
    text = render_counts([none, dev, total], "if they differ")
    assert "(none)          1      1 (100%)" in text
    assert "type" not in text.split("\n\n")[1]


def test_one_split_is_not_counted_twice(ask: Ask) -> None:
    assert [count.split for count in count_questions([ask("a", "A?", split="dev")], 0.5)] == ["dev"]


def test_more_questions_show_smaller_differences_and_few_show_none(ask: Ask) -> None:
    def detectable(n: int) -> float:
        return count_questions([ask(str(i), "?", "d") for i in range(n)], assumed_spread())[0].detectable

    assert detectable(5) == float("inf")
    assert detectable(100) == pytest.approx(2.8 * 0.2**0.5 / 10, rel=0.03)
    assert detectable(400) == pytest.approx(detectable(100) / 2, rel=0.03)


def test_the_spread_of_two_runs_is_that_of_their_paired_comparison() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random(60), rng.random(60)
    spread = observed_spread(scored("a", list(a)), scored("b", list(b)), "mrr")
    assert spread == pytest.approx(np.std(b - a, ddof=1))
    counts = count_questions([Question(str(i), "?", ((GoldItem("d"),),)) for i in range(60)], spread)
    assert counts[0].detectable == pytest.approx(compare_paired("mrr", a, b).detectable)


def test_runs_without_the_metric_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"metric 'mr' is not in both runs. Did you mean 'mrr'\?"):
        observed_spread(scored("a", [1, 0]), scored("b", [1, 0]), "mr")
    with pytest.raises(ConfigurationError, match="fewer than two questions in common"):
        observed_spread(scored("a", [1, float("nan")]), scored("b", [1, 0]), "mrr")
