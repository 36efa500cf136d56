"""A compilation as a person reads it in a terminal."""

from __future__ import annotations

from eval.compiling.results import CompileResult, Plan
from eval.sweep.table import describe_spending, render_sweep
from eval.text_table import table


def render_plan(plan: Plan) -> str:
    """What compiling would ask and cost, at most."""
    cost = "price unknown: set language_model.price" if plan.usd is None else f"{plan.usd:.2f} USD"
    rows = [
        ("questions", f"{plan.train} train, {plan.dev} dev, {plan.test} test"),
        ("program runs while optimizing", f"{plan.estimate.program_runs:,}"),
        ("language-model calls for them and for proposals", f"{plan.calls:,}"),
        ("calls of the final check on test", f"{plan.final_calls:,}"),
        ("tokens in / out, estimated", f"{plan.input_tokens:,} / {plan.output_tokens:,}"),
        ("cost, estimated", cost),
    ]
    lines = [f"{plan.optimizer}: nothing was asked. At most:", table(("", ""), rows).lstrip("\n")]
    if plan.estimate.explanation:
        lines.append(plan.estimate.explanation)
    return "\n".join(lines)


def render_compilation(result: CompileResult) -> str:
    """The verdict first, then how the candidates compare, then what was asked and what to do next."""
    return "\n\n".join((_verdict(result), render_sweep(result.selection), _asked(result), _next(result)))


def _verdict(result: CompileResult) -> str:
    made = f"{result.optimizer} made {len(result.candidates)} candidate{'s' * (len(result.candidates) != 1)}"
    early = f" It did not come to its end: {result.stopped_early}." if result.stopped_early else ""
    if result.winner is None:
        differences = result.selection.against_baseline.values()
        same = (
            " On no question does any of them score otherwise: the metric sees nothing of what they change."
            if differences and all(d.wins == d.losses == 0 for d in differences)
            else ""
        )
        return f"{made}, and none is better than the seed on dev. Nothing was installed.{same}{early}"
    final = result.selection.final
    if result.is_better:
        return (
            f"{made}; the best is really better than the seed, on questions that neither of them saw.{early}"
        )
    needed = ""
    if final is not None and final.difference is not None and final.difference.questions_needed:
        needed = f" To tell, some {final.difference.questions_needed:,} test questions would be needed."
    forced = (
        " It was installed because --force says so."
        if result.installed
        else " It was not installed (--force does)."
    )
    return f"{made}; the best on dev is not better than the seed beyond noise on test.{needed}{forced}{early}"


def _asked(result: CompileResult) -> str:
    asked = result.asked
    failed = f"; {asked.failed:,} calls failed" if asked.failed else ""
    return f"The optimizer asked: {describe_spending(asked.spent)}{failed}"


def _next(result: CompileResult) -> str:
    lines = [f"Candidates: {result.path}"]
    if result.installed is not None:
        lines += [
            f"Installed: {result.installed}",
            f"  read it     citeqa program diff seed {result.installed}",
            f"  use it      --set program.states.default={result.installed}, or in the configuration:",
            "              program: {states: {default: " + str(result.installed) + "}}",
        ]
    return "\n".join(lines)
