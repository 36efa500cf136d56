"""What went wrong with a language model, said to a person: one line, what to do, and never a key."""

from __future__ import annotations

from collections.abc import Iterator

from dspy.utils.exceptions import DSPyError

from retrieval.secrets import hide_secrets as hide_secrets  # most of those who use it come here for the rest

_REASON_CHARACTERS = 300
_ADVICE = {
    "auth": "Check its API key in the environment.",
    "not_configured": "Set its API key in the environment, or language_model.api_base.",
    "rate_limit": "Wait, or raise language_model.num_retries or rate_limit_wait_s.",
    "timeout": "Try again, or raise language_model.timeout_s.",
    "transport": "Check language_model.api_base and the network.",
    "adapter_parse_error": "Try another language_model.adapter.",
}


def describe_lm_error(error: DSPyError) -> str:
    """One line about a failed language-model call, with what to do."""
    name = f"The language model '{error.model}'" if error.model else "The language model"
    code, reason = failure_kind(error), _first_line(str(error.message or error))
    if code == "timeout" and error.code == "transport":
        reason = "it did not answer in time"
    if code in ("auth", "not_configured") and str(error.model or "").startswith("databricks/"):
        code = ""  # which credentials were tried, and what to do, is in the reason: they are no API key
    return hide_secrets(f"{name} failed: {reason.rstrip('.')}. {_ADVICE.get(code, '')}".strip())


def failure_kind(error: DSPyError) -> str:
    """DSPy's code of the failure (`auth`, `rate_limit`, `timeout`, `transport`, …); empty where it has none."""
    if error.code == "transport" and any(isinstance(link, TimeoutError) for link in _chain(error)):
        return "timeout"
    return error.code or ""


def _first_line(message: str) -> str:
    """The reason; clients add advice about options of their own below it."""
    line = next((line for line in message.splitlines() if line.strip()), "no reason was given")
    line = " ".join(line.split())
    if line.startswith("[") and "] " in line:  # DSPy's own mark of the model, which is named already
        line = line.partition("] ")[2]
    return line if len(line) <= _REASON_CHARACTERS else f"{line[: _REASON_CHARACTERS - 1]}…"


def hide_secrets_in(error: BaseException) -> None:
    """Rewrite the messages of an error and its causes: a gateway may have repeated the key that it refused."""
    for link in _chain(error):
        link.args = tuple(hide_secrets(arg) if isinstance(arg, str) else arg for arg in link.args)
        if isinstance(message := getattr(link, "message", None), str):
            link.message = hide_secrets(message)  # type: ignore[attr-defined]


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
