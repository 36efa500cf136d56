"""Questions of a BEIR directory: `queries.jsonl` (or `.gz`) and `qrels/<split>.tsv`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from eval.questions import GoldItem, Question
from retrieval.errors import GroundTruthError
from retrieval.suggestions import did_you_mean, there_is
from retrieval.tables import read_json_lines, read_lines

_DEFAULT_SPLIT = "test"
_HEADER = ["query-id", "corpus-id", "score"]
_TAGS = ("type", "lang")


def is_beir_directory(path: Path) -> bool:
    """Whether there are judgements and queries in it."""
    return (path / "qrels").is_dir() and _queries_path(path).is_file()


def choose_split(path: Path, split: str | None) -> str:
    """The split to read: the one asked for, else the only one there is, else `test`.

    Raises:
        GroundTruthError: if there is no such split; names those there are.
    """
    splits = sorted(file.stem for file in (path / "qrels").glob("*.tsv"))
    if split is None:
        split = splits[0] if len(splits) == 1 else _DEFAULT_SPLIT
    if split not in splits:
        raise GroundTruthError(
            f"{path / 'qrels'} has no split {split!r}. {did_you_mean(split, splits)}"
            f"Splits there: {there_is(splits)}."
        )
    return split


def read_beir_questions(path: Path, split: str) -> Iterator[tuple[str, Question]]:
    """The queries that `qrels/<split>.tsv` judges, with their places, in the order of the queries file.

    Grades are kept; negative ones, which trec_eval counts as not relevant, become 0. Where a query or its
    `metadata` holds `answers` (or `answer`), any one of which is right, they become `accepted_answers` and
    the first of them `expected_response`. Tags are the split, and `type` and `lang` where they are given.

    Raises:
        GroundTruthError: if a line is not usable, or a judged query is not in the queries file.
    """
    qrels = path / "qrels" / f"{split}.tsv"
    judgements = _read_judgements(qrels)
    missing = dict.fromkeys(judgements)
    for place, row in read_json_lines(_queries_path(path), GroundTruthError):
        query_id = row.get("_id")
        if not isinstance(query_id, str | int):
            raise GroundTruthError(f"{place}: _id is missing or not a text: {query_id!r}.")
        if judged := judgements.get(str(query_id)):
            missing.pop(str(query_id), None)
            yield place, _to_question(str(query_id), row, judged, split, place)
    if missing:
        raise GroundTruthError(
            f"{qrels} judges {len(missing)} queries that {_queries_path(path).name} lacks, "
            f"first {next(iter(missing))!r}. Add them, or remove the lines."
        )


def _queries_path(path: Path) -> Path:
    plain = path / "queries.jsonl"
    return plain if plain.exists() else path / "queries.jsonl.gz"


def _read_judgements(path: Path) -> dict[str, dict[str, int]]:
    judgements: dict[str, dict[str, int]] = defaultdict(dict)
    for number, line in read_lines(path, GroundTruthError):
        cells = line.rstrip("\r\n").split("\t")
        if cells == _HEADER or cells == [""]:
            continue
        try:
            query_id, doc_uri, grade = cells
            judgements[query_id][doc_uri] = max(0, int(grade))
        except ValueError:
            raise GroundTruthError(
                f"{path}:{number}: expected query-id, corpus-id and a whole number, separated by tabs, "
                f"not {line.strip()!r}."
            ) from None
    return dict(judgements)


def _to_question(
    query_id: str, row: Mapping[str, Any], judged: Mapping[str, int], split: str, place: str
) -> Question:
    details = {**(row.get("metadata") or {}), **row}
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
