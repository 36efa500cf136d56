"""What a run's answers took of language models: known however often it is repeated, and never made up."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest

from eval.agents import CALLS_FILE
from eval.costs import AnswerCosts, add_costs
from eval.evaluate import evaluate
from eval.metrics import parse_metrics, score_questions
from eval.observations import Observation
from eval.questions import Question
from eval.records import AnswerRecord, RunDirectory, count_tokens
from eval.report import render_evaluation, render_json
from program.settings import Settings

MakeSettings = Callable[..., Settings]
PRICE = {"input_usd_per_million": 100.0, "output_usd_per_million": 1000.0}
USAGE = {"input_tokens": 11, "output_tokens": 7, "total_tokens": 18}
USD = (11 * 100 + 7 * 1000) / 1e6


@pytest.fixture
def with_lm(make_settings: MakeSettings, language_model: Any) -> Iterator[MakeSettings]:
    """Settings by which the scripted model answers the first two questions; its section can be added to."""
    language_model.fills({"answer": "So it is [1].", "answerable": "True"})

    def make(limit: int = 2, threads: int = 1, **language_model_section: Any) -> Settings:
        section = {
            "model": "openai/test",
            "api_base": language_model.url,
            "num_retries": 0,
            **language_model_section,
        }
        return make_settings(language_model=section, evaluation={"limit": limit, "threads": threads})

    yield make
    mlflow.dspy.autolog(disable=True)


def record(id_: str = "a", **fields: Any) -> AnswerRecord:
    return AnswerRecord(id=id_, **{"reader": "openai/test", **fields})


def test_tokens_and_cost_of_all_answers_are_told_in_a_line() -> None:
    costs = add_costs([record(usage=USAGE, usd=0.5), record("b", usage=USAGE, usd=0.25)])
    assert costs == AnswerCosts(22, 14, 0.75, 2, 0)
    assert costs.render() == "Language model: 22 tokens in, 14 out; 0.750000 USD"


def test_an_unknown_price_of_any_answer_leaves_the_sum_unknown() -> None:
    costs = add_costs([record(usage=USAGE, usd=0.5), record("b", usage=USAGE)])
    assert costs.usd is None
    assert costs.render() == "Language model: 22 tokens in, 14 out; price unknown (set language_model.price)"


def test_answers_without_a_count_are_named_rather_than_counted_as_nothing() -> None:
    assert add_costs([record(), record("b")]).render() == (
        "Language model: 2 answers have no count of tokens: what they cost is not known"
    )
    assert add_costs([record(), record("b", usage=USAGE, usd=0.5)]).render() == (
        "Language model: 11 tokens in, 7 out; 0.500000 USD. "
        "1 answer has no count of tokens: what they cost is not known"
    )


def test_the_extractive_reader_and_failures_are_said_nothing_of() -> None:
    assert add_costs([record(reader="extractive"), record("b", error="The model is out.")]).render() == ""


@pytest.mark.parametrize(
    ("fields", "usd", "tokens"),
    [
        ({"reader": "extractive"}, 0.0, 0),
        ({"usage": USAGE, "usd": 0.5}, 0.5, 18),
        ({"usage": USAGE}, None, 18),
        ({}, None, None),
        ({"reader": "extractive", "usage": USAGE, "usd": 0.5}, 0.5, 18),
    ],
    ids=["extractive", "priced", "price unknown", "not counted", "fell back after asking"],
)
def test_cost_and_tokens_are_metrics_which_are_none_where_unknown(
    fields: dict[str, Any], usd: float | None, tokens: float | None
) -> None:
    observation = record(**fields).observation()
    row = score_questions([Question("a", "?", ())], {"a": observation}, parse_metrics(["usd", "tokens"]))["a"]
    assert row == {"usd": usd, "tokens": tokens}


def test_an_observation_that_says_nothing_of_cost_has_an_unknown_one() -> None:
    row = score_questions([Question("a", "?", ())], {"a": Observation()}, parse_metrics(["usd", "tokens"]))[
        "a"
    ]
    assert row == {"usd": None, "tokens": None}


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [({}, None), (USAGE, 18), ({"input_tokens": 3, "output_tokens": 4}, 7), ({"input_tokens": 3}, 3)],
)
def test_tokens_are_the_total_or_the_sum(usage: dict[str, int], tokens: int | None) -> None:
    assert count_tokens(usage) == tokens


def test_records_from_before_costs_were_kept_can_be_read(tmp_path: Path) -> None:
    with RunDirectory(tmp_path) as run:
        run.answers_file.write_text('{"id": "a", "answer": "x", "reader": "extractive", "usage": {}}\n')
        assert run.read_answers() == {"a": record(answer="x", reader="extractive")}


def test_a_run_tells_tokens_and_cost_for_each_question_and_in_all(with_lm: MakeSettings) -> None:
    evaluation = evaluate(with_lm(price=PRICE))
    intervals = evaluation.result.summary.overall.intervals
    assert intervals["tokens"].mean == 18
    assert intervals["usd"].mean == pytest.approx(USD)
    assert f"Language model: 22 tokens in, 14 out; {2 * USD:.6f} USD" in render_evaluation(evaluation)
    assert json.loads(render_json(evaluation))["costs"]["usd"] == pytest.approx(2 * USD)
    rows = [json.loads(line) for line in (evaluation.result.path / "scores.jsonl").read_bytes().splitlines()]
    assert [(row["usage"], row["calls"]) for row in rows] == [(USAGE, 1)] * 2


def test_another_run_that_asks_the_same_pays_nothing_and_still_tells_what_it_costs(
    with_lm: MakeSettings, language_model: Any
) -> None:
    first = evaluate(with_lm(limit=2, price=PRICE))
    second = evaluate(with_lm(limit=3, price=PRICE))
    assert second.result.path != first.result.path
    assert second.result.answered_now == 3
    assert len(language_model.requests) == 3
    assert second.result.summary.overall.intervals["usd"].mean == pytest.approx(USD)


def test_what_is_replayed_is_as_slow_as_it_was(with_lm: MakeSettings, language_model: Any) -> None:
    language_model.forget()
    language_model.fills({"answer": "So it is [1].", "answerable": "True"}, delay_s=0.3)
    evaluate(with_lm(limit=1))
    language_model.forget()
    language_model.fills({"answer": "So it is [1].", "answerable": "True"})
    again = evaluate(with_lm(limit=2)).result.records
    assert again["q01"].latency_ms >= 300
    assert len(language_model.requests) == 1


def test_with_the_cache_off_nothing_is_recorded_and_all_is_asked(
    with_lm: MakeSettings, language_model: Any
) -> None:
    settings = with_lm(limit=2, cache=False)
    evaluate(settings)
    again = evaluate(with_lm(limit=3, cache=False))
    assert len(language_model.requests) == 5
    assert not (Path(settings.evaluation.results) / CALLS_FILE).exists()
    assert again.result.summary.overall.intervals["tokens"].mean == 18


def test_a_price_that_is_stated_later_holds_for_what_was_answered_before(
    with_lm: MakeSettings, language_model: Any
) -> None:
    before = evaluate(with_lm())
    assert "price unknown (set language_model.price)" in render_evaluation(before)
    assert "usd" not in before.result.summary.overall.intervals
    after = evaluate(with_lm(price=PRICE))
    assert (after.result.path, after.result.answered_now) == (before.result.path, 0)
    assert after.result.summary.overall.intervals["usd"].mean == pytest.approx(USD)
    assert len(language_model.requests) == 2


def test_a_run_of_the_extractive_reader_records_no_calls_and_costs_nothing(
    make_settings: MakeSettings,
) -> None:
    evaluation = evaluate(make_settings(evaluation={"limit": 2}))
    assert not (Path(evaluation.settings.evaluation.results) / CALLS_FILE).exists()
    assert evaluation.result.summary.overall.intervals["usd"].mean == 0
    assert "Language model" not in render_evaluation(evaluation)


def test_a_busy_provider_makes_a_run_slower_and_fails_no_question(
    with_lm: MakeSettings, language_model: Any
) -> None:
    language_model.bears(4, every_s=0.5)
    evaluation = evaluate(with_lm(limit=12, threads=4))
    assert evaluation.result.failed == {}
    assert len(language_model.requests) == 12
    assert language_model.refused >= 1
