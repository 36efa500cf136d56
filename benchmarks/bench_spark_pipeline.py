"""The corpus pipeline on local Spark beside the local index: documents a second, and what a run costs after it.

python benchmarks/bench_spark_pipeline.py                       5,000 files, and 25,000 lines of JSON Lines
python benchmarks/bench_spark_pipeline.py --documents 20000

Each corpus is made up: Markdown of some 200 words with two headings. Spark is started beforehand, and its start told
apart: a cluster has it ready. The local path makes a tantivy index, Spark a Delta table; reading, cutting and comparing
are the same code.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from program.indexing import index_corpus
from program.settings import Settings, load_settings
from program.spark.corpus.run import index_on_spark
from program.spark.session import open_spark

WORDS = [
    f"{stem}{ending}"
    for stem in ("pump", "valve", "heat", "flow", "seal")
    for ending in ("", "s", "ing", "ed")
]


def main() -> None:
    """Print one table for each corpus."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=5_000, help="files; five times as many lines")
    parser.add_argument("--data", help="ignored: the corpora are made up")
    documents = parser.parse_args().documents
    started = time.perf_counter()
    open_spark()
    print(f"Spark starts in {time.perf_counter() - started:.1f} s; {os.cpu_count()} cores\n")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        os.chdir(work)
        _compare("files", _write_files(work / "docs", documents), documents, _touch_file)
        _compare("lines", _write_lines(work / "corpus.jsonl", 5 * documents), 5 * documents, _change_lines)


def _compare(kind: str, corpus: Path, count: int, change: Callable[[Path, int], None]) -> None:
    settings = load_settings(
        None,
        [
            f"corpus.path={corpus}",
            "corpus.base_url=https://e.org/",
            f"pipeline.table={Path.cwd() / f'table-{kind}'}",
            f"retrieval.index={Path.cwd() / f'index-{kind}'}",
        ],
        {},
    )
    runs: dict[str, Callable[[Settings], object]] = {
        "local index": index_corpus,
        "Spark and Delta": index_on_spark,
    }
    print(f"{count:,} {kind:<12} first run     documents/s   unchanged again   1 % changed")
    times = {name: [_seconds(run, settings), _seconds(run, settings)] for name, run in runs.items()}
    change(corpus, count)
    for name, run in runs.items():
        first, again = times[name]
        changed = _seconds(run, settings)
        print(
            f"{name:<20} {first:8.1f} s {count / first:13,.0f}   {again:7.2f} s ({100 * again / first:.1f} %)"
            f"   {changed:7.2f} s ({100 * changed / first:.0f} %)"
        )
    print()


def _seconds(run: Callable[[Settings], object], settings: Settings) -> float:
    started = time.perf_counter()
    run(settings)
    return time.perf_counter() - started


def _text(number: int) -> str:
    dice = random.Random(number)
    sentences = [" ".join(dice.choices(WORDS, k=10)).capitalize() + "." for _ in range(20)]
    return f"# Document {number}\n\n{' '.join(sentences[:8])}\n\n## More\n\n{' '.join(sentences[8:])}\n"


def _write_files(folder: Path, count: int) -> Path:
    before = time.time() - 3600  # what is seconds old is not yet taken for unchanged
    for number in range(count):
        file = folder / str(number % 100) / f"{number}.md"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(_text(number))
        os.utime(file, (before, before))
    return folder


def _touch_file(folder: Path, count: int) -> None:
    for number in range(0, count, 100):
        (folder / str(number % 100) / f"{number}.md").write_text(_text(number + count))


def _write_lines(file: Path, count: int, changed: bool = False) -> Path:
    with file.open("w") as lines:
        for number in range(count):
            text = _text(number + count if changed and number % 100 == 0 else number)
            lines.write(json.dumps({"_id": str(number), "text": text}) + "\n")
    return file


def _change_lines(file: Path, count: int) -> None:
    _write_lines(file, count, changed=True)


if __name__ == "__main__":
    main()
