"""Text to terms: one analysis for the index, for its queries, and for the extractive reader."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

from tantivy import Filter, TextAnalyzer, TextAnalyzerBuilder, Tokenizer

ANALYZER_VERSION = 1
"""Raised with every change of the terms: an index remembers the one that it was built with."""

# Han with its marks, Hiragana, Katakana with the long-vowel mark, Bopomofo, Hangul, and rare Han.
CJK_RUN = re.compile(
    "[々〆〇\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u3105-\u312f\u3131-\u318e\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97c\uac00-\ud7fb\uf900-\ufaff\U00020000-\U000323af]+"
)
_HIRAGANA = re.compile("[\u3041-\u309f]+")
# 何 and 誰 with what stands beside them: とは何 asks, and is not what is asked about.
_ASKING = re.compile("[何誰][\u3041-\u309f]?|[\u3041-\u309f][何誰]")
_NAME = r"[A-Za-z0-9]+(?:[._][A-Za-z0-9]+)+"
_MOST_TERM_BYTES = 100

_FUNCTION_WORDS = (
    "a an the and or but if of at by for with about to from in on into as is are was were be been am do does "
    "did has have had i me my we our you your he she it its they them their this that these those what which "
    "who whom when where why how can could should would will shall may might must not no so than then there"
)


def analyze(text: str) -> list[str]:
    """The terms of `text`: its words, then the whole names in it, then its CJK bigrams.

    Words are lower-cased, folded (accents, full-width and other compatibility forms) and stemmed as
    English; a name such as `dspy.LM` or `max_tokens` gives its parts as words and besides itself, in
    lower case. Runs of Chinese, Japanese and Korean characters give pairs of characters. Any text is
    safe; a term comes as often as it occurs, in the order of the text within each kind.
    """
    words, grams = split_scripts(text)
    return analyze_words(words) + analyze_names(words) + grams


def content_terms(terms: Iterable[str]) -> list[str]:
    """`terms` without English function words and pairs of Hiragana; all of them when nothing else is there.

    A question is asked with them and is not about them. They are indexed all the same.
    """
    terms = list(terms)
    return [term for term in terms if not is_function_word(term)] or terms


def is_function_word(term: str) -> bool:
    """Whether a term of `analyze` is an English function word, a Japanese question word, or only Hiragana."""
    if term.isascii():
        return term in _function_stems()
    return _HIRAGANA.fullmatch(term) is not None or _ASKING.fullmatch(term) is not None


def split_scripts(text: str) -> tuple[str, list[str]]:
    """The part of `text` that is for `analyze_words` and `analyze_names`, and the bigrams of the rest."""
    if text.isascii():
        return text, []
    text = _normalize(text)
    runs = CJK_RUN.findall(text)
    return (CJK_RUN.sub(" ", text), [gram for run in runs for gram in _bigrams(run)]) if runs else (text, [])


def analyze_words(text: str) -> list[str]:
    """The terms that an index field with `word_analyzer` holds for `text`."""
    return _cached_word_analyzer().analyze(text)


def analyze_names(text: str) -> list[str]:
    """The terms that an index field with `name_analyzer` holds for `text`."""
    return _cached_name_analyzer().analyze(text) if may_have_names(text) else []


def may_have_names(text: str) -> bool:
    """Whether `analyze_names` has to look at `text`: most prose has no name, and this costs next to nothing."""
    return _joins(text, ".") or _joins(text, "_")


def _joins(text: str, mark: str) -> bool:
    # A regular expression looks at each character; in prose, there are few of these marks to look behind.
    at = text.find(mark)
    while at >= 0:
        following = text[at + 1 : at + 2]
        if following.isascii() and following.isalnum():
            return True
        at = text.find(mark, at + 1)
    return False


def word_analyzer() -> TextAnalyzer:
    """A new analyzer of words: runs of letters and digits, lower-cased, accents folded, English stems."""
    return (
        TextAnalyzerBuilder(Tokenizer.simple())
        .filter(Filter.remove_long(_MOST_TERM_BYTES))
        .filter(Filter.lowercase())
        .filter(Filter.ascii_fold())
        .filter(Filter.stemmer("english"))
        .build()
    )


def name_analyzer() -> TextAnalyzer:
    """A new analyzer of names: words joined by dots or underscores, whole and lower-cased."""
    return (
        TextAnalyzerBuilder(Tokenizer.regex(_NAME))
        .filter(Filter.remove_long(_MOST_TERM_BYTES))
        .filter(Filter.lowercase())
        .build()
    )


_cached_word_analyzer = lru_cache(maxsize=1)(word_analyzer)
_cached_name_analyzer = lru_cache(maxsize=1)(name_analyzer)


@lru_cache(maxsize=1)
def _function_stems() -> frozenset[str]:
    return frozenset(analyze_words(_FUNCTION_WORDS))


def _normalize(text: str) -> str:
    normal = unicodedata.normalize("NFKC", text)
    # A lone surrogate cannot be encoded, and so not be handed to the index.
    return normal.encode("utf-8", "replace").decode("utf-8")


def _bigrams(run: str) -> list[str]:
    return [run[i : i + 2] for i in range(len(run) - 1)] or [run]
