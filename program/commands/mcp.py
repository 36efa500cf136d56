"""`citeqa mcp`."""

from __future__ import annotations

import os

import click

from program.commands.options import configured, read_settings


@click.command()
@configured
@click.option("--http", is_flag=True, help="Streamable HTTP at /mcp, in place of stdio.")
@click.option("--host", metavar="ADDRESS", help="--http: where to listen (default: 127.0.0.1).")
@click.option(
    "--port", type=click.IntRange(0, 65535), help="--http: the port (default: 8001; 0: any free one)."
)
@click.option("--trace", is_flag=True, help="Keep traces in the MLflow store.")
def mcp(
    config: str | None,
    overrides: tuple[str, ...],
    debug: bool,
    http: bool,
    host: str | None,
    port: int | None,
    trace: bool,
) -> None:
    """Offer the agent to other agents: an MCP server with the tools `ask` and `search`.

    Over stdio it is started by who calls it. The token that HTTP requests must bear, if any, is the environment
    variable CITEQA_TOKEN.

    Example: citeqa mcp --http --port 8001
    """
    settings = read_settings(config, overrides, mcp__host=host, mcp__port=port)

    from retrieval.extras import needs_extra

    with needs_extra("mcp", "citeqa mcp"):
        import mcp.server.mcpserver  # noqa: F401

    from program.mcp_server import serve_http, serve_stdio
    from program.serving.listening import is_loopback
    from program.serving.run import TOKEN_VARIABLE

    if not http:
        serve_stdio(settings, trace=trace)
        return
    token = os.environ.get(TOKEN_VARIABLE) or None
    if token is None and not is_loopback(settings.mcp.host):
        click.echo(
            f"Warning: {settings.mcp.host} can be reached by others, and anyone there may ask. "
            f"Set {TOKEN_VARIABLE} to require a token.",
            err=True,
        )
    serve_http(
        settings,
        on_ready=lambda address: click.echo(f"MCP server: {address}"),
        token=token,
        trace=trace,
    )
    click.echo("Stopped.", err=True)
