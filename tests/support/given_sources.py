"""Documents as sources, for tests of what is brought up to date from these."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from retrieval.indexing import hash_document
from retrieval.sources import Source
from retrieval.types import Document


def source_of(*documents: Document, place: str = "", on_load: Callable[[], None] = lambda: None) -> Source:
    """Documents of one place, which is known again by what they are."""

    def load() -> list[Document]:
        on_load()
        return list(documents)

    content = repr([hash_document(document) for document in documents]).encode()
    fingerprint = hashlib.blake2b(content, digest_size=16).hexdigest()
    return Source(place or documents[0].doc_uri, fingerprint, load)
