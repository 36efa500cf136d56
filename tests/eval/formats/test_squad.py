"""SQuAD's files as others write them, and what is wrong with some."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from eval.formats.squad import squad_documents, unread_squad_fields, write_squad_questions
from eval.ground_truth import GoldItem, Question, read_ground_truth
from retrieval.errors import GroundTruthError
from retrieval.types import Document

CONTEXT = "富士山の高さは3776メートルです。"
DOC = "富士_山/" + hashlib.sha256(CONTEXT.encode()).hexdigest()[:12]


def squad(*entries: Any, title: str = "富士 山", context: Any = CONTEXT) -> dict[str, Any]:
    return {
        "version": "v2.0",
        "data": [{"title": title, "paragraphs": [{"context": context, "qas": list(entries)}]}],
    }


def write(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return path


def refusal(path: Path) -> str:
    with pytest.raises(GroundTruthError) as caught:
        read_ground_truth(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_both_versions_are_read(tmp_path: Path) -> None:
    answers = [{"text": text, "answer_start": 7} for text in ("3776メートル", "3776", "3776メートル")]
    first = {"id": "v1", "question": "高さは？", "answers": answers}
    second = {
        "id": "v2",
        "question": "What does it weigh?",
        "is_impossible": True,
        "answers": [],
        "plausible_answers": [{"text": "3776", "answer_start": 7}],
    }
    path = write(tmp_path / "dev-v2.0.json", squad(first, second))
    answered, impossible = read_ground_truth(path).questions
    assert answered == Question(
        "v1",
        "高さは？",
        ((GoldItem(DOC),),),
        expected_response="3776メートル",
        accepted_answers=("3776メートル", "3776"),
    )
    assert (impossible.answerable, impossible.accepted_answers) == (False, ())
    assert unread_squad_fields(path) == {"plausible_answers": 1}


def test_the_paragraphs_are_documents_each_once(tmp_path: Path) -> None:
    twice = squad({"id": "1", "question": "?", "answers": []})
    twice["data"] *= 2
    for entry_id, article in enumerate(twice["data"]):
        article["paragraphs"][0]["qas"][0]["id"] = str(entry_id)
    path = tmp_path / "s.json.gz"
    path.write_bytes(gzip.compress(json.dumps(twice).encode()))
    assert list(squad_documents(path)) == [Document(DOC, CONTEXT, "富士 山")]


def test_what_we_write_is_squad(tmp_path: Path) -> None:
    question = Question("q", "高さは？", ((GoldItem("fuji"),),), accepted_answers=("3776", "not in it"))
    document = Document("fuji", CONTEXT, "富士山")
    write_squad_questions([question], tmp_path / "s.json", {"fuji": document}.get)
    article = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))["data"][0]
    assert article["title"] == "富士山"
    assert article["paragraphs"][0]["context"] == CONTEXT
    (entry,) = article["paragraphs"][0]["qas"]
    assert entry["answers"] == [{"text": "3776", "answer_start": CONTEXT.index("3776")}]
    assert entry["is_impossible"] is False


def test_a_gold_document_without_text_asks_for_the_corpus(tmp_path: Path) -> None:
    question = Question("q", "高さは？", ((GoldItem("fuji"),),))
    with pytest.raises(GroundTruthError, match=r"no text of the gold document 'fuji'.* --corpus"):
        write_squad_questions([question], tmp_path / "s.json", {}.get)  # type: ignore[arg-type]
    assert not (tmp_path / "s.json").exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "expected a list 'data', got []"),
        ({"data": [{"title": "t"}]}, "data[0]: expected a list 'paragraphs', got None"),
        ({"data": [{"paragraphs": [{"context": "c"}]}]}, "data[0].paragraphs[0]: expected a list 'qas'"),
        (squad(context=7), "data[0].paragraphs[0]: context is 7, not text"),
        (squad("q"), "data[0].paragraphs[0].qas[0]: expected an object {…}, got 'q'"),
        (squad({"id": "1", "question": None}), "qas[0]: question is None, not text"),
        (squad({"id": "1", "question": " "}), "qas[0]: the question is empty"),
        (squad({"id": "1", "question": "?", "answers": ["x"]}), "qas[0]: answers is ['x']"),
        (squad({"id": "1", "question": "?", "citeqa": 1}), "qas[0]: citeqa: expected an object"),
        (squad({"id": "1", "question": "?", "citeqa": {"tags": {"a": []}}}), "qas[0]: citeqa: tags.a"),
        (
            squad({"id": "1", "question": "?", "citeqa": {"expected_retrieved_context": ["other"]}}),
            "the gold under 'citeqa' (other: 1) is not what the judgements beside it say",
        ),
        (squad(), "holds no question"),
    ],
)
def test_an_unusable_value_is_named_with_its_place(tmp_path: Path, value: Any, message: str) -> None:
    assert message in refusal(write(tmp_path / "s.json", value))


def test_a_file_that_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('{"data": [')
    assert "s.json: not valid JSON" in refusal(tmp_path / "s.json")
    (tmp_path / "s.json").write_bytes("富士".encode("shift_jis"))
    assert "s.json: not UTF-8" in refusal(tmp_path / "s.json")
    (tmp_path / "s.json.gz").write_bytes(gzip.compress(b"{}")[:-4])
    assert "Cannot read" in refusal(tmp_path / "s.json.gz")
