"""Three sets of questions that share nothing: one teaches, one chooses, one proves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from eval.ground_truth import GroundTruth, read_every_split, read_ground_truth
from eval.questions import Question
from retrieval.errors import GroundTruthError

if TYPE_CHECKING:
    from eval.curation.leaks import Leak
    from eval.formats.choice import Format

_SHOWN = 3
_SHOWN_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class Splits:
    """What an optimizer learns from, what chooses among its candidates, and what is read once at the end."""

    train: GroundTruth
    dev: GroundTruth
    test: GroundTruth


def read_splits(
    path: str | Path,
    *,
    train: str = "train",
    dev: str = "dev",
    test: str = "test",
    columns: Mapping[str, str] | None = None,
    format: Format | None = None,
    store: str | None = None,
) -> Splits:
    """The three splits of a dataset; the other arguments are as `eval.ground_truth.read_ground_truth` takes them.

    Raises:
        GroundTruthError: if the dataset is not usable or lacks one of the splits, or if a question, or nearly the
            same one (`eval.curation.leaks`), stands in two of them: what is learned by heart would count as learned.
    """
    names = (train, dev, test)
    read = [_read(path, name, names, columns, format, store) for name in names]
    splits = dict(zip(names, read, strict=True))
    _refuse_shared(path, splits)
    _refuse_leaks(path, splits)
    return Splits(*read)


def _read(
    path: str | Path,
    split: str,
    names: Sequence[str],
    columns: Mapping[str, str] | None,
    format: Format | None,
    store: str | None,
) -> GroundTruth:
    try:
        return read_ground_truth(path, split=split, columns=columns, format=format, store=store)
    except GroundTruthError as error:
        # What is wrong with the file itself is wrong with every split, and raised so here.
        read_every_split(path, columns=columns, format=format, store=store)
        raise GroundTruthError(
            f"{error} Compiling needs {', '.join(names[:-1])} and {names[-1]}. {_mending(path, names)}"
        ) from None


def _refuse_shared(path: str | Path, splits: Mapping[str, GroundTruth]) -> None:
    for (one, first), (other, second) in combinations(splits.items(), 2):
        shared = list(_shared(first.questions, second.questions))
        if shared:
            raise GroundTruthError(
                f"{path}: {_count(len(shared), 'question')} of {one!r} {_verb(len(shared))} in {other!r}, too: "
                f"{_listed(_shown(question) for question in shared)}. {_mending(path, tuple(splits))}"
            )


def _shared(first: Sequence[Question], second: Sequence[Question]) -> Iterator[Question]:
    """The questions of the first that have the id or the words of one of the second."""
    ids = {question.id for question in second}
    texts = set(map(_words, second))
    return (question for question in first if question.id in ids or _words(question) in texts)


def _words(question: Question) -> tuple[str, ...]:
    turns = [*(turn.get("content", "") for turn in question.history), question.question]
    return tuple(" ".join(text.casefold().split()) for text in turns)


def _refuse_leaks(path: str | Path, splits: Mapping[str, GroundTruth]) -> None:
    from eval.curation.leaks import leaks_between_splits

    # All at once and not pair by pair: rare words weigh by all questions, as they do where the splits were made.
    questions = [
        replace(question, tags={**question.tags, "split": name})
        for name, ground_truth in splits.items()
        for question in ground_truth.questions
    ]
    leaks, _ = leaks_between_splits(questions)
    if leaks:
        raise GroundTruthError(
            f"{path}: {_count(len(leaks), 'pair')} of questions in two splits {_verb(len(leaks), 'is', 'are')} nearly "
            f"one question: {_listed(map(_shown_pair, leaks))}. {_mending(path, tuple(splits))}"
        )


def _mending(path: str | Path, names: Sequence[str]) -> str:
    train, dev, test = names
    return (
        f"Divide it anew: citeqa dataset split {path} --out divided.jsonl --shares {train}=.5,{dev}=.2,{test}=.3, "
        "and name that file as evaluation.dataset."
    )


def _listed(shown: Iterator[str]) -> str:
    found = list(shown)
    return "; ".join(found[:_SHOWN]) + ("; …" if len(found) > _SHOWN else "")


def _shown_pair(leak: Leak) -> str:
    one, other = leak.first.tags["split"], leak.second.tags["split"]
    return f"{_shown(leak.first)} of {one!r} and {_shown(leak.second)} of {other!r} ({leak.similarity:.2f})"


def _shown(question: Question) -> str:
    text = " ".join(question.question.split())
    cut = text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
    return f"{question.id!r} “{cut}”"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _verb(number: int, one: str = "stands", many: str = "stand") -> str:
    return one if number == 1 else many
