"""What our retriever adds to Databricks' own client, against a workspace on loopback that takes 30 ms for a search.

python benchmarks/bench_vector_search.py [--callers 32] [--searches 2000]

Both ask the same questions of the same index, by turns, so that a busy machine is busy for both.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from program.settings import Settings
from program.vector_search import open_vector_search

ROOT = Path(__file__).resolve().parents[1]
INDEX = "main.bench.passages_index"
K = 5
ROUNDS = 6
Search = Callable[[str], object]

SERVER = f"""
import json, sys, time
sys.path.insert(0, {str(ROOT / "tests/support")!r})
from fake_workspace import FakeWorkspace
text = "Passage %d tells of topic %d. " + "It says what is to be said of it. " * 25
rows = [dict(chunk_id=str(n), doc_uri=f"https://e.org/{{n}}", title=f"Page {{n}}", lang="en",
             start_char=0, end_char=900, text=text % (n, n % 7))
        for n in range(40)]
with FakeWorkspace() as fake:
    fake.vector_search.add_index({INDEX!r}, rows)
    print(fake.url, fake.identity.add_token("ann"), flush=True)
    fake._wire.latency_s = float(sys.argv[1])
    sys.stdin.read()
"""


def main() -> None:
    """Print one table."""
    arguments = _parse_arguments()
    with _workspace(arguments.search_ms / 1000):
        searches = {"databricks-ai-search": _bare(), "citeqa": _ours()}
        for callers in sorted({1, arguments.callers}):
            _compare(searches, callers, arguments)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--callers", type=int, default=32)
    parser.add_argument("--searches", type=int, default=2000, help="of each, for all callers together")
    parser.add_argument("--search-ms", type=float, default=30, help="what the workspace takes for one")
    parser.add_argument("--data", help="for the other benchmarks")
    return parser.parse_args()


@contextmanager
def _workspace(search_s: float) -> Iterator[None]:
    """In a process of its own, so that it and its callers do not wait for one interpreter."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, str(search_s)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        os.environ["DATABRICKS_HOST"], os.environ["DATABRICKS_TOKEN"] = server.stdout.readline().split()
        yield
        server.stdin.close()


def _bare() -> Search:
    from databricks.ai_search.index import AISearchIndex

    index = AISearchIndex(
        workspace_url=os.environ["DATABRICKS_HOST"],
        index_url=None,
        name=INDEX,
        endpoint_name="vs",
        personal_access_token=os.environ["DATABRICKS_TOKEN"],
        use_user_passed_credentials=True,
    )
    columns = ["chunk_id", "text", "doc_uri", "title", "lang", "start_char", "end_char"]
    # With another number of retries than ours, it gets sessions that we have not touched.
    return lambda query: index.similarity_search(
        columns=columns,
        query_text=query,
        num_results=K,
        query_type="HYBRID",
        disable_notice=True,
        total_retries=2,
    )


def _ours() -> Search:
    section = {"backend": "vector_search", "vector_search": {"index": INDEX}}
    retriever = open_vector_search(Settings.model_validate({"retrieval": section}))
    return lambda query: retriever.search(query, K)


def _compare(searches: dict[str, Search], callers: int, arguments: argparse.Namespace) -> None:
    each = max(5, min(25, arguments.searches // (ROUNDS * callers)))
    took: dict[str, list[float]] = {name: [] for name in searches}
    cpu: dict[str, float] = dict.fromkeys(searches, 0.0)
    wall: dict[str, float] = dict.fromkeys(searches, 0.0)
    for turn in range(ROUNDS + 1):
        for name, search in searches.items():
            began, began_cpu = time.perf_counter(), time.process_time()
            found = _ask(search, callers, each)
            if turn:  # the first opens connections
                took[name] += found
                cpu[name] += time.process_time() - began_cpu
                wall[name] += time.perf_counter() - began
    print(f"\n{callers} caller{'s' * (callers > 1)}, {arguments.search_ms:g} ms a search, k = {K}")
    print(f"{'':24}{'p50 ms':>9}{'p95 ms':>9}{'searches/s':>12}{'CPU ms a search':>17}")
    for name, times in took.items():
        rate, processor = len(times) / wall[name], 1000 * cpu[name] / len(times)
        print(f"{name:24}{_at(times, 50):9.1f}{_at(times, 95):9.1f}{rate:12.0f}{processor:17.2f}")
    bare, ours = took.values()
    print(f"added at p50: {_at(ours, 50) - _at(bare, 50):.1f} ms")


def _ask(search: Search, callers: int, each: int) -> list[float]:
    """The seconds of each search, when so many threads ask one after another."""
    took: list[float] = []
    ready = threading.Barrier(callers)

    def work(number: int) -> None:
        mine = []
        ready.wait()
        for turn in range(each):
            began = time.perf_counter()
            search(f"what does passage {number} tell of topic {turn}")
            mine.append(time.perf_counter() - began)
        took.extend(mine)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return took


def _at(seconds: list[float], percent: int) -> float:
    return 1000 * statistics.quantiles(seconds, n=100)[percent - 1]


if __name__ == "__main__":
    main()
