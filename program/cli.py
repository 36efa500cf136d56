"""The `citeqa` command. It imports click alone; each command's body imports what it runs.

Settings are read before what takes seconds to import, so that a mistake in them shows at once.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from program.commands.answer import answer
from program.commands.ask import ask
from program.commands.calibrate import calibrate
from program.commands.compare import compare
from program.commands.compile import compile_
from program.commands.dataset import dataset
from program.commands.deploy import deploy
from program.commands.evaluate import evaluate
from program.commands.gate import gate
from program.commands.index import index
from program.commands.log import log
from program.commands.mcp import mcp
from program.commands.memory import memory
from program.commands.monitor import monitor
from program.commands.options import fail
from program.commands.program import program
from program.commands.search import search
from program.commands.serve import serve
from program.commands.sweep import sweep
from retrieval.errors import CiteqaError
from retrieval.secrets import hide_secrets

if TYPE_CHECKING:
    from types import TracebackType


def main() -> None:
    """Run the command line. A person's mistake is one line on stderr and exit code 2."""
    sys.excepthook = _show_trace
    try:
        cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        fail("Interrupted.")
    except CiteqaError as error:
        if "--debug" in sys.argv:
            raise
        fail(f"Error: {error}")
    except BrokenPipeError:
        # The reader of our output, such as `head`, has gone: nothing to say, and nobody to say it to.
        sys.stderr.close()
        sys.exit(1)


def _show_trace(type_: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """What Python writes of an error, without the secrets that clients and gateways repeat in theirs."""
    import traceback

    sys.stderr.write(hide_secrets("".join(traceback.format_exception(type_, error, trace))))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="citeqa")
def cli() -> None:
    """Answer questions from your documents with links to the sources, and prove how well."""


for command in (
    index,
    search,
    ask,
    evaluate,
    monitor,
    calibrate,
    answer,
    log,
    memory,
    deploy,
    serve,
    mcp,
    sweep,
    compare,
    gate,
    compile_,
    dataset,
    program,
):
    cli.add_command(command)
