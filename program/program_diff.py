"""What is different between two programs, and how a person, or a pull request, reads it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from program.program_file import PredictorState, ProgramFile
from program.program_text import demo_title, facts, render_score, splits
from program.provenance import Provenance, SplitScores
from program.text_layout import paragraphs, table, visible

_CONTEXT_LINES = 2
# After what ends a sentence, of which Japanese puts no space behind.
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])\s*")
_BACKTICKS = re.compile("`+")


@dataclass(frozen=True, slots=True)
class PredictorDiff:
    """A predictor's lines in the manner of `diff`: -, +, or a space first. No lines: both ask the same."""

    name: str
    instructions: Sequence[str] = ()
    fields: Sequence[str] = ()
    demos: Sequence[str] = ()
    counts: tuple[int, int] = (0, 0)

    @property
    def same(self) -> bool:
        """Whether both ask the same of a language model here."""
        return not (self.instructions or self.fields or self.demos)


@dataclass(frozen=True, slots=True)
class ProgramDiff:
    """`same` is about what a language model is asked; what was noted of each (`facts`, `scores`) may still differ."""

    a: str
    b: str
    predictors: Sequence[PredictorDiff]
    facts: Sequence[tuple[str, str, str]]
    scores: Sequence[tuple[str, str, str]]

    @property
    def same(self) -> bool:
        """Whether both ask a language model the same."""
        return all(predictor.same for predictor in self.predictors)


def diff_programs(a: ProgramFile, b: ProgramFile, name_a: str = "A", name_b: str = "B") -> ProgramDiff:
    """What leads from `a` to `b`."""
    names = list(dict.fromkeys((*a.predictors, *b.predictors)))
    return ProgramDiff(
        a=name_a,
        b=name_b,
        predictors=[_diff_predictor(name, a.predictors.get(name), b.predictors.get(name)) for name in names],
        facts=list(_side_by_side(facts(a.provenance), facts(b.provenance))),
        scores=list(_side_by_side(_scores(a.provenance), _scores(b.provenance), keep_same=True)),
    )


def render_diff(diff: ProgramDiff) -> str:
    """For a terminal."""
    blocks = [f"A: {diff.a}\nB: {diff.b}"]
    for predictor in diff.predictors:
        lines = [f"── {predictor.name}: {_summary(predictor)}"]
        for part in (predictor.instructions, predictor.fields, predictor.demos):
            lines += ["", *(f"  {line}" for line in part)] if part else []
        blocks.append("\n".join(lines))
    blocks += [
        table((title, "A", "B"), rows, left=3)
        for title, rows in (("where from", diff.facts), ("scores", diff.scores))
        if rows
    ]
    if diff.same:
        blocks.append("Both ask a language model the same.")
    return visible("\n\n".join(blocks))


def render_markdown(diff: ProgramDiff) -> str:
    """For a comment on a pull request."""
    blocks = [f"### Program: {_cell(diff.a)} → {_cell(diff.b)}"]
    if diff.same:
        blocks.append("Both ask a language model the same.")
    blocks += [_markdown_table(("", "A", "B"), rows) for rows in (diff.scores, diff.facts) if rows]
    for predictor in diff.predictors:
        blocks.append(f"**{_cell(predictor.name)}**: {_summary(predictor)}")
        lines = [*predictor.instructions, *predictor.fields]
        if lines:
            blocks.append(_fenced(lines))
        if predictor.demos:
            blocks.append(
                f"<details><summary>Demonstrations: {predictor.counts[0]} → {predictor.counts[1]}</summary>\n\n"
                f"{_fenced(predictor.demos)}\n</details>"
            )
    return visible("\n\n".join(blocks))


def _diff_predictor(name: str, a: PredictorState | None, b: PredictorState | None) -> PredictorDiff:
    demos_a, demos_b = (a.demos if a else ()), (b.demos if b else ())
    return PredictorDiff(
        name=name,
        instructions=_diff_texts(_instructions(a), _instructions(b)),
        fields=_changes(_fields(a, beside=b), _fields(b, beside=a)),
        demos=_diff_demos(demos_a, demos_b),
        counts=(len(demos_a), len(demos_b)),
    )


def _diff_texts(a: str | None, b: str | None) -> Sequence[str]:
    if a == b:
        return ()
    # By the sentence: a prompt is often one long line, of which a diff by lines shows all, twice.
    lines = _changes(_sentences(a), _sentences(b), context=_CONTEXT_LINES)
    return lines or ("(They differ in spaces and line breaks alone.)",)


def _changes(a: Sequence[str], b: Sequence[str], context: int = 0) -> list[str]:
    lines = difflib.unified_diff(a, b, n=context, lineterm="")
    return ["…" if line.startswith("@@") else line for line in list(lines)[2:]][1:] if a != b else []


def _instructions(predictor: PredictorState | None) -> str | None:
    return predictor.signature.instructions if predictor else None


def _sentences(text: str | None) -> list[str]:
    lines = paragraphs((text or "").replace("\r\n", "\n"))
    return [sentence for line in lines for sentence in _SENTENCE_END.split(line.strip()) if sentence]


def _fields(predictor: PredictorState | None, beside: PredictorState | None) -> list[str]:
    """The fields as lines; none where either leaves them as the program is written."""
    if predictor is None or predictor.signature.fields is None:
        return []
    if beside is not None and beside.signature.fields is None:
        return []
    return [f"{field.prefix} {field.description}".strip() for field in predictor.signature.fields]


def _diff_demos(a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]]) -> list[str]:
    if list(a) == list(b):
        return []
    removed = [f"- {_line(demo)}" for demo in a if demo not in b]
    added = [f"+ {_line(demo)}" for demo in b if demo not in a]
    kept = sum(demo in b for demo in a)
    if not removed and not added:
        return ["(The same demonstrations in another order, or another number of times.)"]
    return [*removed, *added, *([f"  ({kept} kept)"] if kept else [])]


def _line(demo: Mapping[str, Any]) -> str:
    """Its question, and the last field, which is what the program is to say."""
    title, last = demo_title(demo), list(demo.items())[-1:]
    answer = demo_title({key: value for key, value in last if isinstance(value, str)})
    return f"{title} → {answer}" if answer and answer != title else title


def _summary(predictor: PredictorDiff) -> str:
    if predictor.same:
        return "the same"
    changed = [
        label
        for label, lines in (("instructions", predictor.instructions), ("fields", predictor.fields))
        if lines
    ]
    if predictor.demos:
        changed.append(f"demonstrations ({predictor.counts[0]} → {predictor.counts[1]})")
    return (
        f"other {' and '.join(changed)}"
        if len(changed) < 3
        else f"other {changed[0]}, {changed[1]} and {changed[2]}"
    )


def _scores(provenance: Provenance) -> dict[str, str]:
    return {
        f"{metric} ({split})": f"{render_score(score)}{_against_seed(scores, metric)}"
        for split, scores in splits(provenance).items()
        for metric, score in (scores.this or {}).items()
    }


def _against_seed(scores: SplitScores, metric: str) -> str:
    difference = (scores.difference or {}).get(metric)
    if difference is None:
        return ""
    p = (scores.p or {}).get(metric)
    chance = "" if p is None else f", p {p:.3f}"
    return (
        f"; against its seed {difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]{chance}"
    )


def _side_by_side(
    a: Mapping[str, str], b: Mapping[str, str], *, keep_same: bool = False
) -> Iterator[tuple[str, str, str]]:
    for key in dict.fromkeys((*a, *b)):
        if keep_same or a.get(key) != b.get(key):
            yield key, a.get(key, "–"), b.get(key, "–")


def _fenced(lines: Sequence[str]) -> str:
    text = "\n".join(lines)
    longest = max((len(run) for run in _BACKTICKS.findall(text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}diff\n{text}\n{fence}"


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    """Text in which Markdown finds nothing to do."""
    return re.sub(r"([\\`*_|<>@#\[\]])", r"\\\1", " ".join(text.split())) if text != "---" else text
