"""Merging rankings: the laws that hold for whatever is merged."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.fusion import Method, Ranking, fuse, fuse_convex, fuse_reciprocal_rank, normalize

METHODS: list[Method] = ["convex", "rrf"]
scores = st.floats(-1e6, 1e6).map(lambda score: round(score, 4))


@st.composite
def ranking(draw: st.DrawFn) -> Ranking[str]:
    keys = draw(st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=8))
    return sorted(((key, draw(scores)) for key in keys), key=lambda pair: -pair[1])


rankings = st.lists(ranking(), min_size=1, max_size=4)
weights = st.floats(0.01, 10)


def keys(merged: Ranking[str]) -> list[str]:
    return [key for key, _ in merged]


@pytest.mark.parametrize("method", METHODS)
@given(rankings=rankings, data=st.data())
def test_everything_that_was_ranked_comes_once_best_first_with_scores_from_0_to_1(
    method: Method, rankings: list[Ranking[str]], data: st.DataObject
) -> None:
    merged = fuse(method, rankings, [data.draw(weights) for _ in rankings])
    assert sorted(keys(merged)) == sorted({key for one in rankings for key in keys(one)})
    values = [score for _, score in merged]
    assert values == sorted(values, reverse=True)
    assert all(0 <= value <= 1 for value in values)


@pytest.mark.parametrize("method", METHODS)
@given(one=ranking(), weight=weights)
def test_one_ranking_alone_keeps_its_order(method: Method, one: Ranking[str], weight: float) -> None:
    assert keys(fuse(method, [one], [weight])) == keys(one)


@pytest.mark.parametrize("method", METHODS)
@given(rankings=rankings, data=st.data(), factor=st.floats(0.1, 10))
def test_only_the_proportions_of_weights_count(
    method: Method, rankings: list[Ranking[str]], data: st.DataObject, factor: float
) -> None:
    given_weights = [data.draw(weights) for _ in rankings]
    scaled = [weight * factor for weight in given_weights]
    first = dict(fuse(method, rankings, given_weights))
    assert dict(fuse(method, rankings, scaled)) == pytest.approx(first, abs=2e-9)


@pytest.mark.parametrize("method", METHODS)
@given(rankings=rankings)
def test_an_empty_ranking_and_one_without_weight_change_nothing_but_what_is_there(
    method: Method, rankings: list[Ranking[str]]
) -> None:
    shares = [1.0] * len(rankings)
    assert fuse(method, [*rankings, []], [*shares, 5.0]) == fuse(method, rankings, shares)
    assert fuse(method, [*rankings, rankings[0]], [*shares, 0.0]) == fuse(method, rankings, shares)


@pytest.mark.parametrize("method", METHODS)
@given(one=ranking(), other=ranking())
def test_what_is_above_in_both_is_above_in_the_merged(
    method: Method, one: Ranking[str], other: Ranking[str]
) -> None:
    merged = dict(fuse(method, [one, other], [1, 1]))
    for above in set(keys(one)) & set(keys(other)):
        for below in set(keys(one)) & set(keys(other)):
            if all(keys(r).index(above) < keys(r).index(below) for r in (one, other)):
                assert merged[above] >= merged[below]


@given(one=ranking(), scale=st.sampled_from([0.5, 2.0, 1024.0]), shift=st.integers(-1000, 1000))
def test_convex_fusion_takes_scores_of_any_scale(one: Ranking[str], scale: float, shift: int) -> None:
    moved = [(key, scale * score + shift) for key, score in one]
    assert dict(normalize(moved)) == pytest.approx(dict(normalize(one)), abs=1e-3)


def test_convex_fusion_weighs_how_far_apart_scores_are_and_reciprocal_rank_does_not() -> None:
    lexical = [("a", 30.0), ("b", 10.0), ("c", 0.0)]
    dense = [("b", 0.9), ("a", 0.85), ("c", 0.1)]
    assert fuse_convex([lexical, dense], [1, 1]) == [("a", 0.96875), ("b", 0.666666667), ("c", 0.0)]
    assert [score for _, score in fuse_reciprocal_rank([lexical, dense], [1, 1])][:2] == [0.991935484] * 2


@pytest.mark.parametrize("bad", [[], [1.0], [1.0, -1.0], [1.0, float("nan")], [1.0, float("inf")]])
def test_weights_that_are_none_are_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="weights"):
        fuse_convex([[("a", 1.0)], [("b", 1.0)]], bad)


def test_a_negative_rank_constant_is_refused() -> None:
    with pytest.raises(ValueError, match="constant"):
        fuse_reciprocal_rank([[("a", 1.0)]], [1], constant=-1)
