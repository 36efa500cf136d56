"""Read documents from what people have: a folder of Markdown, text and HTML, JSON Lines, a BEIR directory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.parse import quote

from retrieval.analysis import CJK_RUN
from retrieval.errors import CorpusError
from retrieval.front_matter import FrontMatter, split_front_matter
from retrieval.headings import first_heading
from retrieval.html_text import read_page
from retrieval.json_lines import read_json_lines
from retrieval.types import Document

Layout: TypeAlias = Literal["auto", "folder", "jsonl", "beir"]
Placed: TypeAlias = Iterator[tuple[str, Document]]
"""Documents, each with the place that it was read from, for messages."""

_MARKDOWN = {".md", ".markdown"}
_HTML = {".html", ".htm"}
_READABLE = _MARKDOWN | _HTML | {".txt"}
_JSON_LINES = (".jsonl", ".jsonl.gz", ".ndjson")
_BEIR = ("corpus.jsonl", "corpus.jsonl.gz")

_LANGUAGE_SAMPLE = 4000
_CJK_SHARE = 0.1


def read_documents(
    path: str | Path, *, base_url: str | None = None, layout: Layout = "auto"
) -> Iterator[Document]:
    """The documents at `path`, read one at a time, in a fixed order.

    - `folder` (or one file): `.md`, `.markdown`, `.txt`, `.html`, `.htm`, also in subfolders; hidden files
      and links that lead back up are skipped. The `doc_uri` is that of the YAML front matter, or a page's
      canonical link, else `base_url` + the relative path without its extension (`index` is its folder).
      Other scalars of the front matter are metadata, and the text is what follows it. The title is given,
      or the first heading, or the name of the file.
    - `jsonl`: see `read_json_lines`. `beir`: a directory with `corpus.jsonl` or `corpus.jsonl.gz`.
    - `auto`: by what is there.

    A missing `lang` is `detect_language(text)`. The identity of a document is never made from a path of
    this machine: a link to it would work for nobody else, and it would change when the folder is moved.

    Raises:
        CorpusError: naming path, line and field, for whatever cannot be read, a `doc_uri` that is missing
            or used twice, or when there is no document.
    """
    path = Path(path)
    if not path.exists():
        raise CorpusError(f"There is no corpus at '{path}'. Check the path.")
    return _distinct(path, base_url, _resolve(path, layout))


def detect_language(text: str) -> str:
    """`ja`, `zh` or `ko` when at least a tenth of the first letters are of these scripts, else `en`.

    Any kana make it Japanese, any Hangul without kana Korean. No other languages are told apart.
    """
    sample = text[:_LANGUAGE_SAMPLE]
    if sample.isascii():
        return "en"
    cjk = "".join(CJK_RUN.findall(sample))
    if len(cjk) < _CJK_SHARE * sum(map(str.isalpha, sample)) or not cjk:
        return "en"
    if any("\u3041" <= character <= "\u30ff" for character in cjk):
        return "ja"
    return "ko" if any("\uac00" <= character <= "\ud7a3" for character in cjk) else "zh"


def _resolve(path: Path, layout: Layout) -> Layout:
    if layout != "auto":
        return layout
    if path.is_file():
        return "jsonl" if path.name.endswith(_JSON_LINES) else "folder"
    return "beir" if any((path / name).is_file() for name in _BEIR) else "folder"


def _placed(path: Path, base_url: str | None, layout: Layout) -> Placed:
    match layout:
        case "jsonl":
            return read_json_lines(path, base_url)
        case "beir":
            return read_json_lines(_beir_corpus(path), base_url)
        case _:
            return _read_folder(path, base_url)


def _beir_corpus(path: Path) -> Path:
    for name in _BEIR:
        if (path / name).is_file():
            return path / name
    raise CorpusError(f"'{path}' is no BEIR directory: it has no {' or '.join(_BEIR)}.")


def _distinct(path: Path, base_url: str | None, layout: Layout) -> Iterator[Document]:
    seen: set[str] = set()
    for place, document in _placed(path, base_url, layout):
        uri = document.doc_uri
        if uri in seen:
            # Looked up again rather than kept for every document.
            first = next(place for place, other in _placed(path, base_url, layout) if other.doc_uri == uri)
            raise CorpusError(
                f"{place}: the doc_uri '{uri}' is already that of {first}. Give each document its own."
            )
        seen.add(uri)
        yield document if document.lang else _with_language(document)
    if not seen:
        raise CorpusError(
            f"There is no document in '{path}'. It may hold {', '.join(sorted(_READABLE))} or .jsonl files."
        )


def _with_language(document: Document) -> Document:
    return Document(
        document.doc_uri, document.text, document.title, detect_language(document.text), document.metadata
    )


def _read_folder(path: Path, base_url: str | None) -> Placed:
    for file in [path] if path.is_file() else _files(path, frozenset()):
        relative = file.name if path.is_file() else file.relative_to(path).as_posix()
        yield str(file), _read_file(file, relative, base_url)


def _files(folder: Path, parents: frozenset[str]) -> Iterator[Path]:
    parents = parents | {os.path.realpath(folder)}
    for entry in _entries(folder):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            if os.path.realpath(entry) not in parents:
                yield from _files(entry, parents)
        elif entry.is_file() and entry.suffix.lower() in _READABLE:
            yield entry


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise CorpusError(f"{folder}: cannot be read ({error.strerror}). Check its permissions.") from error


def _read_file(file: Path, relative: str, base_url: str | None) -> Document:
    text = _decode(file)
    if file.suffix.lower() in _HTML:
        page = read_page(text)
        front, body = FrontMatter(page.doc_uri, page.title, page.lang), page.text
    elif file.suffix.lower() in _MARKDOWN:
        front, body = split_front_matter(text, file)
    else:
        front, body = FrontMatter(), text
    return Document(
        doc_uri=front.doc_uri or _address(file, relative, base_url),
        text=body,
        title=front.title or first_heading(body) or file.stem,
        lang=front.lang,
        metadata=front.metadata,
    )


def _decode(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{file}: not UTF-8 ({error.reason} at byte {error.start}). Convert it to UTF-8, or move it away."
        ) from None
    except OSError as error:
        raise CorpusError(f"{file}: cannot be read ({error.strerror}). Check its permissions.") from error


def _address(file: Path, relative: str, base_url: str | None) -> str:
    if base_url is None:
        raise CorpusError(
            f"{file}: no doc_uri. Add 'doc_uri: https://…' to its front matter, or give --base-url https://…."
        )
    page = relative[: -len(file.suffix)]
    if page == "index" or page.endswith("/index"):
        page = page[: -len("index")]
    return f"{base_url.rstrip('/')}/{quote(page)}"
