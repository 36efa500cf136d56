"""What a search found of a question's gold, and why it did not find the rest."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from eval.compiling.claims import quote_of
from eval.compiling.gold_passages import GoldPart, gold_parts
from eval.compiling.notes import Notes, numbered, quoted, uris
from eval.questions import Question
from eval.text_overlap import contained_share
from program.types import CitedAnswer
from retrieval.analysis import analyze, is_function_word
from retrieval.errors import RetrievalError
from retrieval.types import Filters, Passage, Retriever

DEPTH = 50
"""How deep a search looks for gold that the program did not see."""

_MOST_WORDS = 8
_GOLD_CHARACTERS = 300
_WORD = re.compile(
    "[\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+|[\u30a1-\u30fa\u30fc-\u30ff]+|[\uac00-\ud7a3]+"
    r"|[^\W\u3005-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uac00-\ud7a3]+(?:[._-]\w+)*"
)


@dataclass(frozen=True, slots=True)
class SearchScope:
    """Where a program searches, so that one can look deeper than it does. `k` is how many passages it reads."""

    retriever: Retriever
    k: int
    filters: Filters | None = None

    def ranking(self, query: str) -> list[Passage] | None:
        """What the query finds, `DEPTH` deep or as deep as the program looks; None where that cannot be done."""
        return self._search(query, max(DEPTH, self.k), self.filters)

    def of_document(self, query: str, doc_uri: str) -> list[Passage]:
        """What the query finds in one document; nothing where it has none of its words, or none can tell."""
        return self._search(query, DEPTH, {**(self.filters or {}), "doc_uri": doc_uri}) or []

    def _search(self, query: str, k: int, filters: Filters | None) -> list[Passage] | None:
        try:
            return self.retriever.search(query, k, filters or None)
        except RetrievalError:
            # Not every index goes that deep or filters by document, and an explanation is worth no failure.
            return None


def retrieval_notes(
    question: Question, cited: CitedAnswer, scope: SearchScope | None, normalize: Callable[[str], str]
) -> Notes:
    """Which gold was found, and of what was not: how deep it lies, and what the query has in common with it.

    Without `scope` nothing is searched for, and only what the program found is told.
    """
    notes = Notes()
    for part in gold_parts(question, normalize):
        name = f"Gold {'passage of ' if part.names_passages else ''}document {uris(part.doc_uris)}"
        if found := part.numbers(cited.passages):
            notes.right.append(f"{name} was found, as {numbered(found)}.")
        elif scope is not None and (ranking := scope.ranking(cited.query)) is not None:
            notes.wrong.append(_missed(name, part, question, cited, scope, ranking))
        else:
            notes.wrong.append(f"{name} was not among the {len(cited.passages)} passages that were found.")
    return notes


def _missed(
    name: str,
    part: GoldPart,
    question: Question,
    cited: CitedAnswer,
    scope: SearchScope,
    ranking: Sequence[Passage],
) -> str:
    said = [f"{name} {_depth(part.numbers(ranking), ranking, scope.k)}."]
    asked: list[Passage] = []
    rewritten = cited.query.split() != question.question.split()
    if rewritten and not question.history:
        asked = scope.ranking(question.question) or []
        said.append(f"The question as it was asked finds it {_at_rank(part.numbers(asked), asked)}.")
    made_from = f" (made from {quoted(question.question)})" if rewritten else ""
    said.append(f"The search query was {quoted(cited.query)}{made_from}.")
    if (gold := _answering_passage(part, question, [*ranking, *asked], scope)) is not None:
        said += _compare(cited.query, question, gold)
    return " ".join(said)


def _answering_passage(
    part: GoldPart, question: Question, seen: Sequence[Passage], scope: SearchScope
) -> Passage | None:
    """The passage of the gold that holds most of what is expected; None where none can be found."""
    expected = _expected(question)
    found = [passage for uri in part.doc_uris for passage in scope.of_document(expected, uri)]
    gold = [passage for passage in (*found, *seen) if part.is_in(passage)]
    return max(gold, key=lambda passage: contained_share(passage.text, expected), default=None)


def _depth(ranks: Sequence[int], ranking: Sequence[Passage], k: int) -> str:
    if ranks:
        return f"was at rank {ranks[0]} and k was {k}"
    if not ranking:
        return "was not found: the search found nothing at all"
    return f"was not among the first {len(ranking)} passages, and k was {k}"


def _at_rank(ranks: Sequence[int], ranking: Sequence[Passage]) -> str:
    if ranks:
        return f"at rank {ranks[0]}"
    return f"not among the first {len(ranking)} passages either" if ranking else "not either"


def _expected(question: Question) -> str:
    return " ".join(
        (*question.expected_facts, *question.accepted_answers, question.expected_response)
    ).strip()


def _compare(query: str, question: Question, gold: Passage) -> list[str]:
    held = set(analyze(_shown(gold)))
    has, lacks = _words(query, held)
    said = [f"Of its words the gold passage has {_listed(has)} and lacks {_listed(lacks)}."]
    kept = {word.casefold() for word in has}
    if left_out := [word for word in _words(question.question, held)[0] if word.casefold() not in kept]:
        said.append(
            f"Words of the question that the gold passage has and the query lacks: {_listed(left_out)}."
        )
    heading = " > ".join(dict.fromkeys(filter(None, (gold.title, *gold.headings))))
    under = f", under {quoted(heading)}," if heading else ""
    expected = _expected(question)
    says = quote_of(gold, expected) if expected and len(gold.text) > _GOLD_CHARACTERS else gold.text
    said.append(f"The gold passage{under} says: {quoted(says, _GOLD_CHARACTERS)}")
    return said


def _words(text: str, held: set[str]) -> tuple[list[str], list[str]]:
    """The content words of a text whose terms are all among those held, and the others."""
    has: list[str] = []
    lacks: list[str] = []
    for word in dict.fromkeys(_WORD.findall(text)):
        terms = [term for term in analyze(word) if not is_function_word(term)]
        if terms and len(word) > 1:
            (has if held.issuperset(terms) else lacks).append(word)
    return has, lacks


def _listed(words: Sequence[str]) -> str:
    if not words:
        return "none"
    more = len(words) - _MOST_WORDS
    return ", ".join(f"“{word}”" for word in words[:_MOST_WORDS]) + (f" and {more} more" if more > 0 else "")


def _shown(passage: Passage) -> str:
    return "\n".join((passage.title, *passage.headings, passage.text))
