"""How much of an expected text an answer holds, in languages with and without spaces between words."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

_MARKER = re.compile(r"\[\d+(?:\s*[,、]\s*\d+)*\]")
_KANJI = "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
_KATAKANA = "\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"
_HIRAGANA = "\u3041-\u309f"
_HANGUL = "\uac00-\ud7a3"
_UNSPACED = f"{_KANJI}{_KATAKANA}{_HANGUL}{_HIRAGANA}"
_TOKEN = re.compile(rf"[{_UNSPACED}]|\d+(?:[.,]\d+)*|[^\W{_UNSPACED}]+")
_CONTENT_RUN = re.compile(rf"[{_KANJI}]+|[{_KATAKANA}]+|[{_HANGUL}]+")
_ARTICLES = frozenset({"a", "an", "the"})
_FUNCTION_WORDS = _ARTICLES | frozenset(
    re.findall(
        r"\w+",
        """
        am and are as at be been being but by can could did do does for from had has have he her his how i if
        in into is it its may might must of on or our shall she should so such than that their them then
        there these they this those to was we were what when where which who whom whose why will with would
        you your
        """,
    )
)


def token_f1(answer: str, expected: str) -> float:
    """The F1 of shared tokens, after SQuAD's evaluation (Rajpurkar et al., EMNLP 2016), for any language.

    Letters and digits are folded by NFKC and case; white space, punctuation, citation markers and English
    articles do not count. Scripts without spaces go by character, as MLQA does for Chinese; everything
    else by word. Two texts without a token agree fully, one of them with none scores 0.
    """
    answer_tokens, expected_tokens = _tokens(answer, _ARTICLES), _tokens(expected, _ARTICLES)
    if not answer_tokens or not expected_tokens:
        return float(answer_tokens == expected_tokens)
    shared = sum((Counter(answer_tokens) & Counter(expected_tokens)).values())
    return 2 * shared / (len(answer_tokens) + len(expected_tokens))


def contained_share(answer: str, fact: str) -> float:
    """The share of a fact's distinct content terms that occur in the answer, in [0, 1].

    Content terms are words without English function words, whole numbers (`1,000` is `1000`), and pairs of
    neighbouring characters within runs of kanji, katakana or hangul. Literal containment would fail every
    paraphrase; all tokens would give credit for `the` and `は` to any answer in the language (hiragana is
    mostly grammar, so it counts only in a fact that has nothing else). On SQuADShifts new-wiki the sentence
    that holds a fact scores .998, another one of its paragraph .09, three from anywhere .02. Word order does
    not matter, and a longer answer never scores less: read it beside citation precision.
    """
    words, pairs = _content_terms(fact)
    if not words and not pairs:
        return float(_folded(fact).strip() in _folded(answer))
    answer_words, answer_text = set(_tokens(answer)), "".join(_folded(answer).split())
    found = sum(word in answer_words for word in words) + sum(pair in answer_text for pair in pairs)
    return found / (len(words) + len(pairs))


def _content_terms(text: str) -> tuple[set[str], set[str]]:
    tokens = _tokens(text)
    pairs = {pair for run in _CONTENT_RUN.findall(_folded(text)) for pair in _pairs(run)}
    words = {token for token in tokens if not re.match(rf"[{_UNSPACED}]", token)}
    content = words - _FUNCTION_WORDS
    if content or pairs:
        return content, pairs
    return words, set(tokens) - words


def _pairs(run: str) -> list[str]:
    return [run[i : i + 2] for i in range(len(run) - 1)] or [run]


def _tokens(text: str, without: frozenset[str] = frozenset()) -> list[str]:
    tokens = (token.strip("_").replace(",", "") for token in _TOKEN.findall(_folded(text)))
    return [token for token in tokens if token and token not in without]


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", _MARKER.sub(" ", text)).casefold()
