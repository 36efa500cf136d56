"""Demonstrations as a program file can hold them, and a reader of it can trust them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import dspy
from pydantic import BaseModel


def keep_complete_demos(program: dspy.Module) -> None:
    """Leave each predictor only demonstrations of its own fields, and only those that have all of them.

    DSPy hands every labelled example to every predictor, whole. What is no field of a predictor is nothing to it,
    and an example with inputs alone (a question, to the one that rewrites) or without some shows nothing.
    """
    for predictor in program.predictors():
        # Not in place: MIPROv2's candidates share their lists.
        predictor.demos = [
            demo for raw in predictor.demos if (demo := complete_demo(raw, predictor.signature)) is not None
        ]


def complete_demo(
    example: dspy.Example | Mapping[str, Any], signature: type[dspy.Signature]
) -> dspy.Example | None:
    """The fields of `signature` of an example; None where one of them is missing or is nothing JSON knows.

    DSPy's own types (tools, and calls of them) stand there as a file has them, which a prompt shows alike.
    """
    demo = {name: _as_in_a_file(example.get(name)) for name in signature.fields}
    if any(value is None for value in demo.values()):
        return None
    try:
        json.dumps(demo, allow_nan=False)
    except (TypeError, ValueError):
        return None
    return dspy.Example(demo)


def _as_in_a_file(value: Any) -> Any:
    if isinstance(value, list):
        return [_as_in_a_file(item) for item in value]
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


def demonstrates(example: dspy.Example, program: dspy.Module) -> bool:
    """Whether the example is a demonstration for any predictor of the program."""
    return any(complete_demo(example, predictor.signature) for predictor in program.predictors())
