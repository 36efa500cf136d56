"""What the model can do, and what a prompt makes of it.

The model is small: general advice ("cite them", "briefly") passes it by. It follows *rules*, sentences that oblige
(always, must, never, make sure, be sure, at most, exactly), and what demonstrations show.

    skill    a rule turns it on that speaks of …               a demonstration, by …
    cite     citing, citations, or a marker such as [2]         an answer with a marker
    look     all or every passage, or the one that answers best a sentence that passage 1 does not begin with
    brief    one (two, three) sentences, short, concise         the number of its sentences
    abstain  passages that do not hold it, or `answerable`      `answerable` being False
    words    the vocabulary, terms or words of the documents    a query with words that the question lacks

Rules that do harm: never to cite, to answer in one word, always to answer, to abstain in doubt, to search with one
keyword. Harm wins over what is good.

A skill succeeds on a share of questions: .22 by luck, .87 when told, .95 when shown, .97 when both; told but shown
otherwise .5, and shown otherwise .1. Which questions these are is fixed by hashes, so that a better prompt fails on
a part of what a worse one failed on. Skills often fail together (a share .6 of them by the question, the others each
for itself); a share .08 falls otherwise from prompt to prompt, as real models' moods do. At a temperature t, a share
t/2 of the answers is drawn anew with each time that the same prompt is asked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from model_rules.prompts import Demonstration, Prompt
from model_rules.words import chance, content_words, split_sentences

BY_LUCK, SHOWN_OTHERWISE, TOLD_BUT_SHOWN_OTHERWISE = 0.22, 0.1, 0.5
TOLD, SHOWN, BOTH = 0.87, 0.95, 0.97
TOGETHER, MOOD = 0.6, 0.08

MARKER = re.compile(r"\s?\[\d{1,2}\]")
_OBLIGES = re.compile(r"\b(?:always|must|never|make sure|be sure|at most|exactly)\b")
_CITING = re.compile(r"\bcit(?:e|es|ed|ing|ations?)\b|\[\d\]|\bmarkers?\b|\bbrackets?\b")
_NOT = re.compile(r"\b(?:never|not|no|without)\b")
_DOUBLY_NOT = re.compile(r"\b(?:never|not|no)\b.*\b(?:without|forget|omit|uncited)\b")
_LOOKING = re.compile(r"\b(?:all|every|each)(?: of)?(?: the)? passages?\b|\bbest (?:answers|supports)\b")
_BREVITY = re.compile(r"\b(one|two|three|1|2|3) sentences?\b|\bshort\b|\bconcise\b|\bbrief\b")
_ONE_WORD = re.compile(r"\b(?:one|single) word\b")
_ABSTAINING = re.compile(
    r"\babstain\w*\b|\b(?:un)?answerable\b|\b(?:no passage|not) (?:holds?|contains?|says?)\b"
)
_ANSWER_ALWAYS = re.compile(
    r"\balways (?:(?:give|offer|provide) )?(?:an )?answer\b|\bnever (?:abstain|refuse|decline|say)"
)
_IN_DOUBT = re.compile(r"\bdoubt\b|\bunsure\b|\bnot (?:entirely )?certain\b")
_VOCABULARY = re.compile(r"\b(?:vocabulary|terminology|terms|words)\b")
_OF_DOCUMENTS = re.compile(r"\b(?:documents?|corpus|collection|catalogue|passages|index)\b")
_ONE_KEYWORD = re.compile(r"\b(?:one|single) keyword\b")
_WRAP = re.compile(r"(?<![.!?:\n])\n(?![\n*-]|\d+\.)")
_NUMBERS = {"one": 1, "two": 2, "three": 3}
_FORBIDS = {"never_cite": "cite", "always_answer": "abstain", "one_keyword": "words"}


@dataclass(frozen=True, slots=True)
class Taught:
    """What a prompt teaches. `harm` names the harmful rules; `sentences` is the length told or shown."""

    told: frozenset[str] = frozenset()
    shown: frozenset[str] = frozenset()
    shown_otherwise: frozenset[str] = frozenset()
    harm: frozenset[str] = frozenset()
    sentences: int = 1

    def rate(self, skill: str) -> float:
        """The share of questions on which the skill succeeds."""
        told = skill in self.told
        if any(_FORBIDS.get(harm) == skill for harm in self.harm):
            return 0.0
        if skill in self.shown:
            return BOTH if told else SHOWN
        if skill in self.shown_otherwise:
            return TOLD_BUT_SHOWN_OTHERWISE if told else SHOWN_OTHERWISE
        return TOLD if told else BY_LUCK


@dataclass(frozen=True, slots=True)
class Luck:
    """What succeeds on one question: the same for the same question, lesson, temperature and `sample`.

    `sample` counts how often the same prompt was asked before.
    """

    question: str
    lesson: str
    temperature: float = 0.0
    sample: int = 0

    def favours(self, skill: str, rate: float) -> bool:
        """Whether the skill succeeds here; at a higher rate, also wherever it succeeds at a lower one."""
        again = chance("again?", self.question, self.sample) < min(1.0, self.temperature) / 2
        question = f"{self.question} #{self.sample}" if again else self.question
        if chance("mood?", skill, question, self.lesson) < MOOD:
            return chance("mood", skill, question, self.lesson) < rate
        together = chance("together?", skill, question) < TOGETHER
        return chance("skill", question, "" if together else skill) < rate


def rules_in(text: str) -> list[str]:
    """The sentences of `text` that oblige, however its lines were wrapped."""
    text = _WRAP.sub(" ", text)
    return [sentence for sentence in split_sentences(text) if _OBLIGES.search(sentence.lower())]


def read_lesson(prompt: Prompt, read_demonstrations: Callable[[Sequence[Demonstration]], Taught]) -> Taught:
    """What the prompt's rules and its demonstrations teach together."""
    told, harm, length = _told(prompt.instructions)
    shown = read_demonstrations(prompt.demonstrations)
    # A length that was shown is kept to before one that was told, as real models do.
    sentences = shown.sentences if "brief" in shown.shown | shown.shown_otherwise else length
    return Taught(told, shown.shown, shown.shown_otherwise, harm, sentences)


def skills_told(text: str) -> frozenset[str]:
    """The good skills that the rules in `text` turn on."""
    return _told(text)[0]


def harm_told(text: str) -> frozenset[str]:
    """The harmful rules in `text`."""
    return _told(text)[1]


def _told(text: str) -> tuple[frozenset[str], frozenset[str], int]:
    told: set[str] = set()
    harm: set[str] = set()
    length = 1
    for rule in map(str.lower, rules_in(text)):
        _read_citing(rule, told, harm)
        _read_abstaining(rule, told, harm)
        if _ONE_WORD.search(rule):
            harm.add("one_word")
        elif found := _BREVITY.search(rule):
            told.add("brief")
            length = _NUMBERS.get(found[1] or "", int(found[1]) if (found[1] or "").isdecimal() else 1)
        if _LOOKING.search(rule):
            told.add("look")
        if _ONE_KEYWORD.search(rule):
            harm.add("one_keyword")
        elif _VOCABULARY.search(rule) and _OF_DOCUMENTS.search(rule):
            told.add("words")
    return frozenset(told), frozenset(harm), length


def _read_citing(rule: str, told: set[str], harm: set[str]) -> None:
    if _CITING.search(rule):
        against = _NOT.search(rule) and not _DOUBLY_NOT.search(rule)
        (harm if against else told).add("never_cite" if against else "cite")


def _read_abstaining(rule: str, told: set[str], harm: set[str]) -> None:
    if _ANSWER_ALWAYS.search(rule):
        harm.add("always_answer")
    elif _ABSTAINING.search(rule):
        doubtful = _IN_DOUBT.search(rule)
        (harm if doubtful else told).add("abstain_in_doubt" if doubtful else "abstain")


def read_answers_shown(demonstrations: Sequence[Demonstration]) -> Taught:
    """What demonstrations of answering from passages show: what most of them do."""
    shown: set[str] = set()
    otherwise: set[str] = set()
    declined = [d for d in demonstrations if d.outputs.get("answerable", "").lower() == "false"]
    answers = [d for d in demonstrations if d not in declined and d.outputs.get("answer")]
    if declined:
        shown.add("abstain")
    if not answers:
        return Taught(shown=frozenset(shown))
    cited = sum(MARKER.search(d.outputs["answer"]) is not None for d in answers) * 2 >= len(answers)
    (shown if cited else otherwise).add("cite")
    if with_passages := [d for d in answers if d.inputs.get("passages")]:
        looked = sum(map(_looked_further, with_passages)) * 2 >= len(with_passages)
        (shown if looked else otherwise).add("look")
    lengths = sorted(len(split_sentences(d.outputs["answer"])) for d in answers)
    length = lengths[len(lengths) // 2]
    (shown if length <= 1 else otherwise).add("brief")
    return Taught(shown=frozenset(shown), shown_otherwise=frozenset(otherwise), sentences=max(1, length))


def read_queries_shown(demonstrations: Sequence[Demonstration]) -> Taught:
    """What demonstrations of rewriting a query show."""
    if any(_added_words(d) for d in demonstrations):
        return Taught(shown=frozenset({"words"}))
    return Taught(shown_otherwise=frozenset({"words"} if demonstrations else ()))


def _looked_further(demonstration: Demonstration) -> bool:
    said = (split_sentences(MARKER.sub("", demonstration.outputs["answer"])) or [""])[0].rstrip(".。")
    first_passage = demonstration.inputs["passages"].partition("\n")[2].strip()
    return not first_passage.startswith(said)


def _added_words(demonstration: Demonstration) -> bool:
    asked = set(content_words(" ".join(demonstration.inputs.values())))
    return any(set(content_words(query)) - asked for query in demonstration.outputs.values())
