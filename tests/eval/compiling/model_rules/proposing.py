"""The prompts of DSPy's optimizers: instructions, rules and advice, drawn from a small repertoire.

A proposal keeps the instructions that it is shown and adds rules. What the prompt shows guides which: feedback on
what went wrong, or a better example beside a worse one. Without such a hint one or two are drawn at random; even
with one, a share of proposals is useless or harmful, so that a search has something to find out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from model_rules.skills import MARKER, harm_told, skills_told
from model_rules.words import chance, content_words, split_sentences

HEEDED = 0.85
"""The share of hints that become a rule."""

STRAY = 0.15
"""The share of hinted proposals that also get a rule which nothing hinted at."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A sentence that can be proposed. `skill` is what it turns on; of useless ones empty, of harmful ones `!…`.

    `weight` is how often it is drawn beside the others where nothing hints at any.
    """

    skill: str
    text: str
    weight: float = 1.0


READER_RULES = (
    Rule(
        "cite",
        "Always cite: every sentence must end with the number of the passage that says it, such as [2].",
    ),
    Rule("look", "Always compare all passages first, and use the sentence that best answers the question."),
    Rule("brief", "The answer must be one sentence."),
    Rule("abstain", "If no passage holds the answer, you must set answerable to False and say so."),
    Rule("", "You are a careful librarian who loves books.", 0.5),
    Rule("", "Think hard, because somebody's career depends on this.", 0.4),
    Rule("!one_word", "The answer must be one word.", 0.4),
    Rule("!never_cite", "Never use brackets or citations, since readers dislike them.", 0.4),
    Rule("!always_answer", "Always give an answer, whatever the passages hold.", 0.4),
    Rule("!abstain_in_doubt", "You must abstain whenever you are in doubt.", 0.3),
)
QUERY_RULES = (
    Rule(
        "words",
        "The query must use the vocabulary of the documents in place of the asker's everyday words.",
        1.5,
    ),
    Rule("", "You are an expert at searching libraries.", 0.6),
    Rule("", "Think of what the asker may really want to know.", 0.5),
    Rule("!one_keyword", "The query must be a single keyword.", 0.5),
)
CONDENSE_RULES = (
    Rule("", "Keep the names that the conversation mentions.", 1.0),
    Rule("", "You are a patient listener.", 0.6),
)

# What feedback says of a skill that lacks.
_HINTS = (
    ("abstain", r"unanswerable question|should have (?:abstained|declined|said)"),
    ("cite", r"cites? (?:nothing|no\b)|no citations?|without (?:a |any )?citations?|uncited|not cited"),
    ("look", r"missing, though|does not (?:state|mention)|which does not say|leaves out|abstained although"),
    ("brief", r"too long|verbose|wordy|padding|of no gold document|irrelevant"),
    ("words", r"at rank \d+|was not among|not (?:found|retrieved) by|never retrieved"),
)
_HARM_AGAINST = {
    "cite": ("!never_cite",),
    "abstain": ("!always_answer",),
    "look": ("!one_word", "!abstain_in_doubt"),
    "words": ("!one_keyword",),
}

# A list of strings, as DSPy's chat adapter writes one.
_ATTEMPT = re.compile(
    r"Instruction #(\d+): (.*?)\s*»+\s+\[\d+\] «+\s*Prefix #\1: .*?»+\s+\[\d+\] «+\s*Resulting Score #\1: ([\d.]+)",
    re.DOTALL,
)


def repertoire(about: str) -> Sequence[Rule]:
    """The rules for the module that `about` describes by its fields or its instructions."""
    about = about.lower()
    for sign, rules in (
        (r"numbered passages|passages, question", READER_RULES),
        (r"\bquer(?:y|ies)\b|_query", QUERY_RULES),
        (r"\bconversation\b|standalone", CONDENSE_RULES),
    ):
        if re.search(sign, about):
            return rules
    return READER_RULES


def hints_in(feedback: str) -> list[str]:
    """The skills whose lack the text tells of, the one it tells of most often first.

    Where it has a list under `Wrong:`, only that counts, up to `To know:`.
    """
    if "Wrong:" in feedback:
        feedback = "\n".join(part.partition("To know:")[0] for part in feedback.split("Wrong:")[1:])
    counts = Counter({skill: len(re.findall(hint, feedback, re.IGNORECASE)) for skill, hint in _HINTS})
    return [skill for skill, count in counts.most_common() if count]


def hints_between(better: str, worse: str) -> list[str]:
    """The skills in which the better answer is ahead of the worse one."""
    hints = []
    if re.search(r"answerable\W+false", better, re.IGNORECASE) and not re.search(
        r"answerable\W+false", worse, re.IGNORECASE
    ):
        hints.append("abstain")
    if MARKER.search(better) and not MARKER.search(worse):
        hints.append("cite")
    if len(split_sentences(better)) < len(split_sentences(worse)):
        hints.append("brief")
    if set(content_words(better)) - set(content_words(worse)) and "brief" not in hints:
        hints.append("look")
    return hints


def draw_rules(
    rules: Sequence[Rule], have: str, hints: Sequence[str], most: int, seed: object, *, add: bool = False
) -> list[Rule]:
    """At most so many rules that the instructions `have` lack, guided by the hints, and perhaps a stray one.

    With `add`, what is hinted at is only the beginning of a list.
    """
    known = skills_told(have) | {f"!{harm}" for harm in harm_told(have)}
    new = [rule for rule in rules if rule.text not in have and (not rule.skill or rule.skill not in known)]
    heeded = [
        rule
        for skill in hints
        for rule in new
        if rule.skill == skill and chance("heeded?", seed, skill) < HEEDED
    ][:most]
    if add or not heeded or chance("stray?", seed) < STRAY:
        others = [rule for rule in new if rule not in heeded]
        wanted = 1 if heeded and not add else 1 + int(chance("how many?", seed) * most)
        heeded += sorted(others, key=lambda r: _turn(r, seed))[:wanted]
    return heeded


def extend(instructions: str, rules: Sequence[Rule]) -> str:
    """The instructions with the rules after them."""
    return "\n".join([instructions.strip(), *(rule.text for rule in rules)]).strip()


def without_harm(instructions: str, hints: Sequence[str]) -> str:
    """The instructions without those harmful rules of the repertoire that the hints speak against."""
    against = {harm for hint in hints for harm in _HARM_AGAINST.get(hint, ())}
    for rule in (*READER_RULES, *QUERY_RULES):
        if rule.skill in against:
            instructions = instructions.replace(rule.text, "").strip()
    return instructions


def best_attempt(attempts: str) -> str:
    """The instructions with the highest score of those that COPRO lists; empty where none is found."""
    found = _ATTEMPT.findall(attempts)
    best = max(found, key=lambda attempt: float(attempt[2]), default=("", "", ""))
    return "\n".join(line.strip() for line in best[1].strip().splitlines())


def _turn(rule: Rule, seed: object) -> float:
    """When the rule comes in a draw without replacement: early with a large weight (Efraimidis & Spirakis 2006)."""
    return -(chance("drawn", seed, rule.text) ** (1 / rule.weight))
