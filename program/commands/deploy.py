"""`citeqa deploy serving`, `citeqa deploy rollback`, `citeqa deploy apps`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from program.commands.options import configured, read_settings

if TYPE_CHECKING:
    from program.deployment.serving import Deployed, Plan


@click.group()
def deploy() -> None:
    """Serve the agent on Databricks, and take that back.

    Example: citeqa deploy serving --config configs/databricks.yaml --dry-run
    """


@deploy.command()
@configured
@click.option("--version", type=click.IntRange(1), metavar="N", help="Deploy this registered version.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--no-wait", is_flag=True, help="Do not wait until the endpoint is ready.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def serving(
    config: str | None,
    overrides: tuple[str, ...],
    debug: bool,
    version: int | None,
    dry_run: bool,
    no_wait: bool,
    as_json: bool,
) -> None:
    """Log, check, register and serve the agent on Model Serving.

    The same command again does only what is left to do.

    Example: citeqa deploy serving --config configs/databricks.yaml
    """
    settings = read_settings(config, overrides)

    from program.deployment.serving import deploy_serving, plan_serving

    plan = plan_serving(settings, version)
    if dry_run:
        _show_plan(plan)
        sys.exit(2 if plan.troubles else 0)
    deployed = deploy_serving(plan, _say, wait=not no_wait)
    if as_json:
        click.echo(json.dumps(_as_json(deployed)))
    else:
        _show(deployed, changed=bool(plan.steps), waited=not no_wait)


@deploy.command()
@configured
@click.option(
    "--to", "version", type=click.IntRange(1), metavar="N", help="The version (default: the one before)."
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
def rollback(
    config: str | None, overrides: tuple[str, ...], debug: bool, version: int | None, dry_run: bool
) -> None:
    """Let the version before answer again on Model Serving.

    Example: citeqa deploy rollback --config configs/databricks.yaml
    """
    settings = read_settings(config, overrides)

    from program.deployment.rollback import plan_rollback, roll_back

    back = plan_rollback(settings, version)
    change = f"version {back.current.version} -> version {back.back_to.version} of {back.model} on {back.endpoint.name}"
    if dry_run:
        click.echo(f"Would send all requests: {change}")
        return
    roll_back(back, 60 * settings.deployment.timeout_min, _say)
    click.echo(f"All requests: {change}")


@deploy.command()
@configured
@click.option("--dry-run", is_flag=True, help="Show the bundle, and write nothing.")
def apps(config: str | None, overrides: tuple[str, ...], debug: bool, dry_run: bool) -> None:
    """Write an asset bundle that runs the agent as a Databricks App, and check it.

    Example: citeqa deploy apps --config configs/databricks.yaml
    """
    settings = read_settings(config, overrides)

    from program.deployment.apps import plan_app, validate_with_cli, write_bundle

    bundle = plan_app(settings)
    if dry_run:
        import yaml

        for name, content in (("databricks.yml", bundle.databricks_yml), ("app/app.yaml", bundle.app_yml)):
            click.echo(f"# {bundle.folder / name}\n{yaml.safe_dump(content, sort_keys=False)}")
    else:
        written = write_bundle(bundle)
        click.echo(f"{bundle.folder}: {', '.join(written)}")
        checked = validate_with_cli(bundle.folder)
        click.echo("Valid" + (", says `databricks bundle validate`, too." if checked else "."))
        key = settings.deployment.app.replace("-", "_")
        click.echo(
            f"Deploy it: cd {bundle.folder} && databricks bundle deploy && databricks bundle run {key}"
        )
    for trouble in bundle.troubles:
        click.echo(f"Stands against it: {trouble}.", err=True)
    sys.exit(2 if bundle.troubles else 0)


def _say(what: str) -> None:
    click.echo(f"… {what}", err=True)


def _show_plan(plan: Plan) -> None:
    click.echo(f"{plan.workspace.host} as {plan.user}: {plan.target.model} on {plan.target.endpoint}")
    if plan.version is not None:
        click.echo(f"  Version {plan.version} of the model is there already.")
    for number, step in enumerate(plan.steps.values(), 1):
        click.echo(f"  {number}. {step}")
    if not plan.steps:
        click.echo("  Nothing to do: it is deployed as configured.")
    for trouble in plan.troubles:
        click.echo(f"Stands against it: {trouble}.", err=True)


def _show(deployed: Deployed, *, changed: bool, waited: bool) -> None:
    state = "is ready" if waited else "is being updated"
    click.echo(
        f"{deployed.model} version {deployed.version} {state}{'' if changed else ' (nothing was to do)'}"
    )
    click.echo(f"  Endpoint    {deployed.endpoint_url}")
    click.echo(f"  Playground  {deployed.playground_url}")
    if deployed.review_app_url:
        click.echo(f"  Review App  {deployed.review_app_url}")
    if deployed.reply is not None:
        links = ", ".join(dict.fromkeys(deployed.reply.links)) or "none"
        click.echo(f"It answers: {' '.join(deployed.reply.text.split())}\n  Sources: {links}")
    for warning in deployed.warnings:
        click.echo(f"Warning: {warning}.", err=True)


def _as_json(deployed: Deployed) -> dict[str, object]:
    from dataclasses import asdict

    return asdict(deployed)
