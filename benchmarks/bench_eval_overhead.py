"""What an evaluation costs besides the language model: `citeqa eval` beside `mlflow.genai.evaluate`.

python benchmarks/bench_eval_overhead.py                      100, 1,000 and 10,000 questions; a few minutes
python benchmarks/bench_eval_overhead.py --questions 100      only so many
python benchmarks/bench_eval_overhead.py --peer               without the peer

Both run the same agent, which retrieves ten fixed passages and answers with the first, and compute the same
metrics (`citeqa eval`'s own unless --metrics names others), each on a fresh SQLite store whose tables are
made beforehand. MLflow has its best settings here: ten workers and no rate limit. At its defaults it loses
rows.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ |= {
    "MLFLOW_GENAI_EVAL_MAX_WORKERS": "10",
    "MLFLOW_GENAI_EVAL_PREDICT_RATE_LIMIT": "0",
    "MLFLOW_GENAI_EVAL_SCORER_RATE_LIMIT": "0",
    "MLFLOW_GENAI_EVAL_SKIP_TRACE_VALIDATION": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "LITELLM_LOCAL_MODEL_COST_MAP": "true",
}

import mlflow
from mlflow.pyfunc import ResponsesAgent
from mlflow.types.responses import ResponsesAgentRequest, ResponsesAgentResponse

from eval.ground_truth import GroundTruth
from eval.metrics import Metric, default_metrics, parse_metrics
from eval.mlflow_run import MlflowRun
from eval.questions import GoldItem, Question
from eval.records import RunDirectory
from eval.run import RunPlan, answer_run, score_run
from eval.scorers import as_mlflow_scorers
from program.settings import TrackingSettings
from retrieval.tracing import traced_search
from retrieval.types import Filters, Passage

K = 10
DEFAULTS = [metric.name for metric in default_metrics((1, 3, 5, K)) if not metric.passage_level]
"""What `citeqa eval` computes when nothing else is said; gold here names no passages."""
WARM_UP = 10
"""Questions asked before any is timed: the first ones pay for imports."""
ALLOWED = 20


@dataclass(frozen=True, slots=True)
class Task:
    """What both are given."""

    questions: Sequence[Question]
    metrics: Sequence[Metric]


Evaluate = Callable[[Path, Task, TrackingSettings], tuple[str, float]]


@dataclass(frozen=True, slots=True)
class Measured:
    """One evaluation: its time a question, and how many of its traces and values are there afterwards."""

    questions: int
    ms: float
    traces: int
    first_metric: float


def main() -> None:
    """Print one table, then the ratio and how far from linear we are."""
    arguments = _parse_arguments()
    metrics = parse_metrics(arguments.metrics)
    with tempfile.TemporaryDirectory() as folder:
        ours = _measure(Path(folder) / "ours", evaluate_ours, arguments.questions, metrics)
        peer = _measure(Path(folder) / "peer", evaluate_peer, arguments.peer, metrics)
    print(f"\n{len(metrics)} metrics")
    for name, rows in (("citeqa eval", ours), ("mlflow.genai.evaluate", peer)):
        for measured in rows:
            _print_row(name, measured)
    if peer:
        print(f"Ours is 1/{peer[0].ms / ours[0].ms:.0f} of MLflow's a question (allowed: 1/{ALLOWED}).")
    growth = ours[-1].ms / ours[0].ms
    print(f"A question of {ours[-1].questions:,} costs {growth:.2f} times one of {ours[0].questions:,}.")
    print(f"Peak resident memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB.")


def _measure(
    stores: Path, evaluate: Evaluate, sizes: Sequence[int], metrics: Sequence[Metric]
) -> list[Measured]:
    """One evaluation of each size, after a short one that is not counted."""
    tasks = [Task(made_up_questions(size), metrics) for size in (WARM_UP, *sizes)] if sizes else []
    measured = [_in_fresh_store(stores / str(n), evaluate, task) for n, task in enumerate(tasks)]
    return measured[1:]


def evaluate_ours(folder: Path, task: Task, tracking: TrackingSettings) -> tuple[str, float]:
    """The way of `citeqa eval`. Returns the MLflow run's id and the mean of the first metric."""
    ground_truth = GroundTruth("bench", folder, tuple(task.questions))
    plan = RunPlan("bench", {}, ground_truth, task.metrics)
    with RunDirectory(folder / "run") as directory:
        run = MlflowRun(tracking, directory, plan.key, ground_truth)
        answered = answer_run(plan, directory, FixedAgent().predict, run.keep_traces)
        result = score_run(plan, directory, answered)
        run.finish(result, {"k": K})
    return run.run_id, result.summary.overall.intervals[task.metrics[0].name].mean


def evaluate_peer(folder: Path, task: Task, tracking: TrackingSettings) -> tuple[str, float]:
    """The way of MLflow, with our metrics as its scorers."""
    agent = FixedAgent()

    def predict(question: str) -> dict[str, object]:
        answer: dict[str, object] = agent.predict(to_request(question)).model_dump(exclude_none=True)
        return answer

    rows = [
        {
            "inputs": {"question": question.question},
            "expectations": {
                "expected_retrieved_context": [{"doc_uri": gold.doc_uri} for (gold,) in question.gold],
                "expected_response": question.expected_response,
            },
        }
        for question in task.questions
    ]
    scorers = as_mlflow_scorers(metric.name for metric in task.metrics)
    result = mlflow.genai.evaluate(data=rows, predict_fn=predict, scorers=scorers)
    return result.run_id, result.metrics[f"{task.metrics[0].mlflow_name}/mean"]


class FixedAgent(ResponsesAgent):
    """Retrieves the same passages for every question and answers with the first: all but free."""

    def predict(self, request: ResponsesAgentRequest) -> ResponsesAgentResponse:
        """The first passage's text, cited."""
        first = traced_search(FixedPassages(), str(request.input[-1].content), K)[0]
        note = {"type": "url_citation", "url": first.doc_uri, "title": first.title}
        item = self.create_text_output_item(first.text, "answer", annotations=[note])
        return ResponsesAgentResponse(output=[item], custom_outputs={"abstained": False})


class FixedPassages:
    """A retriever that costs nothing."""

    def search(self, query: str, k: int, filters: Filters | None = None) -> list[Passage]:
        """The same passages for every query."""
        return PASSAGES[:k]


PASSAGES = [
    Passage(f"c{n}", f"https://docs/{n}", f"Passage {n}. " + 100 * "words ", f"Title {n}", score=1 / (n + 1))
    for n in range(K)
]


def to_request(question: str) -> ResponsesAgentRequest:
    """A question as an agent is asked it."""
    return ResponsesAgentRequest(input=[{"role": "user", "content": question}])


def made_up_questions(count: int) -> list[Question]:
    """Questions with one gold document each, at every rank in turn and now and then not retrieved."""
    return [
        Question(
            id=f"q{n}",
            question=f"What do we know about subject {n}?",
            gold=((GoldItem(f"https://docs/{n % (K + 2)}"),),),
            expected_response=f"Passage {n % K}.",
        )
        for n in range(count)
    ]


def _in_fresh_store(folder: Path, evaluate: Evaluate, task: Task) -> Measured:
    folder.mkdir(parents=True)
    tracking = TrackingSettings(uri=f"sqlite:///{folder}/mlflow.db", experiment="bench")
    mlflow.set_tracking_uri(tracking.uri)
    mlflow.set_experiment("bench")
    count = len(task.questions)
    started = time.perf_counter()
    run_id, first_metric = evaluate(folder, task, tracking)
    seconds = time.perf_counter() - started
    found = mlflow.search_traces(
        run_id=run_id, include_spans=False, max_results=count + 100, return_type="list"
    )
    return Measured(count, 1000 * seconds / count, len(found), first_metric)


def _print_row(name: str, measured: Measured) -> None:
    print(
        f"{name:<22} {measured.questions:>7,} questions {measured.ms:>8.2f} ms each "
        f"{measured.traces:>7,} traces in the store   first metric {measured.first_metric:.3f}"
    )


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--questions", type=int, nargs="+", default=[100, 1_000, 10_000], help="sizes for ours"
    )
    parser.add_argument(
        "--peer", type=int, nargs="*", default=[100], help="sizes for MLflow's; none leaves it out"
    )
    parser.add_argument("--metrics", nargs="+", default=DEFAULTS, help="what both compute")
    parser.add_argument("--data", type=Path, help="taken for the sake of `make bench`; not used here")
    return parser.parse_args()


if __name__ == "__main__":
    main()
