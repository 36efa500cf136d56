from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from retrieval.corpus import ReadingSettings, detect_language, read_documents, read_sources
from retrieval.errors import CorpusError
from retrieval.types import Anchor, Document

FRONT = "---\ndoc_uri: https://e.org/{0}\ntitle: Title {0}\nlang: en\n---\n"


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def failure(path: Path, **settings: Any) -> str:
    with pytest.raises(CorpusError) as caught:
        list(read_documents(path, ReadingSettings(**settings)))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_front_matter_gives_identity_title_language_and_metadata(tmp_path: Path) -> None:
    front = "---\ndoc_uri: https://e.org/a\ntitle: A\nlang: ja\nyear: 2024\ndraft: false\n"
    front += "day: 2024-05-06\ntags: [x]\nnone:\n---\n"
    write(tmp_path, {"a.md": front + "# Body\n\nText.\n"})
    assert list(read_documents(tmp_path)) == [
        Document(
            "https://e.org/a",
            "# Body\n\nText.\n",
            "A",
            "ja",
            {"year": 2024, "draft": False, "day": "2024-05-06"},
            (Anchor(0, "body"),),
        )
    ]


def test_base_url_and_relative_path_make_the_identity_where_nothing_else_does(tmp_path: Path) -> None:
    write(tmp_path, {"a.md": "x", "sub dir/b.txt": "x", "sub dir/index.html": "<p>x", "index.markdown": "x"})
    found = [
        document.doc_uri
        for document in read_documents(tmp_path, ReadingSettings(base_url="https://e.org/docs/"))
    ]
    assert found == [f"https://e.org/docs/{page}" for page in ("a", "", "sub%20dir/b", "sub%20dir/")]


def test_a_canonical_link_is_the_identity_of_a_page(tmp_path: Path) -> None:
    write(tmp_path, {"a.html": "<link rel=canonical href='https://e.org/real'><title>T</title><p>Text"})
    assert list(read_documents(tmp_path)) == [Document("https://e.org/real", "Text", "T", "en")]


def test_a_title_falls_back_to_the_first_heading_and_then_to_the_name_of_the_file(tmp_path: Path) -> None:
    write(tmp_path, {"a.md": "text\n## Found #\n", "b.txt": "no heading"})
    assert [document.title for document in read_documents(tmp_path, ReadingSettings(base_url="u"))] == [
        "Found",
        "b",
    ]


def test_hidden_files_other_kinds_and_link_loops_are_skipped(tmp_path: Path) -> None:
    write(tmp_path, {"a.md": "x", ".hidden.md": "x", ".git/b.md": "x", "c.py": "x", "sub/d.MD": "x"})
    (tmp_path / "sub" / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "broken.md").symlink_to(tmp_path / "nowhere")
    assert [document.doc_uri for document in read_documents(tmp_path, ReadingSettings(base_url="u"))] == [
        "u/a",
        "u/sub/d",
    ]


def test_a_single_file_is_a_corpus(tmp_path: Path) -> None:
    write(tmp_path, {"a.md": FRONT.format("a") + "Text"})
    assert [document.doc_uri for document in read_documents(tmp_path / "a.md")] == ["https://e.org/a"]


def test_windows_line_ends_and_a_byte_order_mark_are_no_part_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_bytes(
        b"\xef\xbb\xbf" + FRONT.format("a").replace("\n", "\r\n").encode() + b"One\r\nTwo"
    )
    assert [(document.title, document.text) for document in read_documents(tmp_path)] == [
        ("Title a", "One\nTwo")
    ]


def test_a_rule_at_the_top_is_no_front_matter(tmp_path: Path) -> None:
    write(tmp_path, {"a.md": "---\n\nJust text\n"})
    assert [document.text for document in read_documents(tmp_path, ReadingSettings(base_url="u"))] == [
        "---\n\nJust text\n"
    ]


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Plain English.", "en"),
        ("An English text that names 東京 once in many words of its own.", "en"),
        ("mlflow.start_span を使ってスパンを作成します。", "ja"),
        ("这是一个中文句子", "zh"),
        ("한국어 문장입니다", "ko"),
        ("", "en"),
    ],
)
def test_a_missing_language_is_detected_by_script(text: str, language: str) -> None:
    assert detect_language(text) == language


def test_json_lines_of_several_shapes_are_read(tmp_path: Path) -> None:
    records = [
        {
            "doc_uri": "https://e.org/a",
            "text": "One",
            "title": "A",
            "lang": "en",
            "metadata": {"year": 1, "x": [1]},
        },
        {"_id": 7, "contents": "二つ目です"},
        {"page_content": "# Three", "metadata": {"doc_uri": "https://e.org/c", "area": "x"}, "id": "ignored"},
    ]
    path = tmp_path / "docs.jsonl"
    path.write_text("\n".join(map(json.dumps, records)) + "\n\n", encoding="utf-8")
    assert list(read_documents(path, ReadingSettings(base_url="https://e.org/"))) == [
        Document("https://e.org/a", "One", "A", "en", {"year": 1}),
        Document("https://e.org/7", "二つ目です", "", "ja"),
        Document("https://e.org/c", "# Three", "Three", "en", {"area": "x"}, (Anchor(0, "three"),)),
    ]


def test_a_beir_directory_is_recognized_also_when_compressed(tmp_path: Path) -> None:
    line = json.dumps({"_id": "d1", "title": "T", "text": "Text"}).encode()
    (tmp_path / "corpus.jsonl.gz").write_bytes(gzip.compress(line))
    expected = [Document("d1", "Text", "T", "en")]
    assert (
        list(read_documents(tmp_path))
        == list(read_documents(tmp_path, ReadingSettings(layout="beir")))
        == expected
    )


@pytest.mark.parametrize(
    ("text", "place", "reason"),
    [
        ("---\ntitle: a: b\n---\n", "a.md:2", "not valid YAML"),
        ("---\ntitle: 'open\nx: 1\n---\n", "a.md:", "not valid YAML"),
        ("---\ntitle: x\n\nText", "a.md:1", "has no end"),
        ("---\n- a\n- b\n---\n", "a.md:2", "not a mapping"),
        ("---\ndoc_uri: u\nlang: no\n---\n", "a.md", "lang in the front matter is False"),
        ("---\ndoc_uri: [u]\n---\n", "a.md", "doc_uri in the front matter is ['u']"),
        ("Text", "a.md", "Add 'doc_uri: https://…' to its front matter, or give --base-url"),
    ],
)
def test_malformed_front_matter_says_where_and_what(
    tmp_path: Path, text: str, place: str, reason: str
) -> None:
    message = failure(write(tmp_path, {"a.md": text}))
    assert message.startswith(place)
    assert reason in message


def test_a_duplicate_doc_uri_names_both_places(tmp_path: Path) -> None:
    message = failure(
        write(tmp_path, {"a.md": FRONT.format("x"), "b.md": FRONT.format("y"), "c.md": FRONT.format("x")})
    )
    assert message.startswith("c.md: the doc_uri 'https://e.org/x' is already that of a.md.")


def test_a_duplicate_doc_uri_in_json_lines_names_both_lines(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text('{"id": "x", "text": "1"}\n\n{"id": "x", "text": "2"}\n')
    message = failure(path)
    assert "d.jsonl:3" in message
    assert "d.jsonl:1." in message


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"id": "x", "text": ', "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('"text"', "is str, not an object"),
        ('{"text": "x"}', "no doc_uri, _id or id"),
        ('{"id": "", "text": "x"}', "no doc_uri, _id or id"),
        ('{"id": "x"}', "no text"),
        ('{"id": "x", "text": 5}', "text is 5"),
        ('{"id": "x", "text": "t", "title": ["a"]}', "title is ['a']"),
        ('{"id": "x", "text": "t", "metadata": 3}', "metadata is 3"),
    ],
)
def test_a_broken_json_line_says_file_and_line(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text('{"id": "first", "text": "fine"}\n' + line + "\n")
    message = failure(path)
    assert message.startswith("d.jsonl:2: ")
    assert reason in message


def test_a_line_that_is_not_utf8_says_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(b'{"id": "a", "text": "fine"}\n{"id": "b", "text": "caf\xe9"}\n')
    assert failure(path).startswith("d.jsonl:2: not UTF-8")


def test_a_cut_off_gzip_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl.gz"
    whole = gzip.compress(b'{"id": "a", "text": "fine"}\n')
    for content in (whole[:-12], whole[:10] + b"\xff" + whole[11:], b"not gzip at all"):
        path.write_bytes(content)
        assert failure(path).startswith("d.jsonl.gz: not a complete gzip file")


def test_a_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_bytes(b"caf\xe9")
    message = failure(tmp_path)
    assert message.startswith("a.md: not UTF-8")
    assert "byte 3" in message


def test_a_path_that_does_not_exist_is_an_error_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"no corpus at '.*nowhere'"):
        read_documents(tmp_path / "nowhere")


def test_a_source_is_known_by_its_place_and_by_all_that_makes_its_document(tmp_path: Path) -> None:
    write(tmp_path, {"sub/a.md": "# One", "b.md": "# Two"})
    first = ReadingSettings(base_url="https://e.org")
    known = {source.place: source.fingerprint for source in read_sources(tmp_path, first)}
    assert list(known) == ["b.md", "sub/a.md"]
    assert all(len(fingerprint) == 32 for fingerprint in known.values())
    assert known == {source.place: source.fingerprint for source in read_sources(tmp_path, first)}
    for other in (
        ReadingSettings(base_url="https://f.org"),
        ReadingSettings("https://e.org", anchors="none"),
    ):
        again = {source.place: source.fingerprint for source in read_sources(tmp_path, other)}
        assert not set(known.values()) & set(again.values())
    write(tmp_path, {"b.md": "# Three"})
    changed = {source.place: source.fingerprint for source in read_sources(tmp_path, first)}
    assert changed["sub/a.md"] == known["sub/a.md"]
    assert changed["b.md"] != known["b.md"]


def test_a_bad_document_is_told_of_and_the_rest_goes_on(tmp_path: Path) -> None:
    write(
        tmp_path, {"a.md": "---\nopen", "b.md": "Text", "c.md": FRONT.format("b"), "d.md": FRONT.format("b")}
    )
    (tmp_path / "a.md").write_bytes(b"PK\x03\x04\x00\x00 a program")
    told: list[tuple[str, str]] = []
    found = read_documents(
        tmp_path, ReadingSettings(), on_refused=lambda place, error: told.append((place, str(error)))
    )
    assert [document.doc_uri for document in found] == ["https://e.org/b"]
    assert [place for place, _ in told] == ["a.md", "b.md", "d.md"]
    assert all(reason.startswith(f"{place}: ") for place, reason in told)


def test_only_bad_documents_are_an_error(tmp_path: Path) -> None:
    write(tmp_path, {"a.md": "no address"})
    with pytest.raises(CorpusError, match=r"a\.md: no doc_uri"):
        list(read_documents(tmp_path, on_refused=lambda place, error: None))


def test_no_document_is_an_error(tmp_path: Path) -> None:
    assert "no document" in failure(tmp_path)
    assert "is no BEIR directory" in failure(tmp_path, layout="beir")
