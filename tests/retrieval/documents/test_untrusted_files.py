"""Files that are not what they seem: read rightly, or refused with a reason, and no harm done."""

from __future__ import annotations

import gzip
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.corpus import ReadingSettings, read_documents, read_sources
from retrieval.documents.encoding import decode
from retrieval.errors import CorpusError

JAPANESE = "索引を作るには、コマンドを実行します。\n設定ファイルは YAML です。"


def read(path: Path, **settings: Any) -> tuple[dict[str, str], dict[str, str]]:
    """The texts by doc_uri, and the reasons of what was refused by place."""
    reasons: dict[str, str] = {}
    found = read_documents(
        path,
        ReadingSettings(base_url="u", **settings),
        on_refused=lambda place, error: reasons.update({place: str(error)}),
    )
    return {document.doc_uri: document.text for document in found}, reasons


@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "utf-16", "utf-32", "shift_jis", "cp932", "euc_jp", "iso2022_jp"],
)
def test_text_in_the_encodings_of_japan_and_of_windows_is_read_rightly(encoding: str) -> None:
    assert decode(JAPANESE.replace("\n", "\r\n").encode(encoding), "a.md") == JAPANESE


@given(
    st.text(
        alphabet=st.sampled_from(
            "あいうえおかきくけこのはをがにカナテスト日本語文書検索設定、。「」abc 12\n"
        ),
        min_size=8,
    ),
    st.sampled_from(["shift_jis", "euc_jp"]),
)
def test_japanese_is_read_rightly_or_refused_and_never_otherwise(text: str, encoding: str) -> None:
    try:
        assert decode(text.encode(encoding), "a.md") == text
    except CorpusError as error:
        assert str(error).startswith("a.md: not UTF-8")  # noqa: PT017 either is right


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "holds NUL bytes"),
        ("Text".encode("utf-16-le"), "holds NUL bytes"),
        (b"\xff\xfea", "begins with the mark of UTF-16-LE and is not"),
        (bytes(range(1, 9)) * 20, "full of control characters"),
        ("Ein längerer Text über Größe, der in Latin-1 geschrieben ist.".encode("latin-1"), "not UTF-8"),
        ("Привет, это русский текст для проверки.".encode("cp1251"), "not UTF-8"),
        (b"\xb6\xb1", "not UTF-8"),
    ],
)
def test_what_is_binary_or_uncertain_is_refused(tmp_path: Path, data: bytes, reason: str) -> None:
    (tmp_path / "a.md").write_bytes(data)
    (tmp_path / "b.md").write_text("Fine")
    texts, reasons = read(tmp_path)
    assert texts == {"u/b": "Fine"}
    assert reasons["a.md"].startswith("a.md: ")
    assert reason in reasons["a.md"]


def test_a_page_is_read_in_the_encoding_that_it_states(tmp_path: Path) -> None:
    page = "<html><head><meta charset='{}'></head><body><p>{}"
    (tmp_path / "a.html").write_bytes(page.format("ISO-8859-1", "Größe – “gut”").encode("cp1252"))
    (tmp_path / "b.html").write_bytes(page.format("Shift_JIS", "表示").encode("cp932"))
    assert read(tmp_path)[0] == {"u/a": "Größe – “gut”", "u/b": "表示"}


def test_a_file_that_is_too_large_is_neither_read_nor_kept(tmp_path: Path) -> None:
    with (tmp_path / "a.md").open("wb") as file:
        file.truncate(200_000_000)
    (tmp_path / "b.md").write_text("Fine")
    texts, reasons = read(tmp_path)
    assert list(texts) == ["u/b"]
    assert "larger than 50 MB" in reasons["a.md"]
    assert "raise corpus.max_file_mb" in reasons["a.md"]


def test_a_line_that_is_too_long_is_refused_and_the_next_is_read(tmp_path: Path) -> None:
    long = b'{"id": "x", "text": "' + b"x" * 30_000 + b'"}\n'
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(long + b'{"id": "y", "text": "Fine"}\n' + long[:-1]))
    texts, reasons = read(tmp_path / "a.jsonl.gz", max_file_mb=0.01)
    assert texts == {"uy": "Fine"}
    assert list(reasons) == ["a.jsonl.gz:1", "a.jsonl.gz:3"]


def test_links_that_lead_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key.md").write_text("secret")
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "own.md").write_text("Fine")
    (folder / "file.md").symlink_to(tmp_path / "secret" / "key.md")
    (folder / "more").symlink_to(tmp_path / "secret", target_is_directory=True)
    (folder / "same.md").symlink_to(folder / "own.md")
    (folder / "nowhere.md").symlink_to(folder / "gone.md")
    (folder / "data.bin").symlink_to("/dev/zero")
    texts, reasons = read(folder)
    assert texts == {"u/own": "Fine", "u/same": "Fine"}
    assert sorted(reasons) == ["file.md", "more"]
    assert all("a link out of the folder" in reason for reason in reasons.values())


def test_folders_that_link_to_each_other_are_read_once(tmp_path: Path) -> None:
    names = [f"d{number}" for number in range(12)]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.md").write_text("x")
    for name in names:
        for other in names:
            (tmp_path / name / f"to-{other}").symlink_to(tmp_path / other, target_is_directory=True)
    assert len(read(tmp_path)[0]) == 12


def test_a_folder_may_be_deep_and_names_may_be_anything(tmp_path: Path) -> None:
    deep = tmp_path
    for _ in range(300):
        deep = deep / "d"
        deep.mkdir()
    (deep / "a.md").write_text("deep")
    (tmp_path / "with #?% 日本.md").write_text("named")
    (tmp_path / os.fsdecode(b"caf\xe9.md")).write_text("bytes")
    (tmp_path / "folder.md").mkdir()
    os.mkfifo(tmp_path / "pipe.md")
    texts, reasons = read(tmp_path)
    assert sorted(texts.values()) == ["bytes", "deep", "named"]
    assert "u/with%20%23%3F%25%20%E6%97%A5%E6%9C%AC" in texts
    assert "u/caf%E9" in texts
    assert not reasons


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("x")
    (tmp_path / "a.md").chmod(0)
    (tmp_path / "b.md").write_text("Fine")
    assert "Check its permissions" in read(tmp_path)[1]["a.md"]


def test_a_file_that_went_away_is_refused_when_it_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("x")
    (source,) = read_sources(tmp_path, ReadingSettings(base_url="u"))
    (tmp_path / "a.md").unlink()
    with pytest.raises(CorpusError, match=r"a\.md: cannot be read"):
        source.load()


def test_aliases_in_front_matter_are_not_expanded_to_fill_the_memory(tmp_path: Path) -> None:
    names = "abcdefghijklmnopqrstuvwx"
    lines = ["---", "a: &a [x, x]", *(f"{n}: &{n} [*{before}, *{before}]" for before, n in pairwise(names))]
    (tmp_path / "a.md").write_text("\n".join([*lines, "---", "Text"]))
    (tmp_path / "b.md").write_text("---\nday: 2024-13-45\n---\n")
    texts, reasons = read(tmp_path)
    assert texts == {"u/a": "Text"}
    assert "not valid YAML" in reasons["b.md"]
