"""Read a ground truth: the questions to ask, and what a good program retrieves, cites and says.

Formats, by what the path is: a BEIR directory; `.jsonl` or `.jsonl.gz` in the shape of Databricks'
agent-evaluation set; `.csv`, `.parquet`, or `.jsonl` with `columns`, a table.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from itertools import islice
from pathlib import Path

from eval.agent_evaluation_set import read_evaluation_set
from eval.beir_questions import choose_split, is_beir_directory, read_beir_questions
from eval.question_tables import read_table
from eval.questions import Gold, GoldItem, Question
from retrieval.errors import ConfigurationError, GroundTruthError
from retrieval.suggestions import did_you_mean, there_is

__all__ = ["Gold", "GoldItem", "GroundTruth", "Question", "check_gold_exists", "read_ground_truth"]

_NAMED_AT_MOST = 5
_DIGEST_LENGTH = 32


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
) -> GroundTruth:
    """The first `limit` questions of a split; of all splits if none is named (BEIR: see `choose_split`).

    The whole file is checked, whatever is selected. `columns` maps fields to a table's columns, as
    `eval.question_tables` describes.

    Raises:
        ConfigurationError: if `limit` or `columns` makes no sense.
        GroundTruthError: if the file is not usable: says where, what is wrong, and what to do.
    """
    path = Path(path)
    if limit is not None and limit < 1:
        raise ConfigurationError(f"limit = {limit} leaves no question. Use 1 or more, or leave it out.")
    if is_beir_directory(path):
        if columns is not None:
            raise ConfigurationError(
                f"{path} is a BEIR directory, where columns has no meaning. Leave it out."
            )
        # Large public sets do ask one question twice, with judgements of its own each time.
        questions = _without_duplicates(
            read_beir_questions(path, choose_split(path, split)), repeats_allowed=True
        )
    else:
        questions = _of_split(path, _without_duplicates(_read_file(path, columns)), split)
    selected = tuple(islice(questions, limit))
    if not selected:
        raise GroundTruthError(f"{path} holds no question.")
    return GroundTruth(name=path.name.removesuffix(".gz").rsplit(".", 1)[0], path=path, questions=selected)


def check_gold_exists(
    ground_truth: GroundTruth, known_doc_uris: Iterable[str], normalize: Callable[[str], str]
) -> None:
    """Make sure that every relevant document is known, under normalized URIs.

    Raises:
        GroundTruthError: names the first few that are not, the questions that want them, and for the very
            first the known document that is nearest.
    """
    known = {normalize(uri): uri for uri in known_doc_uris}
    wanted_by: dict[str, list[str]] = {}
    for question in ground_truth.questions:
        for item in (item for alternatives in question.gold for item in alternatives if item.grade > 0):
            if normalize(item.doc_uri) not in known:
                wanted_by.setdefault(item.doc_uri, []).append(question.id)
    if wanted_by:
        raise GroundTruthError(_unknown_documents(ground_truth.path, wanted_by, known, normalize))


def _unknown_documents(
    path: Path, wanted_by: Mapping[str, list[str]], known: Mapping[str, str], normalize: Callable[[str], str]
) -> str:
    named = ", ".join(
        f"{uri!r} (question {', '.join(map(repr, ids[:3]))}{' …' if len(ids) > 3 else ''})"
        for uri, ids in islice(wanted_by.items(), _NAMED_AT_MOST)
    )
    nearest = get_close_matches(normalize(next(iter(wanted_by))), known, n=1, cutoff=0.8)
    return (
        f"{path}: the gold names {len(wanted_by)} documents that are not in the index: {named}"
        f"{', …' if len(wanted_by) > _NAMED_AT_MOST else ''}. "
        f"{f'Nearest to the first: {known[nearest[0]]!r}. ' if nearest else ''}"
        "Add the documents, correct the gold, or set how URIs are normalized."
    )


def _read_file(path: Path, columns: Mapping[str, str] | None) -> Iterator[tuple[str, Question]]:
    if not path.exists():
        raise GroundTruthError(f"No ground truth at '{path}'. Check the path.")
    if path.is_dir():
        raise GroundTruthError(f"{path} is no BEIR directory: it needs queries.jsonl and qrels/<split>.tsv.")
    kind = path.name.removesuffix(".gz")
    if kind.endswith(".jsonl") and columns is None:
        return read_evaluation_set(path)
    if kind.endswith(".jsonl") or path.suffix in (".csv", ".parquet"):
        return read_table(path, columns or {})
    raise GroundTruthError(
        f"{path}: unknown format. Give a .jsonl, .csv or .parquet file, or a BEIR directory."
    )


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


def _of_split(path: Path, questions: list[Question], split: str | None) -> list[Question]:
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
