"""What an evaluation costs besides the language model: `citeqa eval` beside `mlflow.genai.evaluate`.

python benchmarks/bench_eval_overhead.py                      100, 1,000 and 10,000 questions; a few minutes
python benchmarks/bench_eval_overhead.py --questions 100      only so many
python benchmarks/bench_eval_overhead.py --peer 0             without the peer

Both run the same agent, which retrieves ten fixed passages and answers with the first, and compute the same
metrics, each on a fresh SQLite store whose tables are made beforehand. MLflow has its best settings here: ten
workers and no rate limit. At its defaults it loses rows.
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
from eval.metrics import parse_metrics
from eval.mlflow_run import MlflowRun
from eval.questions import GoldItem, Question
from eval.records import RunDirectory
from eval.run import RunPlan, answer_run, score_run
from eval.scorers import as_mlflow_scorers
from program.settings import TrackingSettings
from retrieval.tracing import traced_search
from retrieval.types import Filters, Passage

METRICS = ["recall@1", "recall@5", "recall@10", "mrr", "ndcg@10", "citation_precision", "citation_recall", "token_f1"]
K = 10
ALLOWED_RATIO = 1 / 20


@dataclass(frozen=True, slots=True)
class Measured:
    """One evaluation: its time a question, and how many of its traces and values are there afterwards."""

    questions: int
    ms: float
    traces: int
    recall: float


def main() -> None:
    """Print one table, then the ratio and how far from linear we are."""
    arguments = _parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        stores = Path(folder)
        ours = [_in_fresh_store(stores / f"ours{n}", evaluate_ours, n) for n in arguments.questions]
        peer = _in_fresh_store(stores / "peer", evaluate_peer, arguments.peer) if arguments.peer else None
    for measured in ours:
        _print_row("citeqa eval", measured)
    if peer:
        _print_row("mlflow.genai.evaluate", peer)
        ratio = ours[0].ms / peer.ms
        print(f"\nOurs is 1/{1 / ratio:.0f} of MLflow's a question (allowed: 1/{1 / ALLOWED_RATIO:.0f}).")
    print(f"From {ours[0].questions:,} to {ours[-1].questions:,} questions: {ours[-1].ms / ours[0].ms:.2f} times a question.")
    print(f"Peak resident memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB.")


def evaluate_ours(folder: Path, questions: Sequence[Question], tracking: TrackingSettings) -> tuple[str, float]:
    """The way of `citeqa eval`. Returns the MLflow run's id and the mean of recall@5."""
    plan = RunPlan("bench", {}, GroundTruth("bench", folder, tuple(questions)), parse_metrics(METRICS))
    with RunDirectory(folder / "run") as directory:
        run = MlflowRun(tracking, directory, plan.key)
        answered = answer_run(plan, directory, FixedAgent().predict, run.keep_traces)
        result = score_run(plan, directory, answered)
        run.finish(result, {"k": K})
    return run.run_id, result.summary.overall.intervals["recall@5"].mean


def evaluate_peer(folder: Path, questions: Sequence[Question], tracking: TrackingSettings) -> tuple[str, float]:
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
        for question in questions
    ]
    result = mlflow.genai.evaluate(data=rows, predict_fn=predict, scorers=as_mlflow_scorers(METRICS))
    return result.run_id, result.metrics["recall_at_5/mean"]


class FixedAgent(ResponsesAgent):
    """Retrieves the same passages for every question and answers with the first: all but free."""

    def predict(self, request: ResponsesAgentRequest) -> ResponsesAgentResponse:
        """The first passage's text, cited."""
        first = traced_search(FixedPassages(), str(request.input[-1].content), K)[0]
        note = {"type": "url_citation", "url": first.doc_uri, "title": first.title, "start_index": 0, "end_index": 1}
        item = self.create_text_output_item(first.text, "answer", annotations=[note])
        return ResponsesAgentResponse(output=[item], custom_outputs={"abstained": False})


class FixedPassages:
    """A retriever that costs nothing; its passages are as long as ours are by default."""

    passages = [
        Passage(f"c{n}", f"https://docs/{n}", f"Passage {n}. " + 100 * "some words ", title=f"Document {n}", score=1 / (n + 1))
        for n in range(K)
    ]

    def search(self, query: str, k: int, filters: Filters | None = None) -> list[Passage]:
        """The same passages for every query."""
        return self.passages[:k]


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


Evaluate = Callable[[Path, Sequence[Question], TrackingSettings], tuple[str, float]]


def _in_fresh_store(folder: Path, evaluate: Evaluate, count: int) -> Measured:
    folder.mkdir()
    tracking = TrackingSettings(uri=f"sqlite:///{folder}/mlflow.db", experiment="bench")
    mlflow.set_tracking_uri(tracking.uri)
    mlflow.set_experiment("bench")
    questions = made_up_questions(count)
    started = time.perf_counter()
    run_id, recall = evaluate(folder, questions, tracking)
    seconds = time.perf_counter() - started
    found = mlflow.search_traces(run_id=run_id, include_spans=False, max_results=count + 100, return_type="list")
    return Measured(count, 1000 * seconds / count, len(found), recall)


def _print_row(name: str, measured: Measured) -> None:
    print(
        f"{name:<22} {measured.questions:>7,} questions {measured.ms:>8.2f} ms each "
        f"{measured.traces:>7,} traces in the store   recall@5 {measured.recall:.3f}"
    )


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--questions", type=int, nargs="+", default=[100, 1_000, 10_000], help="sizes for ours")
    parser.add_argument("--peer", type=int, default=100, help="questions for MLflow's; 0 leaves it out")
    parser.add_argument("--data", type=Path, help="taken for the sake of `make bench`; not used here")
    return parser.parse_args()


if __name__ == "__main__":
    main()
