"""Words, sentences and chance, as the rules use them: nothing of the product, so that it cannot agree with itself."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

_CJK = "\u3005-\u3007\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_TOKEN = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+|[^\w\s]")
_CONTENT = re.compile(r"[\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff]+|[\u30a1-\u30ff]+|[a-z0-9]+")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")
_FUNCTION_WORDS = frozenset(
    re.findall(
        r"\w+",
        """
        a an and are as at be been by can could did do does for from had has have how i in is it its may me of on or
        please say take tell that the their them there they this to took place was we were what when where which who
        whom whose why will with would year you your 何 誰 年 教 場所
        """,
    )
)


def count_tokens(text: str) -> int:
    """Words, CJK characters and punctuation marks: the unit of all usage."""
    return len(_TOKEN.findall(text))


def cut_to_tokens(text: str, most: int) -> str:
    """The beginning of `text` that has no more than so many tokens."""
    ends = [match.end() for match in _TOKEN.finditer(text)]
    return text if len(ends) <= most else text[: ends[most - 1] if most > 0 else 0]


def split_sentences(text: str) -> list[str]:
    """The sentences of prose in English or Japanese, stripped."""
    return [sentence.strip() for sentence in _SENTENCE_END.split(text) if sentence and sentence.strip()]


def content_words(text: str) -> list[str]:
    """Words that carry meaning, each once: stems of English ones, runs of kanji or katakana."""
    found = (word for word in _CONTENT.findall(text.lower()) if word not in _FUNCTION_WORDS)
    return list(dict.fromkeys(map(_stem, found)))


def is_japanese(text: str) -> bool:
    return re.search(rf"[{_CJK}]", text) is not None


def translate(text: str, vocabulary: Mapping[str, str]) -> str:
    """`text` with each of the asker's expressions put into the corpus's words; longer expressions first."""
    for asked in sorted(vocabulary, key=len, reverse=True):
        edge = r"\b" if asked.isascii() else ""
        text = re.sub(rf"{edge}{re.escape(asked)}{edge}", vocabulary[asked], text, flags=re.IGNORECASE)
    return text


def covered_share(wanted: list[str], sentence: str) -> float:
    """The share of the wanted content words that the sentence holds; 0 where nothing is wanted."""
    words = set(content_words(sentence))
    return sum(word in words for word in wanted) / len(wanted) if wanted else 0.0


def chance(*what: object) -> float:
    """A number in [0, 1) that depends on nothing but `what`: the same in every process."""
    digest = hashlib.sha256("\x1f".join(map(str, what)).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _stem(word: str) -> str:
    return re.sub(r"(?<=\w{3})(?:ing|ed|es|s)$", "", word) if word.isascii() else word
