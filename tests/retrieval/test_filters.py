from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.errors import FilterError
from retrieval.filters import facet
from retrieval.local_index import LocalIndex
from retrieval.types import Document, Filters

DOCUMENTS = [
    Document("https://e.org/a", "common text", "A", "en", {"year": 2023, "area": "serving", "draft": True}),
    Document(
        "https://e.org/b", "common text", "B", "ja", {"year": 2024.5, "area": "tracing", "draft": False}
    ),
    Document("https://e.org/c", "common text", "題", "en", {"year": -3, "area": "a: b/c [x]*"}),
    Document(
        "https://e.org/d", "common text", metadata={"area": "長" * 5000, "title": "only in the metadata"}
    ),
]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> LocalIndex:
    path: Path = tmp_path_factory.mktemp("filters") / "index"
    LocalIndex.build(path, DOCUMENTS)
    return LocalIndex.open(path)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, "abcd"),
        ({"lang": "en"}, "ac"),
        ({"lang": ["ja", "en"]}, "abc"),
        ({"lang NOT": "ja"}, "acd"),
        ({"lang NOT": ["ja", "en"]}, "d"),
        ({"title": "B"}, "b"),
        ({"title": ["B", "題"]}, "bc"),
        ({"title NOT": "B"}, "acd"),
        ({"title": "only in the metadata"}, "d"),
        ({"title": 7}, ""),
        ({"doc_uri": "https://e.org/c"}, "c"),
        ({"doc_uri": ("https://e.org/c", "https://e.org/a")}, "ac"),
        ({"year": 2023}, "a"),
        ({"year": 2023.0}, "a"),
        ({"year": "2023"}, ""),
        ({"year >=": 2023}, "ab"),
        ({"year >": 2023}, "b"),
        ({"year <=": 2023}, "ac"),
        ({"year <": 2023}, "c"),
        ({"year >": -3, "year <": 2024.5}, "a"),
        ({"year >=": -math.inf}, "abc"),
        ({"year NOT": 2023}, "bcd"),
        ({"draft": True}, "a"),
        ({"draft": False}, "b"),
        ({"draft": 1}, ""),
        ({"area": "a: b/c [x]*"}, "c"),
        ({"area": "長" * 5000}, "d"),
        ({"area": "長" * 4999}, ""),
        ({"no such field": "x"}, ""),
        ({"no such field NOT": "x"}, "abcd"),
        ({"lang": "en", "area": "serving"}, "a"),
    ],
)
def test_all_conditions_must_hold(index: LocalIndex, filters: Filters, expected: str) -> None:
    assert "".join(sorted(p.doc_uri[-1] for p in index.search("common", 10, filters))) == expected


def test_a_filter_applies_before_ranking_and_leaves_scores_as_they_are(index: LocalIndex) -> None:
    unfiltered = {passage.doc_uri: passage.score for passage in index.search("common text", 10)}
    (found,) = index.search("common text", 1, {"lang": "ja"})
    assert found.score == unfiltered[found.doc_uri]


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"year >=": "2024"}, r"'year >='.*needs a number, got '2024'"),
        ({"year >=": True}, "needs a number, got True"),
        ({"year <": math.nan}, "needs a number, got nan"),
        ({"year": math.nan}, "nan is not"),
        ({"year ==": 2024}, "unknown operator '=='"),
        ({"title LIKE": "x"}, "unknown operator 'LIKE'"),
        ({"lang": []}, "'lang'.*list is empty"),
        ({"lang": None}, "None is not"),
        ({"lang": ["en", None]}, "None is not"),
        ({"lang": {"en": 1}}, "is not a text"),
        ({" ": "x"}, "name of a field"),
        ({7: "x"}, "name of a field"),
    ],
)
def test_a_malformed_filter_is_named_with_its_value(
    index: LocalIndex, filters: Filters, message: str
) -> None:
    with pytest.raises(FilterError, match=message):
        index.search("common", 10, filters)


def test_a_malformed_filter_is_an_error_even_when_the_query_has_no_terms(index: LocalIndex) -> None:
    with pytest.raises(FilterError):
        index.search("?", 10, {"lang": []})


@given(st.lists(st.one_of(st.floats(allow_nan=False), st.integers(-(2**70), 2**70)), min_size=2, max_size=2))
def test_the_order_of_the_terms_is_the_order_of_the_numbers(numbers: list[float]) -> None:
    low, high = sorted(numbers, key=float)
    assert (facet("x", low) < facet("x", high)) == (float(low) < float(high))
    assert (facet("x", low) == facet("x", high)) == (float(low) == float(high))


@given(st.text(), st.text(), st.text(), st.text())
def test_different_values_never_share_a_term(
    name: str, value: str, other_name: str, other_value: str
) -> None:
    same = (name, value) == (other_name, other_value)
    assert (facet(name, value) == facet(other_name, other_value)) == same


def test_a_number_beyond_all_floats_is_ordered_at_the_end() -> None:
    assert facet("x", 10**400) > facet("x", 1e300)
    assert facet("x", -(10**400)) < facet("x", -1e300)
