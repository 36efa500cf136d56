"""A whole sweep: ranked, reported on questions that chose nothing, and the same again whatever interrupts it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from eval.stats import bootstrap_mean
from eval.sweep import command as command_module
from eval.sweep import run as module
from eval.sweep.command import sweep_file
from eval.sweep.files import write_result
from eval.sweep.results import Spending, SweepResult
from eval.sweep.run import SweepOptions, SweepProgress, run_sweep
from eval.sweep.space import build_space
from program.qa import CitedQA
from program.settings import load_settings
from retrieval.errors import GroundTruthError, RunStoppedError, StorageError

ANSWER_USD = (11 * 100 + 7 * 1000) / 1e6
FACTORS = {"retrieval.k": [1, 3], "reader.max_sentences": [1, 2]}


@pytest.fixture
def split_quiz(question_file: Path, tmp_path: Path) -> str:
    """The quiz four times over, half of it to choose on and half to report on."""
    rows = [json.loads(line) for line in question_file.read_text(encoding="utf-8").splitlines()]
    file = tmp_path / "split.jsonl"
    lines = []
    for copy in range(4):
        for row in rows:
            question = row["inputs"]["question"] + "?" * copy
            split = "dev" if copy < 2 else "test"
            lines.append(
                {
                    **row,
                    "id": f"{row['id']}-{copy}",
                    "inputs": {"question": question},
                    "tags": {**row["tags"], "split": split},
                }
            )
    file.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8")
    return str(file)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, cold: None) -> list[str]:
    """The questions that any program is asked from here on."""
    texts: list[str] = []
    really_respond = CitedQA.respond

    def respond(program: CitedQA, turn: Any, emit: Any = None) -> Any:
        texts.append(turn.question)
        return really_respond(program, turn, emit)

    monkeypatch.setattr(CitedQA, "respond", respond)
    return texts


def states(result: SweepResult) -> list[str]:
    return [trial.state for trial in result.trials]


def test_a_grid_is_evaluated_ranked_and_compared(sweeps: Any) -> None:
    result = sweeps.run(factors=FACTORS)
    assert states(result) == ["complete"] * 4
    assert result.baseline == 1
    assert result.trials[0].parameters == {"retrieval.k": 3, "reader.max_sentences": 2}
    values = {trial.number: trial.objectives["citation_recall"] for trial in result.trials}
    assert result.ranking == sorted(values, key=lambda n: (-values[n], n))
    assert result.winner == result.ranking[0] == result.pareto[0]
    assert set(result.against_baseline) == {2, 3, 4}
    assert set(result.against_winner) == {1, 2, 3, 4} - {result.winner}
    for number, difference in result.against_baseline.items():
        assert difference.difference.mean == pytest.approx(values[number] - values[1])
    assert [effect.factor for effect in result.effects] == ["retrieval.k", "reader.max_sentences"]
    assert result.factors == FACTORS
    assert result.settings["reader.abstain_below"] == 0.4
    assert not set(FACTORS) & set(result.settings)
    assert (result.questions, result.split, result.final, result.stopped_early) == (12, "all", None, "")


def test_a_repeat_asks_nothing_and_writes_the_same_bytes(
    sweeps: Any, asked: list[str], searches: list[Any]
) -> None:
    first, second = (write(sweeps, factors=FACTORS) for _ in range(2))
    assert first == second
    assert len(asked) == 48
    assert len(searches) == 12


def write(sweeps: Any, **keys: Any) -> bytes:
    specification = sweeps.specify(**keys)
    result = run_sweep(specification, "sweep.yaml")
    write_result(result, build_space(specification, "sweep.yaml"))
    return (result.path / "result.json").read_bytes()


def test_a_value_more_costs_that_value_alone(sweeps: Any, asked: list[str]) -> None:
    sweeps.run(factors={"reader.max_sentences": [1, 2]})
    assert len(asked) == 24
    result = sweeps.run(factors={"reader.max_sentences": [1, 2, 3]})
    assert len(asked) == 36
    assert len(result.trials) == 3


def test_sweeps_that_differ_in_what_they_may_spend_are_one_and_others_are_not(sweeps: Any) -> None:
    same = [{}, {"budget": {"minutes": 9}}, {"max_trials": 5}]
    assert len({sweeps.run(**keys).path for keys in same}) == 1
    other = [
        {},
        {"objectives": ["mrr"]},
        {"set": {"reader.max_sentences": 1}},
        {"baseline": {"retrieval.k": 2}},
    ]
    assert len({sweeps.run(**keys).path for keys in other}) == 4


def test_the_winner_is_a_configuration_file_that_every_command_reads(sweeps: Any) -> None:
    specification = sweeps.specify(factors={"retrieval.k": [1, 3], "retrieval.filters": [{}, {"lang": "ja"}]})
    result = run_sweep(specification, "sweep.yaml")
    space = build_space(specification, "sweep.yaml")
    write_result(result, space)
    settings = load_settings(result.path / "winner.yaml")
    assert settings == space.settings(result.trial(result.winner or 0).parameters)


def test_a_mistake_of_the_set_up_is_told_before_anything_is_asked(sweeps: Any, asked: list[str]) -> None:
    with pytest.raises(GroundTruthError, match="dve"):
        sweeps.run(select_on="dve")
    assert asked == []
    assert not (sweeps.directory / "sweeps").exists()


# Selection honesty


def test_the_winner_is_reported_on_questions_that_chose_nothing(
    sweeps: Any, split_quiz: str, asked: list[str]
) -> None:
    keys = {
        "set": {"evaluation.dataset": split_quiz},
        "select_on": "dev",
        "report_on": "test",
        "factors": {"reader.abstain_below": [0.0, 0.4, 0.9]},
        "baseline": {"reader.abstain_below": 0.9},
    }
    result = sweeps.run(**keys)
    final = result.final
    assert final is not None
    assert (final.split, final.questions, final.objective, final.reads) == ("test", 24, "citation_recall", 1)
    assert len(asked) == 3 * 24 + 2 * 24, "of the held-out questions, the winner and the baseline alone"
    winner = result.trial(result.winner or 0)
    assert final.chosen_on == winner.objectives["citation_recall"]
    held_out = [
        json.loads(line) for line in (final.winner_path / "scores.jsonl").read_text("utf-8").splitlines()
    ]
    values = [v for row in held_out if (v := row["metrics"]["citation_recall"]) is not None]
    interval = bootstrap_mean(values)
    assert interval is not None
    assert final.held_out == pytest.approx(interval.mean)
    assert {row["tags"]["split"] for row in held_out} == {"test"}
    assert final.difference is not None
    assert final.baseline_held_out is not None
    assert final.difference.difference.mean == pytest.approx(final.held_out - final.baseline_held_out)
    assert final.winner_path != winner.path
    assert sweeps.run(**keys).final == final
    assert len(asked) == 120


def test_a_baseline_that_wins_is_compared_with_nobody(sweeps: Any, split_quiz: str) -> None:
    result = sweeps.run(
        set={"evaluation.dataset": split_quiz},
        select_on="dev",
        report_on="test",
        factors={"retrieval.k": [3]},
    )
    assert result.final is not None
    assert (result.final.difference, result.final.baseline_path) == (None, None)


def test_each_other_winner_reads_the_held_out_questions_once_more(sweeps: Any, split_quiz: str) -> None:
    def reads(*values: float) -> int:
        result = sweeps.run(
            set={"evaluation.dataset": split_quiz},
            select_on="dev",
            report_on="test",
            factors={"reader.abstain_below": list(values)},
            baseline={"reader.abstain_below": values[0]},
        )
        assert result.final is not None
        return result.final.reads

    assert [reads(0.2, 0.95), reads(0.3, 0.95), reads(0.2, 0.95), reads(0.1, 0.95)] == [1, 2, 1, 3]


def test_a_share_that_is_held_out_is_asked_of_the_winner_alone(sweeps: Any, asked: list[str]) -> None:
    result = sweeps.run(factors={"retrieval.k": [1, 3]}, holdout=0.4)
    assert result.final is not None
    assert result.questions + result.final.questions == 12
    assert result.final.split == "held out"
    others = 1 if result.winner == result.baseline else 2
    assert len(asked) == 2 * result.questions + others * result.final.questions


# Failures


def test_configurations_that_fail_leave_the_others_alone(sweeps: Any) -> None:
    result = sweeps.run(factors={"reader.kind": ["extractive", "lm"], "retrieval.k": [1, 3]})
    assert states(result) == ["complete", "complete", "complete", "failed", "failed"]
    assert "No language model is configured" in result.trials[3].reason
    assert set(result.ranking) == {1, 2, 3}
    assert result.trials[0].parameters["reader.kind"] == "auto", "the baseline, outside of the values"


def test_three_failures_in_a_row_stop_the_sweep_and_it_goes_on_when_mended(
    sweeps: Any, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    factors = {"retrieval.k": [1, 2, 3, 4]}
    with monkeypatch.context() as broken:

        def stumble(*_: Any) -> Any:
            raise ValueError("the reader stumbled")

        broken.setattr(CitedQA, "respond", stumble)
        with pytest.raises(RunStoppedError) as raised:
            sweeps.run(factors=factors)
    assert str(raised.value) == (
        "Stopped: 3 configurations failed one after the other, the last (#3 retrieval.k=2) because: each of the "
        "first 5 questions failed, the last because: ValueError('the reader stumbled') Mend the cause and run the "
        "same command again."
    )
    result = sweeps.run(factors=factors)
    assert states(result) == ["complete"] * 4
    assert len(asked) == 48


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([3], r"Stopped: the only configuration failed \(#1 retrieval\.k=3\) because: No language"),
        ([3, 1], r"Stopped: 2 configu"),
    ],
)
def test_a_sweep_of_which_everything_failed_is_no_result(sweeps: Any, values: list[int], says: str) -> None:
    with pytest.raises(RunStoppedError, match=says):
        sweeps.run(factors={"retrieval.k": values}, set={"reader.kind": "lm"})


def test_a_baseline_that_fails_is_no_baseline(sweeps: Any) -> None:
    result = sweeps.run(factors={"reader.kind": ["extractive", "lm"]}, baseline={"reader.kind": "lm"})
    assert states(result) == ["failed", "complete"]
    assert (result.baseline, result.winner, result.against_baseline) == (None, 2, {})


def test_an_objective_that_applies_to_no_question_has_no_winner(sweeps: Any) -> None:
    result = sweeps.run(objectives=["fact_recall"])
    assert states(result) == ["complete"] * 2
    assert (result.winner, result.final) == (None, None)
    assert result.ranking == [1, 2]


# Budgets


def lm_keys(reading_model: Any, **keys: Any) -> dict[str, Any]:
    """Three configurations that ask the model differently, and so share none of its calls."""
    section = reading_model.section(max_tokens=300)
    factors = {"language_model.max_tokens": [300, 200, 100]}
    return {"sections": {"language_model": section}, "factors": factors, **keys}


@pytest.mark.parametrize(
    ("budget", "says"),
    [
        ({"tokens": 12 * 18 + 5 * 18}, "the budget of 306 tokens is spent"),
        ({"usd": 17 * ANSWER_USD - 1e-9}, "USD is spent"),
    ],
)
def test_a_budget_stops_cleanly_and_a_larger_one_goes_on(
    sweeps: Any, reading_model: Any, budget: dict[str, Any], says: str
) -> None:
    result = sweeps.run(**lm_keys(reading_model, budget=budget))
    assert says in result.stopped_early
    assert states(result) == ["complete"]
    assert len(reading_model.prompts) == 17
    again = sweeps.run(**lm_keys(reading_model, budget=budget))
    assert again == result, "what is finished is no news to a budget that is spent"
    assert len(reading_model.prompts) == 17
    whole = sweeps.run(**lm_keys(reading_model, budget={name: 10 * value for name, value in budget.items()}))
    assert states(whole) == ["complete"] * 3
    assert whole.stopped_early == ""
    assert len(reading_model.prompts) == 36
    assert whole == sweeps.run(**lm_keys(reading_model))
    assert whole.spent == Spending(pytest.approx(36 * ANSWER_USD), 36 * 11, 36 * 7, 36)


def test_a_budget_that_ends_with_a_configuration_keeps_it(sweeps: Any, reading_model: Any) -> None:
    result = sweeps.run(**lm_keys(reading_model, budget={"tokens": 12 * 18}))
    assert states(result) == ["complete"]
    assert result.stopped_early == "the budget of 216 tokens is spent"
    assert len(reading_model.prompts) == 12


def test_a_budget_that_bears_no_configuration_says_so_and_keeps_the_answers(
    sweeps: Any, reading_model: Any
) -> None:
    with pytest.raises(
        RunStoppedError, match=r"any configuration was finished: the budget of 54 tokens is spent"
    ):
        sweeps.run(**lm_keys(reading_model, budget={"tokens": 54}))
    assert len(reading_model.prompts) == 3
    sweeps.run(**lm_keys(reading_model))
    assert len(reading_model.prompts) == 36


def test_minutes_stop_what_is_asked_and_nothing_that_is_kept(sweeps: Any, reading_model: Any) -> None:
    reading_model.reads(delay_s=0.1)
    with pytest.raises(RunStoppedError, match="minutes is spent"):
        sweeps.run(**lm_keys(reading_model, budget={"minutes": 0.4 / 60}))
    assert 1 <= len(reading_model.prompts) <= 11
    reading_model.reads()
    sweeps.run(**lm_keys(reading_model))
    assert states(sweeps.run(**lm_keys(reading_model, budget={"minutes": 1e-9}))) == ["complete"] * 3


def test_a_budget_of_dollars_without_a_price_stops_at_the_first_answer(
    sweeps: Any, reading_model: Any
) -> None:
    keys = lm_keys(reading_model, budget={"usd": 5}, set={"language_model.price": None})
    with pytest.raises(RunStoppedError, match=r"State language_model\.price"):
        sweeps.run(**keys)
    assert len(reading_model.prompts) == 1


def test_a_repeat_reports_what_it_would_have_cost(sweeps: Any, reading_model: Any) -> None:
    first = sweeps.run(**lm_keys(reading_model))
    reading_model.reads()
    assert sweeps.run(**lm_keys(reading_model)) == first
    assert first.spent.calls == 36
    assert reading_model.prompts == []


def test_several_objectives_have_a_front_of_quality_and_cost(sweeps: Any, reading_model: Any) -> None:
    result = sweeps.run(
        sections={"language_model": reading_model.section()},
        factors={"reader.kind": ["lm", "extractive"], "retrieval.k": [1, 3]},
        objectives=["citation_precision", "usd"],
        baseline={"reader.kind": "lm"},
    )
    assert states(result) == ["complete"] * 4
    costs = {t.number: t.objectives["usd"] for t in result.trials}
    assert {t.number for t in result.trials if t.parameters["reader.kind"] == "extractive"} == {
        n for n, usd in costs.items() if usd == 0
    }
    assert any(costs[n] == 0 for n in result.pareto)
    assert [objective.minimize for objective in result.objectives] == [False, True]


# Racing and searching


@pytest.fixture
def large_quiz(question_file: Path, tmp_path: Path) -> str:
    """Eighty questions: enough to tell after some of them who will not win."""
    rows = [json.loads(line) for line in question_file.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row["expectations"]["expected_retrieved_context"]]
    lines = [
        {**row, "id": f"{row['id']}-{copy}", "inputs": {"question": row["inputs"]["question"] + "?" * copy}}
        for copy in range(8)
        for row in rows
    ]
    file = tmp_path / "large.jsonl"
    file.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8")
    return str(file)


def test_racing_stops_the_hopeless_and_never_the_winner_and_is_the_same_again(
    sweeps: Any, large_quiz: str, asked: list[str]
) -> None:
    keys = {
        "set": {"evaluation.dataset": large_quiz},
        "factors": {"reader.abstain_below": [0.4, 1.0, 0.0, 0.97]},
    }
    result = sweeps.run(**keys, racing={"looks": 3})
    assert states(result) == ["complete", "stopped", "complete", "stopped"]
    assert len(asked) < 4 * 80
    assert result.trials[1].reason.startswith("after ")
    assert set(result.ranking) == {1, 3}
    assert set(result.against_winner) | {result.winner} == {1, 3}
    assert sweeps.run(**keys, racing={"looks": 3}) == result
    whole = sweeps.run(**keys)
    assert states(whole) == ["complete"] * 4
    assert whole.winner == result.winner
    assert len(asked) == 4 * 80, "who was stopped went on from there"


@pytest.mark.parametrize("method", ["random", "tpe"])
def test_a_search_suggests_the_same_when_it_is_answered_from_what_is_kept(
    sweeps: Any, asked: list[str], method: str
) -> None:
    keys = {
        "factors": {"reader.abstain_below": {"low": 0.0, "high": 1.0}, "retrieval.k": {"low": 1, "high": 5}},
        "search": {"method": method, "trials": 6, "seed": 3},
    }
    first = sweeps.run(**keys)
    assert len(first.trials) == 6
    count = len(asked)
    assert sweeps.run(**keys) == first
    assert len(asked) == count
    assert len({trial.label.partition(" ")[2] for trial in first.trials}) == 6


def test_an_interrupted_search_comes_to_the_same_end(sweeps: Any) -> None:
    keys: dict[str, Any] = {
        "factors": {"reader.abstain_below": {"low": 0.0, "high": 1.0}},
        "search": {"method": "tpe", "trials": 5},
    }
    told = 0

    def interrupt(progress: SweepProgress) -> None:
        nonlocal told
        told += 1
        if told == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweeps.run(**keys, options=SweepOptions(on_progress=interrupt))
    went_on = sweeps.run(**keys)
    fresh = sweeps.run(**keys, results=str(sweeps.directory / "other"), cache=str(sweeps.directory / "cache"))
    assert [t.parameters for t in went_on.trials] == [t.parameters for t in fresh.trials]
    assert [t.objectives for t in went_on.trials] == [t.objectives for t in fresh.trials]


# Progress, and others at work


def test_progress_counts_every_question_and_what_is_spent(sweeps: Any, reading_model: Any) -> None:
    told: list[SweepProgress] = []
    sweeps.run(**lm_keys(reading_model), options=SweepOptions(on_progress=told.append))
    assert [(p.configuration, p.answered) for p in told] == [(c, n) for c in (1, 2, 3) for n in range(1, 13)]
    assert {(p.configurations, p.questions) for p in told} == {(3, 12)}
    assert told[-1].spent.calls == 36
    assert told[0].spent.usd == pytest.approx(ANSWER_USD)


def test_a_second_process_on_the_same_sweep_is_told(sweeps: Any) -> None:
    path = sweeps.run().path
    with FileLock(path / ".lock"), pytest.raises(StorageError) as raised:
        sweeps.run()
    assert str(raised.value) == (
        f"Another process is working on the sweep at '{path}'. Wait for it, or name another place with "
        "`results:` in the sweep file."
    )
    assert sweeps.run().path == path


def test_a_cache_that_cannot_be_used_is_told(sweeps: Any) -> None:
    (sweeps.directory / "stages").write_text("no directory", encoding="utf-8")
    with pytest.raises(StorageError, match=r"The cache '.*stages\.db' cannot be used"):
        sweeps.run()


def test_the_cache_can_be_deleted_at_any_time(sweeps: Any, asked: list[str]) -> None:
    import shutil

    first = sweeps.run()
    shutil.rmtree(sweeps.directory / "stages")
    assert sweeps.run() == first
    shutil.rmtree(first.path / "trials")
    assert sweeps.run().ranking == first.ranking
    assert len(asked) == 48


def test_the_day_on_which_it_was_begun_stays(sweeps: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = sweeps.run()

    class Later(module.date):  # type: ignore[name-defined, misc]
        @classmethod
        def today(cls) -> Any:
            return cls(2199, 1, 1)

    monkeypatch.setattr(module, "date", Later)
    assert sweeps.run() == first


def test_a_grid_beyond_the_limit_runs_when_it_is_confirmed(sweeps: Any) -> None:
    result = sweeps.run(max_trials=1, options=SweepOptions(allow_large=True))
    assert len(result.trials) == 2


# Killed


def interrupt_at(server: Any, command: list[str], requests: int, how: signal.Signals) -> tuple[int, str, str]:
    """Run the command until so many requests were made, and interrupt it; how it ended, and what it said."""
    before = len(server.requests)
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while len(server.requests) - before < requests:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(how)
        out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.mark.slow
def test_killed_and_interrupted_it_goes_on_without_asking_a_finished_question_again(
    sweeps: Any, reading_model: Any, comparable: Callable[[Path], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_module, "write_report_once", lambda _: None)
    reading_model.reads(delay_s=0.06)
    server = reading_model.server
    file = str(sweeps.write(**lm_keys(reading_model)))
    command = [str(Path(sys.executable).with_name("citeqa")), "sweep", file, "--no-mlflow"]
    for asked in (5, 9, 8):
        assert interrupt_at(server, command, asked, signal.SIGKILL)[0] == -signal.SIGKILL
    code, out, err = interrupt_at(server, command, 6, signal.SIGINT)
    assert (code, out) == (2, "")
    assert err == "Interrupted: what is answered is kept. The same command goes on from there.\n"

    path = sweep_file(file, SweepOptions(), log_to_mlflow=False).path
    result = (path / "result.json").read_bytes()
    requests = [json.dumps(body, sort_keys=True) for body in server.requests]
    # Under way when it was interrupted, a question may be asked once more; none that was answered is.
    assert len(set(requests)) == 36
    assert len(requests) <= 36 + 4

    sweep_file(file, SweepOptions(), log_to_mlflow=False)
    assert (path / "result.json").read_bytes() == result
    assert len(server.requests) == len(requests)

    reading_model.reads()
    elsewhere = {name: str(sweeps.directory / "fresh" / name) for name in ("cache", "results")}
    fresh = sweep_file(
        str(sweeps.write(**lm_keys(reading_model, **elsewhere))), SweepOptions(), log_to_mlflow=False
    ).path
    assert len(server.requests) == 36
    assert json.dumps(comparable(fresh)).replace(str(fresh), str(path)) == json.dumps(comparable(path))


def test_results_of_a_killed_sweep_do_not_depend_on_where_it_was_killed(
    sweeps: Any, asked: list[str]
) -> None:
    fresh = sweeps.run(
        factors=FACTORS, results=str(sweeps.directory / "a"), cache=str(sweeps.directory / "b")
    )

    class Killed(BaseException):
        pass

    for at in (1, 13, 25, 47):
        told = 0

        def end(progress: SweepProgress, at: int = at) -> None:
            nonlocal told
            told += 1
            if told == at:
                raise Killed

        with suppress(Killed):
            sweeps.run(factors=FACTORS, options=SweepOptions(on_progress=end))
    result = sweeps.run(factors=FACTORS)
    assert [t.objectives for t in result.trials] == [t.objectives for t in fresh.trials]
    assert result.ranking == fresh.ranking
    assert result.against_winner == fresh.against_winner
    assert replace(result, trials=(), path=fresh.path) == replace(fresh, trials=())
