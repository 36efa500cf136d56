"""Settings become a `dspy.LM`: any provider, with its tokens audible while they come."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import dspy
from dspy.clients._litellm import get_litellm
from dspy.clients.backend_selection import select_backend
from dspy.clients.engines.litellm_engine import LiteLLMEngine
from dspy.clients.engines.lm15_engine import LM15Engine, timeouts_for
from dspy.lm15 import RouterConfig

from program.content_store import ContentStore
from program.databricks_models import PROVIDER, DatabricksEngine
from program.rate_limit import LimitedEngine, RateLimiter
from program.recorded_calls import CallContext, RecordedEngine
from program.settings import LanguageModelSettings
from program.streaming import Engine, TeeEngine
from retrieval.errors import ConfigurationError

# LiteLLM looks its price list up online unless told that the one it ships will do.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "true")


def build_lm(
    settings: LanguageModelSettings,
    *,
    record_in: ContentStore | None = None,
    limiter: RateLimiter | None = None,
    wrap: Callable[[Engine], Engine] | None = None,
) -> dspy.LM:
    """The language model that the settings name. Nothing is called, and no key is read, until it is asked.

    With `record_in`, each call is made once and answered from there ever after, unless `settings.cache` is off.
    It takes the place of DSPy's own cache, which forgets what an answer cost. With a `limiter`, calls wait
    where the provider is busy. `wrap` puts something around the engine that is met by calls that are really made.

    Raises:
        ConfigurationError: if no model is named, or its string names no provider that DSPy knows.
    """
    if not settings.model:
        raise ConfigurationError(
            "No language model is configured. Set language_model.model (for example openai/gpt-4o-mini) and "
            "its API key in the environment, or reader.kind: extractive to answer without one."
        )
    engine = _engine(settings)
    if wrap is not None:
        engine = wrap(engine)
    if limiter is not None:
        engine = LimitedEngine(engine, limiter, patience_s=settings.rate_limit_wait_s)
    if record_in is not None and settings.cache:
        engine = RecordedEngine(engine, record_in, address=_address(settings))
    return dspy.LM(
        settings.model,
        engine=TeeEngine(engine),
        temperature=settings.temperature,
        max_tokens=settings.max_tokens,
        num_retries=settings.num_retries,
        cache=settings.cache and record_in is None,
        callbacks=[CallContext()] if record_in is not None else None,
    )


def build_adapter(settings: LanguageModelSettings) -> dspy.Adapter:
    """How prompts are laid out. Only the chat layout streams; the others answer in one piece."""
    match settings.adapter:
        case "chat":
            return dspy.ChatAdapter()
        case "json":
            return dspy.JSONAdapter()
        case "xml":
            return dspy.XMLAdapter()


def _engine(settings: LanguageModelSettings) -> Engine:
    """The engine that DSPy itself would choose: its native one where it knows the provider, else LiteLLM.

    A Databricks workspace is neither's, since its tokens run out: see `program.databricks_models`.
    """
    provider, _, endpoint = str(settings.model).partition("/")
    if provider == PROVIDER and endpoint:
        return DatabricksEngine(
            timeout_s=settings.timeout_s, api_base=settings.api_base, as_user=settings.user_credentials
        )
    if settings.user_credentials:
        raise ConfigurationError(
            f"language_model.user_credentials: only endpoints of a Databricks workspace can be asked as the user "
            f"who asks, and {settings.model!r} is none. Set it to false, or the model to databricks/<endpoint>."
        )
    clients: dict[str, Any] = {"timeout": settings.timeout_s}
    if settings.api_base:
        clients["api_base"] = settings.api_base
    try:
        selection = select_backend(dspy.LM(str(settings.model), **clients))
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"language_model.model = {settings.model!r}: {error}") from error
    engine: Engine
    if selection.native:
        urls = {selection.resolution.provider: settings.api_base} if settings.api_base else None
        engine = LM15Engine(RouterConfig(base_urls=urls, timeouts=timeouts_for(settings.timeout_s)))
    else:
        _check_provider(str(settings.model))
        engine = LiteLLMEngine(model_type="chat", **selection.clients)
    return engine


def _address(settings: LanguageModelSettings) -> str:
    """Where the model is asked, if not where its provider usually is: the same endpoint elsewhere is another one."""
    provider = str(settings.model).partition("/")[0].upper()
    names = (f"{provider}_{what}" for what in ("API_BASE", "BASE_URL", "HOST", "CONFIG_PROFILE"))
    return settings.api_base or next(filter(None, map(os.environ.get, names)), "")


def _check_provider(model: str) -> None:
    litellm = get_litellm(feature="language_model.model")
    try:
        litellm.get_llm_provider(model)
    except litellm.BadRequestError:
        raise ConfigurationError(
            f"language_model.model = {model!r}: no provider that DSPy knows. "
            "Write provider/model, such as openai/gpt-4o-mini or databricks/<endpoint>."
        ) from None
