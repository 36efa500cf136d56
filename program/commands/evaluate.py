"""`citeqa eval`."""

from __future__ import annotations

import click

from program.commands.options import answering, configured, judging, read_settings


@click.command("eval")
@configured
@click.option("--dataset", metavar="PATH", help="Questions with their gold documents.")
@click.option("--split", metavar="NAME", help="Which of its splits (default: dev).")
@click.option(
    "--limit", type=click.IntRange(1), metavar="N", help="Only the first N questions, or newest N traces."
)
@click.option("-k", "k", type=click.IntRange(1, 1000), help="How many passages are retrieved and read.")
@click.option(
    "--agent", metavar="URI", help="models:/…, runs:/…, a directory, http(s)://…, endpoints:/<name>"
)
@click.option("--traces", metavar="EXPERIMENT", help="Score its traces, such as production's; ask nothing.")
@click.option("--trace-filter", metavar="FILTER", help="Of these, as mlflow.search_traces takes it.")
@click.option("--since", metavar="TIME", help="Of these, not older: 90m, 12h, 7d, 2w.")
@click.option("--rescore", is_flag=True, help="Score what is answered; ask nothing.")
@click.option("--retry-errors", is_flag=True, help="Ask the questions that failed again.")
@click.option("--labels", metavar="FILE", help="People's labels to hold judges against; `traces`: MLflow's.")
@click.option("--json", "as_json", is_flag=True, help="The summary as JSON on stdout.")
def evaluate(
    config: str | None,
    overrides: tuple[str, ...],
    debug: bool,
    dataset: str | None,
    split: str | None,
    limit: int | None,
    k: int | None,
    agent: str | None,
    traces: str | None,
    trace_filter: str | None,
    since: str | None,
    rescore: bool,
    retry_errors: bool,
    labels: str | None,
    as_json: bool,
) -> None:
    """Score the program, or another agent, against a ground truth, from the traces of its answers.

    Interrupted, the same command goes on where it ended.

    Example: citeqa eval --split dev -k 10
    """
    if k is not None and (agent or traces):
        raise click.UsageError(
            "-k is a setting of our program. An agent that takes it in custom_inputs, as ours do, gets it with "
            "--set evaluation.agent.custom_inputs.k=10."
        )
    settings = read_settings(
        config,
        overrides,
        evaluation__dataset=dataset,
        evaluation__split=split,
        evaluation__limit=limit,
        evaluation__agent__uri=agent,
        evaluation__traces__experiment=traces,
        evaluation__traces__filter=trace_filter,
        evaluation__traces__since=since,
        retrieval__k=k,
    )

    from eval.evaluate import evaluate as run_evaluation
    from eval.report import render_evaluation, render_json

    evaluation = answering(
        lambda show: run_evaluation(
            settings,
            rescore=rescore,
            retry_errors=retry_errors,
            labels=labels,
            on_answer=show,
            on_verdict=judging(),
        )
    )
    click.echo(render_json(evaluation) if as_json else render_evaluation(evaluation))
