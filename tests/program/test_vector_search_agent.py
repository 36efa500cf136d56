"""The agent over a Vector Search index, as configs/databricks.yaml has it: found, answered, cited, traced, scored."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_workspace import FakeWorkspace
from mlflow.entities import Trace
from mlflow.genai.utils.trace_utils import extract_retrieval_context_from_trace
from mlflow.types.responses import ResponsesAgentRequest

from program.agent import CiteqaAgent
from program.cli import main
from program.retrievers import corpus_hash, follow_index, known_documents, open_retriever
from program.settings import Settings, load_settings
from program.spark.corpus.passages import PassageRows
from retrieval.errors import CiteqaError, ConfigurationError
from retrieval.local_index import LocalIndex
from retrieval.types import Passage
from retrieval.workspace import asking_for

CONFIG = Path(__file__).resolve().parents[2] / "configs/databricks.yaml"
INDEX = "main.rag.passages_index"
MODEL = "databricks-claude-sonnet-4-5"
ANNOTATION = "response.output_text.annotation.added"


@pytest.fixture
def databricks(workspace: FakeWorkspace, index: LocalIndex) -> FakeWorkspace:
    """A workspace with the small corpus in an index, and a model that cites the first passage."""
    rows = [
        {
            "chunk_id": passage.chunk_id,
            "doc_uri": passage.doc_uri,
            "text": passage.text,
            "title": passage.title,
            "lang": passage.lang,
            "url": f"{passage.doc_uri}#top",
            "headings": list(passage.headings),
            "start_char": passage.start,
            "end_char": passage.end,
        }
        for uri in sorted(index.doc_uris())
        for passage in index.passages_of(uri)
    ]
    workspace.vector_search.add_index(INDEX, rows)
    fields = {"answerable": "True", "answer": "It boils at 100 degrees [1]."}
    said = "\n\n".join(f"[[ ## {name} ## ]]\n{value}" for name, value in fields.items())
    workspace.endpoints.add_chat(MODEL, lambda body, user: f"{said}\n\n[[ ## completed ## ]]")
    return workspace


def settings(*overrides: str, trace_store: str = "sqlite:///mlflow.db") -> Settings:
    here = (f"tracking.uri={trace_store}", "tracking.experiment=test", "language_model.cache=false")
    return load_settings(CONFIG, [*here, *overrides])


def ask(agent: CiteqaAgent, question: str) -> list[dict[str, Any]]:
    asked = ResponsesAgentRequest(input=[{"role": "user", "content": question}])
    return [event.model_dump(exclude_none=True) for event in agent.predict_stream(asked)]


def test_an_answer_streams_with_links_and_its_trace_holds_what_was_found(
    databricks: FakeWorkspace, tracing: Callable[[], Trace]
) -> None:
    events = ask(CiteqaAgent(settings()), "At how many degrees does water boil at sea level?")
    (cited,) = [event["annotation"] for event in events if event["type"] == ANNOTATION]
    assert (cited["type"], cited["url"]) == ("url_citation", "https://docs.example/water#top")
    sources = events[-1]["custom_outputs"]["sources"]
    assert sources[0]["doc_uri"] == "https://docs.example/water"
    (found,) = extract_retrieval_context_from_trace(tracing()).values()
    assert found[0]["doc_uri"] == "https://docs.example/water"
    assert "100 degrees" in found[0]["content"]
    assert databricks.endpoints.asked(MODEL)[0][0] == "ann@example.com"


def test_who_asks_is_who_searches(databricks: FakeWorkspace) -> None:
    databricks.vector_search.indexes[INDEX].readers = {"bob@example.com"}
    agent = CiteqaAgent(settings("retrieval.vector_search.user_credentials=true", "reader.kind=extractive"))
    with asking_for(databricks.identity.add_token("bob@example.com")):
        assert ask(agent, "When does water boil?")[-1]["custom_outputs"]["sources"]
    with (
        asking_for(databricks.identity.add_token("eve@example.com")),
        pytest.raises(CiteqaError, match=r"eve@example\.com does not have SELECT"),
    ):
        ask(agent, "When does water boil?")


def test_what_the_corpus_pipeline_writes_needs_no_mapping(workspace: FakeWorkspace) -> None:
    passage = Passage(
        "https://e.org/a#3",
        "https://e.org/a",
        "Iron melts at 1538 degrees.",
        title="Iron",
        lang="en",
        start=40,
        end=67,
        headings=("Metals", "Iron"),
        metadata={"team": "smelting", "year": 2024, "ratio": 0.5},
        fragment="melting point",
    )
    pipeline = PassageRows({"team": "string"})
    row = dict(zip(pipeline.names, pipeline.row(passage), strict=True))
    workspace.vector_search.add_index(INDEX, [row])
    (found,) = open_retriever(settings()).search(
        "iron", 3, {"team": "smelting", "doc_uri": "https://e.org/a"}
    )
    assert replace(found, score=0.0) == passage
    assert found.url == "https://e.org/a#melting%20point"


def test_what_evaluation_asks_of_a_corpus_is_told(databricks: FakeWorkspace, index: LocalIndex) -> None:
    assert known_documents(settings()) == index.doc_uris()
    before = corpus_hash(settings())
    databricks.vector_search.indexes[INDEX].sync()
    assert corpus_hash(settings()) != before
    assert follow_index(settings()).facts().passages == len(databricks.vector_search.indexes[INDEX].rows)


def call(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *words: str
) -> tuple[int, str, str]:
    more = (
        "--config",
        str(CONFIG),
        "--set",
        "reader.kind=extractive",
        "--set",
        "tracking.uri=sqlite:///m.db",
    )
    monkeypatch.setattr(sys, "argv", ["citeqa", *words, *more])
    capfd.readouterr()
    code = 0
    try:
        main()
    except SystemExit as end:
        code = int(end.code or 0)
    return code, *capfd.readouterr()


def test_the_command_line_searches_and_asks(
    databricks: FakeWorkspace, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(monkeypatch, capfd, "search", "沸騰", "--filter", "lang=ja", "--json")
    assert (code, err) == (0, "")
    assert "https://docs.example/fuji" in out
    code, out, err = call(monkeypatch, capfd, "ask", "When does iron melt?", "--json")
    assert code == 0, err
    assert json.loads(out)["sources"][0]["doc_uri"] == "https://docs.example/iron"


def test_a_ground_truth_is_scored_over_it(
    databricks: FakeWorkspace,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    questions = [("When does iron melt?", "iron"), ("富士山の高さは?", "fuji")]
    rows = [
        {"request": question, "expected_retrieved_context": [{"doc_uri": f"https://docs.example/{page}"}]}
        for question, page in questions
    ]
    (tmp_path / "gold.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    evaluation = ("--set", "evaluation.dataset=gold.jsonl", "--set", "evaluation.split=null")
    code, out, err = call(monkeypatch, capfd, "eval", *evaluation)
    assert code == 0, err
    assert [line.split()[1] for line in out.splitlines() if line.startswith("recall@1 ")] == ["1.000"]


def test_an_index_in_the_workspace_is_not_filled_from_here(
    databricks: FakeWorkspace, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(monkeypatch, capfd, "index")
    assert code == 2
    assert "such an index follows a table, which `citeqa index --engine spark" in err


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("retrieval.vector_search.index=null", "no index is named: set retrieval.vector_search.index"),
        ("retrieval.diversity=0.4", "retrieval.diversity would be without effect"),
        ("retrieval.mode=lexical", "retrieval.mode would be without effect"),
        ("retrieval.rerank.model=models/x", "retrieval.rerank would be without effect"),
        ("retrieval.vector_search.query_type=bm25", "query_type"),
        ("retrieval.vector_search.score_threshold=2", "score_threshold"),
    ],
)
def test_settings_that_do_not_fit_are_refused(databricks: FakeWorkspace, override: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        open_retriever(settings(override))
