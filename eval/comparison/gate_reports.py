"""A gate's result for people in a terminal and on a pull request, and for CI as JUnit XML."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from xml.etree import ElementTree

from eval.comparison.changes import QuestionChange
from eval.comparison.comparison import improvement
from eval.comparison.gate import COVERAGE, Check, Gate
from eval.comparison.verdicts import arrow
from eval.text_table import number, signed, table
from program.well_formed import shorten, well_formed

_SUITE = "citeqa gate"
_QUESTION_CHARACTERS = 160
_REASON_CHARACTERS = 200
_SLICES = 10
# Of what a text may hold, XML 1.0 allows no control characters but these three.
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_MARKDOWN = re.compile(r"[\\`*{}\[\]<>|#~!&]|(?<!\w)_|_(?!\w)")
_MENTION = re.compile(r"(?<!\w)@")


def render_gate(gate: Gate) -> str:
    """A line for each metric, what each says in a sentence, and whether the candidate passes."""
    rows = [
        (
            arrow(check.metric),
            number(check.metric, check.difference.mean_a),
            number(check.metric, check.difference.mean_b),
            signed(check.metric, check.difference.difference.mean),
            number(check.metric, check.margin),
            signed(check.metric, check.high),
            str(check.difference.n),
            _verdict(check),
        )
        for check in gate.checks
    ]
    header = ("metric", "baseline", "candidate", "change", "margin", "gain below", "n", "verdict")
    blocks = [
        f"Baseline: {gate.comparison.a.name} from {gate.comparison.a.source}\n"
        f"Candidate: {gate.comparison.b.name} from {gate.comparison.b.source}",
        table(header, rows),
        "\n".join(_sentences(gate)),
        f"gain below: the true improvement is below this with {100 * gate.confidence:g} % confidence, for each metric "
        "alone.",
        _headline(gate),
    ]
    return "\n\n".join(blocks)


def render_junit(gate: Gate) -> str:
    """JUnit XML: a test case for each metric and one for how many questions were compared."""
    cases = [(check.metric, check.sentence, gate.why(check)) for check in gate.checks]
    cases.append((COVERAGE, gate.coverage.sentence, "" if gate.coverage.passed else "too many are missing"))
    counts = {"tests": str(len(cases)), "failures": str(sum(bool(why) for *_, why in cases)), "errors": "0"}
    totals = {"name": _SUITE, **counts, "time": "0"}
    suites = ElementTree.Element("testsuites", totals)
    suite = ElementTree.SubElement(suites, "testsuite", {**totals, "skipped": "0"})
    for name, sentence, why in cases:
        case = ElementTree.SubElement(suite, "testcase", classname="citeqa.gate", name=_xml(name), time="0")
        if why:
            failure = ElementTree.SubElement(case, "failure", message=_xml(sentence), type=why)
            failure.text = _xml(sentence)
        else:
            ElementTree.SubElement(case, "system-out").text = _xml(sentence)
    ElementTree.indent(suites)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(suites, encoding="unicode") + "\n"
    )


def render_markdown(gate: Gate, worst: Sequence[QuestionChange] = ()) -> str:
    """A summary for a pull request: the metrics, the slices that fell, and the questions that lost most."""
    comparison = gate.comparison
    lines = [
        f"### {'✅' if gate.passed else '❌'} {_headline(gate)}",
        "",
        f"Baseline `{_code(comparison.a.name)}`, candidate `{_code(comparison.b.name)}`, "
        f"{len(comparison.pairing.pairs)} questions.",
        "",
        "| metric | baseline | candidate | change | margin | n | verdict |",
        "|:--|--:|--:|--:|--:|--:|:--|",
        *(_markdown_row(gate, check) for check in gate.checks),
        "",
        *(f"- {_escaped(sentence)}" for sentence in _sentences(gate)),
        *_fallen_slices(gate),
        *_worst_questions(worst),
    ]
    return "\n".join(lines) + "\n"


def _headline(gate: Gate) -> str:
    failed = [check.metric for check in gate.checks if gate.fails(check)]
    failed += [] if gate.coverage.passed else [COVERAGE]
    if failed:
        return f"The gate is closed: {', '.join(failed)}"
    unproved = [check.metric for check in gate.checks if check.outcome != "held"]
    if unproved:
        return f"The gate is open: no certain fall, but not ruled out for {', '.join(unproved)}"
    return "The gate is open: every metric held"


def _sentences(gate: Gate) -> Iterator[str]:
    yield from (check.sentence for check in gate.checks)
    if gate.coverage.missing:
        sentence = gate.coverage.sentence
        yield sentence[0].upper() + sentence[1:]
    yield from gate.comparison.warnings()


def _verdict(check: Check) -> str:
    if check.outcome != "not ruled out":
        return check.outcome
    return "no certain fall" if check.powered or not check.margin else "no certain fall, too few questions"


def _markdown_row(gate: Gate, check: Check) -> str:
    mark = "❌" if gate.fails(check) else "✅" if check.outcome == "held" else "➖"
    cells = (
        _escaped(arrow(check.metric)),
        number(check.metric, check.difference.mean_a),
        number(check.metric, check.difference.mean_b),
        signed(check.metric, check.difference.difference.mean),
        number(check.metric, check.margin),
        str(check.difference.n),
        f"{mark} {_verdict(check)}",
    )
    return f"| {' | '.join(cells)} |"


def _fallen_slices(gate: Gate) -> Iterator[str]:
    """Slices whose interval lies wholly on the wrong side; among many slices some do by chance."""
    checked = {check.metric for check in gate.checks}
    fallen = [
        (improvement(found).difference.mean, tag, value, found)
        for tag, values in gate.comparison.slices.items()
        for value, differences in values.items()
        for metric, found in differences.items()
        if metric in checked and improvement(found).difference.high < 0
    ]
    if not fallen:
        return
    yield from ("", "**Slices that fell** (each looked at alone)", "")
    for _, tag, value, found in sorted(fallen, key=lambda slice_: slice_[0])[:_SLICES]:
        metric, interval = found.metric, found.difference
        yield (
            f"- {_escaped(tag)} {_escaped(value)}: {_escaped(arrow(metric))} {signed(metric, interval.mean)} "
            f"({signed(metric, interval.low)} … {signed(metric, interval.high)}, {found.n} questions)"
        )


def _worst_questions(worst: Sequence[QuestionChange]) -> Iterator[str]:
    if not worst:
        return
    yield from ("", "<details><summary>Questions that lost most</summary>", "")
    for change in worst:
        values = ", ".join(f"{m} {number(m, a)} → {number(m, b)}" for m, (a, b) in change.metrics.items())
        yield f"- `{_code(change.id)}` {_escaped(shorten(change.question, _QUESTION_CHARACTERS))}"
        yield f"  {_escaped(values)}"
        yield from (f"  - {_escaped(shorten(reason, _REASON_CHARACTERS))}" for reason in change.reasons)
    yield from ("", "</details>")


def _escaped(text: str) -> str:
    """Text of questions is anybody's: it makes no Markdown, no HTML, and calls nobody by @name."""
    escaped = _MARKDOWN.sub(r"\\\g<0>", well_formed(" ".join(text.split())))
    return _MENTION.sub("@\u200b", escaped)


def _code(text: str) -> str:
    return well_formed(text).replace("`", "'").replace("\n", " ")


def _xml(text: str) -> str:
    return _NOT_XML.sub("\ufffd", well_formed(text))
