"""Bytes to text: what they say they are, UTF-8, or a Japanese encoding that leaves no doubt; else a reason."""

from __future__ import annotations

import codecs
import re

from retrieval.errors import CorpusError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16's, with which it begins
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Labels that the web uses for a larger encoding than their name says.
_MEANT = {"shift_jis": "cp932", "shift-jis": "cp932", "sjis": "cp932", "x-sjis": "cp932"} | dict.fromkeys(
    ("iso-8859-1", "latin-1", "latin1", "ascii", "us-ascii"), "cp1252"
)
_SAMPLE = 20_000
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f\ufffe\uffff]")
_MOST_CONTROLS = 0.01
_JAPANESE = re.compile(r"[\u3000-\u30ff\u4e00-\u9fff\uff01-\uff5e]")
_KANA = re.compile(r"[\u3041-\u30ff]")
_LEAST_JAPANESE, _LEAST_KANA = 0.97, 0.15


def decode(data: bytes, place: str, declared: str = "") -> str:
    """The text of a file, with `\\n` for its line ends and without a byte order mark.

    `declared` is the encoding that the file states within. Without one, what is neither UTF-8 nor
    unmistakably Japanese (Shift_JIS, EUC-JP or ISO-2022-JP, with kana among it) is refused, not guessed.

    Raises:
        CorpusError: if the bytes are binary, or text in an encoding that is not certain.
    """
    mark, encoding = next((pair for pair in _MARKS if data.startswith(pair[0])), (b"", ""))
    if encoding:
        text = _as(data[len(mark) :], encoding, place)
    elif b"\0" in data:
        raise CorpusError(
            f"{place}: not text: it holds NUL bytes, as binary files and UTF-16 without its mark do. "
            "Move it away, or convert it to UTF-8."
        )
    else:
        text = _without_mark(data, place, declared)
    if _is_binary(text):
        raise CorpusError(f"{place}: not text: it is full of control characters. Move it away.")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _without_mark(data: bytes, place: str, declared: str) -> str:
    try:
        if b"\x1b$" in data or b"\x1b(" in data:
            return data.decode("iso2022_jp_ext")
    except UnicodeDecodeError:
        pass
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        reason = f"{error.reason} at byte {error.start}"
    found = _declared(data, declared) or _japanese(data)
    if found is None:
        raise CorpusError(
            f"{place}: not UTF-8 ({reason}){_likely(data)}. Convert it to UTF-8, or move it away."
        )
    return found


def _as(data: bytes, encoding: str, place: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{place}: begins with the mark of {encoding.upper()} and is not ({error.reason} at byte "
            f"{error.start}). Convert it to UTF-8, or move it away."
        ) from None


def _declared(data: bytes, declared: str) -> str | None:
    label = declared.strip().lower()
    try:
        return data.decode(_MEANT.get(label, label)) if label else None
    except (UnicodeDecodeError, LookupError):
        return None


def _japanese(data: bytes) -> str | None:
    readings = []
    for encoding in ("euc_jp", "cp932"):
        try:
            readings.append(data.decode(encoding))
        except UnicodeDecodeError:
            continue
    certain = [text for text in readings if _is_japanese(text)]
    return certain[0] if len(certain) == 1 else None


def _is_japanese(text: str) -> bool:
    """Whether what is not ASCII is Japanese writing with kana among it, and not by chance.

    Read in the wrong one of the two encodings, it is full of half-width katakana and rare signs.
    """
    wide = [character for character in text if not character.isascii()]
    joined = "".join(wide)
    return (
        len(wide) > 1
        and len(_JAPANESE.findall(joined)) >= _LEAST_JAPANESE * len(wide)
        and len(_KANA.findall(joined)) >= _LEAST_KANA * len(wide)
    )


def _is_binary(text: str) -> bool:
    sample = text[:_SAMPLE]
    return len(_CONTROLS.findall(sample)) > _MOST_CONTROLS * len(sample)


def _likely(data: bytes) -> str:
    """A hint at the encoding, from a library whose guess is good enough for that."""
    from charset_normalizer import from_bytes

    best = from_bytes(data[:_SAMPLE]).best()
    return f"; it may be {best.encoding}" if best else ""
