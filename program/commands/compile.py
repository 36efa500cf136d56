"""`citeqa compile`."""

from __future__ import annotations

import sys
from typing import Any

import click

from program.commands.options import fail


@click.command("compile")
@click.argument("specification", metavar="FILE", default="configs/compile.yaml")
@click.option("--dry-run", is_flag=True, help="Say what it would ask and cost; ask nothing.")
@click.option("--force", is_flag=True, help="Install the best one even if it is not better beyond noise.")
@click.option("--register-prompts", "register", metavar="NAME", help="Also register its prompts in MLflow.")
@click.option("--no-mlflow", is_flag=True, help="Keep the result on disk alone.")
@click.option("--debug", is_flag=True, help="Show the stack trace of an error.")
def compile_(
    specification: str, dry_run: bool, force: bool, register: str | None, no_mlflow: bool, debug: bool
) -> None:
    """Improve the prompts with a DSPy optimizer, and prove it on questions that it never saw.

    Interrupted, the same command goes on: what language models were asked is kept.

    Example: citeqa compile configs/compile.yaml --dry-run
    """
    from eval.compiling.specification import read_specification

    stated = read_specification(specification)

    from tqdm import tqdm

    from eval.compiling.command import compile_file
    from eval.compiling.run import CompileOptions, plan_compilation
    from eval.compiling.table import render_compilation, render_plan

    if dry_run:
        click.echo(render_plan(plan_compilation(stated, specification)))
        return
    with tqdm(desc="optimizing", unit=" calls", file=sys.stderr, disable=None, leave=False) as bar:

        def show(metered: Any) -> None:
            cost = f"{metered.spent.usd:.2f} USD" if metered.spent.usd else ""
            bar.set_postfix_str(cost, refresh=False)
            bar.update(metered.spent.calls - bar.n)

        try:
            result = compile_file(
                stated,
                specification,
                CompileOptions(force=force, on_call=show),
                log_to_mlflow=not no_mlflow,
                register_as=register,
            )
        except KeyboardInterrupt:
            bar.close()
            fail("Interrupted: what was asked is kept. The same command goes on from there.")
    click.echo(render_compilation(result))
