"""What makes a drafted question unfit, as far as that can be told without a person."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from difflib import SequenceMatcher

from retrieval.analysis import CJK_RUN

COPIED_SHARE = 0.7
"""A question that shares a longer run of characters with its passage tests nothing but string search."""

ALIKE = 0.65
"""Questions whose character trigrams overlap so far (Jaccard) are one question."""

_SHORTEST_QUOTE = 10
_SHORTEST_QUESTION = 8
_CJK_LANGUAGES = ("ja", "zh", "ko")
_NAMES_PASSAGE = re.compile(
    r"\b(?:this|the (?:given|provided|above|following)) (?:passage|text|document|excerpt|section|article|page)\b"
    r"|\bthe (?:passage|excerpt)\b"
    r"|\b(?:according to|mentioned in|described in|stated in) (?:the|this) (?:text|document|article|section|page)\b"
    r"|(?:この|上記の|上の|以下の|与えられた)(?:文章|文書|パッセージ|テキスト|抜粋|記事|節|ページ|ドキュメント)"
    r"|本文(?:書|章)?(?:に|で|の)|パッセージ",
    re.IGNORECASE,
)


def question_flaw(question: str, passage: str, lang: str) -> str:
    """Why the question is unfit; empty if it is not.

    `lang` is that of the passage, empty where it is not known.
    """
    if len(question.strip()) < _SHORTEST_QUESTION:
        return "the question is empty or too short"
    if _NAMES_PASSAGE.search(question):
        return "the question speaks of the passage, which nobody who asks has seen"
    if lang and (lang in _CJK_LANGUAGES) != _is_cjk(question):
        return "the question is not in the passage's language"
    if _longest_shared(_folded(question), _folded(passage)) > COPIED_SHARE:
        return "the question copies the passage"
    return ""


def quote_flaw(quote: str, passage: str) -> str:
    """Why the quote proves nothing; empty if it stands in the passage word for word, white space aside."""
    words = " ".join(quote.split())
    if len(words) < _SHORTEST_QUOTE:
        return "the quote is empty or too short"
    if words not in " ".join(passage.split()):
        return "the quote is not in the passage"
    return ""


class AskedBefore:
    """The questions that there are, to tell whether another is nearly one of them."""

    def __init__(self, questions: Iterable[str] = ()) -> None:
        self._known = [_trigrams(question) for question in questions]

    def add(self, question: str) -> None:
        """Count it as asked."""
        self._known.append(_trigrams(question))

    def __contains__(self, question: str) -> bool:
        asked = _trigrams(question)
        return any(_jaccard(asked, known) >= ALIKE for known in self._known)


def _folded(text: str) -> str:
    """Letters and digits alone, in one form and case."""
    return "".join(c for c in unicodedata.normalize("NFKC", text).casefold() if c.isalnum())


def _is_cjk(text: str) -> bool:
    letters = sum(character.isalpha() for character in text)
    return letters > 0 and sum(map(len, CJK_RUN.findall(text))) > 0.2 * letters


def _longest_shared(question: str, passage: str) -> float:
    match = SequenceMatcher(None, question, passage, autojunk=False).find_longest_match()
    return match.size / max(len(question), 1)


def _trigrams(question: str) -> frozenset[str]:
    text = _folded(question)
    return frozenset(text[i : i + 3] for i in range(max(len(text) - 2, 1)))


def _jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other)
