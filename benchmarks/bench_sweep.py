"""What a sweep costs beside doing the same one configuration at a time.

python benchmarks/bench_sweep.py                 all of it; some six minutes
python benchmarks/bench_sweep.py --data DIR      and memory, with the questions of a BEIR directory

24 configurations of four factors over 160 questions of the sample, extractive reader, each `citeqa` a process of
its own. The peers are too slow to run 24 times: some configurations are measured and the time multiplied, which
the table says.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ |= {
    "MLFLOW_GENAI_EVAL_MAX_WORKERS": "10",
    "MLFLOW_GENAI_EVAL_PREDICT_RATE_LIMIT": "0",
    "MLFLOW_GENAI_EVAL_SCORER_RATE_LIMIT": "0",
    "MLFLOW_GENAI_EVAL_SKIP_TRACE_VALIDATION": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "LITELLM_LOCAL_MODEL_COST_MAP": "true",
}

import yaml
from mlflow.types.responses import ResponsesAgentRequest

ROOT = Path(__file__).parents[1]
CITEQA = Path(sys.executable).with_name("citeqa")
QUESTIONS = 160
CONFIGURATIONS = 24
FACTORS: dict[str, list[Any]] = {
    "chunking.max_tokens": [100, 200],
    "retrieval.k": [3, 5, 10],
    "reader.max_sentences": [1, 2],
    "reader.abstain_below": [0.3, 0.4],
}
LOOP, PEER = 3, 1
"""So many configurations are measured of the loop, and of `mlflow.genai.evaluate`."""


def main() -> None:
    """Print the times and their ratios, the curve of added values, scoring alone, and memory."""
    arguments = _parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "datasets").symlink_to(ROOT / "datasets")
        loop = measure_loop(work) * CONFIGURATIONS / LOOP
        peer = measure_peer(work) * CONFIGURATIONS / PEER
        sweep, again = measure_sweep(work)
        _print_comparison(sweep, again, loop, peer)
        _print_curve(work)
    _print_scoring()
    with tempfile.TemporaryDirectory() as folder:
        _print_memory(Path(folder), arguments.data)


def measure_sweep(work: Path) -> tuple[float, float]:
    """Seconds of the whole sweep from nothing, MLflow and report included, and of the same command again."""
    write_specification(work / "sweep.yaml", FACTORS)
    return _timed(work, "sweep", "sweep.yaml"), _timed(work, "sweep", "sweep.yaml")


def measure_loop(work: Path) -> float:
    """Seconds of indexing and evaluating a few configurations afresh, one process after the other."""
    seconds = 0.0
    for tokens, k, sentences in [(100, 3, 1), (200, 5, 2), (200, 10, 1)][:LOOP]:
        settings = [
            f"chunking.max_tokens={tokens}",
            f"retrieval.index=loop/index-{tokens}",
            f"retrieval.k={k}",
            f"reader.max_sentences={sentences}",
            "reader.kind=extractive",
            "evaluation.results=loop/runs",
            "tracking.uri=sqlite:///loop.db",
            f"evaluation.limit={QUESTIONS}",
            "evaluation.split=null",
        ]
        options = [part for setting in settings for part in ("--set", setting)]
        seconds += _timed(work, "index", "--rebuild", *options) + _timed(work, "eval", *options)
    return seconds


def measure_peer(work: Path) -> float:
    """Seconds of `mlflow.genai.evaluate` for one configuration: the same agent, questions and metrics.

    At its best settings, ten workers and no rate limit; at its defaults it loses rows.
    """
    import mlflow

    from eval.formats.agent_evaluation_set import to_row
    from eval.ground_truth import read_ground_truth
    from eval.metrics import default_metrics
    from eval.scorers import as_mlflow_scorers
    from program.agent import CiteqaAgent
    from program.settings import load_settings

    index = str(work / "peer" / "index")
    _run(work, "index", "--set", f"retrieval.index={index}")
    agent = CiteqaAgent(load_settings(ROOT / "configs/agent.yaml", [f"retrieval.index={index}"]))
    questions = read_ground_truth(ROOT / "datasets/agent_docs/ground_truth.jsonl", limit=QUESTIONS).questions
    metrics = [metric.name for metric in default_metrics() if not metric.passage_level]
    mlflow.set_tracking_uri(f"sqlite:///{work / 'peer.db'}")
    mlflow.set_experiment("bench")

    def predict(question: str) -> dict[str, Any]:
        answer: dict[str, Any] = agent.predict(to_request(question)).model_dump(exclude_none=True)
        return answer

    rows = [
        {"inputs": {"question": row["inputs"]["question"]}, "expectations": row["expectations"]}
        for row in map(to_row, questions)
    ]
    started = time.perf_counter()
    mlflow.genai.evaluate(data=rows, predict_fn=predict, scorers=as_mlflow_scorers(metrics))
    return time.perf_counter() - started


def to_request(question: str) -> ResponsesAgentRequest:
    """A question as an agent is asked it."""
    return ResponsesAgentRequest(input=[{"role": "user", "content": question}])


def write_specification(path: Path, factors: dict[str, list[Any]], **more: Any) -> None:
    """A sweep file over the sample's questions."""
    body = {
        "name": "bench",
        "set": {"evaluation.limit": QUESTIONS, "reader.kind": "extractive"},
        "factors": factors,
        "objectives": ["fact_recall"],
        "select_on": None,
        "report_on": None,
        **more,
    }
    path.write_text(yaml.safe_dump(body), encoding="utf-8")


def _print_comparison(sweep: float, again: float, loop: float, peer: float) -> None:
    print(f"{CONFIGURATIONS} configurations x {QUESTIONS} questions, four factors, extractive reader")
    print(f"  citeqa sweep, from nothing, with report and MLflow   {sweep:8.1f} s")
    print(f"  the same command again                               {again:8.1f} s   (allowed: 5)")
    print(
        f"  a loop of citeqa index and eval                      {loop:8.1f} s   x {loop / sweep:.0f} "
        f"(asked: 15; {LOOP} measured, times {CONFIGURATIONS // LOOP})"
    )
    print(
        f"  mlflow.genai.evaluate for each                       {peer:8.1f} s   x {peer / sweep:.0f} "
        f"(asked: 100; {PEER} measured, times {CONFIGURATIONS // PEER})"
    )


def _print_curve(work: Path) -> None:
    """Values of one factor added one by one: each costs its own share, whatever was done before."""
    print("\nOne value more of one factor at a time (new configurations, seconds of each sweep):")
    _run(work, "index")
    values: list[int] = []
    for value in (3, 4, 5, 6, 8):
        values.append(value)
        write_specification(
            work / "curve.yaml",
            {"retrieval.k": list(values), "reader.max_sentences": [1, 2]},
            cache="curve/stages",
            results="curve/sweeps",
            baseline={"retrieval.k": 3, "reader.max_sentences": 1},
        )
        seconds = _timed(work, "sweep", "curve.yaml", "--no-mlflow")
        print(f"  k in {values!s:<16} {2 * len(values):>3} configurations, 2 new   {seconds:6.1f} s")


def _print_scoring() -> None:
    """10,000 questions with 100 retrieved documents each."""
    from eval.metrics import Observation, RetrievedDocument, default_metrics, score_questions
    from eval.questions import GoldItem, Question

    questions = [Question(f"q{n}", f"question {n}?", ((GoldItem(f"d{n % 150}"),),)) for n in range(10_000)]
    retrieved = tuple(RetrievedDocument(f"d{rank}", f"d{rank}#0", 1 / (rank + 1)) for rank in range(100))
    observations = {question.id: Observation(retrieved=retrieved) for question in questions}
    metrics = [metric for metric in default_metrics() if metric.is_ranking and not metric.passage_level]
    started = time.perf_counter()
    score_questions(questions, observations, metrics)
    seconds = time.perf_counter() - started
    print(
        f"\n10,000 questions x 100 passages, {len(metrics)} ranking metrics: {seconds:.1f} s   (allowed: 3)"
    )


def _print_memory(work: Path, data: Path | None) -> None:
    """5,000 questions, 10 configurations: the largest resident size of the process."""
    if data is None:
        print("\nMemory was not measured: give a BEIR directory with 5,000 questions with --data.")
        return
    write_specification(
        work / "memory.yaml",
        {"retrieval.k": [1, 2, 3, 5, 10], "reader.max_sentences": [1, 2]},
        set={
            "corpus.path": str(data.resolve()),
            "evaluation.dataset": str(data.resolve()),
            "evaluation.limit": 5_000,
            "reader.kind": "extractive",
            "retrieval.index": "index",
        },
    )
    _run(work, "index", "--corpus", str(data.resolve()), "--index", "index")
    seconds = _timed(work, "sweep", "memory.yaml", "--no-mlflow")
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(
        f"\n5,000 questions x 10 configurations: {largest:,.0f} MB at most (allowed: 2,000), {seconds:.0f} s"
    )


def _timed(work: Path, *arguments: str) -> float:
    started = time.perf_counter()
    _run(work, *arguments)
    return time.perf_counter() - started


def _run(work: Path, *arguments: str) -> None:
    done = subprocess.run([CITEQA, *arguments], cwd=work, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"citeqa {' '.join(arguments)}\n{done.stderr[-2000:]}")


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="a BEIR directory with qrels/test.tsv")
    return parser.parse_args()


if __name__ == "__main__":
    main()
