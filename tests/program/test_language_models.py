"""Settings become a language model that DSPy can ask, or a sentence on what to configure."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import dspy
import pytest
from dspy.clients.engines.litellm_engine import LiteLLMEngine
from dspy.clients.engines.lm15_engine import LM15Engine

from program.content_store import ContentStore
from program.language_models import build_adapter, build_lm
from program.lm_errors import describe_lm_error, hide_secrets, hide_secrets_in
from program.rate_limit import RateLimiter
from program.settings import LanguageModelSettings
from retrieval.errors import ConfigurationError


def inner_engine(model: str) -> Any:
    return build_lm(LanguageModelSettings(model=model))._engine_spec._inner


def test_without_a_model_it_is_told_how_to_name_one() -> None:
    with pytest.raises(ConfigurationError, match=r"Set language_model\.model .* or reader\.kind: extractive"):
        build_lm(LanguageModelSettings())


@pytest.mark.parametrize("model", ["nonsense", "nonsense/gpt", "/", "openai"])
def test_a_model_without_a_known_provider_is_refused_when_it_is_built(model: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"language_model\.model = '{model}'") as caught:
        build_lm(LanguageModelSettings(model=model))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("model", ["openai/gpt-4o-mini", "anthropic/claude-x", "gemini/gemini-x", "ollama/x"])
def test_dspys_own_engine_is_used_where_it_knows_the_provider(model: str) -> None:
    assert isinstance(inner_engine(model), LM15Engine)


@pytest.mark.parametrize("model", ["together_ai/llama", "bedrock/x", "replicate/x"])
def test_any_other_provider_is_reached_through_litellm(model: str) -> None:
    assert isinstance(inner_engine(model), LiteLLMEngine)


def test_what_is_configured_reaches_the_wire(language_model: Any) -> None:
    language_model.says("Hello.")
    settings = LanguageModelSettings(
        model="openai/test", api_base=language_model.url, temperature=0.5, max_tokens=77, cache=False
    )
    assert build_lm(settings)("Hi") == ["Hello."]
    [body] = language_model.requests
    assert (body["model"], body["temperature"], body["max_completion_tokens"]) == ("test", 0.5, 77)
    assert language_model.keys == ["Bearer sk-canary-0123456789"]


def test_a_litellm_provider_speaks_to_the_configured_address(
    language_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOGETHERAI_API_KEY", "sk-other-0123456789")
    language_model.says("Hello.")
    settings = LanguageModelSettings(
        model="together_ai/llama", api_base=language_model.url, cache=False, timeout_s=5
    )
    assert build_lm(settings)("Hi") == ["Hello."]
    assert language_model.keys == ["Bearer sk-other-0123456789"]


def test_retries_are_as_many_as_configured(language_model: Any) -> None:
    language_model.says("busy", status=503, headers={"Retry-After": "0"})
    settings = LanguageModelSettings(
        model="openai/test", api_base=language_model.url, num_retries=3, cache=False
    )
    with pytest.raises(dspy.LMError, match="busy"):
        build_lm(settings)("Hi")
    assert len(language_model.requests) == 4


@pytest.mark.parametrize(
    ("name", "adapter"), [("chat", dspy.ChatAdapter), ("json", dspy.JSONAdapter), ("xml", dspy.XMLAdapter)]
)
def test_the_adapter_is_the_configured_one(name: Any, adapter: type) -> None:
    assert type(build_adapter(LanguageModelSettings(adapter=name))) is adapter


def test_the_key_is_in_no_representation_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-0123456789")
    lm = build_lm(LanguageModelSettings(model="openai/test"))
    assert "sk-canary" not in f"{lm!r} {vars(lm)!r} {lm.kwargs!r}"


def test_secrets_are_known_by_the_names_of_their_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "abcdefgh1")
    monkeypatch.setenv("DATABRICKS_TOKEN", "dapi-12345678")
    monkeypatch.setenv("SHORT_KEY", "the")
    monkeypatch.setenv("PLAIN", "plain-text")
    assert hide_secrets("the abcdefgh1, dapi-12345678 plain-text") == (
        "the $SOME_API_KEY, $DATABRICKS_TOKEN plain-text"
    )


def test_secrets_are_hidden_in_an_error_and_its_causes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "abcdefgh1")
    cause = ValueError("abcdefgh1", 7)
    error = dspy.LMError("refused abcdefgh1")
    error.__cause__ = cause
    hide_secrets_in(error)
    assert "abcdefgh1" not in f"{error} {error.message} {cause}"
    assert cause.args == ("$SOME_API_KEY", 7)


def test_an_error_without_words_is_still_a_sentence() -> None:
    assert describe_lm_error(dspy.LMError()) == "The language model failed: no reason was given."


def test_litellm_is_told_to_use_the_price_list_that_it_ships() -> None:
    assert os.environ["LITELLM_LOCAL_MODEL_COST_MAP"].lower() == "true"


def test_a_replayed_call_takes_no_turn_of_a_limit(language_model: Any, tmp_path: Path) -> None:
    language_model.says("Hello.")
    settings = LanguageModelSettings(model="openai/test", api_base=language_model.url)
    slept: list[float] = []
    limiter = RateLimiter(1, sleep=slept.append)
    with ContentStore(tmp_path / "calls.db") as store:
        lm = build_lm(settings, record_in=store, limiter=limiter)
        assert [lm("Hi")[0] for _ in range(3)] == ["Hello."] * 3
    assert slept == []
    assert len(language_model.requests) == 1


def test_without_a_record_dspys_cache_is_as_configured() -> None:
    assert build_lm(LanguageModelSettings(model="openai/test")).cache is True
    assert build_lm(LanguageModelSettings(model="openai/test", cache=False)).cache is False
