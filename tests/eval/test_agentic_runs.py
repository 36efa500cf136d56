"""The agentic program is evaluated as any other: what its searches found together is what counts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from eval.answering import answer_questions
from eval.comparison.comparison import compare_runs
from eval.comparison.score_files import read_run_directory
from eval.evaluate import evaluate
from eval.ground_truth import GroundTruth
from eval.records import AnswerRecord
from eval.sweep.answering import StagedAgent
from eval.traces import collect_traces
from program.agent import CiteqaAgent
from program.content_store import ContentStore
from program.settings import Settings

MakeSettings = Callable[..., Settings]


def model(body: dict[str, Any]) -> str:
    """A model that searches for each half of a question that has two, then for the whole, and cites all it found."""
    *_, system = [message["content"] for message in body["messages"] if message["role"] == "system"]
    asked = str(body["messages"][-1]["content"])
    if "`answerable`" in system:
        cited = "".join(f"[{number}]" for number in range(1, 4) if f"[{number}] " in asked)
        return chat({"answerable": True, "answer": f"So it stands there {cited}."})
    question = section(asked, "question")
    begun = "search(" in section(asked, "searches")
    halves = question.rstrip("?").split(" and ")
    wanted = [] if begun else [*halves, question] if len(halves) > 1 else [question]
    calls = [{"name": "search", "args": {"query": query}} for query in wanted]
    return chat({"next_thought": "…", "tool_calls": json.dumps({"tool_calls": calls})})


def section(prompt: str, name: str) -> str:
    return prompt.partition(f"[[ ## {name} ## ]]\n")[2].partition("\n\n[[ ## ")[0]


def chat(fields: dict[str, Any]) -> str:
    return "\n\n".join(f"[[ ## {name} ## ]]\n{value}" for name, value in fields.items())


@pytest.fixture
def settings(make_settings: MakeSettings, language_model: Any) -> Callable[..., Settings]:
    """One passage a search, so that a question about two documents needs two; keyword arguments are `program`'s."""
    language_model.computes(model)

    def make(**program: Any) -> Settings:
        return make_settings(
            retrieval={"k": 1},
            language_model={
                "model": "openai/test",
                "api_base": language_model.url,
                "num_retries": 0,
                "price": {"input_usd_per_million": 1, "output_usd_per_million": 1},
            },
            program=program,
            evaluation={"ks": [1, 2, 3]},
        )

    return make


def test_documents_that_several_searches_found_are_scored_together(settings: Callable[..., Settings]) -> None:
    fixed = evaluate(settings()).result
    agentic = evaluate(settings(kind="react")).result
    assert [document.doc_uri for document in fixed.records["q07"].retrieved] == [
        "https://library.example/iron"
    ]
    assert {document.doc_uri for document in agentic.records["q07"].retrieved} >= {
        "https://library.example/iron",
        "https://library.example/water",
    }
    assert agentic.scores["q07"]["recall@2"] == 1.0
    assert agentic.scores["q07"]["citation_recall"] == 1.0
    assert fixed.scores["q07"]["citation_recall"] == 0.5
    assert not agentic.failed


def test_what_it_cost_counts_every_decision(settings: Callable[..., Settings], language_model: Any) -> None:
    result = evaluate(settings(kind="react")).result
    assert len(language_model.requests) == 3 * 12, "it decides, decides again, and reads"
    usage = result.records["q01"].usage
    assert usage["total_tokens"] == 3 * 18
    assert result.records["q01"].usd == pytest.approx(3 * 18 / 1e6)


def test_two_agentic_runs_are_compared_by_all_that_their_searches_found(
    settings: Callable[..., Settings],
) -> None:
    runs = [
        read_run_directory(evaluate(settings(kind="react", max_searches=most)).result.path) for most in (3, 4)
    ]
    headline = compare_runs(*runs).headline
    assert "recall@1" not in headline, "one passage a search is not all that was found"
    assert next(iter(headline)) in ("recall@2", "recall@3")


def test_a_sweep_records_of_it_what_an_evaluation_does(
    settings: Callable[..., Settings], quiz: GroundTruth, tmp_path: Path
) -> None:
    configured = settings(kind="react")
    with collect_traces() as collector, ContentStore(tmp_path / "calls.db") as calls:
        agent = CiteqaAgent(configured, record_in=calls)
        expected = by_id(a.record for a in answer_questions(agent.predict, quiz.questions, collector))
    with ContentStore(tmp_path / "stages.db") as cache:
        for _ in ("made now", "from what is kept"):
            with StagedAgent(configured, cache, 10) as staged:
                assert by_id(outcome.record for outcome in staged.answer_all(quiz.questions)) == expected


def by_id(records: Iterator[AnswerRecord]) -> dict[str, dict[str, Any]]:
    return {record.id: record.model_dump(exclude={"latency_ms", "trace_id", "calls"}) for record in records}
