"""The language of a text, by its script."""

from __future__ import annotations

from retrieval.analysis import CJK_RUN

_SAMPLE = 4000
_CJK_SHARE = 0.1


def detect_language(text: str) -> str:
    """`ja`, `zh` or `ko` when at least a tenth of the first letters are of these scripts, else `en`.

    Any kana make it Japanese, any Hangul without kana Korean. No other languages are told apart.
    """
    sample = text[:_SAMPLE]
    if sample.isascii():
        return "en"
    cjk = "".join(CJK_RUN.findall(sample))
    if len(cjk) < _CJK_SHARE * sum(map(str.isalpha, sample)) or not cjk:
        return "en"
    if any("\u3041" <= character <= "\u30ff" for character in cjk):
        return "ja"
    return "ko" if any("\uac00" <= character <= "\ud7a3" for character in cjk) else "zh"
