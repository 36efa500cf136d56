"""Compiled programs on disk: JSON that a reviewer can read, never pickle.

A program file holds each predictor's instructions and demonstrations, and where they come from. Which
language model answers is configuration and is not in it, nor is any key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import Any

import dspy
from pydantic import BaseModel, ConfigDict, ValidationError

from retrieval.errors import ProgramStateError

FORMAT = "citeqa-program"
VERSION = 1


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _FieldState(_Part):
    prefix: str
    description: str


class _SignatureState(_Part):
    instructions: str
    fields: list[_FieldState]


class _PredictorState(_Part):
    signature: _SignatureState
    demos: list[dict[str, Any]]


class _ProgramState(_Part):
    format: str
    version: int
    provenance: dict[str, Any]
    predictors: dict[str, _PredictorState]


def save_state(program: dspy.Module, path: str | Path, provenance: Mapping[str, Any] | None = None) -> None:
    """Write the program's prompts and demonstrations, with their provenance, to a JSON file.

    Raises:
        ProgramStateError: if the file cannot be written.
    """
    predictors = {}
    for name, predictor in program.named_predictors():
        # DSPy would dump the language model too, and refuses one whose engine it does not know.
        bare = copy(predictor)
        bare.lm = None
        state = bare.dump_state(json_mode=True)
        predictors[name] = {key: state[key] for key in _PredictorState.model_fields}
    body = {
        "format": FORMAT,
        "version": VERSION,
        "provenance": dict(provenance or {}),
        "predictors": predictors,
    }
    try:
        Path(path).write_text(json.dumps(body, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ProgramStateError(f"Program file '{path}' cannot be written: {error.strerror}") from error


def load_state(program: dspy.Module, path: str | Path) -> Mapping[str, Any]:
    """Give the program the prompts and demonstrations of a file; its provenance is returned.

    Raises:
        ProgramStateError: if the file is missing, not ours, newer, or of a program of another shape;
            the message says what differs, and the program stays as it was.
    """
    state = _read(Path(path))
    predictors = dict(program.named_predictors())
    _check_shape(path, predictors, state.predictors)
    for name, predictor in predictors.items():
        lm = predictor.lm
        predictor.load_state({**state.predictors[name].model_dump(), "lm": None})
        predictor.lm = lm
    return state.provenance


def _read(path: Path) -> _ProgramState:
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ProgramStateError(f"No program file at '{path}'. Check program.states.") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ProgramStateError(f"Program file '{path}' is not readable JSON: {error}") from error
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise ProgramStateError(f"'{path}' is not a citeqa program file (its format is not '{FORMAT}').")
    if body.get("version") != VERSION:
        raise ProgramStateError(
            f"Program file '{path}' has version {body.get('version')!r}; this citeqa reads version {VERSION}."
        )
    try:
        return _ProgramState.model_validate(body)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise ProgramStateError(f"Program file '{path}': {where}: {problem['msg'].lower()}.") from None


def _check_shape(
    path: str | Path, predictors: Mapping[str, dspy.Predict], saved: Mapping[str, _PredictorState]
) -> None:
    if set(predictors) != set(saved):
        raise ProgramStateError(
            f"Program file '{path}' is for predictors {sorted(saved)}, this program has {sorted(predictors)}. "
            "Use it with the reader that it was compiled for."
        )
    for name, predictor in predictors.items():
        found, expected = len(saved[name].signature.fields), len(predictor.signature.fields)
        if found != expected:
            raise ProgramStateError(
                f"Program file '{path}': predictor '{name}' has {found} fields, this program's {expected}."
            )
