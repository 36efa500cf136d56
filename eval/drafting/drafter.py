"""One draft: ask the language model for a question, and hold what it says against the passage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import dspy
from dspy.utils.exceptions import DSPyError

from eval.drafting.checks import question_flaw, quote_flaw
from eval.drafting.sampling import UNANSWERABLE, Attempt
from eval.drafting.signatures import DraftQuestion, DraftUnanswerable
from program.content_store import ContentStore
from program.language_models import build_adapter, build_lm
from program.lm_errors import describe_lm_error
from program.prices import usd
from program.rate_limit import limiter_for
from program.readers import LMReader
from program.settings import Settings
from retrieval.local_index import LocalIndex
from retrieval.types import Passage

_LANGUAGES = {
    "en": "English",
    "ja": "Japanese",
    "zh": "Chinese",
    "ko": "Korean",
    "de": "German",
    "fr": "French",
}


@dataclass(frozen=True, slots=True)
class Draft:
    """What came of an attempt: a question (`row`), or why there is none.

    Attributes:
        row: the question in the shape of an agent-evaluation set; None where there is none.
        flaw: what is wrong with what the model wrote.
        error: why the model could not be asked; the attempt can be repeated.
        usage: tokens, as first seen.
        usd: their price; None where it is not known.
    """

    attempt: Attempt
    row: Mapping[str, Any] | None = None
    flaw: str = ""
    error: str = ""
    usage: Mapping[str, int] = field(default_factory=dict)
    usd: float | None = None


class Drafter:
    """Drafts questions with the configured language model. Many threads may use one at once."""

    def __init__(self, settings: Settings, index: LocalIndex, calls: ContentStore | None = None) -> None:
        """Calls are made once and kept in `calls`, unless `language_model.cache` is off.

        Raises:
            ConfigurationError: if no language model is configured.
        """
        self._settings = settings
        self._index = index
        lm = build_lm(settings.language_model, record_in=calls, limiter=limiter_for(settings.language_model))
        self._adapter = build_adapter(settings.language_model)
        self._draft = dspy.Predict(DraftQuestion)
        self._draft_unanswerable = dspy.Predict(DraftUnanswerable)
        for predict in (self._draft, self._draft_unanswerable):
            predict.set_lm(lm)
        self._reader = LMReader(lm)

    def draft(self, attempt: Attempt) -> Draft:
        """The draft, whatever happens: what fails says why."""
        error, row, flaw = "", None, ""
        with dspy.track_usage() as tracked, dspy.context(adapter=self._adapter):
            try:
                draft = self._unanswerable if attempt.kind == UNANSWERABLE else self._answerable
                row, flaw = draft(attempt)
            except DSPyError as failure:
                error = describe_lm_error(failure)
        usage = _totals(tracked.get_total_tokens())
        price = usd(usage, self._settings.language_model)
        return Draft(attempt, row, flaw, error, usage, price)

    def _answerable(self, attempt: Attempt) -> tuple[dict[str, Any] | None, str]:
        passage = attempt.passage
        said = self._draft(kind=attempt.kind, **_shown(passage))
        if not said.usable:
            return None, "the model found nothing worth asking"
        question, answer = str(said.question).strip(), str(said.answer).strip()
        flaw = question_flaw(question, passage.text, passage.lang) or quote_flaw(
            str(said.quote), passage.text
        )
        if flaw or not answer:
            return None, flaw or "the answer is empty"
        gold = {"doc_uri": passage.doc_uri, "chunk_id": passage.chunk_id, "content": str(said.quote).strip()}
        expected = {"expected_retrieved_context": [gold], "expected_facts": [answer]}
        return self._row(attempt, question, expected), ""

    def _unanswerable(self, attempt: Attempt) -> tuple[dict[str, Any] | None, str]:
        passage = attempt.passage
        said = self._draft_unanswerable(**_shown(passage))
        if not said.usable:
            return None, "the model found nothing worth asking"
        question = str(said.question).strip()
        flaw = question_flaw(question, passage.text, passage.lang)
        if not flaw and not self._reader(question, self._look_for(question)).abstained:
            flaw = "the corpus answers what should be unanswerable"
        return (
            (None, flaw) if flaw else (self._row(attempt, question, {"expected_retrieved_context": []}), "")
        )

    def _look_for(self, question: str) -> list[Passage]:
        # As the program would look for it, and twice as far.
        return self._index.search(question, 2 * self._settings.retrieval.k, self._settings.retrieval.filters)

    def _row(self, attempt: Attempt, question: str, expectations: Mapping[str, Any]) -> dict[str, Any]:
        tags = {
            "type": attempt.kind,
            "lang": attempt.passage.lang,
            "review": "pending",
            "origin": "drafted",
            "model": str(self._settings.language_model.model),
        }
        return {
            "id": attempt.id,
            "inputs": {"question": question},
            "expectations": expectations,
            "tags": {name: value for name, value in tags.items() if value},
        }


def _shown(passage: Passage) -> dict[str, str]:
    return {
        "title": " > ".join(dict.fromkeys((passage.title, *passage.headings))),
        "passage": passage.text,
        "language": _LANGUAGES.get(passage.lang, passage.lang) or "the language of the passage",
    }


def _totals(by_model: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    totals = {"input_tokens": 0, "output_tokens": 0}
    for counts in by_model.values():
        totals["input_tokens"] += int(counts.get("prompt_tokens") or 0)
        totals["output_tokens"] += int(counts.get("completion_tokens") or 0)
    return totals if any(totals.values()) else {}
