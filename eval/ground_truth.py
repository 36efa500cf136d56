"""Read and write a ground truth: the questions to ask, and what a good program retrieves, cites and says.

Formats, by what the path is (`eval.formats`): Databricks' agent-evaluation set (`.jsonl`), a table (`.csv`,
`.parquet`, or `.jsonl` with `columns`), SQuAD's `.json`, a BEIR or TREC directory, `trec:TOPICS,QRELS`, or an
evaluation dataset of MLflow, `mlflow:<name>`.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from eval.formats.agent_evaluation_set import read_evaluation_set, write_evaluation_set
from eval.formats.beir import beir_splits, choose_split, read_beir_questions, write_beir_questions
from eval.formats.choice import Format, format_of, target_format
from eval.formats.mlflow_datasets import dataset_name, read_mlflow_questions, write_mlflow_questions
from eval.formats.squad import read_squad_questions, write_squad_questions
from eval.formats.table_writing import write_table
from eval.formats.tables import read_table
from eval.formats.trec import choose_trec_files, read_trec_questions, trec_files, write_trec_questions
from eval.missing_gold import MissingGold, check_gold_exists, find_missing_gold
from eval.questions import Gold, GoldItem, Question
from retrieval.errors import ConfigurationError, GroundTruthError
from retrieval.suggestions import did_you_mean, there_is
from retrieval.types import Document

__all__ = [
    "Format",
    "Gold",
    "GoldItem",
    "GroundTruth",
    "MissingGold",
    "Question",
    "check_gold_exists",
    "find_missing_gold",
    "read_every_split",
    "read_ground_truth",
    "write_ground_truth",
]

_DIGEST_LENGTH = 32

_REPEATS_ALLOWED = {"beir", "trec", "squad"}
"""Large public sets do ask one question twice, with judgements of its own each time."""


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """The questions that were selected. `name` is the file's or directory's, without its extension."""

    name: str
    path: Path
    questions: tuple[Question, ...]

    @property
    def digest(self) -> str:
        """A hash of the questions' content, 32 characters: the same in any order and from any format."""
        hashes = sorted(hashlib.sha256(_canonical(question)).hexdigest() for question in self.questions)
        return hashlib.sha256("".join(hashes).encode()).hexdigest()[:_DIGEST_LENGTH]


def read_ground_truth(
    path: str | Path,
    *,
    split: str | None = None,
    limit: int | None = None,
    columns: Mapping[str, str] | None = None,
    format: Format | None = None,
    store: str | None = None,
) -> GroundTruth:
    """The first `limit` questions of a split; of all splits if none is named (BEIR, TREC: see `choose_split`).

    The whole file is checked, whatever is selected. `columns` maps fields to a table's columns, as
    `eval.formats.tables` describes. `format` is found out where it is not given. `store` is the tracking store
    of an `mlflow:` dataset, by default the one that MLflow points at.

    Raises:
        ConfigurationError: if `limit` or `columns` makes no sense.
        GroundTruthError: if the file is not usable: says where, what is wrong, and what to do.
        StorageError: if MLflow's store cannot be reached.
    """
    if limit is not None and limit < 1:
        raise ConfigurationError(f"limit = {limit} leaves no question. Use 1 or more, or leave it out.")
    format = format or format_of(path, has_columns=columns is not None)
    placed = _read(path, format, split, columns, store)
    questions = _without_duplicates(placed, repeats_allowed=format in _REPEATS_ALLOWED)
    if format not in ("beir", "trec"):
        questions = _of_split(path, questions, split)
    return _selected(path, islice(questions, limit))


def read_every_split(
    path: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    format: Format | None = None,
    store: str | None = None,
) -> GroundTruth:
    """The questions of all splits, for work on a whole set. One text may be asked twice.

    A query that a BEIR or TREC directory judges in two splits comes once for each.

    Raises:
        GroundTruthError: as `read_ground_truth`.
    """
    format = format or format_of(path, has_columns=columns is not None)
    placed = (
        placed
        for split in _splits_to_read(path, format)
        for placed in _read(path, format, split, columns, store)
    )
    return _selected(path, _without_duplicates(placed, repeats_allowed=True))


def write_ground_truth(
    ground_truth: GroundTruth,
    target: str | Path,
    format: Format | None = None,
    *,
    find_document: Callable[[str], Document | None] = lambda _: None,
    store: str | None = None,
    replace: bool = False,
) -> None:
    """Write the questions, in place of what is at `target`; `eval.formats.conversion` says what gets lost.

    `format` is found out from the name where it is not given. SQuAD puts questions under the texts of their
    gold documents, which `find_document` gives. A dataset of MLflow that has records is refused unless `replace`.

    Raises:
        GroundTruthError: if the format cannot hold something at all, such as white space in an id (TREC).
        StorageError: if the disk or MLflow's store refuses.
    """
    questions = ground_truth.questions
    if twice := [id_ for id_, times in Counter(question.id for question in questions).items() if times > 1]:
        raise GroundTruthError(
            f"{ground_truth.path}: {len(twice)} questions stand in several splits, first {twice[0]!r}. "
            "Name one split with --split."
        )
    match format or target_format(target):
        case "jsonl":
            write_evaluation_set(questions, Path(target))
        case "table":
            write_table(questions, Path(target))
        case "beir":
            write_beir_questions(questions, Path(target))
        case "trec":
            write_trec_questions(questions, target)
        case "squad":
            write_squad_questions(questions, Path(target), find_document)
        case "mlflow":
            write_mlflow_questions(questions, _dataset(target), store, replace=replace)


def _read(
    path: str | Path, format: Format, split: str | None, columns: Mapping[str, str] | None, store: str | None
) -> Iterator[tuple[str, Question]]:
    """All questions of a file with their places; of a directory those of the split."""
    if columns is not None and format != "table":
        raise ConfigurationError(f"{path} is {_NAMES[format]}, where columns has no meaning. Leave it out.")
    match format:
        case "jsonl":
            return read_evaluation_set(Path(path))
        case "table":
            return read_table(Path(path), columns or {})
        case "beir":
            return read_beir_questions(Path(path), choose_split(Path(path), split))
        case "trec":
            return read_trec_questions(choose_trec_files(path, split))
        case "squad":
            return read_squad_questions(Path(path))
        case "mlflow":
            return read_mlflow_questions(_dataset(path), store)


_NAMES = {
    "jsonl": "an agent-evaluation set",
    "beir": "a BEIR directory",
    "trec": "a TREC collection",
    "squad": "a SQuAD file",
    "mlflow": "a dataset of MLflow",
}


def _splits_to_read(path: str | Path, format: Format) -> list[str | None]:
    match format:
        case "beir":
            return list(beir_splits(Path(path)))
        case "trec":
            return [files.split or None for files in trec_files(path)]
    return [None]


def _dataset(address: str | Path) -> str:
    return dataset_name(address) or str(address)


def _selected(path: str | Path, questions: Iterable[Question]) -> GroundTruth:
    selected = tuple(questions)
    if not selected:
        raise GroundTruthError(f"{path} holds no question.")
    path = Path(path)
    name = dataset_name(path) or path.name.removesuffix(".gz").rsplit(".", 1)[0]
    return GroundTruth(name, path, selected)


def _without_duplicates(
    placed: Iterable[tuple[str, Question]], *, repeats_allowed: bool = False
) -> list[Question]:
    ids: dict[str, str] = {}
    texts: dict[str, str] = {}
    questions = []
    for place, question in placed:
        text = json.dumps([question.question.casefold().split(), *map(dict, question.history)])
        if not repeats_allowed and texts.setdefault(text, place) != place:
            raise GroundTruthError(
                f"{place}: question {question.question!r} was asked before, at {texts[text]}. "
                "Merge the two: several gold documents can stand in one row."
            )
        if ids.setdefault(question.id, place) != place:
            raise GroundTruthError(
                f"{place}: id {question.id!r} was used before, at {ids[question.id]}. Change one."
            )
        questions.append(question)
    return questions


def _of_split(path: str | Path, questions: list[Question], split: str | None) -> list[Question]:
    if split is None:
        return questions
    splits = sorted({question.tags["split"] for question in questions if "split" in question.tags})
    if questions and split not in splits:
        raise GroundTruthError(
            f"{path} has no split {split!r}. {did_you_mean(split, splits)}Splits there: {there_is(splits)}."
        )
    return [question for question in questions if question.tags.get("split") == split]


def _canonical(question: Question) -> bytes:
    return json.dumps(asdict(question), sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass")
