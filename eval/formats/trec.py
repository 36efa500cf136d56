"""TREC test collections: a file of topics, and a file of judgements (qrels).

They are addressed by their directory, where `topics.<split>.txt` (or `.tsv`, `.trec`) stands beside
`qrels.<split>.txt`, as Anserini names them, or both without a split; or one by one: `trec:TOPICS,QRELS`. Each
may be gzipped.

Topics are lines `id<TAB>text`, or the classic form `<top> <num> Number: 301 <title> text … </top>`, of which the
title is the question, or the description where there is no title. Qrels are lines of `topic iteration document
grade`, separated by white space; grades below 0, which trec_eval counts as not relevant, become 0. A topic that
nobody judged is left out, as trec_eval does: it would pass for unanswerable.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from eval.formats.extras import judgements
from eval.formats.splits import by_split, choose_among
from eval.formats.trec_topics import SPACES, classic_topic, one_line, read_topics, topic_line
from eval.formats.writing import write_lines
from eval.questions import GoldItem, Question
from program.well_formed import well_formed
from retrieval.errors import GroundTruthError
from retrieval.tables import read_lines

PREFIX = "trec:"

_TOPICS = re.compile(r"topics(?:\.(?P<split>.+))?\.(?:txt|tsv|trec)(?:\.gz)?")
_QRELS = re.compile(r"qrels(?:\.(?P<split>.+))?\.(?:txt|tsv|trec)(?:\.gz)?")


@dataclass(frozen=True, slots=True)
class TrecFiles:
    """One split's files; `split` is empty where the names say none."""

    topics: Path
    qrels: Path
    split: str = ""


def trec_files(address: str | Path) -> list[TrecFiles]:
    """The pairs of topics and judgements at a directory, or at `trec:TOPICS,QRELS`; none if there are none.

    Raises:
        GroundTruthError: if a `trec:` address does not name two files.
    """
    text = str(address)
    if text.startswith(PREFIX):
        topics, comma, qrels = text.removeprefix(PREFIX).partition(",")
        if not comma or not topics.strip() or not qrels.strip():
            raise GroundTruthError(f"{text}: name two files: {PREFIX}TOPICS,QRELS.")
        return [TrecFiles(Path(topics.strip()), Path(qrels.strip()))]
    topics_of, qrels_of = _by_split(Path(text), _TOPICS), _by_split(Path(text), _QRELS)
    return [
        TrecFiles(topics_of[split], qrels_of[split], split) for split in sorted({*topics_of} & {*qrels_of})
    ]


def choose_trec_files(address: str | Path, split: str | None) -> TrecFiles:
    """The files of the split that was asked for, else of the only one, else of `test`.

    Raises:
        GroundTruthError: if there is no such split; names those there are.
    """
    files = {pair.split: pair for pair in trec_files(address)}
    if split is None and "" in files:
        return files[""]
    return files[choose_among(sorted(files), split, Path(str(address)))]


def read_trec_questions(files: TrecFiles) -> Iterator[tuple[str, Question]]:
    """The judged topics with their places, in the order of their file.

    Raises:
        GroundTruthError: if a line is not usable, or a judged topic is not among the topics.
    """
    judged_of = _read_qrels(files.qrels)
    missing = dict.fromkeys(judged_of)
    for place, id_, text in read_topics(files.topics):
        if id_ in judged_of:
            missing.pop(id_, None)
            try:
                yield place, _to_question(id_, text, judged_of[id_], files.split)
            except GroundTruthError as error:
                raise GroundTruthError(f"{place}: {error}") from None
    if missing:
        raise GroundTruthError(
            f"{files.qrels} judges {len(missing)} topics that {files.topics.name} lacks, "
            f"first {next(iter(missing))!r}. Add them, or remove the lines."
        )


def write_trec_questions(questions: Iterable[Question], address: str | Path) -> None:
    """Write topics and judgements: split by split into a directory, or all to `trec:TOPICS,QRELS`.

    Topics are lines, or in the classic form where their file is called `.trec`. What is read back is what
    `held_by_trec` says of each question.

    Raises:
        GroundTruthError: if an id or a doc_uri holds white space, or a split cannot name a file.
        StorageError: if the disk refuses.
    """
    if str(address).startswith(PREFIX):
        targets = [(trec_files(address)[0], list(questions))]
    else:
        folder = Path(str(address))
        targets = [
            (TrecFiles(folder / f"topics.{split}.tsv", folder / f"qrels.{split}.txt", split), members)
            for split, members in by_split(questions).items()
        ]
    for files, members in targets:
        is_classic = files.topics.name.removesuffix(".gz").endswith(".trec")
        write_lines(files.qrels, _qrels_lines(members))
        topic = classic_topic if is_classic else topic_line
        write_lines(files.topics, (topic(_cell(question.id), question.question) for question in members))


def held_by_trec(question: Question) -> Question | None:
    """What of the question TREC holds: its text in one line, and each document's grade; None without one."""
    if not question.gold:
        return None
    split = question.tags.get("split", "")
    return _to_question(question.id, one_line(question.question), judgements(question.gold), split)


def _by_split(folder: Path, pattern: re.Pattern[str]) -> dict[str, Path]:
    if not folder.is_dir():
        return {}
    matches = ((pattern.fullmatch(file.name), file) for file in sorted(folder.iterdir()) if file.is_file())
    return {match["split"] or "": file for match, file in matches if match}


def _to_question(id_: str, text: str, judged: dict[str, int], split: str) -> Question:
    gold = tuple((GoldItem(doc_uri, grade),) for doc_uri, grade in judged.items())
    return Question(id_, text, gold, tags={"split": split} if split else {})


def _read_qrels(path: Path) -> dict[str, dict[str, int]]:
    judged_of: dict[str, dict[str, int]] = {}
    for number, line in read_lines(path, GroundTruthError):
        cells = SPACES.split(line.strip(" \t\r\n"))
        if cells == [""]:
            continue
        try:
            topic, _, doc_uri, grade = cells
            judged_of.setdefault(topic, {})[doc_uri] = max(0, int(grade))
        except ValueError:
            raise GroundTruthError(
                f"{path}:{number}: expected topic, iteration, document and a whole number, separated by white "
                f"space, not {line.strip()!r:.80}. Mend or remove the line."
            ) from None
    return judged_of


def _qrels_lines(questions: Iterable[Question]) -> Iterator[bytes]:
    for question in questions:
        for doc_uri, grade in judgements(question.gold).items():
            yield f"{_cell(question.id)} 0 {_cell(doc_uri)} {grade}".encode()


def _cell(text: str) -> str:
    if not text or re.search(r"\s", text) or text != well_formed(text):
        raise GroundTruthError(
            f"{text!r} cannot stand in a TREC file, whose cells end at white space. "
            "Change the id or the doc_uri, or choose another format."
        )
    return text
