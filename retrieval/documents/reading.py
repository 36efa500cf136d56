"""How a corpus is read, and how the bytes of a file become a document."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal, NoReturn, TypeAlias

from retrieval.documents.addresses import Addresses
from retrieval.documents.encoding import decode
from retrieval.documents.languages import detect_language
from retrieval.documents.markdown import read_markdown
from retrieval.documents.parsed import Parsed
from retrieval.errors import ConfigurationError, CorpusError
from retrieval.headings import first_heading
from retrieval.sources import Source
from retrieval.types import Document, MetadataValue

Layout: TypeAlias = Literal["auto", "folder", "git", "jsonl", "beir", "table", "sitemap"]
Anchors: TypeAlias = Literal["auto", "none"]

READER_VERSION = 1
"""Raised with every change of the documents that a file makes, so that files are read again."""

READABLE = frozenset({".docx", ".htm", ".html", ".ipynb", ".markdown", ".md", ".mdx", ".pdf", ".rst", ".txt"})
"""The extensions of the files that are documents."""

_BYTES_PER_MB = 1_000_000


@dataclass(frozen=True, slots=True)
class ReadingSettings:
    """How documents are read. `base_url` and `url_template` make the `doc_uri` of those that have none.

    `columns` names the column or field of each of ours (`doc_uri`, `text`, `title`, `lang`, `metadata`), `pages`
    the folder with the saved pages of a sitemap. Files, lines and rows of more than `max_file_mb` are refused.
    """

    base_url: str | None = None
    layout: Layout = "auto"
    url_template: str | None = None
    anchors: Anchors = "auto"
    max_file_mb: float = 50
    columns: Mapping[str, str] = field(default_factory=dict)
    pages: str | None = None

    @property
    def max_bytes(self) -> int:
        """`max_file_mb` in bytes."""
        return int(self.max_file_mb * _BYTES_PER_MB)


@dataclass(frozen=True, slots=True)
class Stated:
    """What is known of a file before it is read: by the sitemap that lists it, for example."""

    doc_uri: str = ""
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)


class Files:
    """Makes sources of files, each of which is a document."""

    def __init__(self, settings: ReadingSettings, addresses: Addresses) -> None:
        self._anchors = settings.anchors
        self._max_bytes = settings.max_bytes
        self._addresses = addresses
        made_by = f"{READER_VERSION} {settings.anchors} {settings.max_bytes} {addresses}"
        self._key = hashlib.blake2b(made_by.encode(errors="replace"), digest_size=32).digest()

    def source(self, file: Path, relative: str, stated: Stated | None = None) -> Source:
        """The source of `file`, which is at `relative` in the corpus."""
        place = printable(relative)
        stated = stated or Stated()
        try:
            data = self._read(file, place)
        except CorpusError as error:
            return refused(place, error)
        hashed = hashlib.blake2b(f"{place}\n{stated}\n".encode(), key=self._key, digest_size=16)
        hashed.update(data)
        return Source(place, hashed.hexdigest(), partial(self._load, file, relative, place, stated))

    def _load(self, file: Path, relative: str, place: str, stated: Stated) -> list[Document]:
        parsed = parse(
            self._read(file, place), PurePosixPath(relative).suffix.lower(), place, self._max_bytes
        )
        if parsed.is_moved:
            return []
        if self._anchors == "none":
            parsed = replace(parsed, anchors=())
        return [
            Document(
                doc_uri=stated.doc_uri or parsed.doc_uri or self._addresses.of(relative, place),
                text=parsed.text,
                title=parsed.title or first_heading(parsed.text) or PurePosixPath(place).stem,
                lang=parsed.lang or detect_language(parsed.text),
                metadata={**stated.metadata, **parsed.metadata},
                anchors=parsed.anchors,
            )
        ]

    def _read(self, file: Path, place: str) -> bytes:
        try:
            with file.open("rb") as opened:
                if os.fstat(opened.fileno()).st_size > self._max_bytes:
                    raise too_large(place, self._max_bytes)
                return opened.read()
        except OSError as error:
            raise CorpusError(
                f"{place}: cannot be read ({error.strerror}). Check its permissions."
            ) from error


def parse(data: bytes, suffix: str, place: str, max_bytes: int) -> Parsed:
    """What the file of that extension says.

    Raises:
        CorpusError: beginning with `place`, if it cannot be read.
    """
    try:
        match suffix:
            case ".html" | ".htm":
                from retrieval.documents.html import declared_encoding, read_html

                return read_html(decode(data, place, declared_encoding(data)))
            case ".md" | ".markdown":
                return read_markdown(decode(data, place), place)
            case ".mdx":
                from retrieval.documents.mdx import read_mdx

                return read_mdx(decode(data, place), place)
            case ".rst":
                from retrieval.documents.rst import read_rst

                return read_rst(decode(data, place), place)
            case ".ipynb":
                from retrieval.documents.notebook import read_notebook

                return read_notebook(decode(data, place), place)
            case ".pdf":
                from retrieval.documents.pdf import read_pdf

                return read_pdf(data, place, max_bytes)
            case ".docx":
                from retrieval.documents.docx import read_docx

                return read_docx(data, place, max_bytes)
        return Parsed(decode(data, place))
    except (
        ConfigurationError
    ) as error:  # a package that is not installed: others of the corpus may do without
        raise CorpusError(f"{place}: {error}") from error


def refused(place: str, error: CorpusError) -> Source:
    """A source that cannot be loaded."""
    return Source(
        place, hashlib.blake2b(str(error).encode(), digest_size=16).hexdigest(), partial(_refuse, error)
    )


def _refuse(error: CorpusError) -> NoReturn:
    raise error


def too_large(place: str, max_bytes: int) -> CorpusError:
    """The error of what is larger than a document may be."""
    return CorpusError(
        f"{place}: larger than {max_bytes / _BYTES_PER_MB:g} MB, the most that a document may have. Move it away, "
        "or raise corpus.max_file_mb."
    )


def printable(relative: str) -> str:
    """A path as text: what is not UTF-8 in the name of a file is shown as such."""
    return relative.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
