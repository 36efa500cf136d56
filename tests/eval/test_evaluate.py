"""`citeqa eval` as a function: which run the settings mean, and that nothing done is lost or done twice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
from mlflow.types.responses import ResponsesAgentRequest, ResponsesAgentResponse

import program
from eval.evaluate import Evaluation, evaluate
from eval.run_identity import code_hash, run_identity
from program.agent import CiteqaAgent
from program.settings import Settings
from retrieval.errors import (
    ConfigurationError,
    GroundTruthError,
    IndexMissingError,
    RunStoppedError,
    StorageError,
)
from retrieval.local_index import LocalIndex
from retrieval.types import Document

MakeSettings = Callable[..., Settings]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The questions that our agent is asked from here on."""
    texts: list[str] = []
    really_predict = CiteqaAgent.predict

    def predict(self: CiteqaAgent, request: ResponsesAgentRequest) -> ResponsesAgentResponse:
        texts.append(str(request.input[-1].model_dump()["content"]))
        return really_predict(self, request)

    monkeypatch.setattr(CiteqaAgent, "predict", predict)
    return texts


def run_directory(settings: Settings) -> Path:
    return evaluate(settings).result.path


def test_the_questions_are_answered_and_scored(make_settings: MakeSettings, asked: list[str]) -> None:
    evaluation = evaluate(make_settings())
    assert len(asked) == evaluation.result.answered_now == 12
    overall = evaluation.result.summary.overall
    assert (overall.scored, overall.unscored) == (12, 0)
    assert overall.intervals["recall@3"].mean == 1.0
    assert overall.intervals["recall@3"].n == 10
    assert set(evaluation.result.summary.slices) == {"type", "lang"}


def test_cutoffs_beyond_what_is_retrieved_are_not_reported(make_settings: MakeSettings) -> None:
    settings = make_settings(evaluation={"ks": [1, 5, 10]}, retrieval={"k": 4})
    names = evaluate(settings).result.summary.overall.intervals
    assert [name for name in names if name.startswith("recall@")] == ["recall@1", "recall@4"]


def test_a_limit_takes_the_first_questions(make_settings: MakeSettings, asked: list[str]) -> None:
    evaluate(make_settings(evaluation={"limit": 3}))
    assert len(asked) == 3


def test_the_same_settings_continue_the_same_run(make_settings: MakeSettings, asked: list[str]) -> None:
    first = run_directory(make_settings())
    asked.clear()
    assert run_directory(make_settings()) == first
    assert asked == []


def test_settings_that_no_answer_depends_on_mean_the_same_run(make_settings: MakeSettings) -> None:
    other = make_settings(
        evaluation={"threads": 3, "ks": [2], "slices": ["lang"], "max_failed_share": 0.5},
        language_model={"timeout_s": 5, "num_retries": 0},
        tracking={"experiment": "other"},
    )
    assert run_directory(other) == run_directory(make_settings())


def test_settings_that_answers_depend_on_mean_another_run(make_settings: MakeSettings) -> None:
    variants = (
        make_settings(),
        make_settings(retrieval={"k": 2}),
        make_settings(retrieval={"filters": {"lang": ["en", "ja"]}}),
        make_settings(reader={"max_sentences": 1}),
        make_settings(language_model={"temperature": 0.5}),
        make_settings(evaluation={"limit": 11}),
    )
    assert len({run_directory(settings) for settings in variants}) == len(variants)


def test_another_index_means_another_run(make_settings: MakeSettings, library: Path, tmp_path: Path) -> None:
    copy = tmp_path / "index"
    shutil.copytree(library, copy)
    settings = make_settings(retrieval={"index": str(copy)})
    assert run_directory(settings) == run_directory(make_settings()), "a copy is the same index"
    LocalIndex.update(copy, add_or_replace=[Document("https://library.example/new", "Salt.", "Salt", "en")])
    assert run_directory(settings) != run_directory(make_settings())


def test_other_questions_mean_another_run(
    make_settings: MakeSettings, question_file: Path, tmp_path: Path
) -> None:
    changed = tmp_path / question_file.name
    changed.write_text(question_file.read_text(encoding="utf-8").replace("How does a bee", "How do bees"))
    settings = make_settings(evaluation={"dataset": str(changed)})
    assert run_directory(settings) != run_directory(make_settings())


def test_other_code_means_another_run(make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run_directory(make_settings())
    monkeypatch.setattr("eval.run_identity.code_hash", lambda: "changed")
    assert run_directory(make_settings()) != first


def test_a_change_of_any_module_that_answers_is_other_code(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    copy = tmp_path / "program"
    shutil.copytree(Path(program.__file__).parent, copy)
    monkeypatch.setattr(program, "__path__", [str(copy)])
    code_hash.cache_clear()
    before = run_identity(make_settings(), "index")
    with (copy / "citations.py").open("a") as module:
        module.write("\n# changed\n")
    assert run_identity(make_settings(), "index") == before, (
        "this process still runs the code that it began with"
    )
    code_hash.cache_clear()
    assert run_identity(make_settings(), "index") != before
    code_hash.cache_clear()


def test_a_compiled_program_is_known_by_its_content(make_settings: MakeSettings, tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    settings = make_settings(program={"states": {"tuned": str(state)}})
    state.write_text("{}")
    before = run_identity(settings, "index")
    state.write_text("{ }")
    assert run_identity(settings, "index") != before


def test_the_same_questions_in_another_place_continue_the_run(
    make_settings: MakeSettings, question_file: Path, tmp_path: Path, asked: list[str]
) -> None:
    first = evaluate(make_settings())
    moved = tmp_path / "moved" / question_file.name
    moved.parent.mkdir()
    shutil.copy(question_file, moved)
    asked.clear()
    again = evaluate(make_settings(evaluation={"dataset": str(moved)}))
    assert (again.result.path, again.mlflow_run_id) == (first.result.path, first.mlflow_run_id)
    assert asked == []
    manifest = json.loads((again.result.path / "run.json").read_text())
    assert manifest["dataset"]["path"] == str(moved)


def test_gold_that_names_an_unknown_document_stops_before_anything_is_asked(
    make_settings: MakeSettings, question_file: Path, tmp_path: Path, asked: list[str]
) -> None:
    wrong = tmp_path / "wrong.jsonl"
    text = question_file.read_text(encoding="utf-8")
    wrong.write_text(text.replace("library.example/bees", "library.example/beez"), encoding="utf-8")
    settings = make_settings(evaluation={"dataset": str(wrong)})
    with pytest.raises(GroundTruthError, match=r"'https://library\.example/beez' \(question 'q06'\)") as e:
        evaluate(settings)
    assert "Nearest to the first: 'https://library.example/bees'" in str(e.value)
    assert asked == []
    assert not Path(settings.evaluation.results).exists()


@pytest.mark.parametrize(
    ("sections", "error", "message"),
    [
        ({"retrieval": {"index": "nowhere"}}, IndexMissingError, "No index at 'nowhere'"),
        ({"reader": {"kind": "lm"}}, ConfigurationError, "No language model is configured"),
        (
            {"evaluation": {"dataset": "nowhere.jsonl"}},
            GroundTruthError,
            "No ground truth at 'nowhere.jsonl'",
        ),
    ],
)
def test_a_set_up_that_lacks_something_begins_no_run(
    make_settings: MakeSettings,
    sections: dict[str, dict[str, str]],
    error: type[Exception],
    message: str,
) -> None:
    settings = make_settings(**sections)
    with pytest.raises(error, match=message):
        evaluate(settings)
    assert not Path(settings.evaluation.results).exists()


def test_rescoring_asks_nothing_and_needs_no_store(
    make_settings: MakeSettings, asked: list[str], tmp_path: Path
) -> None:
    first = evaluate(make_settings())
    asked.clear()
    settings = make_settings(evaluation={"ks": [2]}, tracking={"uri": f"sqlite:///{tmp_path}"})
    again = evaluate(settings, rescore=True)
    assert again.result.path == first.result.path
    assert "recall@2" in again.result.summary.overall.intervals
    assert again.mlflow_run_id is None
    assert asked == []


def test_rescoring_what_was_never_answered_says_so_and_leaves_nothing(make_settings: MakeSettings) -> None:
    settings = make_settings()
    with pytest.raises(RunStoppedError, match=r"Nothing is answered yet in .* Run without --rescore"):
        evaluate(settings, rescore=True)
    assert not Path(settings.evaluation.results).exists()


def test_two_evaluations_of_one_run_do_not_meet(make_settings: MakeSettings) -> None:
    settings = make_settings()

    def start_another(done: int, total: int) -> None:
        evaluate(settings)

    with pytest.raises(StorageError, match="Another process is working on the run"):
        evaluate(settings, on_answer=start_another)
    assert evaluate(settings).result.summary.overall.scored == 12


SLOW_EVALUATION = """
import sys, time
from pathlib import Path
from eval import agents, evaluate as module
from program.agent import CiteqaAgent
from program.settings import Settings

class Slow(CiteqaAgent):
    def predict(self, request):
        with Path(sys.argv[2]).open("a") as file:
            print(request.input[-1].content, file=file)
        time.sleep(0.15)
        return super().predict(request)

agents.CiteqaAgent = Slow
module.evaluate(Settings.model_validate_json(sys.argv[1]))
"""


def test_a_killed_run_goes_on_without_asking_twice_or_losing_a_trace(
    make_settings: MakeSettings, asked: list[str], tmp_path: Path
) -> None:
    settings = make_settings()
    begun = tmp_path / "begun.txt"
    command = [sys.executable, "-c", SLOW_EVALUATION, settings.model_dump_json(), str(begun)]
    with subprocess.Popen(command) as process:
        wait_until(lambda: begun.exists() and len(begun.read_text().splitlines()) >= 6)
        os.kill(process.pid, signal.SIGKILL)
    (answers,) = Path(settings.evaluation.results).glob("*/answers.jsonl")
    finished = len(answers.read_bytes().splitlines())
    assert 4 <= finished <= 6

    evaluation = evaluate(settings)
    assert evaluation.result.path == answers.parent
    assert evaluation.result.answered_now == 12 - finished
    counts = Counter([*begun.read_text().splitlines()[:finished], *asked])
    assert counts == Counter(question.question for question in evaluation.ground_truth.questions)
    assert scores_of(evaluation) == scores_of(
        evaluate(make_settings(evaluation={"results": str(tmp_path / "w")}))
    )

    experiment = mlflow.get_experiment_by_name("citeqa")
    traces = mlflow.search_traces(
        locations=[experiment.experiment_id], run_id=evaluation.mlflow_run_id, return_type="list"
    )
    answered = {record.trace_id for record in evaluation.result.records.values()}
    stored = {trace.info.trace_id for trace in traces}
    assert len(answered) == 12
    assert answered <= stored
    assert len(stored) <= 13, "killed between its trace and its answer, one question may have two"


def scores_of(evaluation: Evaluation) -> dict[str, dict[str, float | None]]:
    return {
        id_: {name: value for name, value in row.items() if name != "latency_ms"}
        for id_, row in evaluation.result.scores.items()
    }


def wait_until(happened: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
