"""What the commands share: the options of each, the settings that they make, progress, and how one fails."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

if TYPE_CHECKING:
    from program.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


def fail(message: str) -> NoReturn:
    """Say what a person must know on stderr, and end with exit code 2."""
    click.echo(message, err=True)
    sys.exit(2)


def configured(command: F) -> F:
    """The options that every command has: which configuration, what of it is overridden, and debugging."""
    options = (
        click.option("--config", "config", metavar="FILE", help="Default: configs/agent.yaml."),
        click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting."),
        click.option("--debug", is_flag=True, help="Show the stack trace of an error."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def read_settings(config: str | None, overrides: tuple[str, ...], **options: Any) -> Settings:
    """The configuration; `options` are those of the command's own that set `section__key`."""
    from program.settings import load_settings, to_overrides

    own = {key.replace("__", "."): value for key, value in options.items() if value is not None}
    return load_settings(config, [*to_overrides(own), *overrides])


def advance(bar: Any, done: int) -> None:
    """Move a progress bar to `done`."""
    bar.update(done - bar.n)


def answering(run: Callable[[Callable[[int, int], None]], T]) -> T:
    """The result of `run`, which is given what shows its progress. Interrupted, it says what is kept."""
    from tqdm import tqdm

    progress = "Interrupted"
    with tqdm(desc="answering", unit=" questions", file=sys.stderr, disable=None, leave=False) as bar:

        def show(done: int, total: int) -> None:
            nonlocal progress
            progress = f"Interrupted: {done} of {total} questions are answered and kept"
            bar.total = total
            advance(bar, done)

        try:
            return run(show)
        except KeyboardInterrupt:
            bar.close()
            fail(f"{progress}. The same command goes on from there.")


def judging() -> Callable[[int, int], None]:
    """What shows the progress of judging, from its first verdict on."""
    from tqdm import tqdm

    bar: Any = None

    def show(done: int, total: int) -> None:
        nonlocal bar
        if bar is None:
            bar = tqdm(
                desc="judging", unit=" verdicts", total=total, file=sys.stderr, disable=None, leave=False
            )
        advance(bar, done)
        if done == total:
            bar.close()

    return show
