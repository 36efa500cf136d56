"""What the reader should have said to a question and these passages, where the ground truth lets one tell."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from eval.compiling.gold_passages import gold_parts
from eval.questions import Question
from eval.text_overlap import contained_share
from program.citations import cite
from retrieval.analysis import CJK_RUN
from retrieval.sentences import FENCE, split_sentences
from retrieval.types import Passage

HOLDS = 0.6
"""The share of what is expected from which the gold passages that were found count as holding it.

Ground truths mostly name documents, and what was found of one may be another passage of it. On the sample's train
questions 59 of the 74 whose gold documents are found reach it.
"""

_ABSTENTIONS = {
    "en": "The passages do not say.",
    "ja": "渡された文書には書かれていません。",
}
_KANA = re.compile("[\u3041-\u30ff]")
_FINAL_PUNCTUATION = re.compile(r"[.!?…。！？．]+[\"'”’»)\]」』）]*\Z")


@dataclass(frozen=True, slots=True)
class IdealAnswer:
    """The labels of the reader's signature; `text` cites."""

    text: str
    answerable: bool


def ideal_answer(
    question: Question, passages: Sequence[Passage], normalize: Callable[[str], str]
) -> IdealAnswer | None:
    """The answer that the ground truth expects, each statement with the number of the gold passage that it rests on.

    An abstention, for a question that nothing answers. None where an answer would not be honest: some of the gold was
    not found, or what was found of it does not hold what is expected, or nothing is expected, or only in another
    language than the question's.
    """
    if not passages:
        return None
    if not question.answerable:
        text = question.expected_response or _ABSTENTIONS.get(_language(question), "")
        return IdealAnswer(text, False) if text and _cites(text, passages) == set() else None
    statements = _statements(question)
    found = [part.numbers(passages) for part in gold_parts(question, normalize)]
    if not statements or not all(found) or not _hold(question, passages, normalize):
        return None
    text, placed = _mark(statements, passages, found)
    return IdealAnswer(text, True) if _cites(text, passages) == placed else None


def _statements(question: Question) -> str:
    """What an answer should say, in the question's language; empty where that is not known."""
    if question.expected_response:
        return question.expected_response.strip()
    facts = [*question.expected_facts, *question.accepted_answers[:1]]
    if any(_is_cjk(question.question) != _is_cjk(fact) and _has_words(fact) for fact in facts):
        return ""
    stop, gap = ("。", "") if _is_cjk(question.question) else (".", " ")
    return gap.join(fact.strip().rstrip(".。") + stop for fact in facts)


def _hold(question: Question, passages: Sequence[Passage], normalize: Callable[[str], str]) -> bool:
    parts = gold_parts(question, normalize)
    if all(part.names_passages for part in parts):
        return True
    gold = "\n".join(passage.text for passage in passages if any(part.is_in(passage) for part in parts))
    expected: list[tuple[str, ...]] = [(fact,) for fact in question.expected_facts]
    if question.accepted_answers:
        expected.append(question.accepted_answers)
    if not expected:
        expected = [(question.expected_response,)]
    shares = [max(contained_share(gold, fact) for fact in facts) for facts in expected]
    return sum(shares) / len(shares) >= HOLDS


def _mark(text: str, passages: Sequence[Passage], found: Sequence[Sequence[int]]) -> tuple[str, set[int]]:
    """The text with markers at the ends of its sentences, and the numbers that were put there.

    A sentence cites the gold passage that holds most of it, and each part of the gold is cited somewhere.
    """
    sentences = [(start, end) for start, end in split_sentences(text) if _is_prose(text[start:end])]
    if not sentences:
        return text, set()
    gold = sorted({number for numbers in found for number in numbers})
    cited = [{_best(text[start:end], passages, gold)} for start, end in sentences]
    for numbers in found:
        if not any(marks & set(numbers) for marks in cited):
            held = [
                max(contained_share(passages[number - 1].text, text[start:end]) for number in numbers)
                for start, end in sentences
            ]
            place = held.index(max(held))
            start, end = sentences[place]
            cited[place].add(_best(text[start:end], passages, numbers))
    for (start, end), marks in reversed(list(zip(sentences, cited, strict=True))):
        text = text[:start] + _with_markers(text[start:end], sorted(marks)) + text[end:]
    return text, set().union(*cited)


def _best(sentence: str, passages: Sequence[Passage], numbers: Sequence[int]) -> int:
    """The passage that holds most of the sentence, the better ranked of two equal ones."""
    return max(numbers, key=lambda number: contained_share(passages[number - 1].text, sentence))


def _with_markers(sentence: str, numbers: Sequence[int]) -> str:
    final = _FINAL_PUNCTUATION.search(sentence)
    body, stop = (sentence[: final.start()].rstrip(), final.group()) if final else (sentence, "")
    gap = "" if CJK_RUN.match(body[-1:]) or stop.startswith(("。", "！", "？", "．")) else " "
    return f"{body}{gap}{''.join(f'[{number}]' for number in numbers)}{stop}"


def _cites(text: str, passages: Sequence[Passage]) -> set[int] | None:
    """The numbers that the program would find in the text; None where it would drop a marker."""
    cited = cite(text, passages, reader="", query="")
    return None if cited.dropped_markers else {citation.number for citation in cited.citations}


def _is_prose(sentence: str) -> bool:
    return not FENCE.match(sentence) and not sentence.lstrip().startswith(("#", "|"))


def _language(question: Question) -> str:
    """The question's language by its tag, else by its script; empty where neither tells."""
    if tagged := question.tags.get("lang"):
        return tagged
    if _KANA.search(question.question):
        return "ja"
    return "en" if question.question.isascii() else ""


def _is_cjk(text: str) -> bool:
    return CJK_RUN.search(text) is not None


def _has_words(text: str) -> bool:
    """Whether a text is more than names and numbers, which are the same in every language."""
    return _is_cjk(text) or len(text.split()) > 3
