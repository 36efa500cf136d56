"""An index that is kept in step with sources: what is loaded, what is refused, what is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retrieval.errors import CorpusError
from retrieval.indexing import RefusedDocument
from retrieval.local_index import IndexReport, LocalIndex
from retrieval.registry import KnownSources, Registry, RegistryDraft
from retrieval.sources import Source, SourceGroup
from retrieval.types import Document

Contents = Mapping[str, str]
"""What is in each place: `uri text` a line, or `bad`."""


@dataclass
class Corpus:
    """Sources made of a dictionary, that note what is loaded."""

    loaded: list[str] = field(default_factory=list)

    def __call__(self, contents: Contents) -> Iterator[Source]:
        for place, content in contents.items():
            fingerprint = blake2b(content.encode(), digest_size=16).hexdigest()
            yield Source(place, fingerprint, self._loader(place, content))

    def grouped(self, contents: Contents, size: int) -> Iterator[Source | SourceGroup]:
        """The sources in groups, but for the first, which is in none."""
        sources = list(self(contents))
        yield from sources[:1]
        for start in range(1, len(sources), size):
            group = sources[start : start + size]
            whole = blake2b("".join(one.fingerprint for one in group).encode(), digest_size=16).hexdigest()
            places = [one.place for one in group]
            yield SourceGroup(places[0], whole, lambda places=places: places, lambda group=group: group)

    def _loader(self, place: str, content: str) -> Callable[[], list[Document]]:
        def load() -> list[Document]:
            self.loaded.append(place)
            return documents(place, content)

        return load


def documents(place: str, content: str) -> list[Document]:
    if content == "bad":
        raise CorpusError(f"{place}: nobody can read this.")
    lines = [line.split(" ", 1) for line in content.splitlines()]
    return [Document(uri, text, title=uri) for uri, text in lines]


@pytest.fixture
def corpus() -> Corpus:
    return Corpus()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "index"


THREE = {"a.md": "A one", "b.md": "B two", "c.csv": "C three\nD four"}


@pytest.fixture
def synced(path: Path, corpus: Corpus) -> Corpus:
    LocalIndex.build(path, corpus(THREE))
    corpus.loaded.clear()
    return corpus


def held(path: Path) -> dict[str, str]:
    index = LocalIndex.open(path)
    found = {uri: " ".join(p.text for p in index.passages_of(uri)) for uri in index.doc_uris()}
    assert len(index) == sum(map(bool, found.values()))
    return found


def counts(report: IndexReport) -> tuple[int, int, int, int]:
    return report.added, report.replaced, report.deleted, report.unchanged


def test_what_is_unchanged_is_not_loaded_and_nothing_is_written(path: Path, synced: Corpus) -> None:
    before = (path / "manifest.json").read_bytes()
    assert counts(LocalIndex.sync(path, synced(THREE))) == (0, 0, 0, 4)
    assert synced.loaded == []
    assert (path / "manifest.json").read_bytes() == before


def test_only_what_changed_is_loaded(path: Path, synced: Corpus) -> None:
    report = LocalIndex.sync(path, synced({**THREE, "b.md": "B new", "d.md": "E five"}))
    assert counts(report) == (1, 1, 0, 3)
    assert synced.loaded == ["b.md", "d.md"]
    assert held(path) == {"A": "one", "B": "new", "C": "three", "D": "four", "E": "five"}


def test_a_source_that_is_gone_takes_its_documents_with_it(path: Path, synced: Corpus) -> None:
    assert counts(LocalIndex.sync(path, synced({"a.md": "A one"}))) == (0, 0, 3, 1)
    assert held(path) == {"A": "one"}


def test_a_document_of_a_source_with_many_can_go_alone(path: Path, synced: Corpus) -> None:
    assert counts(LocalIndex.sync(path, synced({**THREE, "c.csv": "D four"}))) == (0, 0, 1, 3)
    assert held(path) == {"A": "one", "B": "two", "D": "four"}


def test_the_same_text_under_another_address_replaces_the_old_address(path: Path, synced: Corpus) -> None:
    assert counts(LocalIndex.sync(path, synced({**THREE, "a.md": "Z one"}))) == (1, 0, 1, 3)
    assert held(path) == {"Z": "one", "B": "two", "C": "three", "D": "four"}


@pytest.mark.parametrize("place", ["0.md", "z.md"])
def test_a_document_that_moved_to_another_file_is_unchanged(path: Path, synced: Corpus, place: str) -> None:
    moved = {place: "A one\nB two", "c.csv": THREE["c.csv"]}
    assert counts(LocalIndex.sync(path, synced(dict(sorted(moved.items()))))) == (0, 0, 0, 4)
    assert synced.loaded == [place]
    synced.loaded.clear()
    LocalIndex.sync(path, synced(moved))
    assert synced.loaded == [], "the file is known from then on"


def test_a_file_that_moved_with_its_address_is_not_loaded(path: Path, synced: Corpus) -> None:
    moved = {"deep/a.md": "A one", **{place: THREE[place] for place in ("b.md", "c.csv")}}
    assert counts(LocalIndex.sync(path, synced(moved))) == (0, 0, 0, 4)
    assert synced.loaded == []


def test_a_bad_source_is_refused_and_the_rest_goes_on(path: Path, corpus: Corpus) -> None:
    report = LocalIndex.build(path, corpus({"a.md": "A one", "b.md": "bad", "c.md": "C three"}))
    assert report.refused == (RefusedDocument("b.md", "b.md: nobody can read this."),)
    assert held(path) == {"A": "one", "C": "three"}


def test_a_bad_source_is_told_at_each_update_until_it_is_good(path: Path, corpus: Corpus) -> None:
    bad = {"a.md": "A one", "b.md": "bad"}
    LocalIndex.build(path, corpus(bad))
    assert [one.place for one in LocalIndex.sync(path, corpus(bad)).refused] == ["b.md"]
    assert LocalIndex.sync(path, corpus({**bad, "b.md": "B two"})).refused == ()
    assert held(path) == {"A": "one", "B": "two"}


def test_what_turned_bad_keeps_its_last_good_version(path: Path, synced: Corpus) -> None:
    for _ in range(2):
        report = LocalIndex.sync(path, synced({**THREE, "a.md": "A new", "c.csv": "bad"}))
        assert report.refused == (RefusedDocument("c.csv", "c.csv: nobody can read this.", is_kept=True),)
        assert held(path) == {"A": "new", "B": "two", "C": "three", "D": "four"}
    synced.loaded.clear()
    LocalIndex.sync(path, synced({**THREE, "a.md": "A new"}))
    assert synced.loaded == [], "what is good again as it was is known"


def test_what_turned_bad_is_not_kept_where_it_was_found_elsewhere(path: Path, synced: Corpus) -> None:
    report = LocalIndex.sync(path, synced({**THREE, "c.csv": "bad", "d.md": "C new"}))
    assert held(path) == {"A": "one", "B": "two", "C": "new", "D": "four"}
    assert counts(report) == (0, 1, 0, 3)
    LocalIndex.sync(path, synced({**THREE, "c.csv": "bad"}))
    assert held(path) == {"A": "one", "B": "two", "D": "four"}


def test_a_bad_source_that_is_gone_is_gone(path: Path, synced: Corpus) -> None:
    LocalIndex.sync(path, synced({**THREE, "c.csv": "bad"}))
    LocalIndex.sync(path, synced({"a.md": "A one"}))
    assert held(path) == {"A": "one"}


@pytest.mark.parametrize("write", [LocalIndex.build, LocalIndex.sync])
def test_when_all_is_bad_the_index_stays_and_that_is_an_error(
    path: Path, synced: Corpus, write: Callable[..., IndexReport]
) -> None:
    with pytest.raises(CorpusError, match=r"None of 2 documents can be read\. The first: x: nobody can"):
        write(path, synced({"x": "bad", "a.md": "bad"}))
    assert set(held(path)) == {"A", "B", "C", "D"}


@pytest.mark.parametrize("write", [LocalIndex.build, LocalIndex.sync])
@pytest.mark.parametrize(
    ("contents", "message"),
    [({"d.md": "bad"}, "d.md: nobody can read this"), ({"d.md": "B x"}, "d.md: the doc_uri 'B' is already")],
)
def test_strictly_what_is_refused_is_an_error(
    path: Path, synced: Corpus, write: Callable[..., IndexReport], contents: Contents, message: str
) -> None:
    with pytest.raises(CorpusError, match=message):
        write(path, synced({**THREE, **contents}), strict=True)
    assert set(held(path)) == {"A", "B", "C", "D"}


@pytest.mark.parametrize(("place", "first", "second"), [("0.md", "0.md", "b.md"), ("z.md", "b.md", "z.md")])
def test_of_two_with_one_address_the_first_has_it_and_the_second_is_told(
    path: Path, synced: Corpus, place: str, first: str, second: str
) -> None:
    both = dict(sorted({**THREE, place: "B other\nE five"}.items()))
    for write in (LocalIndex.sync, LocalIndex.sync, LocalIndex.build):
        report = write(path, synced(both))
        reason = f"{second}: the doc_uri 'B' is already that of {first}. Give each document its own."
        assert report.refused == (RefusedDocument(second, reason),)
        assert held(path) == {
            "A": "one",
            "B": "other" if place == first else "two",
            "C": "three",
            "D": "four",
            "E": "five",
        }
    LocalIndex.sync(path, synced({key: both[key] for key in both if key != first}))
    assert held(path)["B"] == ("two" if place == first else "other")


def test_equal_files_are_two_documents_with_one_address(path: Path, synced: Corpus) -> None:
    for write in (LocalIndex.sync, LocalIndex.sync, LocalIndex.build):
        report = write(path, synced({**THREE, "copy.md": "A one"}))
        assert [one.place for one in report.refused] == ["copy.md"]
    assert len(held(path)) == 4


def test_an_address_twice_in_one_source_is_told(path: Path, corpus: Corpus) -> None:
    report = LocalIndex.build(path, corpus({"a.csv": "A one\nA two"}))
    assert report.refused[0].reason.startswith("a.csv: the doc_uri 'A' is already that of a.csv")
    assert held(path) == {"A": "one"}


def test_what_was_changed_behind_the_back_of_a_source_is_read_from_it_again(
    path: Path, synced: Corpus
) -> None:
    LocalIndex.update(path, add_or_replace=[Document("C", "other"), Document("X", "extra")], delete=["A"])
    assert held(path) == {"B": "two", "C": "other", "D": "four", "X": "extra"}
    LocalIndex.sync(path, synced(THREE))
    assert synced.loaded == ["a.md", "c.csv"]
    assert held(path) == {"A": "one", "B": "two", "C": "three", "D": "four"}


def test_documents_and_sources_may_take_turns(path: Path, synced: Corpus) -> None:
    plain = [one for place, content in THREE.items() for one in documents(place, content)]
    assert counts(LocalIndex.sync(path, plain)) == (0, 0, 0, 4)
    before = LocalIndex.open(path).content_hash
    assert counts(LocalIndex.sync(path, synced(THREE))) == (0, 0, 0, 4)
    assert LocalIndex.open(path).content_hash == before


def test_a_fingerprint_that_is_none_is_a_mistake_of_the_program(path: Path) -> None:
    with pytest.raises(ValueError, match="32 hexadecimal digits"):
        LocalIndex.build(path, [Source("a", "ab", list)])


def test_many_sources_are_kept_in_step_in_any_order(path: Path, corpus: Corpus) -> None:
    contents = {f"{number}.md": f"u{number} text {number}" for number in range(1500)}
    LocalIndex.build(path, corpus(contents))
    corpus.loaded.clear()
    changed = {
        **dict(reversed(contents.items())),
        "700.md": "u700 new",
        "701.md": "bad",
        "702.md": "u5 again",
    }
    del changed["703.md"]
    report = LocalIndex.sync(path, corpus(changed))
    assert corpus.loaded == ["702.md", "701.md", "700.md"]
    assert counts(report) == (0, 2, 2, 1496)
    assert [one.place for one in report.refused] == ["701.md", "5.md"]
    assert len(held(path)) == 1498


def test_of_groups_only_those_are_looked_into_that_changed(path: Path, corpus: Corpus) -> None:
    contents = {f"{number}.md": f"u{number} text {number}" for number in range(100)}
    LocalIndex.build(path, corpus.grouped(contents, 7))
    opened: list[str] = []

    def watched(contents: Contents) -> Iterator[Source | SourceGroup]:
        for item in corpus.grouped(contents, 7):
            if isinstance(item, SourceGroup):
                place, load = item.place, item.load
                item.load = lambda place=place, load=load: (opened.append(place), load())[1]
            yield item

    assert counts(LocalIndex.sync(path, watched(contents))) == (0, 0, 0, 100)
    assert opened == []
    corpus.loaded.clear()
    assert counts(LocalIndex.sync(path, watched({**contents, "50.md": "u50 new"}))) == (0, 1, 0, 99)
    assert (opened, corpus.loaded) == (["50.md"], ["50.md"])
    assert held(path)["u50"] == "new"


def test_groups_that_moved_are_known_again_and_told_by_their_new_places(path: Path, corpus: Corpus) -> None:
    def at(first: int, contents: list[str]) -> Iterator[SourceGroup]:
        group = list(Corpus()({f"a:{first + number}": content for number, content in enumerate(contents)}))
        whole = blake2b("".join(contents).encode(), digest_size=16).hexdigest()
        yield SourceGroup(f"a:{first}", whole, lambda: [one.place for one in group], lambda: group)

    LocalIndex.build(path, at(1, ["A one", "B two"]))
    moved = LocalIndex.sync(
        path, [*corpus({"new": "N new"}), *at(2, ["A one", "B two"]), *corpus({"x": "B again"})]
    )
    assert counts(moved) == (1, 0, 0, 2)
    assert [one.reason for one in moved.refused] == [
        "x: the doc_uri 'B' is already that of a:3. Give each document its own."
    ]


_CONTENTS = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d"]),
    st.lists(st.tuples(st.sampled_from("ABCD"), st.sampled_from(["one", "two"])), max_size=3).map(
        lambda lines: "\n".join(f"{uri} {text}" for uri, text in lines)
    ),
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(states=st.lists(_CONTENTS, min_size=1, max_size=5), last=_CONTENTS, size=st.integers(0, 4))
def test_whatever_was_synced_before_an_index_holds_what_a_build_would(
    tmp_path: Path, states: list[Contents], last: Contents, size: int
) -> None:
    last = {**last, "z": "Z last"}
    for state in [*states, last]:
        contents = {**state, "z": "Z last"}
        sources = Corpus().grouped(contents, size) if size else Corpus()(contents)
        report = LocalIndex.sync(tmp_path / "synced", sources)
    built = LocalIndex.build(tmp_path / "built", Corpus()(last))
    assert held(tmp_path / "synced") == held(tmp_path / "built")
    assert report.refused == built.refused
    assert (
        LocalIndex.open(tmp_path / "synced").content_hash == LocalIndex.open(tmp_path / "built").content_hash
    )


# The list of documents on disk


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2**64 - 1),
            st.text(st.characters(), max_size=8),
            st.lists(st.text(st.characters(), max_size=8), max_size=3),
        )
    )
)
def test_a_registry_is_read_as_it_was_written(sources: list[tuple[int, str, list[str]]]) -> None:
    draft = RegistryDraft()
    for fingerprint, place, uris in sources:
        draft.add(fingerprint, place, uris, [len(uri) for uri in uris])
    registry = draft.as_registry()
    assert registry.fingerprints.tolist() == [fingerprint for fingerprint, _, _ in sources]
    assert registry.places.all() == [place for _, place, _ in sources]
    assert registry.uris.all() == [uri for _, _, uris in sources for uri in uris]
    assert registry.hashes.tolist() == [len(uri) for uri in registry.uris]
    known = KnownSources(registry)
    rows = np.arange(len(sources))
    assert known.documents(slice(0, len(sources))) == slice(0, len(registry.uris))
    assert known.owners().tolist() == [row for row in rows for _ in sources[row][2]]


@pytest.mark.parametrize("cut", [0, 10, 100])
def test_a_damaged_registry_is_an_error(cut: int, tmp_path: Path) -> None:
    draft = RegistryDraft()
    draft.add(1, "a.md", ["https://e.org/a"], [1])
    draft.write(tmp_path / "registry")
    content = (tmp_path / "registry").read_bytes()
    with pytest.raises(ValueError, match="cannot be read"):
        Registry.read(BytesIO(content[:cut]))
    with pytest.raises(ValueError, match="cannot be read"):
        Registry.read(BytesIO(content[:20] + b"x" * 40 + content[60:]))
