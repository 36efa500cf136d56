"""Compiled programs on disk: JSON that a reviewer can read, never pickle.

A program file holds each predictor's instructions and demonstrations, and where they come from. Which
language model answers is configuration and is not in it, nor is any key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dspy

from retrieval.errors import ProgramStateError

FORMAT = "citeqa-program"
VERSION = 1


def save_state(program: dspy.Module, path: str | Path, provenance: Mapping[str, Any] | None = None) -> None:
    """Write the program's prompts and demonstrations, with their provenance, to a JSON file.

    Raises:
        ProgramStateError: if the file cannot be written.
    """
    predictors = {}
    for name, predictor in program.named_predictors():
        state = predictor.dump_state(json_mode=True)
        state.pop("lm", None)
        predictors[name] = state
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
            the message says what differs.
    """
    body = _read(Path(path))
    saved: Mapping[str, Any] = body["predictors"]
    predictors = dict(program.named_predictors())
    _check_shape(path, predictors, saved)
    for name, predictor in predictors.items():
        lm = predictor.lm
        predictor.load_state({**saved[name], "lm": None})
        predictor.lm = lm
    provenance: Mapping[str, Any] = body.get("provenance", {})
    return provenance


def _read(path: Path) -> dict[str, Any]:
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ProgramStateError(f"No program file at '{path}'. Check program.states.") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ProgramStateError(f"Program file '{path}' is not readable JSON: {error}") from error
    if (
        not isinstance(body, dict)
        or body.get("format") != FORMAT
        or not isinstance(body.get("predictors"), dict)
    ):
        raise ProgramStateError(f"'{path}' is not a citeqa program file (its format is not '{FORMAT}').")
    if body.get("version") != VERSION:
        raise ProgramStateError(
            f"Program file '{path}' has version {body.get('version')!r}; this citeqa reads version {VERSION}."
        )
    return body


def _check_shape(path: str | Path, predictors: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    if set(predictors) != set(saved):
        raise ProgramStateError(
            f"Program file '{path}' is for predictors {sorted(saved)}, this program has {sorted(predictors)}. "
            "Use it with the reader that it was compiled for."
        )
    for name, predictor in predictors.items():
        if not isinstance(saved[name], dict):
            raise ProgramStateError(f"Program file '{path}': predictor '{name}' is not an object.")
        fields = saved[name].get("signature", {}).get("fields", [])
        expected = len(predictor.signature.fields)
        if len(fields) != expected:
            raise ProgramStateError(
                f"Program file '{path}': predictor '{name}' has {len(fields)} fields, this program's {expected}."
            )
