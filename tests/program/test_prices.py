"""What tokens cost, and that what is not known is never free."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from dspy.clients import model_metadata
from hypothesis import given
from hypothesis import strategies as st

from program import prices
from program.extractive import ExtractiveReader
from program.identity import answer_identity
from program.prices import EXTRACTIVE, answer_usd, usd
from program.settings import LanguageModelSettings, PriceSettings, Settings, validate_settings
from retrieval.errors import ConfigurationError

USAGE = {"input_tokens": 2_000_000, "output_tokens": 500_000, "total_tokens": 2_500_000}


def priced(
    model: str = "openai/test", input_usd: float = 3.0, output_usd: float = 15.0
) -> LanguageModelSettings:
    price = PriceSettings(input_usd_per_million=input_usd, output_usd_per_million=output_usd)
    return LanguageModelSettings(model=model, price=price)


def test_a_price_of_the_settings_is_for_a_million_tokens_of_each_kind() -> None:
    assert usd(USAGE, priced()) == pytest.approx(2 * 3.0 + 0.5 * 15.0)


def test_dspys_names_of_the_counts_mean_the_same() -> None:
    usage = {"prompt_tokens": 2_000_000, "completion_tokens": 500_000, "total_tokens": 2_500_000}
    assert usd(usage, priced()) == usd(USAGE, priced())


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("openai/gpt-4o-mini", 2 * 0.15 + 0.5 * 0.60),
        ("anthropic/claude-sonnet-4-5", 2 * 3.0 + 0.5 * 15.0),
    ],
)
def test_a_known_model_costs_its_list_price_without_any_network(
    model: str, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the price list was looked for online")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(model_metadata, "_data", None)
    prices._list_prices.cache_clear()
    assert usd(USAGE, LanguageModelSettings(model=model)) == pytest.approx(expected)


def test_the_settings_price_goes_before_the_list() -> None:
    assert usd(USAGE, priced("openai/gpt-4o-mini", 1.0, 0.0)) == pytest.approx(2.0)


@pytest.mark.parametrize("model", ["openai/test", "databricks/my-endpoint", "gpt-4o-mini-of-ours", None])
def test_a_model_without_a_known_price_has_no_cost_rather_than_none(model: str | None) -> None:
    assert usd(USAGE, LanguageModelSettings(model=model)) is None


@pytest.mark.parametrize("usage", [{}, {"input_tokens": 5}, {"total_tokens": 7}])
def test_tokens_that_were_not_counted_have_no_cost(usage: dict[str, int]) -> None:
    assert usd(usage, priced()) is None


def test_the_extractive_reader_costs_nothing_and_an_uncounted_answer_an_unknown_sum() -> None:
    assert ExtractiveReader.name == EXTRACTIVE
    assert answer_usd(EXTRACTIVE, {}, LanguageModelSettings()) == 0.0
    assert answer_usd("openai/test", {}, priced()) is None
    assert answer_usd("openai/test", USAGE, priced()) == usd(USAGE, priced())


def test_what_another_agent_cost_is_not_known_by_the_price_of_this_model() -> None:
    assert answer_usd("their-agent", USAGE, priced()) is None


def test_an_answer_that_fell_back_to_extracts_still_costs_what_was_asked_before() -> None:
    assert answer_usd(EXTRACTIVE, USAGE, priced()) == usd(USAGE, priced())


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.floats(0, 1000), st.floats(0, 1000))
def test_cost_adds_up_over_answers(
    tokens_in: int, tokens_out: int, price_in: float, price_out: float
) -> None:
    settings = priced("openai/test", price_in, price_out)
    one = usd({"input_tokens": tokens_in, "output_tokens": 0}, settings)
    other = usd({"input_tokens": 0, "output_tokens": tokens_out}, settings)
    both = usd({"input_tokens": tokens_in, "output_tokens": tokens_out}, settings)
    assert both == pytest.approx((one or 0) + (other or 0))


def test_the_price_is_no_part_of_what_an_answer_depends_on() -> None:
    plain = Settings(language_model=LanguageModelSettings(model="openai/test", requests_per_minute=5))
    dear = Settings(language_model=priced())
    assert answer_identity(plain, "x") == answer_identity(dear, "x")


@pytest.mark.parametrize(
    ("price", "complaint"),
    [
        ({"input_usd_per_million": -1, "output_usd_per_million": 1}, "price.input_usd_per_million"),
        ({"input_usd_per_million": 1}, "price.output_usd_per_million"),
        ({"input_usd_per_million": 1, "output_usd_per_million": 1, "per_thousand": 2}, "price.per_thousand"),
    ],
)
def test_a_wrong_price_is_refused_with_its_place(price: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        validate_settings([("test", {"language_model": {"price": price}})])
