"""Read documents from what people have: folders, Git folders, JSON Lines, tables, BEIR directories, saved sites."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath

from retrieval.documents import folders, git
from retrieval.documents.addresses import OF_GIT, Addresses, template_fields
from retrieval.documents.languages import detect_language
from retrieval.documents.reading import READABLE, Files, Layout, ReadingSettings, printable, refused
from retrieval.documents.records import Records
from retrieval.errors import ConfigurationError, CorpusError
from retrieval.sources import Source, SourceGroup
from retrieval.tables import table_format
from retrieval.types import Document

__all__ = ["Layout", "ReadingSettings", "detect_language", "read_documents", "read_groups", "read_sources"]

_BEIR = ("corpus.jsonl", "corpus.jsonl.gz")
_LAYOUTS: dict[str, Layout] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "table", ".parquet": "table"}

OnRefused = Callable[[str, CorpusError], None]
"""Told of a source that cannot be read: its place, and the error, which names it."""

_DEFAULTS = ReadingSettings()


def read_sources(path: str | Path, settings: ReadingSettings = _DEFAULTS) -> Iterator[Source]:
    """What documents are read from, one at a time, in a fixed order; nothing is parsed before it is loaded.

    - `folder` (or one file): files of the known formats, also in subfolders; see docs/documents.md. Hidden files
      are skipped, links that lead out of the folder are refused. The `doc_uri` is the one that a file states
      (front matter, a page's canonical link), else made of `url_template` or `base_url` and the path.
    - `git`: the files of the folder that Git tracks.
    - `jsonl`, `table` (CSV, Parquet): a document each line or row. `beir`: a directory with `corpus.jsonl`.
    - `sitemap`: a `sitemap.xml` with the pages that it lists, saved beside it or in `pages`.
    - `auto`: by what is there.

    The identity of a document is never made from a path of this machine: a link to it would work for nobody
    else, and it would change when the folder is moved. What cannot be read is a source that refuses to load.

    Raises:
        CorpusError: if there is nothing at `path`, or nothing that could be a document (when that is known).
        ConfigurationError: if a setting contradicts what is there.
    """
    groups = read_groups(path, settings)  # what is wrong with the path is told now
    return (one for item in groups for one in (item.load() if isinstance(item, SourceGroup) else (item,)))


def read_groups(path: str | Path, settings: ReadingSettings = _DEFAULTS) -> Iterator[Source | SourceGroup]:
    """As `read_sources`, with the many lines of a file in groups: what an index is brought up to date from.

    Raises:
        CorpusError, ConfigurationError: as `read_sources`.
    """
    path = Path(path)
    if not path.exists():
        raise CorpusError(f"There is no corpus at '{path}'. Check the path.")
    return _some(path, _sources(path, settings, _resolve(path, settings)))


def read_documents(
    path: str | Path, settings: ReadingSettings = _DEFAULTS, *, on_refused: OnRefused | None = None
) -> Iterator[Document]:
    """All documents at `path`, read as `read_sources` says; a missing `lang` is `detect_language(text)`.

    Raises:
        CorpusError: naming place and field, for whatever cannot be read, a `doc_uri` that is missing or used
            twice, or when there is no document. With `on_refused`, it is told of all but the last, and the
            rest goes on.
    """
    return _documents(partial(read_sources, path, settings), read_sources(path, settings), on_refused)


def _documents(
    again: Callable[[], Iterator[Source]], sources: Iterator[Source], on_refused: OnRefused | None
) -> Iterator[Document]:
    seen: set[str] = set()
    last_error: CorpusError | None = None
    for source in sources:
        try:
            for document in source.load():
                if document.doc_uri in seen:
                    raise _twice(again(), source, document.doc_uri)
                seen.add(document.doc_uri)
                yield document
        except CorpusError as error:
            if on_refused is None:
                raise
            on_refused(source.place, error)
            last_error = error
    if not seen and last_error is not None:
        raise last_error


def _twice(sources: Iterator[Source], second: Source, doc_uri: str) -> CorpusError:
    # Looked up again rather than kept for every document.
    first = next(source.place for source in sources if _holds(source, doc_uri))
    return CorpusError(
        f"{second.place}: the doc_uri '{doc_uri}' is already that of {first}. Give each document its own."
    )


def _holds(source: Source, doc_uri: str) -> bool:
    try:
        return any(document.doc_uri == doc_uri for document in source.load())
    except CorpusError:
        return False


def _some(path: Path, sources: Iterator[Source | SourceGroup]) -> Iterator[Source | SourceGroup]:
    first = next(sources, None)
    if first is None:
        raise CorpusError(
            f"There is no document in '{path}'. It may hold {', '.join(sorted(READABLE))} or .jsonl files."
        )
    yield first
    yield from sources


def _resolve(path: Path, settings: ReadingSettings) -> Layout:
    if settings.layout != "auto":
        return settings.layout
    if path.is_file():
        if path.name.lower().startswith("sitemap") and table_format(path) == ".xml":
            return "sitemap"
        return _LAYOUTS.get(table_format(path), "folder")
    if any((path / name).is_file() for name in _BEIR):
        return "beir"
    return "git" if set(OF_GIT) & set(template_fields(settings.url_template)) else "folder"


def _sources(path: Path, settings: ReadingSettings, layout: Layout) -> Iterator[Source | SourceGroup]:
    match layout:
        case "jsonl":
            return Records(settings).json_lines(path)
        case "table":
            return Records(settings).rows(path)
        case "beir":
            return Records(settings).json_lines(_beir_corpus(path))
        case "git":
            return _git_sources(path, settings)
        case "sitemap":
            return _sitemap_sources(path, settings)
    return _folder_sources(path, settings)


def _beir_corpus(path: Path) -> Path:
    for name in _BEIR:
        if (path / name).is_file():
            return path / name
    raise CorpusError(f"'{path}' is no BEIR directory: it has no {' or '.join(_BEIR)}.")


def _folder_sources(path: Path, settings: ReadingSettings) -> Iterator[Source]:
    if set(OF_GIT) & set(template_fields(settings.url_template)):
        raise ConfigurationError(
            f"corpus.url_template: {{commit}} and {{branch}} are those of a Git folder, and '{path}' is read as "
            f"corpus.layout: {settings.layout}. Choose git, or another template."
        )
    files = Files(settings, Addresses(settings.base_url, settings.url_template))
    if path.is_file():
        return iter([files.source(path, path.name)])
    return _of_entries(files, folders.walk(path, _is_readable))


def _git_sources(path: Path, settings: ReadingSettings) -> Iterator[Source]:
    checkout = git.describe(path)
    given = {"commit": checkout.commit, "branch": checkout.branch}
    files = Files(settings, Addresses(settings.base_url, settings.url_template, checkout.root, given))
    return _of_entries(files, folders.chosen(path, git.tracked_files(path), _is_readable))


def _sitemap_sources(path: Path, settings: ReadingSettings) -> Iterator[Source]:
    from retrieval.documents.sitemap import read_sitemap

    return read_sitemap(path, settings)


def _of_entries(files: Files, entries: Iterator[folders.Entry]) -> Iterator[Source]:
    for relative, found in entries:
        yield (
            refused(printable(relative), found)
            if isinstance(found, CorpusError)
            else files.source(found, relative)
        )


def _is_readable(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in READABLE
