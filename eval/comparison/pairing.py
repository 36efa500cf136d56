"""Which questions of two runs are the same question."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eval.paired import Pair
from eval.scored_runs import ScoredRun
from retrieval.errors import DataError


@dataclass(frozen=True, slots=True)
class Pairing:
    """The questions that two runs have in common.

    Attributes:
        pairs: the id in A and the id in B of each, in A's order.
        only_a, only_b: ids that the other run does not have.
        changed: ids that both have with different texts: other questions, and not compared.
        ambiguous: questions asked several times in one run and known by their text alone; not compared.
        by_text: whether texts were compared, since one of the runs has made-up ids.
    """

    pairs: Sequence[tuple[str, str]]
    only_a: Sequence[str]
    only_b: Sequence[str]
    changed: Sequence[str] = ()
    ambiguous: Sequence[str] = ()
    by_text: bool = False

    @property
    def complete(self) -> bool:
        """Whether both runs are of the same questions."""
        return not (self.only_a or self.only_b or self.changed or self.ambiguous)


def pair_questions(a: ScoredRun, b: ScoredRun) -> Pairing:
    """The questions that both have: by id, or by text where the ids of one run were made up.

    An id with another text is another question. Texts are equal but for white space and Unicode form.

    Raises:
        DataError: if they have no question in common.
    """
    by_text = a.matched_by != b.matched_by
    pairing = _pair_by_text(a, b) if by_text else _pair_by_id(a, b)
    if not pairing.pairs:
        raise DataError(
            f"'{a.name}' ({len(a.questions)} questions) and '{b.name}' ({len(b.questions)}) have no question in "
            f"common{_example(a, b, pairing)}. Compare runs over the same dataset and split."
        )
    return pairing


def pair_values(a: ScoredRun, b: ScoredRun, pairing: Pairing, metric: str) -> Pair:
    """One metric's values of the common questions."""
    places_a = _places(a.questions, (id_ for id_, _ in pairing.pairs))
    places_b = _places(b.questions, (id_ for _, id_ in pairing.pairs))
    return Pair(metric, a.values[metric][places_a], b.values[metric][places_b])


def _pair_by_id(a: ScoredRun, b: ScoredRun) -> Pairing:
    common = [id_ for id_ in a.questions if id_ in b.questions]
    changed = {id_ for id_ in common if _plain(a.questions[id_]) != _plain(b.questions[id_])}
    return Pairing(
        pairs=[(id_, id_) for id_ in common if id_ not in changed],
        only_a=[id_ for id_ in a.questions if id_ not in b.questions],
        only_b=[id_ for id_ in b.questions if id_ not in a.questions],
        changed=sorted(changed),
    )


def _pair_by_text(a: ScoredRun, b: ScoredRun) -> Pairing:
    texts_a = {id_: _plain(text) for id_, text in a.questions.items()}
    texts_b = {id_: _plain(text) for id_, text in b.questions.items()}
    repeated = _repeated(texts_a) | _repeated(texts_b)
    ids_b = {text: id_ for id_, text in texts_b.items()}
    known_a = set(texts_a.values())
    return Pairing(
        pairs=[(id_, ids_b[t]) for id_, t in texts_a.items() if t in ids_b and t not in repeated],
        only_a=[id_ for id_, text in texts_a.items() if text not in ids_b],
        only_b=[id_ for id_, text in texts_b.items() if text not in known_a],
        ambiguous=sorted(repeated & known_a & set(ids_b)),
        by_text=True,
    )


def _repeated(texts: Mapping[str, str]) -> set[str]:
    return {text for text, count in Counter(texts.values()).items() if count > 1}


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _places(questions: Iterable[str], ids: Iterable[str]) -> NDArray[np.int64]:
    place = {id_: number for number, id_ in enumerate(questions)}
    return np.array([place[id_] for id_ in ids], dtype=np.int64)


def _example(a: ScoredRun, b: ScoredRun, pairing: Pairing) -> str:
    if pairing.changed:
        return f": {len(pairing.changed)} ids are in both, with other texts"
    ids = [next(iter(run.questions)) for run in (a, b)]
    return f" (such as {ids[0]!r} and {ids[1]!r})"
