"""`citeqa serve`."""

from __future__ import annotations

import os

import click

from program.commands.options import configured, read_settings


@click.command()
@configured
@click.option("--host", metavar="ADDRESS", help="Where to listen (default: 127.0.0.1, this machine alone).")
@click.option("--port", type=click.IntRange(0, 65535), help="The port (default: 8000; 0: any free one).")
def serve(
    config: str | None, overrides: tuple[str, ...], debug: bool, host: str | None, port: int | None
) -> None:
    """Serve the agent over HTTP with a page to ask it, until Ctrl-C.

    The token that requests must bear, if any, is the environment variable CITEQA_TOKEN.

    Example: citeqa serve --port 8000
    """
    settings = read_settings(config, overrides, serving__host=host, serving__port=port)

    from program.serving.listening import is_loopback
    from program.serving.run import TOKEN_VARIABLE, serve

    if not is_loopback(settings.serving.host) and not os.environ.get(TOKEN_VARIABLE):
        click.echo(
            f"Warning: {settings.serving.host} can be reached by others, and anyone there may ask. "
            f"Set {TOKEN_VARIABLE} to require a token.",
            err=True,
        )
    serve(settings, on_ready=lambda address: click.echo(f"Playground and API: {address}"))
    click.echo("Stopped.", err=True)
