"""The tasks: answer from passages, rewrite a query, make a follow-up stand alone. As well as was taught, no better."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from model_rules.prompts import Prompt
from model_rules.skills import Luck, Taught, read_answers_shown, read_lesson, read_queries_shown
from model_rules.words import chance, content_words, covered_share, is_japanese, split_sentences, translate

VERBOSE_SENTENCES = 3
DOUBTFUL = 0.6
"""The share of questions on which a model that abstains in doubt is in doubt."""

_PASSAGE = re.compile(r"^\[(\d+)\] [^\n]*\n", re.MULTILINE)
_PRONOUN = re.compile(r"\b(?:it|its|that one|this one)\b|それ|その", re.IGNORECASE)
_NAME = re.compile(
    r"\bthe ((?:[a-z]+ )[a-z]+)(?= |[?.,]|$)|([\u4e00-\u9fff\u30a1-\u30ff]+の[\u4e00-\u9fff\u30a1-\u30ff]+)"
)


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What the model knows of the world: which of the asker's expressions the corpus has which words for.

    A sentence answers a question when it holds a share `holds_at` of its content words, so understood.
    """

    vocabulary: Mapping[str, str]
    holds_at: float = 0.8


@dataclass(frozen=True, slots=True)
class Found:
    """A sentence of a passage, and how much of the question it covers."""

    number: int
    sentence: str
    covers: float


def answer_from_passages(prompt: Prompt, knowledge: Knowledge, luck: Luck) -> dict[str, Any]:
    """`answerable` and `answer`, by the skills that the prompt teaches."""
    taught = read_lesson(prompt, read_answers_shown)
    question = prompt.inputs.get("question", "")
    found = find_sentences(
        prompt.inputs.get("passages") or prompt.inputs.get("context", ""), question, knowledge
    )
    best = max(found, key=lambda f: f.covers, default=Found(0, "", 0.0))
    holds = best.covers >= knowledge.holds_at
    declines = not holds and luck.favours("abstain", taught.rate("abstain"))
    if declines or ("abstain_in_doubt" in taught.harm and chance("doubt", question) < DOUBTFUL):
        text = (
            "文書にはその答えがありません。"
            if is_japanese(question)
            else "The passages do not hold the answer."
        )
        return {"answerable": False, "answer": text}
    if not found:
        return {"answerable": True, "answer": "はい。" if is_japanese(question) else "That is so."}
    chosen = best if luck.favours("look", taught.rate("look")) else found[0]
    return {"answerable": True, "answer": _write(chosen, found, taught, luck)}


def find_sentences(passages: str, question: str, knowledge: Knowledge) -> list[Found]:
    """All sentences of the numbered passages in order, each with the share of the question that it covers."""
    wanted = content_words(translate(question, knowledge.vocabulary))
    parts = _PASSAGE.split(passages)
    return [
        Found(int(number), sentence, covered_share(wanted, sentence))
        for number, text in zip(parts[1::2], parts[2::2], strict=True)
        for sentence in split_sentences(text)
    ]


def _write(chosen: Found, found: Sequence[Found], taught: Taught, luck: Luck) -> str:
    brief = luck.favours("brief", taught.rate("brief"))
    length = taught.sentences if brief or "brief" in taught.shown_otherwise else VERBOSE_SENTENCES
    said = [chosen, *_padding(chosen, found)][:length]
    cites = luck.favours("cite", taught.rate("cite"))
    if "one_word" in taught.harm:
        word = content_words(chosen.sentence)[:1] or ["Yes"]
        return f"{word[0]} [{chosen.number}]" if cites else word[0]
    written = [_with_marker(f) if cites else f.sentence for f in said]
    return ("" if is_japanese(chosen.sentence) else " ").join(written)


def _padding(chosen: Found, found: Sequence[Found]) -> list[Found]:
    """What a wordy answer goes on with: how the other passages begin."""
    begins = {f.number: f for f in reversed(found)}
    return [begins[number] for number in sorted(begins) if number != chosen.number]


def _with_marker(found: Found) -> str:
    body = found.sentence.rstrip(".!?。！？")
    return f"{body} [{found.number}]{found.sentence[len(body) :]}"


def rewrite_query(prompt: Prompt, knowledge: Knowledge, luck: Luck, question: str) -> str:
    """The question in the corpus's words where the skill succeeds, else as it came; one keyword where told so."""
    taught = read_lesson(prompt, read_queries_shown)
    if "one_keyword" in taught.harm:
        return (content_words(question) or [question])[0]
    if luck.favours("words", taught.rate("words")):
        return translate(question, knowledge.vocabulary)
    return question


def condense_question(conversation: str, question: str) -> str:
    """The follow-up with its first pronoun replaced by what the conversation named last."""
    names = [match[0] for match in _NAME.finditer(conversation)]
    if not names:
        return question

    def put_in(match: re.Match[str]) -> str:
        owner = match[0].lower() == "its" or match[0] == "その"
        return names[-1] + (("の" if match[0] == "その" else "'s") if owner else "")

    return _PRONOUN.sub(put_in, question, count=1)
