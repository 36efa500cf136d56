"""The program file: JSON that a reviewer can read, and that can do nothing but be read.

It holds each predictor's instructions and demonstrations, and where they come from. Which language model
answers is configuration and is not in it, nor is any key. Version 2 names the fields and gives provenance a
form; files of version 1 are read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from program.provenance import Provenance
from program.strict_json import parse_strictly
from program.well_formed import well_formed_value
from retrieval.errors import ProgramStateError

FORMAT = "citeqa-program"
VERSION = 2
MAX_BYTES = 20_000_000

_READABLE = (1, 2)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class FieldState(_Part):
    """How the prompt shows a field. Files of version 1 do not name it."""

    name: str | None = None
    prefix: str
    description: str


class SignatureState(_Part):
    """What a predictor is told to do. Without `fields`, they are as the program is written."""

    instructions: str
    fields: tuple[FieldState, ...] | None = None


class PredictorState(_Part):
    """A predictor's prompt."""

    signature: SignatureState
    demos: tuple[dict[str, JsonValue], ...] = ()


class ProgramFile(_Part):
    """A program as its file has it. Two that are equal in `predictors` ask a language model the same."""

    predictors: dict[str, PredictorState]
    provenance: Provenance = Provenance()

    def as_json(self) -> dict[str, Any]:
        """The body of the file."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "provenance": self.provenance.as_json(),
            "predictors": {name: _dump(predictor) for name, predictor in self.predictors.items()},
        }


def read_program_file(path: str | Path, origin: str | None = None) -> ProgramFile:
    """The program of a file; `origin` is how messages call it, where it is not by its path.

    Raises:
        ProgramStateError: if it is missing, too large, no program file of ours, or of a newer version; the
            message says which, and where.
    """
    name = str(path if origin is None else origin)
    body = _read(Path(path), name)
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise ProgramStateError(f"'{name}' is not a citeqa program file (its format is not '{FORMAT}').")
    version = body.get("version")
    if version not in _READABLE or isinstance(version, (bool, float)):
        raise ProgramStateError(
            f"Program file '{name}' has version {str(version)[:20]}; this citeqa reads version 1 to {VERSION}."
            f"{' Install a newer citeqa.' if isinstance(version, int) and version > VERSION else ''}"
        )
    return parse_program(body, f"Program file '{name}'")


def parse_program(body: Mapping[str, Any], source: str) -> ProgramFile:
    """The program of a file's body; `source` is how messages call it.

    Raises:
        ProgramStateError: naming the part that has another form than it must.
    """
    parts = {key: value for key, value in body.items() if key not in ("format", "version")}
    if body.get("version") == 1 and isinstance(parts.get("provenance"), dict):
        parts["provenance"] = _of_version_1(parts["provenance"])
    try:
        # As JSON, where a list is what a tuple is, and strict otherwise.
        program = ProgramFile.model_validate_json(json.dumps(well_formed_value(parts)))
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))[:200]
        raise ProgramStateError(
            f"{source}: {where}: {problem['msg'][0].lower()}{problem['msg'][1:]}."
        ) from None
    _refuse_dunders(program, source)
    return program


def write_program_file(path: str | Path, program: ProgramFile) -> None:
    """Write the file, all of it or nothing.

    Raises:
        ProgramStateError: if it cannot be written, or would be refused when read.
    """
    path = Path(path)
    try:
        text = json.dumps(well_formed_value(program.as_json()), ensure_ascii=False, indent=2, allow_nan=False)
    except ValueError as error:
        raise ProgramStateError(
            f"Program file '{path}' cannot be written: a number in it is not finite."
        ) from error
    content = f"{text}\n".encode()
    if len(content) > MAX_BYTES:
        raise ProgramStateError(f"Program file '{path}' would have {_too_large(len(content))}")
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise ProgramStateError(f"Program file '{path}' cannot be written: {error.strerror}") from error


def is_program_file(path: str | Path) -> bool:
    """Whether this is a file that says of itself that it is one of ours; it may be broken all the same."""
    path = Path(path)
    if path.suffix != ".json" or not path.is_file():
        return False
    try:
        with path.open("rb") as opened:
            return f'"{FORMAT}"'.encode() in opened.read(4096)
    except OSError:
        return False


def _read(path: Path, name: str) -> Any:
    try:
        # Only what is a file: a pipe or a device would be read for ever.
        if path.exists() and not path.is_file():
            raise ProgramStateError(f"Program file '{name}' is no file. Name the JSON file itself.")
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ProgramStateError(f"Program file '{name}' has {_too_large(size)}")
        content = path.read_bytes()
    except FileNotFoundError:
        raise ProgramStateError(f"No program file at '{name}'. Check its name, or program.states.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ProgramStateError(f"Program file '{name}' cannot be read: {reason}.") from error
    try:
        return parse_strictly(content)
    except ValueError as error:
        raise ProgramStateError(f"Program file '{name}' is not readable JSON: {error}.") from error


def _too_large(size: int) -> str:
    return f"{size / 1e6:.1f} MB; {MAX_BYTES / 1e6:g} MB is the most. Keep fewer demonstrations, or shorter ones."


def _dump(predictor: PredictorState) -> dict[str, Any]:
    signature: dict[str, Any] = {"instructions": predictor.signature.instructions}
    if predictor.signature.fields is not None:
        signature["fields"] = [
            field.model_dump(mode="json", exclude_none=True) for field in predictor.signature.fields
        ]
    return {"signature": signature, "demos": list(predictor.demos)}


def _of_version_1(provenance: dict[str, Any]) -> dict[str, Any]:
    """What had no form yet: as it is where it has today's, else set aside."""
    try:
        Provenance.model_validate(provenance)
    except ValidationError:
        return {"version_1": provenance}
    return provenance


def _refuse_dunders(program: ProgramFile, source: str) -> None:
    # Nothing here would follow such a key. Whoever wrote it hoped that somebody does.
    for name, predictor in program.predictors.items():
        for number, demo in enumerate(predictor.demos):
            for key in demo:
                if key.startswith("__"):
                    raise ProgramStateError(
                        f"{source}: predictors.{name}.demos.{number}: {key[:80]!r} is no name of a field."
                    )
