"""What a configuration costs for each question, as its answers cost when they were first given."""

from __future__ import annotations

from eval.sweep.results import Objective, SweepResult, Trial


def per_question(trial: Trial, name: str) -> float | None:
    """Mean `usd`, `tokens` or `latency_ms` over the scored questions; None where it is not known."""
    spending, scored = trial.spending, trial.summary.overall.scored
    match name:
        case "latency_ms":
            found = trial.summary.overall.intervals.get("latency_ms")
            return None if found is None else found.mean
        case "usd":
            return spending.usd / scored if scored and spending.usd is not None else None
        case "tokens":
            return (spending.input_tokens + spending.output_tokens) / scored if scored else None
    raise ValueError(f"no cost is called {name!r}")


def costs_to_show(result: SweepResult) -> list[Objective]:
    """What the first objective is weighed against: the other objectives, then money or else tokens, then time.

    Costs that are nothing, or not known, for every complete trial are left out.
    """
    complete = [trial for trial in result.trials if trial.state == "complete"]
    named = {objective.name for objective in result.objectives}
    costs = list(result.objectives[1:])

    def is_known(name: str) -> bool:
        return name not in named and any(per_question(trial, name) for trial in complete)

    if is_known("usd"):
        costs.append(Objective("usd", minimize=True))
    elif "usd" not in named and is_known("tokens"):
        costs.append(Objective("tokens", minimize=True))
    if is_known("latency_ms"):
        costs.append(Objective("latency_ms", minimize=True))
    return costs


def value_of(trial: Trial, objective: Objective) -> float | None:
    """An objective's value, or a cost's that is no objective of the sweep."""
    if objective.name in trial.objectives:
        return trial.objectives[objective.name]
    return per_question(trial, objective.name)
