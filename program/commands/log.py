"""`citeqa log`."""

from __future__ import annotations

import click

from program.commands.options import configured, read_settings


@click.command()
@configured
@click.option("--name", default="citeqa", show_default=True, help="The logged model's name.")
@click.option("--register", metavar="MODEL", help="Also register it under this name.")
def log(config: str | None, overrides: tuple[str, ...], debug: bool, name: str, register: str | None) -> None:
    """Log the agent, its index and its configuration as an MLflow model.

    Example: citeqa log --register my_agent
    """
    settings = read_settings(config, overrides)

    from program.deployment.log import log_agent
    from program.tracking import connect

    connect(settings.tracking)
    info = log_agent(settings, name=name, registered_model_name=register)
    click.echo(f"{info.model_uri}\nLoad it: mlflow.pyfunc.load_model({info.model_uri!r})")
