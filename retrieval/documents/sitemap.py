"""The pages that a sitemap lists, as they were saved: each is a document with the address that it is listed under."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

from retrieval.documents import folders
from retrieval.documents.addresses import Addresses
from retrieval.documents.reading import READABLE, Files, ReadingSettings, Stated, refused, too_large
from retrieval.errors import CorpusError
from retrieval.sources import Source

_DEEPEST = 3
_PAGE_SUFFIX = ".html"


@dataclass(frozen=True, slots=True)
class _Listed:
    address: str
    changed: str


def read_sitemap(path: Path, settings: ReadingSettings) -> Iterator[Source]:
    """A source of each page that is listed at `path`, or in the sitemaps that it lists and that are beside it.

    A page is looked for in the folder `settings.pages`, else in that of the sitemap: as `host/path`, as `path`, and
    each as it is, with `.html`, or with `/index.html`; programs that save sites name files so.
    """
    folder = Path(settings.pages) if settings.pages else path.parent
    files = Files(settings, Addresses(settings.base_url, settings.url_template))
    root = os.path.realpath(folder)
    for listed in _pages(path, settings.max_bytes, _DEEPEST):
        if isinstance(listed, Source):
            yield listed
            continue
        found = next((name for name in _names(listed.address) if _is_page(folder, root, name)), None)
        if found is None:
            first = next(_names(listed.address), "")
            error = CorpusError(
                f"{listed.address}: no page is saved for it. Looked for {folder / first} and the like."
            )
            yield refused(listed.address, error)
        else:
            metadata = {"date": listed.changed} if listed.changed else {}
            yield files.source(folder / found, found, Stated(listed.address, metadata))


def _pages(path: Path, max_bytes: int, deepest: int) -> Iterator[_Listed | Source]:
    try:
        root = _parse(path, max_bytes)
    except CorpusError as error:
        yield refused(path.name, error)
        return
    for entry in root:
        address, changed = _child(entry, "loc"), _child(entry, "lastmod")[:10]
        if _local_name(entry) == "url" and address:
            yield _Listed(address, changed)
        elif _local_name(entry) == "sitemap" and address:
            part = path.parent / Path(unquote(urlsplit(address).path)).name
            if deepest and part != path and part.is_file():
                yield from _pages(part, max_bytes, deepest - 1)
            else:
                yield refused(
                    address, CorpusError(f"{address}: this sitemap is not saved beside {path.name}.")
                )


def _parse(path: Path, max_bytes: int) -> ElementTree.Element:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise CorpusError(f"{path.name}: cannot be read ({error}).") from None
    if len(data) > max_bytes:
        raise too_large(path.name, max_bytes)
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        # A sitemap has no use for them, and entities can be made to fill the memory.
        raise CorpusError(f"{path.name}: has a document type, which no sitemap has. Remove it.")
    try:
        return ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        raise CorpusError(f"{path.name}: not valid XML ({error}).") from None


def _local_name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _child(element: ElementTree.Element, name: str) -> str:
    return next(((child.text or "").strip() for child in element if _local_name(child) == name), "")


def _names(address: str) -> Iterator[str]:
    """Where the page may be, relative to the folder of saved pages."""
    parts = urlsplit(address)
    path = unquote(parts.path).strip("/")
    for base in filter(None, (f"{parts.netloc}/{path}".rstrip("/"), path)):
        yield f"{base}/index{_PAGE_SUFFIX}"
        yield f"{base}{_PAGE_SUFFIX}"
        yield base
    if not path:
        yield f"index{_PAGE_SUFFIX}"


def _is_page(folder: Path, root: str, name: str) -> bool:
    file = folder / name
    return Path(name).suffix.lower() in READABLE and file.is_file() and folders.within(root, file)
