"""Which passages are asked about, in which order: every document once before any a second time."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from program.content_store import content_key
from retrieval.analysis import analyze, content_terms
from retrieval.local_index import LocalIndex
from retrieval.types import Passage

SHORTEST = 20
"""Content terms that a passage must have to be asked about: below lie headings, menus and footers."""

UNANSWERABLE = "unanswerable"
ANSWERABLE_KINDS = ("lookup", "how_to")


@dataclass(frozen=True, slots=True)
class Attempt:
    """A passage that a question of a kind (`lookup`, `how_to`, `unanswerable`) is to be drafted from."""

    passage: Passage
    kind: str

    @property
    def id(self) -> str:
        """The drafted question's id: the same for the same passage and kind, in any run."""
        return f"draft-{content_key(self.kind, self.passage.doc_uri, self.passage.chunk_id)[:12]}"


def plan_attempts(
    index: LocalIndex, *, lang: str | None = None, seed: int = 0, unanswerable: float = 0.0
) -> Iterator[Attempt]:
    """Passages of `lang` (of any language if none is named) in an order that `seed` decides, each once.

    Documents come in turn, so that a long one gives no more questions than a short one until that is used up.
    Short passages and repeated ones are left out. `unanswerable` is the share of attempts of that kind, spread
    evenly; the others alternate.
    """
    answerable = 0
    for number, passage in enumerate(_passages(index, lang, seed)):
        if int((number + 1) * unanswerable) > int(number * unanswerable):
            yield Attempt(passage, UNANSWERABLE)
        else:
            yield Attempt(passage, ANSWERABLE_KINDS[answerable % len(ANSWERABLE_KINDS)])
            answerable += 1


def _passages(index: LocalIndex, lang: str | None, seed: int) -> Iterator[Passage]:
    documents = sorted(index.doc_uris())
    random.Random(seed).shuffle(documents)
    seen: set[str] = set()
    for turn in count():
        left = []
        for doc_uri in documents:
            passages = _of_document(index, doc_uri, lang, seed)
            if turn < len(passages):
                left.append(doc_uri)
                text = " ".join(passages[turn].text.casefold().split())
                if text not in seen:
                    seen.add(text)
                    yield passages[turn]
        if not left:
            return
        documents = left


def _of_document(index: LocalIndex, doc_uri: str, lang: str | None, seed: int) -> list[Passage]:
    # Read anew in each turn: a corpus is larger than memory, and a turn costs less than one call of a model.
    passages = [
        passage
        for passage in index.passages_of(doc_uri)
        if (not lang or passage.lang == lang) and len(content_terms(analyze(passage.text))) >= SHORTEST
    ]
    random.Random(f"{seed} {doc_uri}").shuffle(passages)
    return passages
