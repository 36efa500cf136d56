"""A check as a person reads it, and as a machine does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from eval.curation.checking import CheckResult
from eval.curation.leaks import Leak
from eval.curation.pooling import Unjudged
from eval.missing_gold import MissingGold

_SHOWN = 10
_LONGEST = 70


def render_check(result: CheckResult, known_from: str, unjudged: Sequence[Unjudged] | None = None) -> str:
    """The findings, worst first; `known_from` says where the known documents were looked up, or why nowhere."""
    return "\n".join(_lines(result, known_from, unjudged))


def check_as_json(
    result: CheckResult, unjudged: Sequence[Unjudged] | None, describe: Callable[[str], Mapping[str, str]]
) -> dict[str, Any]:
    """Everything that was found; `describe` gives what is known of a document (title, text)."""
    return {
        "dataset": result.name,
        "questions": result.questions,
        "splits": dict(result.splits),
        "unanswerable": dict(result.unanswerable),
        "honest": result.honest,
        "leaks": [_leak_row(leak) for leak in result.leaks],
        "duplicates": [_leak_row(leak) for leak in result.duplicates],
        "shared_gold": {f"{one}/{other}": count for (one, other), count in result.shared_gold.items()},
        "missing_gold": None
        if result.missing_gold is None
        else [
            {"doc_uri": gold.doc_uri, "questions": list(gold.questions), "nearest": gold.nearest}
            for gold in result.missing_gold
        ],
        "unjudged": None if unjudged is None else [judging_row(gap, describe) for gap in unjudged],
    }


def judging_row(gap: Unjudged, describe: Callable[[str], Mapping[str, str]]) -> dict[str, Any]:
    """A line of the list to judge, with an empty `grade` to fill in."""
    about = describe(gap.doc_uri)
    return {
        "question_id": gap.question.id,
        "question": gap.question.question,
        "doc_uri": gap.doc_uri,
        "title": about.get("title", ""),
        "text": about.get("text", ""),
        "answerable": gap.question.answerable,
        "runs": gap.runs,
        "best_rank": gap.best_rank,
        "grade": None,
    }


def _lines(result: CheckResult, known_from: str, unjudged: Sequence[Unjudged] | None) -> Iterator[str]:
    sizes = ", ".join(f"{split} {count}" for split, count in result.splits.items())
    yield f"{result.name}: {result.questions} questions ({sizes}), {_unanswerable(result)}"
    yield ""
    yield from _leak_lines("Leaks: asked in two splits", result.leaks)
    yield from _gold_lines(result.missing_gold, known_from)
    yield from _leak_lines("Asked twice within a split", result.duplicates)
    if unjudged is not None:
        yield from _unjudged_lines(unjudged)
    if shared := [f"{one}/{other} {n}" for (one, other), n in result.shared_gold.items() if n]:
        yield f"Gold documents that two splits share (no leak by itself): {', '.join(shared)}"


def _unanswerable(result: CheckResult) -> str:
    total = sum(result.unanswerable.values())
    by_split = ", ".join(f"{split} {n}" for split, n in sorted(result.unanswerable.items()))
    return f"{total} unanswerable ({by_split})" if total else "none unanswerable"


def _leak_lines(title: str, leaks: Sequence[Leak]) -> Iterator[str]:
    yield f"{title}: {len(leaks) or 'none'}"
    for leak in leaks[:_SHOWN]:
        gold = ", same gold" if leak.same_gold else ""
        yield f"  {leak.similarity:.2f}{gold}"
        for question in (leak.first, leak.second):
            split = question.tags.get("split", "–")
            yield f"    {split}  {question.id}  {_short(question.question)}"
    yield from _more(len(leaks))


def _gold_lines(missing: Sequence[MissingGold] | None, known_from: str) -> Iterator[str]:
    if missing is None:
        yield f"Gold that cannot be found: not checked, {known_from}"
        return
    yield f"Gold that cannot be found in {known_from}: {len(missing) or 'none'}"
    for gold in missing[:_SHOWN]:
        wanted = ", ".join(gold.questions[:3]) + (" …" if len(gold.questions) > 3 else "")
        yield f"  {gold.doc_uri}  (question {wanted})" + (
            f"  nearest: {gold.nearest}" if gold.nearest else ""
        )
    yield from _more(len(missing))


def _unjudged_lines(unjudged: Sequence[Unjudged]) -> Iterator[str]:
    questions = len({gap.question.id for gap in unjudged})
    yield f"Ranked high and judged by nobody: {len(unjudged) or 'none'}" + (
        f", for {questions} questions" if unjudged else ""
    )
    for gap in unjudged[:_SHOWN]:
        yield f"  {gap.runs} runs, best rank {gap.best_rank}  {gap.doc_uri}"
        yield f"    {gap.question.id}  {_short(gap.question.question)}"
    yield from _more(len(unjudged))


def _more(count: int) -> Iterator[str]:
    if count > _SHOWN:
        yield f"  … and {count - _SHOWN} more: --json has all"


def _leak_row(leak: Leak) -> dict[str, Any]:
    return {
        "similarity": round(leak.similarity, 4),
        "same_gold": leak.same_gold,
        **{
            name: {"id": question.id, "split": question.tags.get("split"), "question": question.question}
            for name, question in (("first", leak.first), ("second", leak.second))
        },
    }


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
