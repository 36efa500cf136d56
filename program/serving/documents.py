"""An indexed document as a person reads it: its passages put together again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from program.serving.failures import Failure, RequestFailedError
from retrieval.types import CorpusRetriever, Passage

_GAP = "\n\n"


def read_document(index: CorpusRetriever, doc_uri: str, chunk_id: str | None = None) -> dict[str, Any]:
    """The document's text as it is indexed, and where in it the passage `chunk_id` stands.

    `text[start:end]`, in characters, is the passage; both are None where none is asked for or it is not of
    this document. `url` opens the document at the passage's section.

    Raises:
        RequestFailedError: 404, if the document is not in the index.
        IndexUnusableError: if the index turns out to be damaged.
    """
    passages = index.passages_of(doc_uri)
    if not passages:
        raise RequestFailedError(
            Failure(404, "document_unknown", f"No document '{doc_uri}' is in the index.")
        )
    text, starts = _join(passages)
    found = next((passage for passage in passages if passage.chunk_id == chunk_id), None)
    return {
        "doc_uri": doc_uri,
        "url": found.url if found else doc_uri,
        "title": passages[0].title,
        "lang": passages[0].lang,
        "text": text,
        "start": starts[found.chunk_id] if found else None,
        "end": starts[found.chunk_id] + len(found.text) if found else None,
    }


def _join(passages: Sequence[Passage]) -> tuple[str, dict[str, int]]:
    """The passages' text without what overlaps, and where each begins in it.

    Between passages that do not touch there was nothing but white space.
    """
    text, end = "", 0
    starts: dict[str, int] = {}
    for passage in passages:
        if text and passage.start > end:
            text += _GAP
        overlap = max(0, end - passage.start) if text else 0
        starts[passage.chunk_id] = len(text) - overlap
        text += passage.text[overlap:]
        end = max(end, passage.end)
    return text, starts
