"""The `citeqa` command. It imports click alone; each command's body imports what it runs.

Settings are read before what takes seconds to import, so that a mistake in them shows at once.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from retrieval.errors import CiteqaError

if TYPE_CHECKING:
    from program.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


def main() -> None:
    """Run the command line. A person's mistake is one line on stderr and exit code 2."""
    try:
        cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        _fail("Interrupted.")
    except CiteqaError as error:
        if "--debug" in sys.argv:
            raise
        _fail(f"Error: {error}")
    except BrokenPipeError:
        # The reader of our output, such as `head`, has gone: nothing to say, and nobody to say it to.
        sys.stderr.close()
        sys.exit(1)


def _fail(message: str) -> NoReturn:
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


def _settings(config: str | None, overrides: tuple[str, ...], **options: Any) -> Settings:
    """The configuration; `options` are those of the command's own that set `section__key`."""
    import json

    from program.settings import load_settings

    # As JSON, which is YAML: a split that is called 2024 or no is a name all the same.
    own = [
        f"{key.replace('__', '.')}={json.dumps(value)}" for key, value in options.items() if value is not None
    ]
    return load_settings(config, [*own, *overrides])


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="citeqa")
def cli() -> None:
    """Answer questions from your documents with links to the sources, and prove how well."""


@cli.command()
@configured
@click.option("--corpus", metavar="PATH", help="Folder, JSON Lines file or BEIR directory to read.")
@click.option("--base-url", metavar="URL", help="doc_uri of a document without one: URL and its path.")
@click.option("--index", metavar="PATH", help="Where the index is.")
@click.option("--rebuild", is_flag=True, help="Index everything anew, not just what changed.")
def index(
    config: str | None,
    overrides: tuple[str, ...],
    debug: bool,
    corpus: str | None,
    base_url: str | None,
    index: str | None,
    rebuild: bool,
) -> None:
    """Index documents, or bring the index up to date with them.

    Example: citeqa index --corpus docs/ --base-url https://docs.example.com
    """
    from tqdm import tqdm

    from program.settings import chunking_settings
    from retrieval.corpus import read_documents
    from retrieval.local_index import LocalIndex

    settings = _settings(
        config, overrides, corpus__path=corpus, corpus__base_url=base_url, retrieval__index=index
    )
    source = settings.corpus
    documents = read_documents(source.path, base_url=source.base_url, layout=source.layout)
    write = LocalIndex.build if rebuild else LocalIndex.sync
    with tqdm(desc="indexing", unit=" documents", file=sys.stderr, disable=None, leave=False) as bar:
        report = write(
            settings.retrieval.index,
            documents,
            chunking=chunking_settings(settings),
            on_progress=lambda count: _advance(bar, count),
        )
    click.echo(
        f"{settings.retrieval.index}: {report.documents} documents, {report.passages} passages "
        f"({report.added} added, {report.replaced} replaced, {report.deleted} deleted, "
        f"{report.unchanged} unchanged) in {report.seconds:.1f} s"
    )


def _advance(bar: Any, done: int) -> None:
    bar.update(done - bar.n)


def _answering(run: Callable[[Callable[[int, int], None]], T]) -> T:
    """The result of `run`, which is given what shows its progress. Interrupted, it says what is kept."""
    from tqdm import tqdm

    progress = "Interrupted"
    with tqdm(desc="answering", unit=" questions", file=sys.stderr, disable=None, leave=False) as bar:

        def show(done: int, total: int) -> None:
            nonlocal progress
            progress = f"Interrupted: {done} of {total} questions are answered and kept"
            bar.total = total
            _advance(bar, done)

        try:
            return run(show)
        except KeyboardInterrupt:
            bar.close()
            _fail(f"{progress}. The same command goes on from there.")


@cli.command()
@configured
@click.argument("question")
@click.option("-k", "k", type=click.IntRange(1, 1000), help="How many passages are read.")
@click.option(
    "--filter",
    "filters",
    multiple=True,
    metavar="KEY=VALUE",
    help="Only such documents: lang=ja, year>=2024.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@click.option("--trace", is_flag=True, help="Keep the trace in the MLflow store.")
def ask(
    config: str | None,
    overrides: tuple[str, ...],
    debug: bool,
    question: str,
    k: int | None,
    filters: tuple[str, ...],
    as_json: bool,
    trace: bool,
) -> None:
    """Ask one question; the answer streams, and its sources follow.

    Example: citeqa ask "How do I redact personal data in traces?"
    """
    settings = _settings(config, overrides, retrieval__k=k)
    conditions = _parse_filters(filters)

    import mlflow

    from program.agent import CiteqaAgent
    from program.asking import ask_agent, render_json, render_sources_list
    from program.tracking import connect

    if trace:
        connect(settings.tracking)
    else:
        mlflow.tracing.disable()
    show = None if as_json else _show_text
    answer = ask_agent(CiteqaAgent(settings), question, conditions, show)
    click.echo(render_json(answer) if as_json else f"\n\n{render_sources_list(answer)}")
    if trace:
        mlflow.flush_trace_async_logging()
        click.echo(f"Trace {mlflow.get_last_active_trace_id()} in {settings.tracking.uri}", err=True)


def _show_text(text: str) -> None:
    click.echo(text, nl=False)


_CONDITION = re.compile(r"(?P<field>[^<>=]*[^<>=\s])\s*(?P<operator>>=|<=|>|<|=)(?P<value>.*)", re.DOTALL)


def _parse_filters(conditions: tuple[str, ...]) -> dict[str, Any]:
    """`lang=ja` and `year>=2024` as `retrieval.types.Filters`; a key given twice is one of its values."""
    from retrieval.errors import FilterError

    filters: dict[str, Any] = {}
    for condition in conditions:
        parts = _CONDITION.fullmatch(condition.strip())
        if parts is None:
            raise FilterError(f"--filter {condition}: write it as key=value, for example lang=ja")
        operator = "" if parts["operator"] == "=" else f" {parts['operator']}"
        key, value = parts["field"] + operator, _scalar(parts["value"].strip())
        old = filters.get(key)
        filters[key] = value if old is None else [*(old if isinstance(old, list) else [old]), value]
    return filters


def _scalar(text: str) -> str | int | float | bool:
    """A number or truth value where `text` is JSON for one, else text: `no` is a language, too."""
    import json

    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, (str, int, float)) else text


@cli.command("eval")
@configured
@click.option("--dataset", metavar="PATH", help="Questions with their gold documents.")
@click.option("--split", metavar="NAME", help="Which of its splits (default: dev).")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N questions.")
@click.option("-k", "k", type=click.IntRange(1, 1000), help="How many passages are retrieved and read.")
@click.option("--rescore", is_flag=True, help="Score what is answered; ask nothing.")
@click.option("--retry-errors", is_flag=True, help="Ask the questions that failed again.")
@click.option("--json", "as_json", is_flag=True, help="The summary as JSON on stdout.")
def evaluate(
    config: str | None,
    overrides: tuple[str, ...],
    debug: bool,
    dataset: str | None,
    split: str | None,
    limit: int | None,
    k: int | None,
    rescore: bool,
    retry_errors: bool,
    as_json: bool,
) -> None:
    """Score the program against a ground truth, from the traces of its answers.

    Interrupted, the same command goes on where it ended.

    Example: citeqa eval --split dev -k 10
    """
    settings = _settings(
        config,
        overrides,
        evaluation__dataset=dataset,
        evaluation__split=split,
        evaluation__limit=limit,
        retrieval__k=k,
    )

    from eval.evaluate import evaluate as run_evaluation
    from eval.report import render_evaluation, render_json

    evaluation = _answering(
        lambda show: run_evaluation(settings, rescore=rescore, retry_errors=retry_errors, on_answer=show)
    )
    click.echo(render_json(evaluation) if as_json else render_evaluation(evaluation))


@cli.command()
@configured
@click.argument("questions", metavar="QUESTIONS")
@click.option("--out", required=True, metavar="FILE", help="Where the answers go: .csv, .jsonl or .parquet.")
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="FIELD=COLUMN",
    help="Which column is the question; also id, history, k, filters.",
)
@click.option("-k", "k", type=click.IntRange(1, 1000), help="How many passages are read.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N questions.")
@click.option("--threads", type=click.IntRange(1, 64), default=4, show_default=True, help="Asked at once.")
@click.option(
    "--max-failed-share",
    type=click.FloatRange(0, 1),
    default=0.2,
    show_default=True,
    help="Stop when more questions fail; 1: never.",
)
@click.option("--retry-errors", is_flag=True, help="Ask the questions that failed again.")
@click.option("--trace", is_flag=True, help="Keep the traces in the MLflow store.")
def answer(
    config: str | None,
    overrides: tuple[str, ...],
    debug: bool,
    questions: str,
    out: str,
    columns: tuple[str, ...],
    k: int | None,
    limit: int | None,
    threads: int,
    max_failed_share: float,
    retry_errors: bool,
    trace: bool,
) -> None:
    """Answer a table of questions (.csv, .jsonl, .parquet) into another, with sources.

    Interrupted, the same command goes on where it ended.

    Example: citeqa answer questions.csv --out answers.jsonl --column question=q
    """
    settings = _settings(config, overrides, retrieval__k=k)

    from pathlib import Path

    from program.batch_run import answer_table

    report = _answering(
        lambda show: answer_table(
            settings,
            Path(questions),
            Path(out),
            columns=columns,
            limit=limit,
            threads=threads,
            max_failed_share=max_failed_share,
            retry_errors=retry_errors,
            trace=trace,
            on_answer=show,
            on_warning=lambda warning: click.echo(f"Warning: {warning}.", err=True),
        )
    )
    click.echo(report.render())


@cli.command()
@configured
@click.option("--name", default="citeqa", show_default=True, help="The logged model's name.")
@click.option("--register", metavar="MODEL", help="Also register it under this name.")
def log(config: str | None, overrides: tuple[str, ...], debug: bool, name: str, register: str | None) -> None:
    """Log the agent, its index and its configuration as an MLflow model.

    Example: citeqa log --register my_agent
    """
    settings = _settings(config, overrides)

    from program.deploy import log_agent
    from program.tracking import connect

    connect(settings.tracking)
    info = log_agent(settings, name=name, registered_model_name=register)
    click.echo(f"{info.model_uri}\nLoad it: mlflow.pyfunc.load_model({info.model_uri!r})")


@cli.command()
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
    settings = _settings(config, overrides, serving__host=host, serving__port=port)

    from program.serving.run import TOKEN_VARIABLE, is_loopback, serve

    if not is_loopback(settings.serving.host) and not os.environ.get(TOKEN_VARIABLE):
        click.echo(
            f"Warning: {settings.serving.host} can be reached by others, and anyone there may ask. "
            f"Set {TOKEN_VARIABLE} to require a token.",
            err=True,
        )
    serve(settings, on_ready=lambda address: click.echo(f"Playground and API: {address}"))
    click.echo("Stopped.", err=True)
