"""How MLflow's judges are told where their model is, and how long to wait: by the environment, and by nothing else.

`mlflow.genai.scorers` call a model through `mlflow.genai.judges.adapters`: MLflow's own gateway providers for
openai, azure, anthropic, bedrock, databricks and others, LiteLLM for the rest. A built-in judge passes them
neither an address nor a time-out, and there is no way to give it either but these variables (MLflow 3.17).
"""

from __future__ import annotations

import os
import socket
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urlsplit

from program.settings import JudgeModelSettings
from retrieval.errors import ConfigurationError, LanguageModelError

_CONNECT_S = 5
_ADDRESS = {"openai": "OPENAI_API_BASE", "azure": "AZURE_API_BASE"}


@contextmanager
def judge_environment(settings: JudgeModelSettings) -> Iterator[None]:
    """The process's environment as the judges need it; afterwards as it was. Nothing else may call models inside."""
    wanted = _variables(settings)
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def check_judge_model(settings: JudgeModelSettings) -> None:
    """Make sure of what can be known before anything is paid for: a key, and that somebody listens.

    The latter where an address is set and no proxy is between. MLflow tries a call that is not answered 11
    times over three minutes, which nothing shortens.

    Raises:
        ConfigurationError: if OpenAI's client has no key.
        LanguageModelError: if nothing listens at the address.
    """
    if (settings.model or "").startswith("openai") and not os.environ.get("OPENAI_API_KEY"):
        raise ConfigurationError(
            f"evaluation.judge_model.model = {settings.model!r}: MLflow's judges need OPENAI_API_KEY in the "
            "environment; any value will do for a server that asks for none."
        )
    address = urlsplit(settings.api_base or "")
    if not address.hostname or _by_proxy(address.scheme, address.hostname):
        return
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        socket.create_connection((address.hostname, port), timeout=_CONNECT_S).close()
    except OSError as error:
        raise LanguageModelError(
            f"The judging model cannot be reached at '{settings.api_base}' ({error.strerror or error}). Start it, "
            "correct evaluation.judge_model.api_base, or leave the judges out: --set evaluation.judges=[]",
            "transport",
        ) from None


def _variables(settings: JudgeModelSettings) -> Mapping[str, str]:
    provider = (settings.model or "").partition("/")[0].removesuffix(":")
    address = {_ADDRESS[provider]: settings.api_base} if settings.api_base and provider in _ADDRESS else {}
    return {
        "MLFLOW_GATEWAY_ROUTE_TIMEOUT_SECONDS": str(settings.timeout_s),
        # MLflow looks for a newer price list online, for seconds without a network; it ships one.
        "MLFLOW_MODEL_CATALOG_URI": os.environ.get("MLFLOW_MODEL_CATALOG_URI", ""),
        "LITELLM_LOCAL_MODEL_COST_MAP": "true",
        **address,
    }


def _by_proxy(scheme: str, host: str) -> bool:
    return scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host)
