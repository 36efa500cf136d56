"""The embedded index beside raw tantivy, in one run, on synthetic text: build, search and memory, as ratios.

python benchmarks/bench_retrieval.py
python benchmarks/bench_retrieval.py --passages 1000000       the same, ten times as much (ten minutes or more, 4 GB)

What it finds is measured by bench_retrieval_quality.py.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import pickle
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import tantivy

from retrieval import Document
from retrieval.analysis import analyze_words, word_analyzer
from retrieval.corpus import read_groups
from retrieval.local_index import LocalIndex

K = 10
WORDS_PER_PASSAGE = 100
QUESTIONS = 300
_STATUS = Path("/proc/self/status")
Search = Callable[[str], Sequence[str]]


def main() -> None:
    """Print one table."""
    arguments = _parse_arguments()
    rows: list[tuple[str, str, str, str, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        for count in arguments.passages:
            rows += _compare_speed(Path(folder) / str(count), count)
    _print_table(rows)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="taken for the sake of `make bench`; not used here")
    parser.add_argument(
        "--passages", type=int, nargs="*", default=[5_000, 100_000], help="sizes of the index"
    )
    return parser.parse_args()


def _compare_speed(folder: Path, count: int) -> Iterator[tuple[str, str, str, str, str]]:
    """Building, searching and updating, each in a process of its own, so that memory is that of the work alone.

    The two indexes are asked in turn, so that both see the same machine.
    """
    folder.mkdir(parents=True)
    with (folder / "documents").open("wb") as file:
        pickle.dump(list(synthetic_documents(count)), file)
    size = f"{count:,} passages"

    def row(measure: str, ours: float, raw: float, digits: int = 0) -> tuple[str, str, str, str, str]:
        return size, measure, f"{ours:,.{digits}f}", f"{raw:,.{digits}f}", f"x {ours / raw:.2f}"

    ours, raw = (_alone(_build, folder, kind) for kind in ("ours", "raw"))
    yield row("build, seconds", ours.seconds, raw.seconds, 1)
    yield row("build, passages/s", count / ours.seconds, count / raw.seconds)
    yield row("build, memory, MB", ours.megabytes, raw.megabytes)
    ours_terms, raw_terms = (_megabytes_on_disk(folder / kind, texts=False) for kind in ("ours", "raw"))
    yield row("on disk without texts, MB", ours_terms, raw_terms, 1)
    ours_all, raw_all = (_megabytes_on_disk(folder / kind, texts=True) for kind in ("ours", "raw"))
    yield row("on disk, MB", ours_all, raw_all, 1)
    ours, raw = (_alone(_search_one, folder, kind) for kind in ("ours", "raw"))
    yield row("search, memory, MB", ours.megabytes, raw.megabytes)
    yield row("search p50, ms", *_alone(_search_both, folder), 3)
    whole, unchanged, changed = _alone(_reindex, folder, count)
    for measure, seconds in (("nothing changed", unchanged), ("1 % changed", changed)):
        yield (
            size,
            f"re-index, {measure}, seconds",
            f"{seconds:.2f}",
            f"{whole:.1f} (ours, all of it)",
            f"{seconds / whole:.1%}",
        )


def _alone(function: Callable[..., Any], *arguments: object) -> Any:
    """The function's result, from a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


@dataclass(frozen=True, slots=True)
class Cost:
    """What something took; memory is how far resident memory grew at most."""

    seconds: float
    megabytes: float


def _measure(action: Callable[[], object]) -> Cost:
    gc.collect()
    if not _STATUS.exists():  # not Linux
        return Cost(_seconds(action), math.nan)
    before = _resident()
    # From here on, the peak is that of the action.
    Path("/proc/self/clear_refs").write_text("5")
    seconds = _seconds(action)
    return Cost(seconds, (_resident(peak=True) - before) / 1e3)


def _resident(*, peak: bool = False) -> int:
    """Resident memory of this process in kB."""
    name = "VmHWM:" if peak else "VmRSS:"
    lines = _STATUS.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def _build(folder: Path, kind: str) -> Cost:
    with (folder / "documents").open("rb") as file:
        documents = pickle.load(file)
    build = LocalIndex.build if kind == "ours" else build_raw
    return _measure(lambda: build(folder / kind, documents))


def _search_one(folder: Path, kind: str) -> Cost:
    questions = list(synthetic_questions(QUESTIONS))

    def search() -> None:
        index = _open(folder, kind)
        for question in questions:
            index.search(question, K)

    return _measure(search)


def _search_both(folder: Path) -> tuple[float, float]:
    """Medians in milliseconds."""
    indexes = [_open(folder, kind) for kind in ("ours", "raw")]
    taken: list[list[float]] = [[], []]
    for question in synthetic_questions(QUESTIONS):
        for index, times in zip(indexes, taken, strict=True):
            times.append(1e3 * _seconds(partial(index.search, question, K)))
    ours, raw = map(statistics.median, taken)
    return ours, raw


def _open(folder: Path, kind: str) -> Any:
    return LocalIndex.open(folder / kind) if kind == "ours" else RawTantivy(folder / kind)


def _megabytes_on_disk(folder: Path, *, texts: bool) -> float:
    files = (file for file in folder.rglob("*") if file.is_file() and (texts or file.suffix != ".store"))
    return sum(file.stat().st_size for file in files) / 1e6


def _reindex(folder: Path, count: int) -> tuple[float, float, float]:
    """Seconds to index a file of JSON Lines, again, and with every hundredth line changed."""
    corpus, index = folder / "corpus.jsonl", folder / "living"

    def write(changed: int) -> None:
        with corpus.open("w") as file:
            for number, document in enumerate(synthetic_documents(count)):
                text = document.text if not changed or number % changed else f"Now {document.text}"
                line = {"_id": document.doc_uri, "title": document.title, "text": text}
                file.write(json.dumps(line) + "\n")

    def sync() -> float:
        return _seconds(lambda: LocalIndex.sync(index, read_groups(corpus)))

    write(0)
    whole, unchanged = sync(), sync()
    write(100)
    return whole, unchanged, sync()


def _seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def synthetic_documents(count: int, seed: int = 0) -> Iterator[Document]:
    """Documents of one passage of about 100 words with Zipf's frequencies, the same for the same seed."""
    draw = _zipf_words(seed)
    for number in range(count):
        words = draw(WORDS_PER_PASSAGE)
        sentences = (" ".join(words[i : i + 20]).capitalize() + "." for i in range(0, len(words), 20))
        yield Document(
            f"https://example.org/{number}", " ".join(sentences), title=" ".join(words[:4]), lang="en"
        )


def synthetic_questions(count: int, seed: int = 1) -> Iterator[str]:
    """Questions of eight words drawn as the documents are, with function words as people use them."""
    draw = _zipf_words(seed)
    for _ in range(count):
        yield f"how is the {' '.join(draw(5))} of a {' '.join(draw(3))}?"


def _zipf_words(seed: int, vocabulary: int = 50_000) -> Callable[[int], list[str]]:
    generator = random.Random(seed)
    letters = random.Random(42)
    words = [
        "".join(letters.choices("abcdefghijklmnoprstuvw", k=letters.randint(3, 9))) for _ in range(vocabulary)
    ]
    weights = list(accumulate(1 / rank for rank in range(1, vocabulary + 1)))
    return lambda count: generator.choices(words, cum_weights=weights, k=count)


def build_raw(folder: Path, documents: Iterable[Document]) -> None:
    """The least that tantivy needs for the same text: one field, the same tokenizer, the stored text."""
    folder.mkdir(parents=True)
    builder = tantivy.SchemaBuilder()
    builder.add_text_field("words", tokenizer_name="words", index_option="freq")
    builder.add_bytes_field("record", stored=True)
    index = tantivy.Index(builder.build(), path=str(folder))
    index.register_tokenizer("words", word_analyzer())
    writer = index.writer(128_000_000, 1)
    for document in documents:
        entry = tantivy.Document()
        entry.add_text("words", f"{document.title}\n{document.text}")
        entry.add_bytes("record", json.dumps([document.doc_uri, document.text]).encode())
        writer.add_document(entry)
    writer.commit()
    writer.wait_merging_threads()


class RawTantivy:
    """Any of a question's words, and the stored texts of the best."""

    def __init__(self, folder: Path) -> None:
        index = tantivy.Index.open(str(folder))
        index.register_tokenizer("words", word_analyzer())
        self._schema, self._searcher = index.schema, index.searcher()

    def search(self, question: str, k: int) -> list[list[str]]:
        terms = dict.fromkeys(analyze_words(question))
        queries = [tantivy.Query.term_query(self._schema, "words", term, "freq") for term in terms]
        query = tantivy.Query.boolean_query([(tantivy.Occur.Should, one) for one in queries])
        hits = self._searcher.search(query, k, count=False).hits
        return [json.loads(self._searcher.doc(address).get_first("record")) for _, address in hits]


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    header = ("corpus", "measure", "citeqa", "peer (raw tantivy)", "ratio")
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    for row in (header, ["-" * width for width in widths], *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    main()
