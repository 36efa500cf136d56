"""Draft questions until there are enough: `citeqa dataset generate` as a function."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from eval.agents import CALLS_FILE
from eval.drafting.checks import AskedBefore
from eval.drafting.draft_file import DraftFile
from eval.drafting.drafter import Draft, Drafter
from eval.drafting.sampling import Attempt, plan_attempts
from eval.ground_truth import read_ground_truth
from program.content_store import ContentStore
from program.settings import Settings
from program.threads import map_in_threads
from retrieval.errors import ConfigurationError, RunStoppedError
from retrieval.local_index import LocalIndex

FAILURES_BORNE = 5
"""So many failures stop nothing, unless nothing else was seen."""


@dataclass(frozen=True, slots=True)
class DraftPlan:
    """What to draft: `count` questions in the file `out`, those included that are there.

    `lang` restricts the passages; `unanswerable` (0 to 1) is the share of attempts at questions that the corpus
    does not answer. The same plan over the same index with the same seed gives the same questions.
    """

    out: Path
    count: int
    lang: str | None = None
    seed: int = 0
    unanswerable: float = 0.0


@dataclass(slots=True)
class DraftReport:
    """What this call did. `in_file` drafts are there now; `exhausted` says that no passage is left to ask about.

    `usd` is None where the price of a call is not known.
    """

    in_file: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    usage: Counter[str] = field(default_factory=Counter)
    usd: float | None = 0.0
    exhausted: bool = False


def draft_questions(
    settings: Settings, plan: DraftPlan, on_draft: Callable[[int, int], None] | None = None
) -> DraftReport:
    """Draft questions from the configured index with the configured language model.

    Each is in the file before the next is waited for; the same call again goes on where the last one ended, and
    asks nothing twice. A passage whose call fails is counted and left for the next time. Questions that are
    nearly one of the file's or of the configured dataset's are dropped. `on_draft` is told how many drafts there
    are, and how many there are to be.

    Raises:
        ConfigurationError: if no language model is configured, or no passage is in the language.
        RunStoppedError: if the model fails each time, or too often.
        CiteqaError: whatever else a person must mend.
    """
    index = LocalIndex.open(settings.retrieval.index)
    _check_language(index, plan.lang)
    calls_file = Path(settings.evaluation.results) / CALLS_FILE
    with ContentStore(calls_file) as calls, DraftFile(plan.out) as file:
        questions = file.questions()
        file.recover(questions)
        work = _Drafting(settings, plan, file, Drafter(settings, index, calls), on_draft)
        work.report.in_file = len(questions)
        for known in (*(question.question for question in questions), *_configured_questions(settings)):
            work.asked.add(known)
        work.run(plan_attempts(index, lang=plan.lang, seed=plan.seed, unanswerable=plan.unanswerable))
        return work.report


class _Drafting:
    """A call of `draft_questions` under way."""

    def __init__(
        self,
        settings: Settings,
        plan: DraftPlan,
        file: DraftFile,
        drafter: Drafter,
        on_draft: Callable[[int, int], None] | None,
    ) -> None:
        self.report = DraftReport()
        self.asked = AskedBefore()
        self._settings = settings
        self._plan = plan
        self._file = file
        self._drafter = drafter
        self._on_draft = on_draft
        self._tried = 0

    def run(self, attempts: Iterator[Attempt]) -> None:
        """Rounds of as many attempts as drafts are missing, so that none is paid for beyond what is wanted."""
        settled = self._file.settled()
        fresh = (attempt for attempt in attempts if attempt.id not in settled)
        while missing := max(0, self._plan.count - self.report.in_file):
            round_ = list(islice(fresh, missing))
            if not round_:
                self.report.exhausted = True
                return
            for draft in self._in_order(round_):
                self._take(draft)

    def _in_order(self, attempts: Sequence[Attempt]) -> Iterator[Draft]:
        """The drafts in the attempts' order, each as soon as those before it are there.

        In order, because whether a question was asked before depends on it, and the result shall not depend on
        which call happened to be faster.
        """
        waiting: dict[str, Draft] = {}
        order = iter(attempts)
        expected = next(order, None)
        drafts = map_in_threads(
            self._drafter.draft, attempts, threads=self._settings.evaluation.threads, name="citeqa-draft"
        )
        with closing(drafts):
            for draft in drafts:
                waiting[draft.attempt.id] = draft
                while expected is not None and expected.id in waiting:
                    yield waiting.pop(expected.id)
                    expected = next(order, None)

    def _take(self, draft: Draft) -> None:
        self._tried += 1
        self._count_cost(draft)
        if draft.error:
            self.report.failed[draft.error] += 1
            self._stop_if_failing(draft.error)
            return
        if draft.row is not None:
            question = str(draft.row["inputs"]["question"])
            if question in self.asked:
                draft = Draft(draft.attempt, flaw="the question is nearly one that is there")
            else:
                self.asked.add(question)
                self.report.kept += 1
                self.report.in_file += 1
        if draft.flaw:
            self.report.dropped[draft.flaw] += 1
        self._file.settle(draft)
        if self._on_draft:
            self._on_draft(self.report.in_file, self._plan.count)

    def _count_cost(self, draft: Draft) -> None:
        self.report.usage.update(draft.usage)
        known = self.report.usd is not None and (draft.usd is not None or not draft.usage)
        self.report.usd = (self.report.usd or 0.0) + (draft.usd or 0.0) if known else None

    def _stop_if_failing(self, reason: str) -> None:
        failed, share = self.report.failed.total(), self._settings.evaluation.max_failed_share
        if failed >= FAILURES_BORNE and (failed == self._tried or failed > share * self._tried):
            raise RunStoppedError(
                f"Stopped drafting: {failed} of {self._tried} calls failed, the last one because: {reason} "
                f"{self.report.in_file} drafts are in '{self._plan.out}'. Mend the cause and run the same command "
                "again."
            )


def _check_language(index: LocalIndex, lang: str | None) -> None:
    languages = index.languages()
    if lang and lang not in languages:
        there = ", ".join(languages) or "none: its documents say none"
        raise ConfigurationError(
            f"--lang {lang}: no document of the index is in it. Languages there: {there}."
        )


def _configured_questions(settings: Settings) -> Iterator[str]:
    evaluation = settings.evaluation
    if Path(evaluation.dataset).exists():
        questions = read_ground_truth(evaluation.dataset, columns=evaluation.columns or None).questions
        yield from (question.question for question in questions)


def render_report(plan: DraftPlan, report: DraftReport) -> str:
    """What was drafted, what was not and why, what it cost, and what to do next."""
    lines = [f"{plan.out}: {report.in_file} drafts ({report.kept} now), each with review = pending"]
    lines += _counted("Dropped", report.dropped) + _counted("Failed", report.failed)
    if report.exhausted:
        lines.append(
            f"Every fitting passage was asked about; {plan.count - report.in_file} drafts are missing."
        )
    tokens = report.usage.total()
    price = "price not known" if report.usd is None else f"{report.usd:.4f} USD"
    lines.append(f"Cost: {tokens} tokens, {price}")
    lines.append('Read each, mend or delete it, and set its tag "review" to "done".')
    return "\n".join(lines)


def _counted(what: str, reasons: Mapping[str, int]) -> list[str]:
    return [f"{what}: {count} × {reason}" for reason, count in Counter(reasons).most_common()]
