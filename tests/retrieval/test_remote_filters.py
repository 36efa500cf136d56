"""Filters as the two kinds of Vector Search endpoints take them."""

from __future__ import annotations

from typing import Any

import pytest
from fake_workspace.search.filters import matches_text
from hypothesis import given
from hypothesis import strategies as st

from retrieval.ai_search.filters import to_dictionary, to_text
from retrieval.conditions import read_conditions


def same(name: str) -> str:
    return name


@pytest.mark.parametrize(
    ("filters", "dictionary", "text"),
    [
        ({"lang": "ja"}, {"lang": "ja"}, "lang = 'ja'"),
        ({"lang": ["ja"]}, {"lang": "ja"}, "lang = 'ja'"),
        ({"lang": ["en", "ja"]}, {"lang": ["en", "ja"]}, "lang IN ('en', 'ja')"),
        ({"lang not": "ja"}, {"lang NOT": "ja"}, "(lang IS NULL OR lang <> 'ja')"),
        (
            {"lang NOT": ["en", "ja"]},
            {"lang NOT": ["en", "ja"]},
            "(lang IS NULL OR lang NOT IN ('en', 'ja'))",
        ),
        ({"year >=": 2024}, {"year >=": 2024}, "year >= 2024"),
        ({"year <": 2.5}, {"year <": 2.5}, "year < 2.5"),
        ({"public": True}, {"public": True}, "public = TRUE"),
        ({"public": [True, False]}, {"public": [True, False]}, "public IN (TRUE, FALSE)"),
        ({"title": "O'Brien"}, {"title": "O'Brien"}, "title = 'O''Brien'"),
        ({"my team": "x"}, {"my team": "x"}, "`my team` = 'x'"),
        (
            {"lang": "ja", "year >": 1},
            {"lang": "ja", "year >": 1},
            "lang = 'ja' AND year > 1",
        ),
    ],
    ids=str,
)
def test_both_languages_say_the_same(filters: dict[str, Any], dictionary: dict[str, Any], text: str) -> None:
    conditions = read_conditions(filters)
    assert to_dictionary(conditions, same) == dictionary
    assert to_text(conditions, same) == text


@given(value=st.text(max_size=30), other=st.text(max_size=30))
def test_no_text_ends_its_quotes(value: str, other: str) -> None:
    matches = matches_text(to_text(read_conditions({"title": value}), same), ["title"])
    assert matches({"title": value})
    assert matches({"title": other}) == (other == value)
