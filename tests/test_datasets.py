"""The sample data set holds what its card promises; read as the project reads it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from eval.ground_truth import GroundTruth, Question, check_gold_exists, read_ground_truth
from retrieval.analysis import analyze, content_terms
from retrieval.corpus import read_documents
from retrieval.documents.front_matter import split_front_matter
from retrieval.types import Document

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "datasets" / "agent_docs"
HOSTS = {"dspy.ai", "mlflow.org", "docs.databricks.com"}
SPLITS = ("train", "dev", "test")
TYPES = {"lookup", "two_documents", "cross_language", "unanswerable"}
# The least share of an expected fact's terms that its gold documents must hold: inflections may differ.
LEAST_SUPPORT = 0.7
# Questions of two splits whose terms have at least this Jaccard similarity would be one question twice.
NEAR_DUPLICATE = 0.8


@pytest.fixture(scope="module")
def documents() -> dict[str, Document]:
    return {document.doc_uri: document for document in read_documents(FOLDER / "docs")}


@pytest.fixture(scope="module")
def ground_truth() -> GroundTruth:
    return read_ground_truth(FOLDER / "ground_truth.jsonl")


@pytest.fixture(scope="module")
def questions(ground_truth: GroundTruth) -> tuple[Question, ...]:
    return ground_truth.questions


def of_type(questions: Iterable[Question], kind: str) -> list[Question]:
    return [question for question in questions if question.tags["type"] == kind]


def gold_documents(question: Question, documents: dict[str, Document]) -> list[Document]:
    return [documents[item.doc_uri] for alternatives in question.gold for item in alternatives]


def kana_share(text: str) -> float:
    return sum("\u3041" <= character <= "\u30ff" for character in text) / len(text)


def terms(text: str) -> frozenset[str]:
    return frozenset(content_terms(analyze(text)))


def test_there_are_enough_documents_in_both_languages(documents: dict[str, Document]) -> None:
    languages = Counter(document.lang for document in documents.values())
    assert set(languages) == {"en", "ja"}
    assert languages.total() >= 60
    assert languages["ja"] >= 15


@pytest.mark.parametrize("path", sorted((FOLDER / "docs").glob("*")), ids=lambda path: path.stem)
def test_a_document_states_address_title_and_language_and_nothing_else(path: Path) -> None:
    front, body = split_front_matter(path.read_text(encoding="utf-8"), str(path))
    assert front.doc_uri
    assert front.lang
    assert not front.metadata
    assert body.strip().startswith(f"# {front.title}\n")


def test_every_address_is_a_page_of_the_three_documentation_sites(documents: dict[str, Document]) -> None:
    for uri in documents:
        address = urlsplit(uri)
        assert address.scheme == "https"
        assert address.hostname in HOSTS
        assert not address.fragment
        assert not address.query


def test_documents_are_in_the_language_that_they_are_tagged_with(documents: dict[str, Document]) -> None:
    for document in documents.values():
        assert (kana_share(document.text) > 0.1) == (document.lang == "ja"), document.doc_uri


def test_questions_are_in_the_language_that_they_are_tagged_with(questions: tuple[Question, ...]) -> None:
    for question in questions:
        assert (kana_share(question.question) > 0) == (question.tags["lang"] == "ja"), question.id


def test_there_are_enough_questions_of_every_kind(questions: tuple[Question, ...]) -> None:
    kinds = Counter(question.tags["type"] for question in questions)
    assert len(questions) >= 160
    assert set(kinds) == TYPES
    assert kinds["unanswerable"] >= 25
    assert kinds["two_documents"] >= 25
    assert sum(question.tags["lang"] == "ja" for question in questions) >= 40


def test_every_gold_document_is_in_the_corpus(
    ground_truth: GroundTruth, documents: dict[str, Document]
) -> None:
    check_gold_exists(ground_truth, documents, str)


@pytest.mark.parametrize(("kind", "needed"), [("lookup", 1), ("cross_language", 1), ("two_documents", 2)])
def test_an_answerable_question_needs_as_many_documents_as_its_kind_says(
    kind: str, needed: int, questions: tuple[Question, ...]
) -> None:
    for question in of_type(questions, kind):
        assert len(question.gold) == needed, question.id
        uris = [item.doc_uri for alternatives in question.gold for item in alternatives]
        assert len(set(uris)) == len(uris), question.id
        assert question.expected_facts, question.id


def test_an_unanswerable_question_has_neither_gold_nor_facts(questions: tuple[Question, ...]) -> None:
    for question in of_type(questions, "unanswerable"):
        assert question.gold == ()
        assert question.expected_facts == ()


def test_every_question_has_a_reference_answer(questions: tuple[Question, ...]) -> None:
    assert all(question.expected_response for question in questions)


def test_a_lookup_question_stays_within_its_language(
    questions: tuple[Question, ...], documents: dict[str, Document]
) -> None:
    for question in of_type(questions, "lookup"):
        assert {document.lang for document in gold_documents(question, documents)} == {question.tags["lang"]}


def test_a_cross_language_question_crosses_and_both_directions_occur(
    questions: tuple[Question, ...], documents: dict[str, Document]
) -> None:
    directions = Counter(
        (question.tags["lang"], document.lang)
        for question in of_type(questions, "cross_language")
        for document in gold_documents(question, documents)
    )
    assert set(directions) == {("en", "ja"), ("ja", "en")}
    assert min(directions.values()) >= 10


def test_the_splits_are_balanced_in_every_type_and_language(questions: tuple[Question, ...]) -> None:
    assert {question.tags["split"] for question in questions} == set(SPLITS)
    counts = Counter(tuple(question.tags[tag] for tag in ("type", "lang", "split")) for question in questions)
    for kind, lang in {(kind, lang) for kind, lang, _ in counts}:
        sizes = [counts[kind, lang, split] for split in SPLITS]
        assert max(sizes) - min(sizes) <= 2, (kind, lang)


def test_no_question_is_asked_in_two_splits() -> None:
    path = FOLDER / "ground_truth.jsonl"
    asked = [
        (split, question.id, terms(question.question))
        for split in SPLITS
        for question in read_ground_truth(path, split=split).questions
    ]
    assert len({identity for _, identity, _ in asked}) == len(asked)
    near = [
        (one, other)
        for (split, one, first), (elsewhere, other, second) in combinations(asked, 2)
        if split != elsewhere and len(first & second) >= NEAR_DUPLICATE * len(first | second)
    ]
    assert not near


@pytest.mark.parametrize("kind", ["lookup", "two_documents"])
def test_gold_documents_support_the_expected_facts(
    kind: str, questions: tuple[Question, ...], documents: dict[str, Document]
) -> None:
    known = {uri: terms(f"{document.title}\n{document.text}") for uri, document in documents.items()}
    for question in of_type(questions, kind):
        held = frozenset[str]().union(*(known[d.doc_uri] for d in gold_documents(question, documents)))
        for fact in question.expected_facts:
            assert len(terms(fact) & held) >= LEAST_SUPPORT * len(terms(fact)), (question.id, fact)


def test_the_card_shows_the_counts_that_its_command_prints(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    shown = re.search(r"```python\n(?P<command>.*?)```\n\n```text\n(?P<output>.*?)```", card, re.DOTALL)
    assert shown is not None
    monkeypatch.chdir(ROOT)
    exec(compile(shown["command"], "README.md", "exec"), {})
    assert capsys.readouterr().out == shown["output"]


def test_the_data_folder_holds_no_python() -> None:
    # It would make `datasets` importable and pass for Hugging Face's library.
    assert not list((ROOT / "datasets").rglob("*.py"))


def test_no_path_of_a_machine_is_in_the_data() -> None:
    paths = re.compile(r"(?<![\w.])/(?:work|home|root|Users)/|/tmp/")
    for file in [FOLDER / "ground_truth.jsonl", *sorted(FOLDER.rglob("*.md"))]:
        assert not paths.search(file.read_text(encoding="utf-8")), file.name
