"""SQuAD's JSON, versions 1.1 and 2.0: articles of paragraphs, each with the questions about it.

A paragraph is a document. Its `doc_uri` is the paragraph's own key of that name, which we write, else
`<title>/<12 hexadecimal digits>`: the article's title with `_` for white space, and a hash of the text, so that
the same paragraph is the same document in every file. `squad_documents` gives them for an index.

A question's gold is its paragraph; its answers are `accepted_answers`, the first also `expected_response`. An
impossible question (version 2) is unanswerable. What SQuAD has no place for stands beside a question under
`citeqa` (see `eval.formats.extras`). The file is one JSON value, so it is read as a whole.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from eval.formats.extras import KEY, extras_beside, with_extras
from eval.formats.writing import write_lines
from eval.questions import GoldItem, Question, hashed_id
from program.files import to_json
from retrieval.errors import GroundTruthError
from retrieval.types import Document

_READ = {"id", "question", "answers", "is_impossible", KEY}


def read_squad_questions(path: Path) -> Iterator[tuple[str, Question]]:
    """The questions of the file with their places (`data[0].paragraphs[2].qas[1]`), in its order.

    Raises:
        GroundTruthError: if the file is not JSON of this shape; names the place, the field and its value.
    """
    for place, document, entries in _paragraphs(path):
        for number, entry in enumerate(entries):
            at = f"{place}.qas[{number}]"
            if not isinstance(entry, dict):
                raise GroundTruthError(f"{at}: expected an object {{…}}, got {entry!r:.60}.")
            question = _to_question(entry, document.doc_uri, at)
            yield at, with_extras(question, entry.get(KEY), at, judged_in_part=True)


def squad_documents(path: Path) -> Iterator[Document]:
    """The paragraphs as documents, each once.

    Raises:
        GroundTruthError: as `read_squad_questions`.
    """
    seen: set[str] = set()
    for _, document, _ in _paragraphs(path):
        if document.doc_uri not in seen and document.text:
            seen.add(document.doc_uri)
            yield document


def write_squad_questions(
    questions: Iterable[Question], target: Path, find: Callable[[str], Document | None]
) -> None:
    """Write questions under the text of their first relevant document, which `find` gives by its `doc_uri`.

    Unanswerable questions stand under an empty paragraph. What is read back is equal to the questions; they
    come in the order of their documents.

    Raises:
        GroundTruthError: if `find` knows no text of a gold document.
        StorageError: if the disk refuses.
    """
    under: dict[str | None, list[Question]] = {}
    for question in questions:
        under.setdefault(_home(question), []).append(question)
    data = [_to_article(doc_uri, members, find) for doc_uri, members in under.items()]
    write_lines(target, [to_json({"version": "v2.0", "data": data})])


def held_by_squad(question: Question, find: Callable[[str], Document | None]) -> Question:
    """What of the question SQuAD's own fields hold, where `find` gives the gold documents."""
    home = _home(question)
    text = document.text if home and (document := find(home)) else ""
    return _to_question(_to_entry(question, text), home or "", question.id)


def unread_squad_fields(path: Path) -> Counter[str]:
    """The fields of the questions that are not read, with the questions counted.

    Where an answer starts (`answer_start`) is not read either, as in all SQuAD files.
    """
    return Counter(
        name
        for _, _, entries in _paragraphs(path)
        for entry in entries
        for name in entry
        if name not in _READ and entry[name]
    )


def _paragraphs(path: Path) -> Iterator[tuple[str, Document, list[Any]]]:
    for number, article in enumerate(_listed(_load(path), "data", str(path))):
        at = f"{path}: data[{number}]"
        for index, paragraph in enumerate(_listed(article, "paragraphs", at)):
            place = f"{at}.paragraphs[{index}]"
            entries = _listed(paragraph, "qas", place)
            yield place, _to_document(paragraph, str(article.get("title") or ""), place), entries


def _load(path: Path) -> Any:
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise GroundTruthError(
            f"{path}: not UTF-8 ({error.reason} at byte {error.start}). Save it as UTF-8 text."
        ) from None
    except (ValueError, RecursionError) as error:
        raise GroundTruthError(f"{path}: not valid JSON ({error}). Mend the file.") from None
    except (OSError, EOFError, zlib.error) as error:
        raise GroundTruthError(f"Cannot read {path}: {getattr(error, 'strerror', None) or error}.") from None


def _listed(value: Any, field: str, place: str) -> list[Any]:
    listed = value.get(field) if isinstance(value, dict) else None
    if not isinstance(listed, list):
        shown = repr(listed if isinstance(value, dict) else value)[:60]
        raise GroundTruthError(f"{place}: expected a list {field!r}, got {shown}. Is this a SQuAD file?")
    return listed


def _to_document(paragraph: Mapping[str, Any], title: str, place: str) -> Document:
    text = paragraph.get("context")
    if not isinstance(text, str):
        raise GroundTruthError(f"{place}: context is {text!r:.60}, not text. Give the paragraph's text.")
    given = paragraph.get("doc_uri")
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return Document(str(given) if given else f"{'_'.join(title.split()) or 'squad'}/{digest}", text, title)


def _to_question(entry: Mapping[str, Any], doc_uri: str, place: str) -> Question:
    text = entry.get("question")
    if not isinstance(text, str):
        raise GroundTruthError(f"{place}: question is {text!r:.60}, not text. Write it, or remove the entry.")
    impossible = bool(entry.get("is_impossible"))
    answers = () if impossible else _answers(entry, place)
    try:
        return Question(
            id=str(entry.get("id") or hashed_id(text)),
            question=text,
            gold=() if impossible else ((GoldItem(doc_uri),),),
            expected_response=answers[0] if answers else "",
            accepted_answers=answers,
        )
    except GroundTruthError as error:
        raise GroundTruthError(f"{place}: {error}") from None


def _answers(entry: Mapping[str, Any], place: str) -> tuple[str, ...]:
    answers = entry.get("answers") or []
    given = [answer.get("text") if isinstance(answer, dict) else None for answer in answers]
    texts = [text for text in given if isinstance(text, str)]
    if len(texts) < len(given):
        raise GroundTruthError(
            f'{place}: answers is {answers!r:.60}. Give a list of {{"text", "answer_start"}}.'
        )
    return tuple(dict.fromkeys(text for text in texts if text.strip()))


def _home(question: Question) -> str | None:
    """The document under which a question stands; None for an unanswerable one."""
    items = (item for alternatives in question.gold for item in alternatives)
    return next((item.doc_uri for item in items if item.grade > 0), None)


def _to_article(
    doc_uri: str | None, questions: Iterable[Question], find: Callable[[str], Document | None]
) -> dict[str, Any]:
    document = Document("", "") if doc_uri is None else find(doc_uri)
    if document is None:
        raise GroundTruthError(
            f"There is no text of the gold document {doc_uri!r}, and SQuAD puts each question under its text. "
            "Name the corpus that holds it with --corpus."
        )
    entries = [_with_extras_beside(question, document.text, doc_uri or "") for question in questions]
    paragraph = {"context": document.text, "doc_uri": doc_uri} if doc_uri is not None else {"context": ""}
    return {"title": document.title, "paragraphs": [{**paragraph, "qas": entries}]}


def _with_extras_beside(question: Question, text: str, doc_uri: str) -> dict[str, Any]:
    entry = _to_entry(question, text)
    extras = extras_beside(question, _to_question(entry, doc_uri, question.id))
    return {**entry, KEY: extras} if extras else entry


def _to_entry(question: Question, text: str) -> dict[str, Any]:
    starts = [(answer, text.find(answer)) for answer in question.accepted_answers if answer.strip()]
    return {
        "id": question.id,
        "question": question.question,
        "answers": [{"text": answer, "answer_start": start} for answer, start in starts if start >= 0],
        "is_impossible": not question.answerable,
    }
