"""A BEIR directory: `queries.jsonl` (or `.gz`), `qrels/<split>.tsv`, and perhaps the `corpus.jsonl`.

What BEIR has no place for stands in a query's `metadata` under `citeqa` (see `eval.formats.extras`), so that
what we write comes back whole, unanswerable questions included: BEIR itself judges at least one document for
each question.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from eval.formats.extras import KEY, extras_beside, judgements, with_extras
from eval.formats.splits import DEFAULT_SPLIT, by_split, choose_among
from eval.formats.writing import write_lines
from eval.questions import GoldItem, Question
from program.files import to_json
from retrieval.errors import GroundTruthError
from retrieval.tables import read_json_lines, read_lines

_HEADER = ["query-id", "corpus-id", "score"]
_TAGS = ("type", "lang")
_READ = {"answers", "answer", *_TAGS}
_UNJUDGED = "unjudged_in"


def is_beir_directory(path: Path) -> bool:
    """Whether there are judgements and queries in it."""
    return (path / "qrels").is_dir() and _queries_path(path).is_file()


def beir_splits(path: Path) -> list[str]:
    """The splits that have judgements."""
    return sorted(file.stem for file in (path / "qrels").glob("*.tsv"))


def choose_split(path: Path, split: str | None) -> str:
    """The split to read: the one asked for, else the only one there is, else `test`.

    Raises:
        GroundTruthError: if there is no such split; names those there are.
    """
    return choose_among(beir_splits(path), split, path / "qrels")


def read_beir_questions(path: Path, split: str) -> Iterator[tuple[str, Question]]:
    """The queries that `qrels/<split>.tsv` judges, with their places, in the order of the queries file.

    Grades are kept; negative ones, which trec_eval counts as not relevant, become 0. Where a query or its
    `metadata` holds `answers` (or `answer`), any one of which is right, they become `accepted_answers` and
    the first of them `expected_response`. Tags are the split, and `type` and `lang` where they are given.

    Raises:
        GroundTruthError: if a line is not usable, or a judged query is not in the queries file.
    """
    qrels = path / "qrels" / f"{split}.tsv"
    judged_of = _read_judgements(qrels)
    missing = dict.fromkeys(judged_of)
    for place, row in read_json_lines(_queries_path(path), GroundTruthError):
        query_id = row.get("_id")
        if not isinstance(query_id, str | int):
            raise GroundTruthError(f"{place}: _id is missing or not a text: {query_id!r}.")
        judged = judged_of.get(str(query_id), {})
        if judged or _unjudged_split(row) == split:
            missing.pop(str(query_id), None)
            yield (
                place,
                with_extras(_to_question(str(query_id), row, judged, split, place), _extras(row), place),
            )
    if missing:
        raise GroundTruthError(
            f"{qrels} judges {len(missing)} queries that {_queries_path(path).name} lacks, "
            f"first {next(iter(missing))!r}. Add them, or remove the lines."
        )


def write_beir_questions(questions: Iterable[Question], path: Path) -> None:
    """Write `queries.jsonl`, and judgements by the tag `split` (`test` for a question without one).

    What is read back, split by split, is equal to the questions. Judgements of other splits that were there go,
    as their queries do; other files stay.

    Raises:
        GroundTruthError: if an id or a doc_uri holds a tab or a line break, or a split cannot name a file.
        StorageError: if the disk refuses.
    """
    questions = list(questions)
    splits = by_split(questions)
    for split, members in splits.items():
        write_lines(path / "qrels" / f"{split}.tsv", _qrels_lines(members))
    write_lines(path / "queries.jsonl", (to_json(_to_query(question)) for question in questions))
    for split in set(beir_splits(path)) - set(splits):
        (path / "qrels" / f"{split}.tsv").unlink()


def held_by_beir(question: Question) -> Question | None:
    """What of the question BEIR's own fields hold; None where no document is judged."""
    return _held(question) if question.gold else None


def unread_query_fields(path: Path) -> Counter[str]:
    """The fields of the queries that no question holds, with the queries counted."""
    unread: Counter[str] = Counter()
    for _, row in read_json_lines(_queries_path(path), GroundTruthError):
        unread.update(name for name in row if name not in {*_READ, "_id", "text", "metadata"})
        metadata = row.get("metadata")
        if isinstance(metadata, dict):
            unread.update(f"metadata.{name}" for name in metadata if name not in {*_READ, KEY})
    return unread


def _qrels_lines(questions: Iterable[Question]) -> Iterator[bytes]:
    yield "\t".join(_HEADER).encode()
    for question in questions:
        for doc_uri, grade in judgements(question.gold).items():
            yield f"{_cell(question.id)}\t{_cell(doc_uri)}\t{grade}".encode()


def _cell(text: str) -> str:
    if any(separator in text for separator in "\t\n\r") or not text or not _encodable(text):
        raise GroundTruthError(
            f"{text!r} cannot stand in a table of judgements, whose cells end at tabs and line breaks. "
            "Change the id or the doc_uri, or choose another format."
        )
    return text


def _encodable(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _to_query(question: Question) -> dict[str, Any]:
    extras = extras_beside(question, _held(question))
    if not question.gold:
        extras[_UNJUDGED] = question.tags.get("split", DEFAULT_SPLIT)
    query = _native_query(question)
    return {**query, "metadata": query["metadata"] | {KEY: extras}} if extras else query


def _native_query(question: Question) -> dict[str, Any]:
    metadata: dict[str, Any] = {tag: question.tags[tag] for tag in _TAGS if tag in question.tags}
    if question.accepted_answers:
        metadata["answers"] = list(question.accepted_answers)
    return {"_id": question.id, "text": question.question, "metadata": metadata}


def _held(question: Question) -> Question:
    split = question.tags.get("split", DEFAULT_SPLIT)
    return _to_question(question.id, _native_query(question), judgements(question.gold), split, question.id)


def _extras(row: Mapping[str, Any]) -> Any:
    metadata = row.get("metadata")
    extras = metadata.get(KEY) if isinstance(metadata, dict) else None
    return {k: v for k, v in extras.items() if k != _UNJUDGED} if isinstance(extras, dict) else extras


def _unjudged_split(row: Mapping[str, Any]) -> Any:
    metadata = row.get("metadata")
    extras = metadata.get(KEY) if isinstance(metadata, dict) else None
    return extras.get(_UNJUDGED) if isinstance(extras, dict) else None


def _queries_path(path: Path) -> Path:
    plain = path / "queries.jsonl"
    return plain if plain.exists() else path / "queries.jsonl.gz"


def _read_judgements(path: Path) -> dict[str, dict[str, int]]:
    judged_of: dict[str, dict[str, int]] = defaultdict(dict)
    for number, line in read_lines(path, GroundTruthError):
        cells = line.rstrip("\r\n").split("\t")
        if cells == _HEADER or cells == [""]:
            continue
        try:
            query_id, doc_uri, grade = cells
            judged_of[query_id][doc_uri] = max(0, int(grade))
        except ValueError:
            raise GroundTruthError(
                f"{path}:{number}: expected query-id, corpus-id and a whole number, separated by tabs, "
                f"not {line.strip()!r}."
            ) from None
    return dict(judged_of)


def _to_question(
    query_id: str, row: Mapping[str, Any], judged: Mapping[str, int], split: str, place: str
) -> Question:
    metadata = row.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise GroundTruthError(f"{place}: metadata: expected an object {{…}}, got {metadata!r:.60}.")
    details = {**metadata, **row}
    answers = _answers(details)
    try:
        return Question(
            id=query_id,
            question=str(row.get("text") or ""),
            gold=tuple((GoldItem(doc_uri, grade),) for doc_uri, grade in judged.items()),
            expected_response=answers[0] if answers else "",
            accepted_answers=answers,
            tags={"split": split} | {tag: details[tag] for tag in _TAGS if isinstance(details.get(tag), str)},
        )
    except GroundTruthError as error:
        raise GroundTruthError(f"{place}: {error}") from None


def _answers(details: Mapping[str, Any]) -> tuple[str, ...]:
    answers = details.get("answers", details.get("answer")) or ()
    listed = [answers] if isinstance(answers, str) else answers
    return tuple(dict.fromkeys(text for text in listed if isinstance(text, str) and text.strip()))
