"""`citeqa compare` of two program files: the prompts, and how to find out which is better."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from program.program_file import FORMAT, VERSION

Call = Callable[..., Any]


@pytest.fixture
def programs(tmp_path: Path) -> tuple[str, str]:
    """Two programs by hand that differ in a sentence."""
    for name, manner in (("a.json", "briefly"), ("b.json", "in verse")):
        prompt = {"signature": {"instructions": f"Read the passages. Answer {manner}."}}
        body = {"format": FORMAT, "version": VERSION, "predictors": {"reader.answer": prompt}}
        (tmp_path / name).write_text(json.dumps(body), encoding="utf-8")
    return "a.json", "b.json"


def test_two_program_files_are_compared_by_their_prompts(citeqa: Call, programs: tuple[str, str]) -> None:
    said = citeqa("compare", *programs)
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert "  -Answer briefly." in lines
    assert "  +Answer in verse." in lines
    assert "  citeqa eval --set program.states.default=b.json" in lines
    assert "noted when they were made" not in said.out


def test_a_program_file_and_a_run_are_not_compared(citeqa: Call, programs: tuple[str, str]) -> None:
    (Path.cwd() / "run").mkdir()
    said = citeqa("compare", "run", programs[1])
    assert said.complaint == (
        "Error: 'b.json' is a program file and 'run' is not. Compare two programs, or two runs. A program has a run "
        "once it is scored: citeqa eval --set program.states.default=b.json"
    )
