"""Lines in groups: none is lost, and a change is felt only where it is."""

from __future__ import annotations

import random
from io import BytesIO
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from retrieval.corpus import ReadingSettings, read_groups, read_sources
from retrieval.documents import line_groups
from retrieval.documents.line_groups import lines_of, read_line_groups
from retrieval.errors import CorpusError
from retrieval.local_index import LocalIndex

LONGEST = 1_000_000


def groups(content: bytes, longest: int = LONGEST) -> list[tuple[int, bytes]]:
    return list(read_line_groups(BytesIO(content), longest))


@given(
    st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"")), max_size=300), st.booleans()
)
def test_every_line_is_in_one_group_at_its_number(lines: list[bytes], ends: bool) -> None:
    content = b"\n".join(lines) + (b"\n" if ends else b"")
    expected = {n: line for n, line in enumerate(BytesIO(content), start=1) if not line.isspace()}
    found = {
        n: line for first, group in groups(content) for n, line in enumerate(lines_of(group), start=first)
    }
    assert {n: line for n, line in found.items() if not line.isspace()} == expected


def test_a_line_that_is_put_in_changes_the_group_around_it_alone() -> None:
    draw = random.Random(0)
    lines = [b"x" * draw.randint(200, 900) + b"%d\n" % number for number in range(20_000)]
    before = {content for _, content in groups(b"".join(lines))}
    lines.insert(9_000, b"a new one\n")
    after = {content for _, content in groups(b"".join(lines))}
    # One group, and the two at each end of what was read at once.
    assert len(after - before) <= 1 + 2 * (sum(map(len, lines)) // line_groups._READ_BYTES + 1)
    assert 1_000 < len(before) < 4_000


def test_lines_of_one_length_are_grouped_all_the_same() -> None:
    for length in range(1, 40):
        assert len(groups((b"y" * length + b"\n") * 100)) >= 100 // line_groups._MOST_LINES


@given(st.lists(st.integers(0, 60), max_size=30), st.integers(1, 25), st.integers(1, 16))
def test_of_a_line_that_is_too_long_its_beginning_is_given(
    lengths: list[int], longest: int, at_once: int
) -> None:
    content = b"".join(b"z" * length + b"\n" for length in lengths)
    kept = line_groups._READ_BYTES
    line_groups._READ_BYTES = at_once
    try:
        found = [
            line
            for first, group in groups(content, longest)
            for line in enumerate(lines_of(group), start=first)
        ]
    finally:
        line_groups._READ_BYTES = kept
    for number, line in found:
        length = lengths[number - 1]
        whole = line == b"z" * length + b"\n"
        assert whole or (length >= longest and len(line) > longest and line == b"z" * len(line))
    assert [n for n, line in found if not line.isspace()] == [
        n for n, length in enumerate(lengths, start=1) if length
    ]


def test_a_file_of_lines_is_indexed_again_by_its_groups(tmp_path: Path) -> None:
    corpus, path = tmp_path / "corpus.jsonl", tmp_path / "index"
    lines = [f'{{"_id": "d{n}", "text": "{"word " * (1 + n % 13)}number {n}"}}\n' for n in range(500)]
    settings = ReadingSettings(base_url="https://e.org/")

    def sync(text: str) -> tuple[int, int, int, int]:
        corpus.write_text(text)
        report = LocalIndex.sync(path, read_groups(corpus, settings))
        built = LocalIndex.build(tmp_path / "built", read_sources(corpus, settings))
        assert LocalIndex.open(path).content_hash == LocalIndex.open(tmp_path / "built").content_hash
        assert (report.documents, report.refused) == (built.documents, built.refused)
        return report.added, report.replaced, report.deleted, report.unchanged

    assert sync("".join(lines)) == (500, 0, 0, 0)
    assert sync("\n" + "".join(lines)) == (0, 0, 0, 500)
    assert sync("".join([*lines[:100], lines[7], *lines[100:]])) == (0, 0, 0, 500)
    lines[250] = lines[250].replace("number", "Number")
    assert sync("".join(lines[3:])) == (0, 1, 3, 496)
    assert sync("".join(["no JSON\n", *lines])) == (3, 0, 0, 497)
    assert sync("".join(reversed(lines))) == (0, 0, 0, 500)


def test_the_places_of_a_group_are_those_of_its_lines(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('\n{"text": 1}\n\n{"text": 2}\n')
    (group,) = read_groups(tmp_path / "a.jsonl")
    assert not isinstance(group, CorpusError)
    assert group.places() == [source.place for source in group.load()] == ["a.jsonl:2", "a.jsonl:4"]
