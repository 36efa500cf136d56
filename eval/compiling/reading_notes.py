"""What an answer made of the passages that it was given: whether to answer, what it says, and what it cites."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from eval.compiling.claims import SAYS, SAYS_NOT, Claim, best_passage, claims, quote_of, share_said
from eval.compiling.gold_passages import gold_parts
from eval.compiling.notes import Notes, numbered, quoted, uris
from eval.questions import Question
from eval.text_overlap import contained_share
from program.types import CitedAnswer

STATED = 0.75
"""The share of an expected fact's content words from which an answer states it."""

TOO_LONG = 2.5
"""An answer of so many times the expected length is called too long."""

_MARGIN = 0.25
_WIDE_MARGIN = 0.4
_MOST_SENTENCES = 4
_SHORT = 40
_MARKER = re.compile(r"\s*\[\d+\]")


def reading_notes(
    question: Question, cited: CitedAnswer, normalize: Callable[[str], str], *, length_counts: bool = True
) -> Notes:
    """Remarks on the answer, given what was retrieved; on its length where that is part of the score.

    What passages say is told from the words that they share with a text, and where these are in different scripts
    nothing is said of it.
    """
    notes = Notes()
    if not question.answerable:
        _on_unanswerable(cited, notes)
    elif cited.abstained:
        _on_abstention(question, cited, normalize, notes)
    else:
        _on_citations(question, cited, normalize, notes)
        _on_facts(question, cited, notes)
        if length_counts:
            _on_length(question, cited, notes)
    if cited.dropped_markers:
        there = f"there are only [1] to [{len(cited.passages)}]" if cited.passages else "there are none"
        markers = "1 marker" if cited.dropped_markers == 1 else f"{cited.dropped_markers} markers"
        notes.wrong.append(
            f"{markers} pointed at no passage, and {there}: cite only passages that are shown."
        )
    if question.expected_response and (notes.wrong or not question.answerable):
        notes.right.append(f"The expected answer was: {quoted(question.expected_response)}")
    return notes


def _on_unanswerable(cited: CitedAnswer, notes: Notes) -> None:
    if cited.abstained:
        notes.right.append("It abstained, rightly: the documents do not hold the answer.")
    else:
        notes.wrong.append(
            "It answered an unanswerable question: the documents do not hold the answer, and it said "
            f"{quoted(cited.text)} It should have said plainly that the passages do not say, with answerable False."
        )


def _on_abstention(
    question: Question, cited: CitedAnswer, normalize: Callable[[str], str], notes: Notes
) -> None:
    expected = _expected(question)
    number, share = max(
        (best_passage(cited.passages, text) for text in expected),
        key=lambda found: found[1],
        default=(0, 0.0),
    )
    gold = _gold_numbers(question, cited, normalize)
    if number and share >= STATED:
        text = max(expected, key=lambda text: contained_share(cited.passages[number - 1].text, text))
        said = quoted(quote_of(cited.passages[number - 1], text))
        notes.wrong.append(f"It abstained although passage [{number}] holds the answer: {said}")
    elif gold:
        notes.wrong.append(
            f"It abstained although {numbered(gold)} {'is' if len(gold) == 1 else 'are'} of the gold documents."
        )
    else:
        notes.right.append("It abstained: none of the passages that it was given is of a gold document.")


def _on_citations(
    question: Question, cited: CitedAnswer, normalize: Callable[[str], str], notes: Notes
) -> None:
    stated = claims(cited)
    gold = _gold_numbers(question, cited, normalize)
    if not cited.citations:
        holding = gold or [number for number, share in [_holding(question, cited)] if share >= STATED]
        where = f", though passage {numbered(holding[:1])} holds the answer" if holding else ""
        notes.wrong.append(f"It cites nothing{where}: put the passage's number after each statement.")
    else:
        found = [note for claim in stated if (note := _on_claim(claim, cited))]
        notes.wrong += found[:_MOST_SENTENCES]
        _on_gold_cited(question, cited, normalize, notes)
        if not found and any(claim.cited for claim in stated):
            notes.right.append("The passages that it cites say what its sentences say.")
    if not gold and gold_parts(question, normalize):
        notes.right.append("No passage of a gold document was among those that it was given.")


def _on_claim(claim: Claim, cited: CitedAnswer) -> str:
    """What is wrong with the citations of one sentence; nothing where they are right, or cannot be judged."""
    best, most = best_passage(cited.passages, claim.text)
    sentence = f"Sentence {claim.number}, {quoted(claim.text)}"
    if not claim.cited:
        return f"{sentence}, cites nothing, though passage [{best}] says it." if most >= STATED else ""
    for number in claim.cited:
        share = share_said(cited.passages[number - 1], claim.text)
        if share is None:
            continue
        if most >= SAYS and most - share >= (_MARGIN if share < SAYS_NOT else _WIDE_MARGIN):
            says = quoted(quote_of(cited.passages[best - 1], claim.text))
            return f"{sentence}, cites [{number}], which does not say it, while [{best}] does: {says}"
        if most < SAYS_NOT:
            return f"{sentence}, cites [{number}], which does not say it, and no other passage does."
    return ""


def _on_gold_cited(
    question: Question, cited: CitedAnswer, normalize: Callable[[str], str], notes: Notes
) -> None:
    numbers = {citation.number for citation in cited.citations}
    parts = gold_parts(question, normalize)
    cited_uris = {normalize(uri) for uri in cited.cited_uris}
    for part in parts:
        there = part.numbers(cited.passages)
        of_document = any(normalize(uri) in cited_uris for uri in part.doc_uris)
        if there and not of_document:
            notes.wrong.append(
                f"It does not cite {numbered(there[:1])}, of gold document {uris(part.doc_uris)}."
            )
        elif there and numbers & set(there):
            notes.right.append(f"It cites {numbered(sorted(numbers & set(there)))}, which is gold.")
    gold_uris = {normalize(uri) for part in parts for uri in part.doc_uris}
    foreign = sorted({c.number for c in cited.citations if normalize(c.passage.doc_uri) not in gold_uris})
    if foreign:
        verb = "is" if len(foreign) == 1 else "are"
        notes.wrong.append(f"It cites {numbered(foreign)}, which {verb} of no gold document.")


def _on_facts(question: Question, cited: CitedAnswer, notes: Notes) -> None:
    facts: list[tuple[str, ...]] = [(fact,) for fact in question.expected_facts]
    if question.accepted_answers:
        facts.append(question.accepted_answers)
    stated = 0
    for alternatives in facts:
        if max(contained_share(cited.text, text) for text in alternatives) >= STATED:
            stated += 1
        else:
            notes.wrong.append(_missing(alternatives, cited))
    if facts and stated == len(facts):
        notes.right.append("It states every expected fact." if stated > 1 else "It states the expected fact.")


def _missing(alternatives: Sequence[str], cited: CitedAnswer) -> str:
    fact = alternatives[0]
    found = [(best_passage(cited.passages, text), text) for text in alternatives]
    (number, share), text = max(found, key=lambda pair: pair[0][1])
    if number and share >= STATED:
        stands = quoted(quote_of(cited.passages[number - 1], text))
        return f"Expected fact {quoted(text)} is missing, though it stands in passage [{number}]: {stands}"
    return f"Expected fact {quoted(fact)} is missing; it was found in no passage."


def _on_length(question: Question, cited: CitedAnswer, notes: Notes) -> None:
    expected = [text for text in (question.expected_response, *question.accepted_answers) if text]
    if not expected:
        return
    said, wanted = _length(cited.text), max(map(_length, expected))
    if said > TOO_LONG * max(wanted, _SHORT):
        notes.wrong.append(
            f"It is too long: {said} characters, where the expected answer has {wanted}. Say only what was asked for."
        )


def _length(text: str) -> int:
    return len(" ".join(_MARKER.sub("", text).split()))


def _expected(question: Question) -> list[str]:
    texts = (*question.expected_facts, *question.accepted_answers)
    return [text for text in texts if text] or [text for text in (question.expected_response,) if text]


def _holding(question: Question, cited: CitedAnswer) -> tuple[int, float]:
    """The passage that holds most of something that was expected, and how much of it."""
    found = (best_passage(cited.passages, text) for text in _expected(question))
    return max(found, key=lambda pair: pair[1], default=(0, 0.0))


def _gold_numbers(question: Question, cited: CitedAnswer, normalize: Callable[[str], str]) -> list[int]:
    parts = gold_parts(question, normalize)
    return sorted({number for part in parts for number in part.numbers(cited.passages)})
