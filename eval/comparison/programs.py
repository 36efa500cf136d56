"""Two program files where two runs are asked for: how they differ, and how to find out which is better."""

from __future__ import annotations

from program.program_diff import diff_programs, render_diff
from program.program_file import is_program_file, read_program_file
from retrieval.errors import DataError


def are_programs(a: str, b: str) -> bool:
    """Whether both are program files.

    Raises:
        DataError: if only one is, which cannot be compared with a run.
    """
    which = [is_program_file(a), is_program_file(b)]
    if any(which) and not all(which):
        program, other = (a, b) if which[0] else (b, a)
        raise DataError(
            f"'{program}' is a program file and '{other}' is not. Compare two programs, or two runs. A program has "
            f"a run once it is scored: citeqa eval --set program.states.default={program}"
        )
    return all(which)


def render_programs(a: str, b: str) -> str:
    """How two program files differ, and how their scores are compared.

    Raises:
        ProgramStateError: if one cannot be read.
    """
    difference = diff_programs(read_program_file(a), read_program_file(b), a, b)
    noted = " What stands above was noted when they were made." if difference.scores else ""
    return (
        f"{render_diff(difference)}\n\n"
        f"Which is better, their runs tell.{noted}\n"
        f"  citeqa eval --set program.states.default={a}\n"
        f"  citeqa eval --set program.states.default={b}\n"
        "  citeqa compare <the one's run directory> <the other's>"
    )
