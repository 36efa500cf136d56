"""MLflow's judges over the wire: what they are shown, what becomes of what they say, and that none is asked twice."""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import AssessmentSource, Feedback

from eval.evaluate import Evaluation, evaluate
from eval.judges.call import JudgeCall, make_call
from eval.judges.judge import Judge, configured_judges, evidence_key, expectations
from eval.judges.judge_model import judge_environment
from eval.judges.judgements import Judgement, JudgementFile, judging_cost, standing_judgements
from eval.judges.verdicts import read_verdict
from eval.metric_names import parse_metric
from eval.questions import GoldItem, Question
from eval.records import AnswerRecord, Retrieved
from eval.report import render_evaluation, render_json
from eval.scorers import as_mlflow_scorers
from program.settings import JudgeModelSettings, Settings
from retrieval.errors import ConfigurationError, DataError, LanguageModelError, RunStoppedError

ROOT = Path(__file__).parents[2]
SITE = "https://library.example/"
MODEL = "openai/judge-1"
QUESTIONS = [
    ("j1", "What is steel made of?", "iron", ["Steel is iron with a little carbon."]),
    ("j2", "What makes bread rise?", "bread", ["Yeast makes bread rise."]),
    ("j3", "富士山の高さは何メートルですか", "fuji", ["3776メートル"]),
    ("j4", "What pulls the sea twice a day?", "tides", []),
]

MakeSettings = Callable[..., Settings]


def verdict(result: str, rationale: str = "Let's think step by step. It says so.") -> str:
    return json.dumps({"rationale": rationale, "result": result}, ensure_ascii=False)


@pytest.fixture
def judged(make_settings: MakeSettings, language_model: Any, tmp_path: Path) -> MakeSettings:
    """Settings with four questions, three of which say what to expect, and a judging model on the wire."""
    file = tmp_path / "judged.jsonl"
    rows = (
        {
            "id": id_,
            "inputs": {"question": question},
            "expectations": {
                "expected_retrieved_context": [{"doc_uri": SITE + document}],
                "expected_facts": facts,
            },
            "tags": {"split": "dev"},
        }
        for id_, question, document, facts in QUESTIONS
    )
    file.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")

    def make(*judges: Any, **evaluation: Any) -> Settings:
        model = {"model": MODEL, "api_base": language_model.url, **evaluation.pop("judge_model", {})}
        return make_settings(
            evaluation={"dataset": str(file), "judges": list(judges), "judge_model": model, **evaluation}
        )

    return make


def judgements(evaluation: Evaluation) -> list[Judgement]:
    return JudgementFile(evaluation.result.path).read()


def scores(evaluation: Evaluation, metric: str) -> dict[str, float | None]:
    return {id_: row.get(metric) for id_, row in evaluation.result.scores.items()}


def test_verdicts_of_yes_and_no_are_a_metric_with_its_interval(
    judged: MakeSettings, language_model: Any
) -> None:
    language_model.computes(lambda body: verdict("no" if "Yeast" in str(body) else "yes"))
    evaluation = evaluate(judged("Correctness"))
    assert scores(evaluation, "judge_correctness") == {"j1": 1.0, "j2": 0.0, "j3": 1.0, "j4": None}
    interval = evaluation.result.summary.overall.intervals["judge_correctness"]
    assert (interval.n, interval.mean) == (3, pytest.approx(2 / 3))
    assert interval.low < interval.mean < interval.high
    row = json.loads((evaluation.result.path / "scores.jsonl").read_text("utf-8").splitlines()[1])
    assert row["metrics"]["judge_correctness"] == 0.0
    assert row["judgements"]["judge_correctness"] == {
        "model": "openai:/judge-1",
        "verdict": "no",
        "rationale": "It says so.",
        "error": None,
    }


def test_a_judge_is_shown_the_question_the_answer_and_what_to_expect(
    judged: MakeSettings, language_model: Any
) -> None:
    language_model.computes(lambda _: verdict("yes"))
    evaluation = evaluate(judged("Correctness"))
    answers = {id_: record.answer for id_, record in evaluation.result.records.items()}
    prompts = [language_model.prompt(number) for number in range(3)]
    for prompt, (id_, question, _, facts) in zip(prompts, QUESTIONS, strict=False):
        assert f"<question>{question}</question>" in prompt
        assert facts[0] in prompt
        assert answers[id_] in prompt
    assert language_model.requests[0]["model"] == "judge-1"
    assert language_model.requests[0]["response_format"]["type"] == "json_schema"
    assert language_model.keys[0] == "Bearer sk-canary-0123456789"


def test_judges_of_retrieval_are_shown_the_passages_of_the_trace(
    judged: MakeSettings, language_model: Any
) -> None:
    language_model.computes(lambda body: verdict("yes" if "carbon" in str(body) else "no"))
    evaluation = evaluate(
        judged("RetrievalGroundedness", "RetrievalSufficiency", "RetrievalRelevance", limit=1)
    )
    groundedness, sufficiency, *relevance = map(language_model.prompt, range(len(language_model.requests)))
    for prompt in (groundedness, sufficiency, *relevance):
        assert "<question>What is steel made of?</question>" in prompt, (
            "and not a request's twenty empty fields"
        )
    assert "Steel is iron with a little carbon." in groundedness
    assert SITE + "iron" in groundedness
    assert evaluation.result.records["j1"].answer in groundedness
    retrieved = evaluation.result.records["j1"].retrieved
    assert len(relevance) == len(retrieved), "one call a passage"
    share = scores(evaluation, "judge_retrieval_relevance")["j1"]
    assert share == pytest.approx(sum("carbon" in prompt for prompt in relevance) / len(relevance))
    assert retrieved
    assert scores(evaluation, "judge_retrieval_sufficiency")["j1"] == 1.0


def test_every_judge_that_can_be_configured_works_over_the_wire(
    judged: MakeSettings, language_model: Any
) -> None:
    language_model.computes(lambda _: verdict("yes"))
    names = ("Completeness", "Fluency", "RelevanceToQuery", "Safety", "Correctness", "RetrievalGroundedness")
    polite = {"name": "Guidelines", "metric": "polite", "guidelines": ["Be polite.", "日本語で答える。"]}
    evaluation = evaluate(judged(*names, polite, limit=1))
    assert [j.error for j in judgements(evaluation)] == [None] * 7
    metrics = [name for name in evaluation.result.summary.overall.intervals if name.startswith("judge_")]
    assert metrics == [
        "judge_completeness",
        "judge_correctness",
        "judge_fluency",
        "judge_polite",
        "judge_relevance_to_query",
        "judge_retrieval_groundedness",
        "judge_safety",
    ]
    assert any("日本語で答える。" in language_model.prompt(number) for number in range(7))


def test_the_same_command_again_asks_no_judge_and_keeps_what_it_cost(
    judged: MakeSettings, language_model: Any
) -> None:
    language_model.computes(lambda _: verdict("yes"))
    first = evaluate(judged("Correctness", "Safety"))
    asked = len(language_model.requests)
    again = evaluate(judged("Correctness", "Safety"))
    assert len(language_model.requests) == asked == 7
    assert judging_cost(again.result.judgements) == judging_cost(first.result.judgements)
    assert again.result.summary == first.result.summary


def test_the_cost_of_judging_is_shown_apart_from_that_of_answering(
    judged: MakeSettings, language_model: Any
) -> None:
    language_model.computes(lambda _: verdict("yes"))
    price = {"input_usd_per_million": 1000.0, "output_usd_per_million": 2000.0}
    evaluation = evaluate(judged("Correctness", judge_model={"price": price}))
    cost = judging_cost(evaluation.result.judgements)
    assert (cost.verdicts, cost.input_tokens, cost.output_tokens) == (3, 33, 21)
    assert cost.usd == pytest.approx(0.033 + 0.042)
    assert "3 verdicts, 54 tokens, 0.0750 USD" in render_evaluation(evaluation)
    assert json.loads(render_json(evaluation))["judging"]["usd"] == pytest.approx(0.075)
    logged = mlflow.MlflowClient().get_run(str(evaluation.mlflow_run_id)).data.metrics
    assert logged["judge_cost_usd"] == pytest.approx(0.075)
    assert (logged["judge_correctness"], logged["judge_correctness.low"]) == (1.0, 1.0)
    assert all(record.usage == {} for record in evaluation.result.records.values())


def test_a_price_that_nobody_knows_is_not_nothing(judged: MakeSettings, language_model: Any) -> None:
    language_model.computes(lambda _: verdict("yes"))
    evaluation = evaluate(judged("Correctness"))
    assert judging_cost(evaluation.result.judgements).usd is None
    assert "price not known" in render_evaluation(evaluation)


def test_a_judge_that_fails_on_a_question_leaves_it_unscored_with_its_reason(
    judged: MakeSettings, language_model: Any
) -> None:
    replies = {"Yeast": "no JSON at all", "3776": verdict("perhaps")}
    language_model.computes(
        lambda body: next((text for word, text in replies.items() if word in str(body)), verdict("yes"))
    )
    evaluation = evaluate(judged("Correctness"))
    assert scores(evaluation, "judge_correctness") == {"j1": 1.0, "j2": None, "j3": None, "j4": None}
    assert evaluation.result.summary.overall.intervals["judge_correctness"].n == 1
    shown = render_evaluation(evaluation)
    assert "judge_correctness: 2 verdicts failed, and are in no mean (to retry: --retry-errors)" in shown
    assert "neither yes nor no" in shown
    assert "Failed to parse response from judge model" in shown
    asked = len(language_model.requests)
    evaluate(judged("Correctness"))
    assert len(language_model.requests) == asked, "a failure is kept like a verdict"
    replies.clear()
    retried = evaluate(judged("Correctness"), retry_errors=True)
    assert len(language_model.requests) == asked + 2
    assert scores(retried, "judge_correctness") == {"j1": 1.0, "j2": 1.0, "j3": 1.0, "j4": None}


def test_a_refused_key_stops_the_judging_and_not_the_answers(
    judged: MakeSettings, language_model: Any
) -> None:
    language_model.says("Incorrect API key provided: sk-canary-0123456789", status=401)
    with pytest.raises(RunStoppedError, match="Stopped judging: 5 of 5 calls failed") as stopped:
        evaluate(judged("Safety", "Fluency", threads=2))
    assert "canary" not in str(stopped.value)
    assert "$OPENAI_API_KEY" in str(stopped.value)
    language_model.forget()
    language_model.computes(lambda _: verdict("yes"))
    evaluation = evaluate(judged("Safety", "Fluency"))
    assert evaluation.result.answered_now == 0
    assert [j.error for j in judgements(evaluation)] == [None] * 8, "what stopped the judging is asked again"


def test_rescoring_keeps_what_judges_said_and_asks_nobody(judged: MakeSettings, language_model: Any) -> None:
    language_model.computes(lambda _: verdict("yes"))
    before = evaluate(judged("Correctness"))
    asked = len(language_model.requests)
    for settings in (judged("Correctness"), judged()):
        after = evaluate(settings, rescore=True)
        assert scores(after, "judge_correctness") == scores(before, "judge_correctness")
    assert len(language_model.requests) == asked


def test_another_judging_model_is_asked_anew_and_never_averaged_with_the_first(
    judged: MakeSettings, language_model: Any
) -> None:
    language_model.computes(lambda body: verdict("yes" if body["model"] == "judge-1" else "no"))
    first = judged("Correctness")
    assert evaluate(first).result.summary.overall.intervals["judge_correctness"].mean == 1.0
    second = judged("Correctness", judge_model={"model": "openai/judge-2"})
    assert evaluate(second).result.summary.overall.intervals["judge_correctness"].mean == 0.0
    assert len(language_model.requests) == 6
    assert evaluate(first).result.summary.overall.intervals["judge_correctness"].mean == 1.0
    assert len(language_model.requests) == 6


def test_an_answer_that_two_runs_gave_is_judged_once(judged: MakeSettings, language_model: Any) -> None:
    language_model.computes(lambda _: verdict("yes"))
    settings = judged("Correctness", "RetrievalGroundedness")
    evaluation = evaluate(settings)
    asked = len(language_model.requests)
    reader = {"max_sentences": settings.reader.max_sentences, "abstain_below": 0.39}
    other = evaluate(settings.model_copy(update={"reader": settings.reader.model_copy(update=reader)}))
    assert other.result.path != evaluation.result.path
    assert len(language_model.requests) == asked
    assert judging_cost(other.result.judgements) == judging_cost(evaluation.result.judgements)
    trace = mlflow.get_trace(str(other.result.records["j1"].trace_id))
    assert {a.name for a in trace.info.assessments} == {"correctness", "retrieval_groundedness"}


def test_verdicts_are_feedback_on_the_traces(judged: MakeSettings, language_model: Any) -> None:
    language_model.computes(lambda _: verdict("yes"))
    evaluation = evaluate(judged("Correctness", limit=1))
    trace = mlflow.get_trace(str(evaluation.result.records["j1"].trace_id))
    (feedback,) = trace.info.assessments
    assert (feedback.name, feedback.value, feedback.rationale) == ("correctness", "yes", "It says so.")
    assert feedback.source.source_type == "LLM_JUDGE"
    assert feedback.metadata["mlflow.assessment.sourceRunId"] == evaluation.mlflow_run_id


def test_a_trace_that_is_gone_is_a_reason_and_not_a_zero(judged: MakeSettings, language_model: Any) -> None:
    language_model.computes(lambda _: verdict("yes"))
    evaluation = evaluate(judged())
    ids = [str(record.trace_id) for record in evaluation.result.records.values()]
    client = mlflow.MlflowClient()
    client.delete_traces(client.get_trace(ids[0]).info.experiment_id, trace_ids=ids[:1])
    judging = evaluate(judged("RetrievalGroundedness"))
    assert scores(judging, "judge_retrieval_groundedness")["j1"] is None
    assert "is not in the tracking store" in render_evaluation(judging)
    assert len(language_model.requests) == 3


def test_a_trace_that_is_but_a_search_is_judged_by_nobody(store: str) -> None:
    mlflow.set_tracking_uri(store)
    with mlflow.start_span("search", span_type="RETRIEVER") as span:
        span.set_outputs([{"page_content": "Steel is iron.", "metadata": {"doc_uri": "d"}, "id": "1"}])
    mlflow.flush_trace_async_logging()
    record = AnswerRecord(id="q", answer="Iron.", trace_id=span.trace_id)
    judge = Judge("RetrievalGroundedness", "judge_groundedness", "openai:/m")
    call = JudgeCall(judge, question(), record, mlflow.get_trace(span.trace_id))
    outcome = make_call(call, lambda **_: pytest.fail("a judge was asked"), JudgeModelSettings())
    assert "would take the passages for the answer" in str(outcome.judgement.error)


@pytest.mark.slow
def test_a_killed_process_loses_no_verdict_and_asks_none_again(
    judged: MakeSettings, language_model: Any, tmp_path: Path
) -> None:
    settings = judged("Correctness")
    language_model.says(verdict("yes"))
    language_model.says(verdict("yes"))
    language_model.says(verdict("yes"), delay_s=60)
    program = (
        "import sys; from program.settings import Settings; from eval.evaluate import evaluate;"
        "evaluate(Settings.model_validate_json(sys.stdin.read()))"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, cwd=tmp_path)
    assert process.stdin is not None
    process.stdin.write(settings.model_dump_json().encode())
    process.stdin.close()
    deadline = time.monotonic() + 60
    while len(language_model.requests) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(language_model.requests) == 3
    language_model.computes(lambda _: verdict("yes"))
    evaluation = evaluate(settings)
    assert len(language_model.requests) == 4, "only the one under way is asked again"
    assert evaluation.result.summary.overall.intervals["judge_correctness"].n == 3


def test_without_judges_nothing_of_theirs_is_written(make_settings: MakeSettings) -> None:
    evaluation = evaluate(make_settings(evaluation={"limit": 1}))
    assert "judge" not in (evaluation.result.path / "scores.jsonl").read_text("utf-8")
    assert not (evaluation.result.path / "judgements.jsonl").exists()
    assert "Judged" not in render_evaluation(evaluation)
    assert "judging" not in json.loads(render_json(evaluation))


def test_without_judges_mlflows_are_not_imported() -> None:
    heavy = {"panel", "call", "verdicts", "trace_labels"}
    for file in (ROOT / "eval").rglob("*.py"):
        if file.parent.name == "judges" and file.stem in heavy:
            continue
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            module = node.module if isinstance(node, ast.ImportFrom) else ""
            assert (module or "").removeprefix("eval.judges.") not in heavy, file
            assert not (module or "").startswith("sklearn"), file


@pytest.mark.parametrize(
    ("judges", "model", "message"),
    [
        (["Correctness"], None, "name the model that judges"),
        (["Correctness"], "gpt-4o", "name the model that judges"),
        (["Safety", {"name": "Safety"}], MODEL, "two are called 'judge_safety'"),
        (["Guidelines"], MODEL, "Guidelines needs guidelines"),
        ([{"name": "Safety", "guidelines": ["x"]}], MODEL, "Safety takes no guidelines"),
    ],
)
def test_judges_that_make_no_sense_are_refused(
    make_settings: MakeSettings, judges: list[Any], model: str | None, message: str
) -> None:
    settings = make_settings(evaluation={"judges": judges, "judge_model": {"model": model}})
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        configured_judges(settings.evaluation)


def test_an_address_that_mlflow_would_not_heed_is_refused(make_settings: MakeSettings) -> None:
    model = {"model": "anthropic/claude", "api_base": "http://localhost:1"}
    settings = make_settings(evaluation={"judges": ["Safety"], "judge_model": model})
    with pytest.raises(ConfigurationError, match=r"openai/… and azure/… only, not for 'anthropic/claude'"):
        configured_judges(settings.evaluation)


@pytest.mark.parametrize(
    ("model", "uri"),
    [
        ("openai/gpt-4o", "openai:/gpt-4o"),
        ("openai:/gpt-4o", "openai:/gpt-4o"),
        ("databricks", "databricks"),
        ("databricks/my-endpoint", "databricks:/my-endpoint"),
        ("openrouter/meta/llama", "openrouter:/meta/llama"),
    ],
)
def test_models_are_written_as_everywhere_else(make_settings: MakeSettings, model: str, uri: str) -> None:
    settings = make_settings(evaluation={"judges": ["Safety"], "judge_model": {"model": model}})
    assert configured_judges(settings.evaluation)[0].model == uri


def test_a_missing_key_or_server_shows_before_anything_is_answered(
    judged: MakeSettings, language_model: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
    started = time.monotonic()
    with pytest.raises(LanguageModelError, match="cannot be reached at"):
        evaluate(judged("Safety", judge_model={"api_base": nobody}))
    assert time.monotonic() - started < 10, "MLflow itself would try for three minutes"
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        evaluate(judged("Safety"))
    assert not list((tmp_path / "runs").glob("*/answers.jsonl"))


def test_the_environment_is_as_before_when_the_judges_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_BASE", "http://agent")
    monkeypatch.delenv("MLFLOW_GATEWAY_ROUTE_TIMEOUT_SECONDS", raising=False)
    before = dict(os.environ)
    settings = JudgeModelSettings(model="openai/x", api_base="http://judge", timeout_s=7)
    with judge_environment(settings):
        assert os.environ["OPENAI_API_BASE"] == "http://judge"
        assert os.environ["MLFLOW_GATEWAY_ROUTE_TIMEOUT_SECONDS"] == "7"
    assert dict(os.environ) == before
    with pytest.raises(KeyError), judge_environment(settings):
        raise KeyError
    assert dict(os.environ) == before


def question(**fields: Any) -> Question:
    return Question("q", "Why?", ((GoldItem("d"),),), **fields)


def test_expectations_are_facts_or_else_a_response_and_never_both() -> None:
    both = question(expected_facts=("a", "b"), expected_response="c")
    assert expectations("Correctness", both) == {"expected_facts": ["a", "b"]}
    assert expectations("Equivalence", both) == {"expected_response": "c"}
    accepted = question(accepted_answers=("a", "b"))
    assert expectations("Correctness", accepted) == {"expected_response": "One of these: a; b"}
    assert expectations("Equivalence", accepted) == {}, "an answer is equivalent to no list"
    assert expectations("Equivalence", question(accepted_answers=("a",))) == {"expected_response": "a"}


def test_a_verdict_stands_for_as_long_as_what_was_judged_stays_the_same() -> None:
    asked, record = question(expected_facts=("a",)), AnswerRecord(id="q", answer="x")
    judge = Judge("Correctness", "judge_correctness", "openai:/m")
    kept = Judgement(
        id="q",
        metric=judge.metric,
        scorer=judge.scorer,
        model=judge.model,
        judge=judge.key,
        evidence=evidence_key(judge.scorer, asked, record),
        value=1.0,
    )

    def stands(question: Question, record: AnswerRecord, *judges: Judge) -> bool:
        return bool(standing_judgements([kept], judges, [question], {"q": record}))

    assert stands(asked, record)
    assert stands(asked, record, judge)
    assert stands(asked, record.model_copy(update={"latency_ms": 5.0, "trace_id": "tr-2"}))
    assert not stands(asked, record.model_copy(update={"answer": "y"}))
    assert not stands(question(expected_facts=("b",)), record)
    assert not stands(asked, record.model_copy(update={"error": "failed"}))
    assert not stands(asked, record, Judge("Correctness", "judge_correctness", "openai:/other"))
    other_passages = record.model_copy(update={"retrieved": (Retrieved(doc_uri="d"),)})
    assert stands(asked, other_passages), "Correctness does not look at passages"
    assert evidence_key("RetrievalGroundedness", asked, record) != evidence_key(
        "RetrievalGroundedness", asked, other_passages
    )


def test_a_damaged_judgement_is_named_and_a_cut_one_dropped(tmp_path: Path) -> None:
    file = JudgementFile(tmp_path)
    line = Judgement(id="q", metric="judge_m", scorer="Safety", model="m", judge="j", evidence="e", value=0.0)
    file.append(line)
    with file.path.open("ab") as opened:
        opened.write(b'{"id": "cut sh')
    assert file.read() == [line]
    file.append(line)
    assert len(file.read()) == 2
    file.path.write_bytes(b'{"id": 1}\n')
    with pytest.raises(DataError, match=r"judgements\.jsonl, line 1: not a judgement"):
        file.read()


def feedback(value: Any, name: str = "safety", **metadata: Any) -> Feedback:
    return Feedback(
        name=name, value=value, source=AssessmentSource("LLM_JUDGE", "m"), metadata=metadata or None
    )


def test_several_feedbacks_are_averaged_and_nothing_is_guessed() -> None:
    assert read_verdict(feedback(True)).value == 1.0
    assert read_verdict([feedback("yes"), feedback("no")]).value == 0.5
    shares = [feedback(0.25, "relevance/precision"), feedback("yes"), feedback("no")]
    assert read_verdict(shares).value == 0.25
    nothing = read_verdict([])
    assert (nothing.value, nothing.verdict) == (0.0, "nothing was retrieved")
    for unclear in ("unknown", None, 3, ""):
        with pytest.raises(DataError, match="neither yes nor no"):
            read_verdict(feedback(unclear))


def test_a_judges_metric_has_a_name_and_no_scorer_of_ours() -> None:
    metric = parse_metric("judge_correctness")
    assert metric.is_judged
    assert metric.mlflow_name == "judge_correctness"
    with pytest.raises(ConfigurationError, match=r"mlflow\.genai\.scorers"):
        as_mlflow_scorers(["recall@5", "judge_correctness"])
