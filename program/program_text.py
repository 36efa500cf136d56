"""A program file as a person reads it: where it is from, its scores, its prompts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from program.program_file import PredictorState, ProgramFile
from program.provenance import Code, Dataset, Models, Optimizer, Provenance, Score, SplitScores
from program.text_layout import paragraphs, table, visible, wrap
from program.well_formed import shorten

_VALUE_CHARACTERS = 100
_QUESTION = "question"


def render_program(program: ProgramFile, source: str, *, width: int = 100, full: bool = False) -> str:
    """All of it; demonstrations are shortened to a line for each field unless `full`."""
    blocks = [
        wrap(f"Program {source}", width),
        render_facts(program.provenance),
        *_score_tables(program.provenance),
        *(_predictor(name, predictor, width, full) for name, predictor in program.predictors.items()),
    ]
    return visible("\n\n".join(block for block in blocks if block))


def render_facts(provenance: Provenance) -> str:
    """A line for each thing that is known of where it comes from, but for the scores."""
    known = facts(provenance)
    return (
        table(("", ""), list(known.items()), left=2).strip("\n") if known else "Where it is from is not said."
    )


def facts(provenance: Provenance) -> dict[str, str]:
    """What is known of where it comes from, but for the scores, in a few words each."""
    optimizer = provenance.optimizer or Optimizer()
    models = provenance.models or Models()
    dataset = provenance.dataset or Dataset()
    code = provenance.program or Code()
    found = {
        "name": provenance.name,
        "created": provenance.created,
        "citeqa": provenance.citeqa,
        "optimizer": optimizer.name,
        "settings": _pairs(optimizer.settings),
        "seed": None if optimizer.seed is None else str(optimizer.seed),
        "models": _pairs(models.model_dump(exclude_none=True)),
        "dataset": dataset.path or dataset.digest,
        "dataset digest": dataset.digest if dataset.path else None,
        "questions": _pairs(dataset.splits),
        "metric": _weights(provenance.metric),
        "code": code.code,
        **{key: _brief(value) for key, value in (provenance.model_extra or {}).items()},
    }
    return {key: shorten(value, _VALUE_CHARACTERS) for key, value in found.items() if value}


def splits(provenance: Provenance) -> dict[str, SplitScores]:
    """The scores by split, where there are any."""
    scores = provenance.scores
    found = {"dev": scores.dev, "test": scores.test} if scores else {}
    return {split: of_split for split, of_split in found.items() if of_split is not None}


def seed_scores(*provenances: Provenance) -> Provenance:
    """The scores of the seed, as the programs that were made from it note them."""
    scores = {
        split: {"this": of_split.seed}
        for provenance in provenances
        for split, of_split in splits(provenance).items()
        if of_split.seed
    }
    return Provenance.model_validate({"scores": scores} if scores else {})


def render_score(score: Score | None) -> str:
    """A mean with its interval; a dash for none."""
    return "–" if score is None else f"{score.mean:.3f} [{score.low:.3f}, {score.high:.3f}]"


def demo_title(demo: Mapping[str, Any]) -> str:
    """The question of a demonstration, or else its first text, on one line."""
    text = demo.get(_QUESTION) or next((value for value in demo.values() if isinstance(value, str)), "")
    return shorten(text if isinstance(text, str) else _brief(text), _VALUE_CHARACTERS)


def _score_tables(provenance: Provenance) -> Iterator[str]:
    for split, scores in splits(provenance).items():
        header = (split, "seed", "this program", "difference", "p", "n")
        by_metric = [part or {} for part in (scores.seed, scores.this, scores.difference)]
        metrics = dict.fromkeys(metric for part in by_metric for metric in part)
        rows = [
            (
                metric,
                *(render_score(part.get(metric)) for part in by_metric),
                f"{scores.p[metric]:.3f}" if scores.p and metric in scores.p else "–",
                str(next(part[metric].n for part in by_metric if metric in part)),
            )
            for metric in metrics
        ]
        if rows:
            yield table(header, rows)


def _predictor(name: str, predictor: PredictorState, width: int, full: bool) -> str:
    count = len(predictor.demos)
    lines = [
        f"── {name}",
        wrap("\n".join(paragraphs(predictor.signature.instructions)), width, "  "),
        "",
        f"  {count or 'No'} demonstration{'' if count == 1 else 's'}{':' if count else '.'}",
    ]
    for number, demo in enumerate(predictor.demos, start=1):
        lines += ["", *_demo(number, demo, width, full)]
    return "\n".join(lines)


def _demo(number: int, demo: Mapping[str, Any], width: int, full: bool) -> Iterator[str]:
    for place, (key, value) in enumerate(demo.items()):
        lead = f"  {number}. " if place == 0 else " " * len(f"  {number}. ")
        if full:
            yield f"{lead}{key}:"
            yield wrap(value if isinstance(value, str) else _brief(value), width, " " * (len(lead) + 2))
        else:
            yield f"{lead}{key}: {shorten(_brief(value), max(20, width - len(lead) - len(key) - 2))}"


def _pairs(values: Mapping[str, Any] | None) -> str:
    return ", ".join(f"{key} {_brief(value)}" for key, value in (values or {}).items())


def _weights(metric: Mapping[str, float] | None) -> str:
    return " + ".join(f"{weight:g} {name}" for name, weight in (metric or {}).items()).replace("+ -", "− ")


def _brief(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
