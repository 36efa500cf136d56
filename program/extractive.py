"""Answers without a language model: choose the sentences that speak to the question, and cite them.

An honest baseline and a fallback, named as such wherever its answers show. It says nothing that a
passage does not say, word for word, and abstains when the passages cover too little of the question.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from program.calibration import Calibration
from program.streaming import emit_pieces
from program.types import Citation, CitedAnswer, Piece
from retrieval.analysis import analyze
from retrieval.ranking.letters import letter_likeness
from retrieval.sentences import split_sentences
from retrieval.types import Passage

Weigh = Callable[[Sequence[str]], Sequence[float]]
"""Weights of terms, in order: how much each tells, such as its inverse document frequency in the corpus."""

Scoring = Literal["auto", "overlap", "embedding", "both"]


class SentenceEmbedder(Protocol):
    """An embedding model as far as this reader needs one: `retrieval.embedders.Embedder` is one."""

    def embed_passages(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """One unit vector a text."""
        ...

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """The unit vector of a question."""
        ...


_BULLET = re.compile(r"\A(?:[-*+•]|\d+[.)])\s+|\A>\s*")
_NOT_PROSE = re.compile(r"\A\s*(?:#{1,6}\s|```|~~~|\|?\s*:?-{3,})")
_JAPANESE = re.compile(r"[぀-ヿ]")
_CONTEXT_WEIGHT = 0.3
"""How much the title and headings of a sentence's passage count beside the sentence itself."""
_REMEMBERED_PASSAGES = 2000
_ABSTENTION = {
    "en": "The documents do not seem to answer this.",
    "ja": "この質問への答えは、文書の中に見つかりませんでした。",
}


@dataclass(frozen=True, slots=True)
class ExtractiveSettings:
    """How sentences are chosen.

    `max_sentences`: one to this many. `abstain_below`: abstain when the passages together hold less than
    this share (0 to 1) of the question's weighted terms. `passage_weight`: how much the rank of the
    passage counts beside the sentence's own overlap. `next_sentence_ratio`: a further sentence must
    score at least this share of the best. `scoring`: by the terms that question and sentence share, by the
    likeness of their vectors, or by both; `auto` is both where there is an embedding model.
    `embedding_weight`: how much the likeness counts beside the whole of the question's terms.
    """

    max_sentences: int = 2
    abstain_below: float = 0.4  # the best balanced accuracy on the sample's dev questions, .68
    passage_weight: float = 0.5
    next_sentence_ratio: float = 0.6
    scoring: Scoring = "auto"
    embedding_weight: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.max_sentences <= 10:
            raise ValueError(f"max_sentences must be from 1 to 10, not {self.max_sentences}")
        if not 0 <= self.abstain_below <= 1:
            raise ValueError(f"abstain_below must be from 0 to 1, not {self.abstain_below}")


@dataclass(frozen=True, slots=True)
class _Candidate:
    number: int
    passage: Passage
    start: int
    end: int
    score: float

    @property
    def text(self) -> str:
        return self.passage.text[self.start : self.end]


class ExtractiveReader:
    """Chooses one to `max_sentences` sentences of the passages, best first, each with its citation."""

    name = "extractive"

    def __init__(
        self,
        settings: ExtractiveSettings | None = None,
        weigh: Weigh | None = None,
        embedder: SentenceEmbedder | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        """`embedder` is needed where the settings score by embedding; `calibration` decides what is held.

        Raises:
            ValueError: if they do, and there is none.
        """
        self.settings = settings or ExtractiveSettings()
        self._weigh = weigh or (lambda terms: [1.0] * len(terms))
        if embedder is None and self.settings.scoring in ("embedding", "both"):
            raise ValueError(f"scoring = {self.settings.scoring!r} needs an embedder")
        self._calibration = calibration
        self._embedder = None if self.settings.scoring == "overlap" else embedder

    def __call__(self, question: str, passages: Sequence[Passage]) -> CitedAnswer:
        """The chosen sentences in order of score; offsets of each are in its citation."""
        weights = self._question_weights(question)
        if self._confidence(question, weights, passages) < self.settings.abstain_below:
            return self._abstain(question, passages)
        chosen = self._choose(question, weights, passages)
        return self._compose(question, passages, chosen) if chosen else self._abstain(question, passages)

    def confidence(self, question: str, passages: Sequence[Passage]) -> float:
        """The share (0 to 1) of the question's weighted terms that the passages together hold.

        With a calibration, the probability that something in them answers.
        """
        return self._confidence(question, self._question_weights(question), passages)

    def features(self, question: str, passages: Sequence[Passage]) -> dict[str, float]:
        """What tells of an answer in the passages, each from 0 to 1: what a calibration weighs.

        `held`: the share of the question's weighted terms that the passages together hold. `letters`: the
        likeness letter by letter of the likest passage.
        `likeness`: of the likest sentence, where there is an embedding model.
        """
        return self._features(question, self._question_weights(question), passages)

    def _confidence(self, question: str, weights: dict[str, float], passages: Sequence[Passage]) -> float:
        if self._calibration is not None:
            return self._calibration.probability(self._features(question, weights, passages))
        return _share_held(weights, passages)

    def _features(
        self, question: str, weights: dict[str, float], passages: Sequence[Passage]
    ) -> dict[str, float]:
        found = {
            "held": _share_held(weights, passages),
            "letters": max(letter_likeness(question, [passage.text for passage in passages]), default=0.0),
        }
        texts = list(dict.fromkeys(p.text[s:e] for p in passages for s, e, _ in _sentences(p.text)))
        if self._embedder is not None and texts:
            likeness = self._embedder.embed_passages(texts) @ self._embedder.embed_query(question)
            found["likeness"] = round(float(likeness.max()), 6)
        return found

    def _question_weights(self, question: str) -> dict[str, float]:
        terms = list(dict.fromkeys(analyze(question)))
        return dict(zip(terms, self._weigh(terms), strict=True))

    def _choose(
        self, question: str, weights: dict[str, float], passages: Sequence[Passage]
    ) -> list[_Candidate]:
        if self._embedder is None:
            found = _candidates(weights, passages, self.settings)
        else:
            found = self._with_likeness(self._embedder, question, weights, passages)
        candidates = sorted(found, key=lambda c: -c.score)
        chosen: list[_Candidate] = []
        for candidate in candidates:
            if chosen and candidate.score < self.settings.next_sentence_ratio * chosen[0].score:
                break
            if all(candidate.text != other.text for other in chosen):
                chosen.append(candidate)
            if len(chosen) == self.settings.max_sentences:
                break
        return chosen

    def _with_likeness(
        self,
        embedder: SentenceEmbedder,
        question: str,
        weights: dict[str, float],
        passages: Sequence[Passage],
    ) -> list[_Candidate]:
        """All sentences, each scored by its likeness to the question besides, or by that alone."""
        by_likeness = self.settings.scoring == "embedding"
        found = _candidates({} if by_likeness else weights, passages, self.settings, every=True)
        texts = list(dict.fromkeys(candidate.text for candidate in found))
        if not texts:
            return []
        likeness = embedder.embed_passages(texts) @ embedder.embed_query(question)
        of_text = dict(zip(texts, likeness.tolist(), strict=True))
        # As if that much of the question were held, so that the two are on one scale; 1 where it has no term.
        total = 1.0 if by_likeness else sum(weights.values()) or 1.0
        factor = self.settings.embedding_weight * total
        return [replace(one, score=round(one.score + factor * of_text[one.text], 6)) for one in found]

    def _abstain(self, question: str, passages: Sequence[Passage]) -> CitedAnswer:
        text = _ABSTENTION["ja" if _JAPANESE.search(question) else "en"]
        emit_pieces([text])
        return CitedAnswer(text, (), tuple(passages), self.name, question, abstained=True)

    def _compose(
        self, question: str, passages: Sequence[Passage], chosen: Sequence[_Candidate]
    ) -> CitedAnswer:
        text = ""
        citations: list[Citation] = []
        for candidate in chosen:
            sentence = _BULLET.sub("", candidate.text.strip())
            gap = "" if sentence.endswith(("。", "！", "？")) else " "
            body = f"{' ' if text else ''}{sentence}{gap}"
            start = len(text) + len(body)
            text += f"{body}[{candidate.number}]"
            citation = Citation(
                candidate.number, candidate.passage, start, len(text), candidate.start, candidate.end
            )
            citations.append(citation)
            pieces: list[Piece] = [f"{body}[{candidate.number}]", citation]
            emit_pieces(pieces)
        return CitedAnswer(text, tuple(citations), tuple(passages), self.name, question)


def _candidates(
    weights: dict[str, float],
    passages: Sequence[Passage],
    settings: ExtractiveSettings,
    *,
    every: bool = False,
) -> list[_Candidate]:
    """The sentences that share a term with the question, or `every` one."""
    best = max((passage.score for passage in passages), default=0.0)
    # Scores that are not above 0 tell nothing of how good a passage is beside the best.
    shares = [max(0.0, passage.score) / best if best > 0 else 1.0 for passage in passages]
    total = sum(weights.values()) or 1.0
    found = []
    for number, passage in enumerate(passages, start=1):
        context = _weight(weights, _terms(_context(passage)))
        for start, end, terms in _sentences(passage.text):
            overlap = _weight(weights, terms)
            if (overlap or every) and not _NOT_PROSE.match(passage.text[start:end]):
                rank = settings.passage_weight * total * shares[number - 1]
                score = overlap + _CONTEXT_WEIGHT * context + rank
                found.append(_Candidate(number, passage, start, end, score))
    return found


def _share_held(weights: dict[str, float], passages: Sequence[Passage]) -> float:
    total = sum(weights.values())
    held: set[str] = set()
    for passage in passages:
        held |= _terms(_context(passage)) | _terms(passage.text)
    return _weight(weights, held) / total if total else 0.0


def _weight(weights: dict[str, float], held: Set[str]) -> float:
    """The summed weight of the question's terms that are among those `held`."""
    # In the order of the question: in that of a set, which is another in each process, sums differ in the last
    # digit, and so would the sentence that is chosen of two equal ones.
    return sum(weight for term, weight in weights.items() if term in held)


# Questions about the same subject meet the same passages, and a sweep meets each many times.
@lru_cache(maxsize=_REMEMBERED_PASSAGES)
def _sentences(text: str) -> tuple[tuple[int, int, frozenset[str]], ...]:
    """Where each sentence of a passage is, and its terms."""
    return tuple((start, end, frozenset(analyze(text[start:end]))) for start, end in split_sentences(text))


@lru_cache(maxsize=2 * _REMEMBERED_PASSAGES)
def _terms(text: str) -> frozenset[str]:
    return frozenset(analyze(text))


def _context(passage: Passage) -> str:
    return " ".join((passage.title, *passage.headings))
