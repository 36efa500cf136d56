"""Which of MLflow's judges are configured, what each of them looks at, and who judges. Imports no MLflow."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from eval.metric_names import JUDGE_PREFIX
from eval.questions import Question
from eval.records import AnswerRecord
from program.content_store import content_key
from program.settings import EvaluationSettings, JudgeModelSettings
from retrieval.errors import ConfigurationError

WITH_TRACE = ("RetrievalGroundedness", "RetrievalRelevance", "RetrievalSufficiency")
"""These read the question, the answer and the passages from the trace, and nothing that we tell them."""

WITH_EXPECTATIONS = ("Correctness", "Equivalence", "RetrievalSufficiency")
_TAKES_API_BASE = ("openai", "azure")


@dataclass(frozen=True, slots=True)
class Judge:
    """A scorer of `mlflow.genai.scorers` by its class name, the metric that it fills, and who it asks.

    `model` is as MLflow writes it: `openai:/gpt-4o`, `databricks`.
    """

    scorer: str
    metric: str
    model: str
    api_base: str | None = None
    guidelines: tuple[str, ...] = ()

    @property
    def assessment(self) -> str:
        """What MLflow calls its verdicts on a trace; people's labels there have the same name."""
        return self.metric.removeprefix(JUDGE_PREFIX)

    @property
    def key(self) -> str:
        """Everything of a judge that a verdict depends on; its prompts, which are MLflow's, by their version."""
        return content_key(self.scorer, self.guidelines, self.model, self.api_base, version("mlflow"))


def configured_judges(settings: EvaluationSettings) -> tuple[Judge, ...]:
    """The judges of the settings; none where none is configured.

    Raises:
        ConfigurationError: if they contradict one another, or no usable model is named to judge.
    """
    if not settings.judges:
        return ()
    model = model_uri(settings.judge_model)
    judges: dict[str, Judge] = {}
    for judge in settings.judges:
        metric = JUDGE_PREFIX + (judge.metric or _snake_case(judge.name))
        if metric in judges:
            raise ConfigurationError(
                f"evaluation.judges: two are called {metric!r}. Give one another name: metric: …"
            )
        if bool(judge.guidelines) != (judge.name == "Guidelines"):
            raise ConfigurationError(
                f"evaluation.judges: {judge.name} {'takes no' if judge.guidelines else 'needs'} guidelines. "
                "Write {name: Guidelines, guidelines: [Answer in one sentence.]}."
            )
        judges[metric] = Judge(judge.name, metric, model, settings.judge_model.api_base, judge.guidelines)
    return tuple(judges.values())


def model_uri(settings: JudgeModelSettings) -> str:
    """The judging model as MLflow writes it: `openai/gpt-4o` becomes `openai:/gpt-4o`.

    Raises:
        ConfigurationError: if there is none, or MLflow cannot be given its address.
    """
    model = settings.model or ""
    provider, _, name = model.replace(":/", "/", 1).partition("/")
    if model != "databricks" and not (provider and name):
        raise ConfigurationError(
            f"evaluation.judge_model.model = {settings.model!r}: name the model that judges, such as "
            "openai/gpt-4o, databricks/<endpoint>, or databricks for Databricks' own judges."
        )
    if settings.api_base and provider not in _TAKES_API_BASE:
        raise ConfigurationError(
            f"evaluation.judge_model.api_base: MLflow's judges take an address for openai/… and azure/… only, "
            f"not for {model!r}. For a server that speaks OpenAI's protocol write openai/<model>."
        )
    return model if model == "databricks" else f"{provider}:/{name}"


def applies(scorer: str, question: Question) -> bool:
    """Whether the ground truth says what the judge compares with."""
    return scorer not in WITH_EXPECTATIONS or bool(expectations(scorer, question))


def expectations(scorer: str, question: Question) -> dict[str, Any]:
    """What a judge is told to expect: the facts or else the response, since Correctness refuses both at once.

    Of accepted answers, any one of which is right, several make a response that says so.
    """
    if question.expected_facts and scorer != "Equivalence":
        return {"expected_facts": list(question.expected_facts)}
    if question.expected_response:
        return {"expected_response": question.expected_response}
    accepted = question.accepted_answers
    if len(accepted) == 1:
        return {"expected_response": accepted[0]}
    if accepted and scorer != "Equivalence":
        return {"expected_response": f"One of these: {'; '.join(accepted)}"}
    return {}


def evidence_key(scorer: str, question: Question, record: AnswerRecord) -> str:
    """A hash of what the judge looks at: a verdict stands for as long as that stays the same."""
    parts: list[Any] = [question.question, [dict(turn) for turn in question.history], record.answer]
    if scorer in WITH_TRACE:
        parts.append([[passage.doc_uri, passage.chunk_id] for passage in record.retrieved])
    if scorer in WITH_EXPECTATIONS:
        parts.append(expectations(scorer, question))
    return content_key(*parts)


def messages(question: Question) -> Sequence[dict[str, str]]:
    """The question after the turns before it, as chat messages."""
    return [*(dict(turn) for turn in question.history), {"role": "user", "content": question.question}]


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
