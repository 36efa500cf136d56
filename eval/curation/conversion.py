"""Copy a ground truth into another format, and say what the copy lacks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.formats.agent_evaluation_set import unread_fields
from eval.formats.beir import held_by_beir, unread_query_fields
from eval.formats.choice import Format, format_of, target_format
from eval.formats.extras import Loss, find_losses
from eval.formats.mlflow_datasets import dataset_name, held_by_mlflow, unread_record_fields
from eval.formats.squad import held_by_squad, squad_documents, unread_squad_fields
from eval.formats.table_writing import held_by_table
from eval.formats.tables import unread_columns
from eval.formats.trec import PREFIX as TREC
from eval.formats.trec import held_by_trec
from eval.formats.writing import write_lines
from eval.ground_truth import GroundTruth, write_ground_truth
from eval.questions import Question
from program.files import to_json
from retrieval.corpus import ReadingSettings, read_documents
from retrieval.errors import ConfigurationError
from retrieval.types import Document

_NAMES = {
    "jsonl": "The agent-evaluation set",
    "table": "A table",
    "beir": "BEIR",
    "trec": "TREC",
    "squad": "SQuAD",
    "mlflow": "MLflow",
}


@dataclass(frozen=True, slots=True)
class Copy:
    """What became of a copy.

    Attributes:
        lost: what the format does not hold, and the copy lacks.
        beside: what its own fields do not hold and stands beside them, where citeqa alone reads it.
        unread: fields of the source that no question holds, and the copy lacks, with the rows that have them.
        documents: how many documents were written beside the questions.
    """

    format: Format
    questions: int
    lost: Sequence[Loss]
    beside: Sequence[Loss]
    unread: Mapping[str, int]
    documents: int = 0

    def warnings(self) -> list[str]:
        """What a person must know of the copy, a line each; none when it lacks nothing."""
        name = _NAMES[self.format]
        lines = [f"{name} has no place for it, and the copy lacks: {_describe(loss)}" for loss in self.lost]
        lines += [
            f"{name} has no place for it; it is under 'citeqa', which other programs ignore: {_describe(loss)}"
            for loss in self.beside
        ]
        lines += [
            f"Not read from the source, and the copy lacks: {field} ({count} rows)"
            for field, count in self.unread.items()
        ]
        return lines


def copy_ground_truth(
    ground_truth: GroundTruth,
    source: str,
    target: str,
    *,
    source_format: Format | None = None,
    to_format: Format | None = None,
    columns: Mapping[str, str] | None = None,
    corpus: str | None = None,
    store: str | None = None,
    overwrite: bool = False,
) -> Copy:
    """Write the questions that were read from `source` to `target`.

    `corpus` holds the documents that SQuAD needs, and that are written as BEIR's `corpus.jsonl`; a BEIR or SQuAD
    source brings its own. `store` is the tracking store to read from; a dataset of MLflow is written to where
    MLflow points.

    Raises:
        ConfigurationError: if there is something at `target` and `overwrite` is not set.
        GroundTruthError: as `write_ground_truth`; CorpusError as `read_documents`; StorageError.
    """
    to_format = to_format or target_format(target)
    source_format = source_format or format_of(source, has_columns=columns is not None)
    check_free(target, to_format, overwrite)
    read = document_reader(source, source_format, corpus)
    wanted = _gold_documents(ground_truth.questions, read) if to_format == "squad" else {}
    write_ground_truth(ground_truth, target, to_format, find_document=wanted.get, replace=overwrite)
    documents = 0
    if to_format == "beir" and read is not None:
        documents = write_documents(read(), Path(target) / "corpus.jsonl", key="_id")
    lost, beside = _losses(ground_truth.questions, to_format, wanted.get)
    left_out = sum(loss.questions for loss in lost if loss.whole)
    return Copy(
        format=to_format,
        questions=len(ground_truth.questions) - left_out,
        lost=lost,
        beside=beside,
        unread=dict(unread_of(source, source_format, columns, store)),
        documents=documents,
    )


def check_free(target: str, format: Format, overwrite: bool) -> None:
    """Make sure that nothing is overwritten unasked. A dataset of MLflow is checked when it is written.

    Raises:
        ConfigurationError: if there is a file, or a folder that is not empty.
    """
    if format == "mlflow" or overwrite:
        return
    names = target.removeprefix(TREC).split(",") if target.startswith(TREC) else [target]
    for path in map(Path, names):
        if path.is_file() or (path.is_dir() and any(path.iterdir())):
            raise ConfigurationError(
                f"There is something at '{path}' already. Choose another place, or replace it with --overwrite."
            )


def document_reader(
    source: str, format: Format, corpus: str | None
) -> Callable[[], Iterator[Document]] | None:
    """What reads the documents of a ground truth, from `corpus` or from the source itself; None without any."""
    if corpus is not None:
        return lambda: read_documents(corpus)
    match format:
        case "squad":
            return lambda: squad_documents(Path(source))
        case "beir" if any(Path(source).glob("corpus.jsonl*")):
            return lambda: read_documents(source, ReadingSettings(layout="beir"))
    return None


def write_documents(documents: Iterable[Document], target: Path, key: str = "doc_uri") -> int:
    """Write documents as JSON Lines, which `citeqa index --corpus` reads, with the doc_uri under `key`; how many.

    Raises:
        StorageError: if the disk refuses.
    """
    written = 0

    def lines() -> Iterator[bytes]:
        nonlocal written
        for document in documents:
            written += 1
            about = {"title": document.title, "text": document.text, "lang": document.lang}
            row = {key: document.doc_uri, **{name: value for name, value in about.items() if value}}
            yield to_json({**row, "text": document.text, "metadata": dict(document.metadata)})

    write_lines(target, lines())
    return written


def unread_of(
    source: str, format: Format, columns: Mapping[str, str] | None = None, store: str | None = None
) -> Counter[str]:
    """The fields of a source that no question holds, with the rows that have them counted."""
    match format:
        case "jsonl":
            return unread_fields(Path(source))
        case "table":
            return unread_columns(Path(source), columns or {})
        case "beir":
            return unread_query_fields(Path(source))
        case "squad":
            return unread_squad_fields(Path(source))
        case "mlflow":
            return unread_record_fields(dataset_name(source) or source, store)
        case "trec":
            return Counter()


def _losses(
    questions: Sequence[Question], format: Format, find: Callable[[str], Document | None]
) -> tuple[list[Loss], list[Loss]]:
    """What is lost, and what stands beside the format's own fields."""
    match format:
        case "table":
            return find_losses(questions, held_by_table), []
        case "trec":
            return find_losses(questions, held_by_trec), []
        case "mlflow":
            return find_losses(questions, held_by_mlflow(), "questions in the words of an earlier one"), []
        case "beir":
            return [], find_losses(questions, held_by_beir)
        case "squad":
            return [], find_losses(questions, lambda question: held_by_squad(question, find))
        case "jsonl":
            return [], []


def _gold_documents(
    questions: Iterable[Question], read: Callable[[], Iterator[Document]] | None
) -> dict[str, Document]:
    wanted = {
        item.doc_uri for question in questions for alternatives in question.gold for item in alternatives
    }
    return {document.doc_uri: document for document in read() if document.doc_uri in wanted} if read else {}


def _describe(loss: Loss) -> str:
    more = "" if loss.questions == 1 else f", first {loss.first!r}"
    which = f"question {loss.first!r}" if loss.questions == 1 else f"{loss.questions} questions"
    return f"{loss.what} ({which}{more})"
