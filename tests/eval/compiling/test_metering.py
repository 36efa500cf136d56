"""Calls of language models are counted and priced, together, and stop at a limit."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from eval.compiling.metering import LimitReachedError, Meter, MeteredEngine
from eval.compiling.specification import Limits
from program.content_store import ContentStore
from program.language_models import build_lm
from program.settings import LanguageModelSettings

PRICE = {"input_usd_per_million": 1_000_000, "output_usd_per_million": 0}


@pytest.fixture
def settings(language_model: Any) -> LanguageModelSettings:
    return LanguageModelSettings.model_validate(
        {"model": "openai/test", "api_base": language_model.url, "num_retries": 0, "price": PRICE}
    )


def lm(settings: LanguageModelSettings, meter: Meter, store: ContentStore | None = None) -> Any:
    return build_lm(settings, record_in=store, wrap=lambda engine: MeteredEngine(engine, meter, settings))


def test_calls_of_several_models_are_counted_together_with_their_price(
    settings: LanguageModelSettings, language_model: Any, tmp_path: Path
) -> None:
    meter = Meter(Limits())
    language_model.computes(lambda body: "yes")
    with ContentStore(tmp_path / "calls.db") as store, ThreadPoolExecutor(4) as pool:
        models = [lm(settings, meter, store) for _ in range(2)]
        list(pool.map(lambda n: models[n % 2](f"question {n}"), range(8)))
    assert meter.so_far.spent.calls == 8
    assert meter.so_far.spent.input_tokens == 8 * 11
    assert meter.so_far.spent.usd == 8 * 11


def test_what_is_replayed_is_not_counted(
    settings: LanguageModelSettings, language_model: Any, tmp_path: Path
) -> None:
    language_model.computes(lambda body: "yes")
    with ContentStore(tmp_path / "calls.db") as store:
        for expected in (1, 0):
            meter = Meter(Limits())
            lm(settings, meter, store)("the same question")
            assert meter.so_far.spent.calls == expected


@pytest.mark.parametrize(
    ("limits", "said"),
    [({"calls": 2}, "2 language-model calls"), ({"tokens": 30}, "30 tokens"), ({"usd": 12}, "12.0 USD")],
)
def test_no_call_is_made_beyond_a_limit(
    settings: LanguageModelSettings, language_model: Any, tmp_path: Path, limits: dict[str, Any], said: str
) -> None:
    meter = Meter(Limits.model_validate(limits))
    language_model.computes(lambda body: "yes")
    with ContentStore(tmp_path / "calls.db") as store:
        model = lm(settings, meter, store)
        model("one")
        model("two")
        for question in ("three", "four"):
            with pytest.raises(Exception, match=said):
                model(question)
        assert model("one") == ["yes"], "what is kept is still there"
    assert len(language_model.requests) == 2
    assert said in meter.reached
    with pytest.raises(LimitReachedError):
        meter.check()


def test_failed_calls_are_counted_apart(settings: LanguageModelSettings, language_model: Any) -> None:
    meter = Meter(Limits())
    language_model.says(status=500)
    with pytest.raises(Exception, match=r"500|failed|error"):
        lm(settings, meter)("question")
    assert meter.so_far.failed == 1
    assert meter.so_far.spent.calls == 0
