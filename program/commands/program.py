"""`citeqa program`: read, compare and register compiled programs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from program.commands.options import configured, read_settings

if TYPE_CHECKING:
    from program.program_file import ProgramFile
    from program.settings import Settings

SEED = "seed"


@click.group()
def program() -> None:
    """Show and compare compiled programs, and register their prompts.

    A program is a file, runs:/<run id>/<path>, models:/<name>@<alias> or prompts:/<name>@<alias>.

    Example: citeqa program show build/programs/tutorial.json
    """


@program.command()
@click.argument("source", metavar="PROGRAM")
@configured
@click.option("--full", is_flag=True, help="Show demonstrations whole.")
@click.option("--json", "as_json", is_flag=True, help="The program file as JSON on stdout.")
def show(
    source: str, config: str | None, overrides: tuple[str, ...], debug: bool, full: bool, as_json: bool
) -> None:
    """Show instructions, demonstrations, provenance and scores.

    Example: citeqa program show build/programs/tutorial.json --full
    """
    settings = read_settings(config, overrides)

    import json
    import shutil

    from program.program_text import render_program

    shown = _read(source, settings)
    if as_json:
        click.echo(json.dumps(shown.as_json(), ensure_ascii=False, indent=2))
        return
    width = min(120, max(40, shutil.get_terminal_size().columns))
    click.echo(render_program(shown, source, width=width, full=full))


@program.command()
@click.argument("a")
@click.argument("b")
@configured
@click.option("--markdown", is_flag=True, help="For a comment on a pull request.")
def diff(a: str, b: str, config: str | None, overrides: tuple[str, ...], debug: bool, markdown: bool) -> None:
    """Show what leads from program A to B; `seed` is the program as it is written.

    Exit code 0: both ask a language model the same; 1: they do not; 2: it could not be told.

    Example: citeqa program diff seed build/programs/tutorial.json --markdown
    """
    settings = read_settings(config, overrides)

    from program.program_diff import diff_programs, render_diff, render_markdown

    programs = {name: _read(name, settings) for name in (a, b) if name != SEED}
    if SEED in (a, b):
        programs[SEED] = _seed(*programs.values())
    difference = diff_programs(programs[a], programs[b], a, b)
    click.echo(render_markdown(difference) if markdown else render_diff(difference))
    if not difference.same:
        sys.exit(1)


@program.command()
@click.argument("source", metavar="PROGRAM")
@click.argument("name")
@configured
@click.option("--alias", metavar="NAME", help="Let this alias mean this version, such as champion.")
def register(
    source: str, name: str, config: str | None, overrides: tuple[str, ...], debug: bool, alias: str | None
) -> None:
    """Register a program as versions of prompts in MLflow's Prompt Registry.

    Example: citeqa program register build/programs/tutorial.json qa_prompts --alias champion
    """
    settings = read_settings(config, overrides)

    from program.program_sources import locate_state
    from program.prompt_registry import register_program
    from program.tracking import connect

    _read(source, settings)  # Refused before a store is made for it.
    connect(settings.tracking)
    registered = register_program(locate_state(source, settings.tracking.uri), name, alias)
    for predictor, uri in registered.prompts.items():
        click.echo(f"{predictor}: {uri}")
    by = f"prompts:/{name}@{alias}" if alias else registered.uri
    click.echo(f"program: {registered.uri}\nUse it: --set program.states.default={by}")


def _read(source: str, settings: Settings) -> ProgramFile:
    from program.program_file import read_program_file
    from program.program_sources import locate_state

    return read_program_file(locate_state(source, settings.tracking.uri), source)


def _seed(*others: ProgramFile) -> ProgramFile:
    """The program as it is written, with those predictors that the others have: settings may add some.

    Its scores are those that another program has noted of it.
    """
    from program.assembly import program_as_written
    from program.program_file import ProgramFile
    from program.program_text import seed_scores
    from program.state import dump_program

    predictors = dump_program(program_as_written()).predictors
    wanted = {name for other in others for name in other.predictors} or set(predictors)
    return ProgramFile(
        predictors={name: state for name, state in predictors.items() if name in wanted},
        provenance=seed_scores(*(other.provenance for other in others)),
    )
