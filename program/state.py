"""A program and its file: prompts and demonstrations go out, and come back into a program of the same shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import dspy

from program.program_file import (
    FORMAT,
    VERSION,
    FieldState,
    PredictorState,
    ProgramFile,
    SignatureState,
    parse_program,
    read_program_file,
    write_program_file,
)
from program.provenance import Provenance
from retrieval.errors import ProgramStateError

__all__ = ["FORMAT", "VERSION", "dump_program", "load_state", "save_state"]

_SETTINGS = {
    "rewrite": ("program.rewrite_query", "true", "false"),
    "decide": ("program.kind", "react", "fixed"),
}
"""The predictors that a program has by a setting: its name, and its values with the predictor and without."""


def save_state(
    program: dspy.Module, path: str | Path, provenance: Provenance | Mapping[str, Any] | None = None
) -> None:
    """Write the program's prompts and demonstrations, with their provenance, to a JSON file.

    Raises:
        ProgramStateError: if the file cannot be written.
        ValueError: if the provenance has another form than `Provenance`.
    """
    write_program_file(path, dump_program(program, provenance, source=f"Program file '{path}'"))


def dump_program(
    program: dspy.Module,
    provenance: Provenance | Mapping[str, Any] | None = None,
    source: str = "The program",
) -> ProgramFile:
    """What the program's file would hold.

    Raises:
        ProgramStateError: if a demonstration holds what JSON does not.
        ValueError: if the provenance has another form than `Provenance`.
    """
    body = {
        "predictors": {name: _dump_predictor(predictor) for name, predictor in program.named_predictors()}
    }
    try:
        dumped = parse_program(body, source)
    except (TypeError, RecursionError) as error:
        raise ProgramStateError(f"{source}: a demonstration holds what JSON does not: {error}.") from error
    if not isinstance(provenance, Provenance):
        provenance = Provenance.model_validate(dict(provenance or {}))
    return ProgramFile(predictors=dumped.predictors, provenance=provenance)


def load_state(program: dspy.Module, path: str | Path, origin: str | None = None) -> Mapping[str, Any]:
    """Give the program the prompts and demonstrations of a file; its provenance is returned.

    `origin` is how messages call the file, where it is not by its path.

    Raises:
        ProgramStateError: if the file is missing, not ours, newer, or of a program of another shape;
            the message says what differs, and the program stays as it was.
    """
    state = read_program_file(path, origin)
    source = f"Program file '{path if origin is None else origin}'"
    predictors = dict(program.named_predictors())
    _check_predictors(source, predictors, state.predictors)
    signatures = {
        name: _checked_signature(source, name, predictor, state.predictors[name].signature)
        for name, predictor in predictors.items()
    }
    for name, predictor in predictors.items():
        lm = predictor.lm
        demos = [dict(demo) for demo in state.predictors[name].demos]
        predictor.load_state({"signature": signatures[name], "demos": demos, "lm": None})
        predictor.lm = lm
    return state.provenance.as_json()


def _dump_predictor(predictor: dspy.Predict) -> dict[str, Any]:
    # DSPy would dump the language model too, and refuses one whose engine it does not know.
    bare = copy(predictor)
    bare.lm = None
    state = bare.dump_state(json_mode=True)
    named = zip(predictor.signature.fields, state["signature"]["fields"], strict=True)
    fields = [{"name": name, **field} for name, field in named]
    return {"signature": {**state["signature"], "fields": fields}, "demos": state["demos"]}


def _check_predictors(
    source: str, predictors: Mapping[str, dspy.Predict], saved: Mapping[str, PredictorState]
) -> None:
    if set(predictors) == set(saved):
        return
    raise ProgramStateError(
        f"{source} is for predictors {sorted(saved)}, this program has {sorted(predictors)}. "
        f"{_advice(set(predictors), set(saved))}"
    )


def _advice(ours: set[str], saved: set[str]) -> str:
    if not ours:
        return "It needs a language model: set language_model.model, and reader.kind to lm or auto."
    for name, (setting, has, has_not) in _SETTINGS.items():
        if (ours ^ saved) == {name}:
            return (
                f"Set {setting} to {has if name in saved else f'{has_not}, or compile the program with it'}."
            )
    return "Use it with the reader and the settings that it was compiled for."


def _checked_signature(
    source: str, name: str, predictor: dspy.Predict, saved: SignatureState
) -> dict[str, Any]:
    """The saved signature as DSPy loads it: its fields in the order of the program's own."""
    fields = saved.fields
    if fields is None:
        return {"instructions": saved.instructions, "fields": []}
    ours = list(predictor.signature.fields)
    by_name = {field.name: field for field in fields if field.name is not None}
    if by_name and set(by_name) != set(ours):
        raise ProgramStateError(f"{source}: predictor '{name}' {_what_differs(list(by_name), ours)}.")
    if len(fields) != len(ours):
        raise ProgramStateError(
            f"{source}: predictor '{name}' has {len(fields)} fields ({_prefixes(fields)}), this program's "
            f"{len(ours)} ({', '.join(ours)})."
        )
    in_order = [by_name[field] for field in ours] if by_name else fields
    return {
        "instructions": saved.instructions,
        "fields": [{"prefix": field.prefix, "description": field.description} for field in in_order],
    }


def _what_differs(saved: Sequence[str], ours: Sequence[str]) -> str:
    more = [name for name in saved if name not in ours]
    fewer = [name for name in ours if name not in saved]
    parts = [f"has {_fields(more)} that this program has not"] if more else []
    parts += [f"lacks {_fields(fewer)}"] if fewer else []
    return " and ".join(parts)


def _fields(names: Sequence[str]) -> str:
    return f"the field{'s' if len(names) > 1 else ''} {', '.join(map(repr, names))}"


def _prefixes(fields: Sequence[FieldState]) -> str:
    return ", ".join(field.prefix.rstrip(": ") for field in fields)
