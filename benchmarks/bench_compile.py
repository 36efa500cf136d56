"""`citeqa compile` beside the bare DSPy optimizer: calls of the language model, and wall time, for the same budget.

python benchmarks/bench_compile.py

The language model is the rule-following one of the tests, a process of its own on loopback, which takes 20 ms for each
answer. Both optimize the same program over the same collection with the same metric and sizes. Ours also records every
call; the choice on dev and the check on test that follow are counted apart.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ |= {
    "OPENAI_API_KEY": "none",
    "LITELLM_LOCAL_MODEL_COST_MAP": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DSPY_CACHEDIR": tempfile.mkdtemp(),
}

import dspy
import yaml

from eval.compiling.metering import Meter
from eval.compiling.run import compile_program
from eval.compiling.specification import CompileSpecification, Limits, parse_specification
from eval.compiling.splits import read_splits
from eval.compiling.task import CompileTask
from eval.compiling.workshop import open_workshop
from program.content_store import ContentStore
from program.settings import load_settings
from retrieval.local_index import LocalIndex
from retrieval.types import Document

MODEL = Path(__file__).parents[1] / "tests/eval/compiling/rule_following_model.py"
SIZES = {"num_candidate_programs": 4, "max_bootstrapped_demos": 3, "max_labeled_demos": 3}
ALLOWED = 1.1


def main() -> None:
    """Print calls and seconds of both, and their ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="taken for the sake of `make bench`; not used here")
    parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, _model() as url:
        os.chdir(folder)
        specification = _prepare(Path(folder), url)
        bare_calls, bare_s = _bare(specification, url)
        ours_calls, ours_s, all_calls = _ours(specification, url)
    print(f"BootstrapFewShotWithRandomSearch, {SIZES}")
    print(f"  bare DSPy       {bare_calls:6,} calls {bare_s:8.1f} s")
    print(
        f"  citeqa compile  {ours_calls:6,} calls {ours_s:8.1f} s   x {ours_calls / bare_calls:.2f} calls (allowed: 1)"
    )
    print(
        f"  wall time x {ours_s / bare_s:.2f} (allowed: {ALLOWED}); "
        f"choosing and the final check: {all_calls - ours_calls:,} calls"
    )


def _prepare(folder: Path, url: str) -> CompileSpecification:
    sys.path.append(str(MODEL.parent))
    import synthetic_task

    documents = (
        Document(row["doc_uri"], row["text"], row["title"], row["lang"]) for row in synthetic_task.corpus()
    )
    LocalIndex.build(folder / "index", documents)
    synthetic_task.write_questions(folder / "quiz.jsonl")
    settings = {
        "retrieval": {"index": str(folder / "index")},
        "language_model": {"model": "openai/rules", "api_base": url, "num_retries": 0},
        "evaluation": {"dataset": str(folder / "quiz.jsonl"), "threads": 4},
    }
    (folder / "agent.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    optimizer = {"name": "BootstrapFewShotWithRandomSearch", **SIZES}
    return parse_specification({"config": "agent.yaml", "optimizer": optimizer}, "bench")


def _bare(specification: CompileSpecification, url: str) -> tuple[int, float]:
    """The optimizer as DSPy's documentation calls it, with DSPy's own cache."""
    _post(url, "forget")
    with _task(specification, "bare.db") as task:
        optimizer = dspy.BootstrapFewShotWithRandomSearch(
            metric=task.metric, num_threads=task.threads, max_errors=task.max_errors, **SIZES
        )
        lm = dspy.LM("openai/rules", api_base=url, num_retries=0, max_tokens=1000, temperature=None)
        started = time.perf_counter()
        with (
            dspy.context(lm=lm),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            optimizer.compile(task.program, trainset=list(task.train), valset=list(task.validation))
        return _counts(url), time.perf_counter() - started


def _ours(specification: CompileSpecification, url: str) -> tuple[int, float, int]:
    """The optimizer within `citeqa compile`: its calls and seconds, and all calls with the choice and the check."""
    from eval.compiling.optimizers import parse_optimizer

    _post(url, "forget")
    with _task(specification, "build/stages/stages.db") as task:
        optimizer = parse_optimizer(specification.optimizer, "bench")
        started = time.perf_counter()
        optimizer.run(task, lambda candidate: None)
        seconds = time.perf_counter() - started
    calls = _counts(url)
    compile_program(specification)
    return calls, seconds, _counts(url)


@contextlib.contextmanager
def _task(specification: CompileSpecification, store: str) -> Iterator[CompileTask]:
    settings = load_settings(specification.config)
    splits = read_splits(settings.evaluation.dataset)
    with (
        ContentStore(Path(store)) as kept,
        open_workshop(specification, settings, splits, kept, Meter(Limits()), "bench") as workshop,
    ):
        yield workshop.task


@contextlib.contextmanager
def _model() -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, str(MODEL), "--delay-ms", "20"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.wait(10)


def _counts(url: str) -> int:
    with urllib.request.urlopen(f"{url.removesuffix('/v1')}/counts") as answer:
        body: dict[str, Any] = json.load(answer)
    return int(body["task"]) + int(body["meta"])


def _post(url: str, what: str) -> None:
    request = urllib.request.Request(f"{url.removesuffix('/v1')}/{what}", data=b"{}", method="POST")
    urllib.request.urlopen(request).close()


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    main()
