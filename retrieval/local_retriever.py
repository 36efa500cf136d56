"""The retriever over an index of passages: words, vectors or both, and what is made of the ranking then."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from retrieval.analysis import analyze
from retrieval.errors import IndexUnusableError
from retrieval.fusion import Method, fuse, fuse_convex, normalize
from retrieval.local_index import LocalIndex
from retrieval.passage_index import Hit, PassageIndex
from retrieval.ranking.diversity import cap_documents, diversify, term_vectors
from retrieval.ranking.expansion import Around, expand_all
from retrieval.ranking.feedback import Feedback, expand_query, query_weights
from retrieval.ranking.letters import letter_likeness
from retrieval.types import CorpusFacts, Filters, Passage

if TYPE_CHECKING:
    from retrieval.embedders import Embedder
    from retrieval.ranking.cross_encoder import Reranker

Mode: TypeAlias = Literal["lexical", "dense", "hybrid"]

LETTERS_DEPTH = 30
"""How many of a ranking are compared letter by letter: more finds no more, and takes longer."""

_SCORE_DIGITS = 6
_GROWTH = 4


@dataclass(frozen=True, slots=True)
class RankingSettings:
    """How passages are ranked; by default, by words or by words and vectors, and then by letters.

    Attributes:
        mode: `auto` is hybrid where the index has vectors and an embedder is given, else lexical.
        fusion: how the two rankings become one.
        lexical_weight: the part (0 to 1) of the words in it.
        letters_weight: the part (0 to 1) of the likeness letter by letter among the first 30; 0 is off.
        candidates: how many of each ranking are fused, and how many of the outcome diversity chooses among.
        feedback: search once more with what the first passages say; None is off.
        rerank: how many of the ranking the reranker reads, if there is one.
        diversity: how much (0 to 1) likeness to passages above counts against a passage; 0 is off.
        max_per_document: at most so many passages of one document; None is off.
        expand: give what stands around each passage; None is off.
        expand_tokens: how long a passage may become by that.

    Raises:
        ValueError: if a number is out of its range.
    """

    mode: Literal["auto", "lexical", "dense", "hybrid"] = "auto"
    fusion: Method = "convex"
    lexical_weight: float = 0.5
    letters_weight: float = 0.3
    candidates: int = 100
    feedback: Feedback | None = None
    rerank: int = 30
    diversity: float = 0.0
    max_per_document: int | None = None
    expand: Around | None = None
    expand_tokens: int = 600

    def __post_init__(self) -> None:
        for name, value in (
            ("lexical_weight", self.lexical_weight),
            ("letters_weight", self.letters_weight),
            ("diversity", self.diversity),
        ):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be from 0 to 1, got {value}")
        for name, number in (
            ("candidates", self.candidates),
            ("rerank", self.rerank),
            ("max_per_document", self.max_per_document),
            ("expand_tokens", self.expand_tokens),
        ):
            if number is not None and number < 1:
                raise ValueError(f"{name} must be at least 1, got {number}")


@dataclass(frozen=True, slots=True)
class Place:
    """Where one ranking has a passage: its rank from 1, and its score there."""

    rank: int
    score: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a passage is where it is.

    Attributes:
        passage: as a search gives it, with the score of its last stage.
        lexical, dense, fused, letters, reranked: its place in each stage's ranking; None where it has none there, or
            there was no such stage.
        terms: the terms of the query that it holds, with the weight of each in the search.
    """

    passage: Passage
    lexical: Place | None = None
    dense: Place | None = None
    fused: Place | None = None
    letters: Place | None = None
    reranked: Place | None = None
    terms: Mapping[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class _Notes:
    """What the stages of a search gave, for whoever wants it explained."""

    lexical: Sequence[Hit] = ()
    dense: Sequence[Hit] = ()
    fused: Sequence[Hit] = ()
    letters: Sequence[Passage] = ()
    reranked: Sequence[Passage] = ()
    weights: Mapping[str, float] | None = None


class RankedRetriever:
    """A `Retriever` over any `PassageIndex`.

    However it ranks, a smaller k gives the beginning of what a larger k gives, so that a search may be made once
    for several. Many threads may use one at once.
    """

    def __init__(
        self,
        index: PassageIndex,
        settings: RankingSettings | None = None,
        *,
        embedder: Embedder | None = None,
        reranker: Reranker | None = None,
    ) -> None:
        """`embedder` is the one that the index was built with.

        Raises:
            IndexUnusableError: if the mode needs vectors and the index has none, or those of another embedder.
        """
        self.index: PassageIndex = index
        self.settings = settings or RankingSettings()
        self.embedder = embedder
        self.reranker = reranker
        self.mode: Mode = resolve_mode(self.settings.mode, index, embedder)
        if self.mode != "lexical":
            check_vectors(index, embedder)

    def __deepcopy__(self, memo: dict[int, Any]) -> RankedRetriever:
        """Itself: a snapshot never changes, and DSPy's optimizers copy programs by the dozen."""
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.index!r}, {self.mode})"

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that a search depends on but query, k and filters; equal ones find the same."""
        settings = asdict(self.settings)
        for name in _without_effect(self.mode, self.settings, self.reranker is not None):
            del settings[name]
        found: dict[str, Any] = {"index": self.index.content_hash, **settings, "mode": self.mode}
        if self.mode != "lexical" and self.embedder is not None:
            found["embedder"] = self.embedder.fingerprint
        if self.reranker is not None:
            found["reranker"] = self.reranker.fingerprint
        return found

    @property
    def content_hash(self) -> str:
        """That of the index."""
        return self.index.content_hash

    def idf(self, terms: Sequence[str]) -> list[float]:
        """The weights of terms, as `LocalIndex.idf` gives them."""
        return self.index.idf(terms)

    def passages_of(self, doc_uri: str) -> list[Passage]:
        """The passages of a document in their order; none when it is not in the index."""
        return self.index.passages_of(doc_uri)

    def doc_uris(self) -> Collection[str]:
        """The identities of all documents."""
        return self.index.doc_uris()

    def facts(self) -> CorpusFacts:
        """How much there is."""
        return self.index.facts()

    def search(self, query: str, k: int, filters: Filters | None = None) -> list[Passage]:
        """The at most `k` best passages, best first.

        Scores are those of the last stage that ranked, and never rise.

        Raises:
            ValueError: if k < 1.
            FilterError: if `filters` is not valid.
            IndexUnusableError: if the files turn out to be damaged.
            RetrievalError: if the query cannot be embedded.
        """
        if self._is_plain:
            return self.index.search(query, k, filters)
        return self.search_many([query], k, filters)

    def search_many(self, queries: Sequence[str], k: int, filters: Filters | None = None) -> list[Passage]:
        """As `search`, for several ways to ask the same: their rankings are fused, each counting alike.

        The first query is the one that a reranker reads.

        Raises:
            ValueError: if there is no query; and as `search`.
        """
        return self._search(queries, k, filters, [_Notes() for _ in queries])

    def explain(self, query: str, k: int, filters: Filters | None = None) -> list[Explanation]:
        """What `search` finds, and what each stage made of it."""
        notes = _Notes()
        passages = self._search([query], k, filters, [notes])
        if self.mode == "lexical" and not notes.lexical:
            notes.lexical = self.index.lexical_hits(query, max(k, self.settings.candidates), filters)
        lexical, dense, fused = (
            _places(self.index.passages(hits)) for hits in (notes.lexical, notes.dense, notes.fused)
        )
        letters, reranked = _places(notes.letters), _places(notes.reranked)
        return [
            Explanation(
                passage=passage,
                lexical=lexical.get(passage.chunk_id),
                dense=dense.get(passage.chunk_id),
                fused=fused.get(passage.chunk_id),
                letters=letters.get(passage.chunk_id),
                reranked=reranked.get(passage.chunk_id),
                terms=self._terms(passage, notes.weights or query_weights(query)),
            )
            for passage in passages
        ]

    @property
    def _is_plain(self) -> bool:
        """Whether nothing is done but to search by words."""
        settings = self.settings
        return self.mode == "lexical" and not (
            self.reranker
            or settings.letters_weight
            or settings.feedback
            or settings.diversity
            or settings.max_per_document
            or settings.expand
        )

    def _terms(self, passage: Passage, weights: Mapping[str, float]) -> dict[str, float]:
        from retrieval.analysis import analyze

        held = set(analyze("\n".join((passage.title, *passage.headings, passage.text))))
        found = [term for term in weights if term in held]
        told = zip(found, self.index.idf(found), strict=True)
        return dict(sorted(((t, round(weights[t] * idf, 3)) for t, idf in told), key=lambda pair: -pair[1]))

    def _search(
        self, queries: Sequence[str], k: int, filters: Filters | None, notes: Sequence[_Notes]
    ) -> list[Passage]:
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        if not queries:
            raise ValueError("there is no query to search for")
        settings = self.settings
        wanted = k
        while True:
            ranked = self._ranked(queries, wanted, filters, notes)
            passages: Iterable[Passage] = ranked
            if settings.max_per_document is not None:
                passages = cap_documents(passages, settings.max_per_document)
            if settings.expand is not None:
                passages = expand_all(
                    passages, self.index.passages_of, settings.expand, settings.expand_tokens
                )
            chosen = list(islice(passages, k))
            # Of what was left out, others take the place, which have to be found first.
            if len(chosen) == k or len(ranked) < wanted:
                return chosen
            wanted *= _GROWTH

    def _ranked(
        self, queries: Sequence[str], n: int, filters: Filters | None, notes: Sequence[_Notes]
    ) -> list[Passage]:
        """The first `n` by fusion, then by letters, the reranker, and diversity; their scores never rise."""
        settings = self.settings
        # Each stage looks at as many, whatever k is: so a smaller k is the beginning of a larger one.
        deepest = max(
            n,
            LETTERS_DEPTH if settings.letters_weight else 0,
            settings.rerank if self.reranker is not None else 0,
            settings.candidates if settings.diversity else 0,
        )
        passages, hits = self._found(queries, deepest, filters, notes)
        hit_of = {passage.chunk_id: hit for passage, hit in zip(passages, hits, strict=False)}
        if settings.letters_weight:
            passages = notes[0].letters = _by_letters(" ".join(queries), passages, settings.letters_weight)
        if self.reranker is not None:
            passages = self._reranked(self.reranker, queries[0], passages, notes[0])
        if settings.diversity:
            passages = self._diversified(passages, hit_of, deepest)
        return passages[:n]

    def _found(
        self, queries: Sequence[str], n: int, filters: Filters | None, notes: Sequence[_Notes]
    ) -> tuple[list[Passage], Sequence[Hit]]:
        """The first `n` by words, vectors or both, and where the index has them if it is asked for vectors."""
        if self.mode == "lexical" and len(queries) == 1 and self.settings.feedback is None:
            return self.index.search(queries[0], n, filters), ()
        hits = self._fused(queries, n, filters, notes)
        return self.index.passages(hits), hits

    def _fused(
        self, queries: Sequence[str], n: int, filters: Filters | None, notes: Sequence[_Notes]
    ) -> list[Hit]:
        if len(queries) == 1 and self.mode != "hybrid":
            return list(self._rankings(queries[0], n, filters, notes[0])[0][:n])
        # Deeper than the candidates of one block, what follows is fused by itself and stands below.
        blocks = -(-n // self.settings.candidates)
        rankings, weights = [], []
        for query, note in zip(queries, notes, strict=True):
            found = self._rankings(query, blocks * self.settings.candidates, filters, note)
            rankings += found
            weights += self._weights(len(found))
        fused = _in_blocks(self.settings.fusion, rankings, weights, self.settings.candidates)
        notes[0].fused = first = list(islice(fused, n))
        return first

    def _weights(self, rankings: int) -> list[float]:
        weight = self.settings.lexical_weight
        return [weight, 1 - weight] if rankings > 1 else [1.0]

    def _rankings(self, query: str, n: int, filters: Filters | None, note: _Notes) -> list[Sequence[Hit]]:
        """The rankings of a query: of words, of vectors, or of both in this order."""
        rankings: list[Sequence[Hit]] = []
        if self.mode != "dense":
            note.lexical = self._lexical(query, n, filters, note)
            rankings.append(note.lexical)
        if self.mode != "lexical":
            note.dense = self._dense(query, n, filters)
            rankings.append(note.dense)
        return rankings

    def _lexical(self, query: str, n: int, filters: Filters | None, note: _Notes) -> Sequence[Hit]:
        feedback = self.settings.feedback
        if feedback is None:
            return self.index.lexical_hits(query, n, filters)
        first = self.index.passages(self.index.lexical_hits(query, feedback.passages, filters))
        note.weights = expand_query(query, first, feedback, self.index.idf)
        return self.index.lexical_hits_of(note.weights, n, filters) if note.weights else []

    def _dense(self, query: str, n: int, filters: Filters | None) -> Sequence[Hit]:
        if self.embedder is None or not analyze(query):
            return []
        return self.index.dense_hits(self.embedder.embed_query(query), n, filters)

    def _reranked(
        self, reranker: Reranker, question: str, passages: Sequence[Passage], note: _Notes
    ) -> list[Passage]:
        read, rest = passages[: self.settings.rerank], passages[self.settings.rerank :]
        scores = reranker.score(question, [_readable(passage) for passage in read])
        order = sorted(range(len(read)), key=lambda i: -scores[i])
        ranked = [replace(read[i], score=scores[i]) for i in order]
        note.reranked = ranked
        return [*ranked, *_below(rest, min(scores, default=0.0))]

    def _diversified(self, passages: Sequence[Passage], hit_of: Mapping[str, Hit], n: int) -> list[Passage]:
        pool, rest = passages[: self.settings.candidates], passages[self.settings.candidates :]
        relevance = [score for _, score in normalize([(p.chunk_id, p.score) for p in pool])]
        chosen = diversify(relevance, self._vectors(pool, hit_of), self.settings.diversity, n)
        ranked = [replace(pool[place], score=value) for place, value in chosen]
        return [*ranked, *_below(rest, ranked[-1].score if ranked else 0.0)]

    def _vectors(self, pool: Sequence[Passage], hit_of: Mapping[str, Hit]) -> NDArray[np.floating]:
        """Of the passages, in their order: those of the index where it is searched by them, else of terms."""
        if self.mode == "lexical":
            return term_vectors([passage.text for passage in pool])
        return self.index.vectors_of([hit_of[passage.chunk_id] for passage in pool])


class LocalRetriever(RankedRetriever):
    """A `RankedRetriever` over a `LocalIndex`."""

    index: LocalIndex

    def __init__(
        self,
        index: LocalIndex,
        settings: RankingSettings | None = None,
        *,
        embedder: Embedder | None = None,
        reranker: Reranker | None = None,
    ) -> None:
        """`embedder` is the one that the index was built with. Raises as `RankedRetriever`."""
        super().__init__(index, settings, embedder=embedder, reranker=reranker)


def resolve_mode(
    mode: Literal["auto", "lexical", "dense", "hybrid"], index: PassageIndex, embedder: Embedder | None
) -> Mode:
    """What `auto` is: hybrid where the index has vectors and there is an embedder, else lexical."""
    if mode != "auto":
        return mode
    return "hybrid" if embedder is not None and index.has_vectors else "lexical"


def check_vectors(index: PassageIndex, embedder: Embedder | None) -> None:
    """Refuse to search by vectors of which there are none, or which another model made.

    Raises:
        IndexUnusableError: saying what to do.
    """
    if not index.has_vectors:
        raise IndexUnusableError(
            f"The index at '{index.path}' has no vectors, which retrieval.mode dense and hybrid search by. "
            "Name an embedding model (embedder.model) and rebuild it: citeqa index; or set retrieval.mode: lexical."
        )
    if embedder is None:
        raise IndexUnusableError(
            f"The index at '{index.path}' has vectors, and no embedding model is configured to search them by. "
            "Set embedder.model to the one that it was built with, or retrieval.mode: lexical."
        )
    if embedder.fingerprint != index.embedder_fingerprint:
        raise IndexUnusableError(
            f"The index at '{index.path}' was built with another embedding model than embedder.model is: "
            f"{index.embedder_fingerprint}, not {embedder.fingerprint}. Configure that one, or rebuild: citeqa index."
        )


def _without_effect(mode: Mode, settings: RankingSettings, has_reranker: bool) -> Iterator[str]:
    """The settings that change nothing in a search."""
    if mode != "hybrid":
        yield "lexical_weight"
    if mode == "dense":
        yield "feedback"
    if not has_reranker:
        yield "rerank"
    if settings.expand is None:
        yield "expand_tokens"


def _in_blocks(
    method: Method, rankings: Sequence[Sequence[Hit]], weights: Sequence[float], size: int
) -> Iterator[Hit]:
    """The rankings fused, `size` ranks at a time: each block by itself, and below the one before."""
    seen: set[int] = set()
    for block in range(-(-max(map(len, rankings), default=0) // size)):
        parts = [ranking[block * size : (block + 1) * size] for ranking in rankings]
        if seen:
            parts = [[hit for hit in part if hit.address not in seen] for part in parts]
        fused = fuse(method, parts, weights)
        seen.update(address for address, _ in fused)
        for address, score in fused:
            yield Hit(address, round(score - block, _SCORE_DIGITS))


def _by_letters(query: str, passages: Sequence[Passage], weight: float) -> list[Passage]:
    """The first passages by their score and their likeness to the query, on the scale that they had."""
    pool, rest = passages[:LETTERS_DEPTH], passages[LETTERS_DEPTH:]
    if not pool:
        return []
    likeness = letter_likeness(query, [_readable(passage) for passage in pool])
    by_score = [(place, passage.score) for place, passage in enumerate(pool)]
    by_letters = sorted(enumerate(likeness), key=lambda pair: -pair[1])
    lowest, span = pool[-1].score, pool[0].score - pool[-1].score
    return [
        *(
            replace(pool[place], score=round(lowest + span * value, _SCORE_DIGITS))
            for place, value in fuse_convex([by_score, by_letters], [1 - weight, weight])
        ),
        *rest,
    ]


def _places(passages: Sequence[Passage]) -> dict[str, Place]:
    return {passage.chunk_id: Place(rank, passage.score) for rank, passage in enumerate(passages, start=1)}


def _below(passages: Sequence[Passage], ceiling: float) -> list[Passage]:
    """The passages with their scores moved so that the first has `ceiling` at most."""
    if not passages:
        return []
    shift = min(0.0, ceiling - passages[0].score)
    # Rounded, it may not stand above the ceiling.
    return [
        replace(passage, score=min(ceiling, round(passage.score + shift, _SCORE_DIGITS)))
        for passage in passages
    ]


def _readable(passage: Passage) -> str:
    context = " > ".join(dict.fromkeys(filter(None, (passage.title, *passage.headings))))
    return f"{context}\n{passage.text}" if context else passage.text
