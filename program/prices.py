"""What tokens cost, by the settings or by the price list that comes with the libraries. Unknown is never 0."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache

from program.settings import LanguageModelSettings

# The list is looked up online unless one says that the one at hand will do.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "true")

EXTRACTIVE = "extractive"
_MILLION = 1_000_000


def answer_usd(reader: str, usage: Mapping[str, int], settings: LanguageModelSettings) -> float | None:
    """What an answer cost in US dollars, by who gave it and what was counted; None where that is not known.

    The extractive reader costs nothing, unless a language model was asked before it. Of another reader than these
    settings' model, an agent of somebody else say, no price is known.
    """
    if not usage and reader == EXTRACTIVE:
        return 0.0
    return usd(usage, settings) if reader in (EXTRACTIVE, settings.model) else None


def usd(usage: Mapping[str, int], settings: LanguageModelSettings) -> float | None:
    """What these tokens cost in US dollars, by `settings.price` or the list price of `settings.model`.

    `usage` counts `input_tokens` and `output_tokens`, or `prompt_tokens` and `completion_tokens`. None where it
    does not, or no price is known. Discounts that a provider grants, on cached prompts for example, are left out.
    """
    tokens = _tokens(usage)
    prices = _prices(settings)
    if tokens is None or prices is None:
        return None
    return (tokens[0] * prices[0] + tokens[1] * prices[1]) / _MILLION


def _tokens(usage: Mapping[str, int]) -> tuple[int, int] | None:
    for names in (("input_tokens", "output_tokens"), ("prompt_tokens", "completion_tokens")):
        if all(name in usage for name in names):
            return usage[names[0]], usage[names[1]]
    return None


def _prices(settings: LanguageModelSettings) -> tuple[float, float] | None:
    """US dollars for a million tokens in, and out."""
    if settings.price is not None:
        return settings.price.input_usd_per_million, settings.price.output_usd_per_million
    return _list_prices(settings.model) if settings.model else None


@cache
def _list_prices(model: str) -> tuple[float, float] | None:
    # DSPy ships LiteLLM's list, and reads it without LiteLLM, whose import takes seconds.
    from dspy.clients.model_metadata import model_info, rate

    provider, _, name = model.partition("/")
    entry = model_info(provider, name)
    prices = rate(entry, "input_cost_per_token"), rate(entry, "output_cost_per_token")
    if prices[0] is None or prices[1] is None:
        return None
    return prices[0] * _MILLION, prices[1] * _MILLION
