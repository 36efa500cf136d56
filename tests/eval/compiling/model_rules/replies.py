"""A request's messages become a reply: which kind of prompt it is, and the rules for that kind.

The reply depends on the messages, the temperature, and, above temperature 0 alone, on how often the same messages
were asked before (`sample`). A request without a temperature counts as one at 0. Where threads ask the same at once
above temperature 0, who gets which sample is a matter of who comes first; together they get the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from model_rules.answering import Knowledge, answer_from_passages, condense_question, rewrite_query
from model_rules.prompts import Prompt, read_prompt
from model_rules.proposing import (
    READER_RULES,
    Rule,
    best_attempt,
    draw_rules,
    extend,
    hints_between,
    hints_in,
    repertoire,
    without_harm,
)
from model_rules.skills import MARKER, Luck
from model_rules.words import content_words, split_sentences

TASKS = ("answer", "rewrite", "condense", "decide", "other")
"""The kinds of prompts that a program sends; all others are an optimizer's."""

_DESCRIPTIONS = {
    "program_description": "The program answers questions from passages that it retrieves.",
    "module_description": "The module does one step of answering a question from passages.",
    "observations": "The questions ask for one detail each. Some cannot be answered. Some are in Japanese.",
    "summary": "Short questions in English and Japanese, each about one detail of one object.",
}
_DEFAULTS = {"bool": False, "int": 0, "float": 0.0}


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model says, and the kind of prompt that it took this for."""

    kind: str
    text: str

    @property
    def is_task(self) -> bool:
        return self.kind in TASKS


@dataclass(frozen=True, slots=True)
class _Asked:
    """A prompt with what its reply may depend on."""

    prompt: Prompt
    knowledge: Knowledge
    temperature: float
    sample: int
    seed: str

    def luck(self, question: str) -> Luck:
        return Luck(question, self.prompt.lesson, self.temperature, self.sample)

    def input(self, name: str) -> str:
        return self.prompt.inputs.get(name, "")


def reply_to(
    messages: Sequence[Mapping[str, Any]], knowledge: Knowledge, temperature: float = 0.0, sample: int = 0
) -> Reply:
    """The model's reply: the same for the same arguments, in every process."""
    sample = sample if temperature > 0 else 0
    prompt = read_prompt(messages)
    seed = json.dumps([messages, temperature, sample], sort_keys=True)
    asked = _Asked(prompt, knowledge, temperature, sample, seed)
    kind, answer = _kind_of(prompt)
    fields = answer(asked)
    written = {name: fields.get(name, _default(name, type_)) for name, type_ in prompt.outputs.items()}
    return Reply(kind, prompt.write(written or fields))


def _kind_of(prompt: Prompt) -> tuple[str, Callable[[_Asked], dict[str, Any]]]:
    outputs = set(prompt.outputs)
    for name, kind, answer in (
        ("module_advice", "advise", _advise),
        ("natural_language_rules", "induce", _induce_rules),
        ("new_instruction", "reflect", _reflect),
        ("shortened_instruction", "shorten", _shorten),
        ("proposed_instruction", "propose", _propose),
        ("standalone_question", "condense", _condense),
    ):
        if name in outputs:
            return kind, answer
    if outputs & set(_DESCRIPTIONS):
        return "describe", lambda asked: _DESCRIPTIONS
    if "tool_calls" in outputs:
        return "decide", _decide
    if any(name.endswith("query") for name in outputs):
        return "rewrite", _rewrite
    if "answer" in outputs and {"passages", "context"} & set(prompt.inputs):
        return "answer", lambda a: answer_from_passages(a.prompt, a.knowledge, a.luck(a.input("question")))
    return "other", lambda asked: {} if outputs else {"text": "I was asked, and this is what I say."}


def _condense(asked: _Asked) -> dict[str, Any]:
    return {"standalone_question": condense_question(asked.input("conversation"), asked.input("question"))}


def _rewrite(asked: _Asked) -> dict[str, Any]:
    question = asked.input("question") or next(iter(asked.prompt.inputs.values()), "")
    query = rewrite_query(asked.prompt, asked.knowledge, asked.luck(question), question)
    return {name: query for name in asked.prompt.outputs if name.endswith("query")}


def _decide(asked: _Asked) -> dict[str, Any]:
    """One search, for the query that it would make of the question; then it has finished."""
    question = asked.input("question")
    query = rewrite_query(asked.prompt, asked.knowledge, asked.luck(question), question)
    searched = "search(" in asked.input("searches")
    calls = [{"name": "finish", "args": {}} if searched else {"name": "search", "args": {"query": query}}]
    return {"next_thought": "What is missing is searched for.", "tool_calls": {"tool_calls": calls}}


def _propose(asked: _Asked) -> dict[str, Any]:
    """COPRO's two prompts and MIPROv2's."""
    tried = re.findall(r"(.+?) \| Score: [\d.]+", asked.input("previous_instructions"), re.DOTALL)
    base = best_attempt(asked.input("attempted_instructions")) or (tried[-1].strip() if tried else "")
    base = base or asked.input("basic_instruction")
    hints = _hints_of_examples(asked.input("task_demos"))
    rules = draw_rules(repertoire(asked.input("module") or base), base, hints, 2, asked.seed)
    if "persona" in asked.input("tip") and not any(
        rule.text in base for rule in READER_RULES if not rule.skill
    ):
        rules = [*rules, next(rule for rule in READER_RULES if not rule.skill)]
    return {"proposed_instruction": extend(base, rules), "proposed_prefix_for_output_field": "Answer:"}


def _induce_rules(asked: _Asked) -> dict[str, Any]:
    """InferRules': a numbered list, at most as long as it asks for, and no longer than six."""
    examples = asked.input("examples_text")
    fields = ", ".join(dict.fromkeys(re.findall(r"^(\w+): ", examples, re.MULTILINE)))
    # Examples without labels show of a module that writes queries no more than the question.
    fields = fields if {"passages", "answer", "conversation"} & set(fields.split(", ")) else "search_query"
    found = re.search(r"list of (\d+)", asked.prompt.instructions)
    most = min(int(found[1]) if found else 3, 3)
    rules = draw_rules(repertoire(fields), "", _hints_of_examples(examples), most, asked.seed, add=True)
    numbered = "\n".join(f"{number}. {rule.text}" for number, rule in enumerate(rules, start=1))
    return {"natural_language_rules": numbered, "reasoning": "The examples have something in common."}


def _hints_of_examples(examples: str) -> list[str]:
    answers = re.findall(r"^answer: *(.+)$", examples, re.MULTILINE | re.IGNORECASE)
    hints = ["cite"] if any(map(MARKER.search, answers)) else []
    return [*hints, "abstain"] if re.search(r"^answerable: *false", examples, re.M | re.I) else hints


def _reflect(asked: _Asked) -> dict[str, Any]:
    """GEPA's: the instructions with rules against what the feedback names most."""
    current = asked.input("current_instruction")
    examples = _as_json(asked.input("examples_with_feedback"), [])
    feedback = "\n".join(str(example.get("Feedback", "")) for example in examples)
    about = next((_fields_of(example) for example in examples), "") or current
    hints = hints_in(feedback)
    kept = without_harm(current, hints)
    return {"new_instruction": extend(kept, draw_rules(repertoire(about), kept, hints, 2, asked.seed))}


def _fields_of(example: Mapping[str, Any]) -> str:
    sides = (example.get("Inputs"), example.get("Generated Outputs"))
    return " -> ".join(", ".join(side) for side in sides if isinstance(side, dict))


def _shorten(asked: _Asked) -> dict[str, Any]:
    """GEPA's, where a proposal is too long: the last sentences that fit, since the rules stand at the end."""
    found = re.search(r"\d+", asked.input("length_limit"))
    kept: list[str] = []
    for sentence in reversed(split_sentences(asked.input("instruction"))):
        if found and len(" ".join([sentence, *kept])) > int(found[0]):
            break
        kept.insert(0, sentence)
    return {"shortened_instruction": " ".join(kept)}


def _advise(asked: _Asked) -> dict[str, Any]:
    """SIMBA's: for each module a rule against what the worse trajectory lacks."""
    names = _as_json(asked.input("module_names"), [])
    info = _as_json(asked.input("worse_reward_info"), {})
    feedback = hints_in("\n".join(map(str, info.values())) if isinstance(info, dict) else "")
    better, worse = (
        _said(asked.input("better_program_trajectory")),
        _said(asked.input("worse_program_trajectory")),
    )
    advice = {}
    for name in names:
        about, instructions = _definition(asked.input("modules_defn"), name)
        rules = repertoire(about)
        hints = [*feedback, *_contrast(better.get(name, ""), worse.get(name, ""), rules)]
        drawn = draw_rules(rules, instructions, hints, 1, f"{asked.seed} {name}")
        advice[name] = " ".join(rule.text for rule in drawn) or "Go on as before."
    return {"discussion": "The better trajectory did what the advice says.", "module_advice": advice}


def _contrast(better: str, worse: str, rules: Sequence[Rule]) -> list[str]:
    if not better or not worse:
        return []
    if rules is READER_RULES:
        return hints_between(better, worse)
    return ["words"] if set(content_words(better)) - set(content_words(worse)) else []


def _said(trajectory: str) -> dict[str, str]:
    """What each module of a trajectory put out."""
    steps = [step for step in _as_json(trajectory, []) if isinstance(step, dict)]
    return {
        str(step.get("module_name")): "\n".join(f"{k}: {v}" for k, v in step.get("outputs", {}).items())
        for step in steps
    }


def _definition(modules: str, name: str) -> tuple[str, str]:
    """The fields of a module, as `inputs -> outputs`, and its instructions."""
    part = next((p for p in re.split(r"^-{20,}$", modules, flags=re.M) if f"Module {name}\n" in p + "\n"), "")
    fields, _, instructions = part.partition("Original Instructions:")
    sides = [", ".join(re.findall(r"\d+\. `(\w+)`", side)) for side in fields.split("Output Fields:")]
    return " -> ".join(sides), "\n".join(line.strip() for line in instructions.splitlines())


def _as_json(text: str, default: Any) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return default


def _default(name: str, type_: str) -> Any:
    """Something of the type of a field that no rule speaks of."""
    if type_.startswith("list"):
        return []
    return {} if type_.startswith("dict") else _DEFAULTS.get(type_, f"Some {name}.")
