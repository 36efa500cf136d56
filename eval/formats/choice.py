"""Which format a ground truth is in, or is to be written in."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias, get_args

from eval.formats.beir import is_beir_directory
from eval.formats.mlflow_datasets import PREFIX as MLFLOW
from eval.formats.trec import PREFIX as TREC
from eval.formats.trec import trec_files
from retrieval.errors import GroundTruthError
from retrieval.tables import table_format

Format: TypeAlias = Literal["jsonl", "table", "beir", "trec", "squad", "mlflow"]
"""`jsonl` is Databricks' agent-evaluation set; a `table` is CSV, Parquet, or JSONL with mapped columns."""

FORMATS: tuple[Format, ...] = get_args(Format)

_READABLE = (
    "Give a .jsonl, .csv, .parquet or SQuAD .json file, a BEIR or TREC directory, mlflow:<name>, or "
    "trec:TOPICS,QRELS."
)


def format_of(path: str | Path, *, has_columns: bool = False) -> Format:
    """The format of what is at `path`.

    Raises:
        GroundTruthError: if nothing is there, or nothing that is known.
    """
    if format_ := _by_prefix(path):
        return format_
    path = Path(path)
    if not path.exists():
        raise GroundTruthError(f"No ground truth at '{path}'. Check the path.")
    if path.is_dir():
        return _directory_format(path)
    format_ = _by_name(path)
    if format_ is None:
        raise GroundTruthError(f"{path}: unknown format. {_READABLE}")
    return "table" if has_columns and format_ == "jsonl" else format_


def target_format(path: str | Path) -> Format:
    """The format that the name of a file to be written asks for.

    Raises:
        GroundTruthError: if it asks for none, as the name of a directory does not.
    """
    format_ = _by_prefix(path) or _by_name(Path(path))
    if format_ is None:
        raise GroundTruthError(
            f"{path}: the name does not say which format to write. Name it --to {'|'.join(FORMATS)}, or end it "
            "in .jsonl, .csv, .parquet or .json (SQuAD)."
        )
    return format_


def _by_prefix(path: str | Path) -> Format | None:
    text = str(path)
    return "mlflow" if text.startswith(MLFLOW) else "trec" if text.startswith(TREC) else None


def _by_name(path: Path) -> Format | None:
    match table_format(path):
        case ".jsonl":
            return "jsonl"
        case ".csv" | ".parquet":
            return "table"
        case ".json":
            return "squad"
    return None


def _directory_format(path: Path) -> Format:
    if is_beir_directory(path):
        return "beir"
    if trec_files(path):
        return "trec"
    raise GroundTruthError(
        f"{path} is no BEIR directory: it needs queries.jsonl and qrels/<split>.tsv. Nor is it one of TREC: "
        "topics.<split>.tsv and qrels.<split>.txt."
    )
