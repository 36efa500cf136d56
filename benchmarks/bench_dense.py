"""Vectors in the index beside faiss's flat index and numpy, in one run; and what they add to finding by words.

python benchmarks/bench_dense.py                                      speed and recall, on made-up vectors
python benchmarks/bench_dense.py --model MODEL --data path/to/beir    and nDCG@10 of words, vectors and both
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from retrieval.chunking import ChunkingSettings
from retrieval.corpus import read_documents
from retrieval.documents.reading import ReadingSettings
from retrieval.embedders import EmbedderConfig, open_embedder
from retrieval.local_index import Hit, LocalIndex
from retrieval.types import Document
from retrieval.vectors import FILES

K = 10
CANDIDATES = 100
DIMENSION = 384
QUESTIONS = 200
Vectors = NDArray[np.float32]
Row = tuple[str, str, str, str, str]


def main() -> None:
    """Print one table."""
    arguments = _parse_arguments()
    # A server answers several questions at once: what one costs is what one processor needs for it.
    faiss.omp_set_num_threads(1)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for count in arguments.vectors:
            rows += _compare_speed(Path(folder) / str(count), count)
        if arguments.data and arguments.model:
            rows += _compare_quality(Path(folder) / "quality", arguments)
    _print_table(rows)
    if not (arguments.data and arguments.model):
        print(
            "\nQuality was not measured: give an embedding model with --model and a BEIR directory with --data."
        )


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="an embedding model, as embedder.model names it")
    parser.add_argument("--data", type=Path, help="a BEIR directory with qrels/test.tsv")
    parser.add_argument(
        "--vectors", type=int, nargs="*", default=[10_000, 100_000], help="for the speed part"
    )
    parser.add_argument("--questions", type=int, default=2_000, help="at most so many for the quality part")
    parser.add_argument("--cache", type=Path, help="keep vectors of the model here")
    return parser.parse_args()


def _compare_speed(folder: Path, count: int) -> Iterator[Row]:
    """Build, search, recall, memory and disk; the three are asked in turn, so that all see the same machine."""
    size = f"{count:,} x {DIMENSION}"
    vectors, questions = synthetic_vectors(count)
    documents = [Document(f"https://example.org/{number}", str(number)) for number in range(count)]
    words_s = _seconds(lambda: LocalIndex.build(folder / "words", documents))
    both_s = _seconds(lambda: LocalIndex.build(folder / "both", documents, embedder=_Given(vectors)))
    flat = faiss.IndexFlatIP(DIMENSION)
    flat_s = _seconds(lambda: flat.add(vectors))
    before = _resident_mb()
    index = LocalIndex.open(folder / "both")
    index.dense_hits(questions[0], K)
    grown_mb = _resident_mb() - before
    ours_ms, flat_ms, numpy_ms, filtered_ms = [], [], [], []
    found, hundred = [], []
    exact = np.stack([np.argsort(-(vectors @ question))[:CANDIDATES] for question in questions])
    # Warm: pages of the file are mapped when they are first touched, and what a filter leaves is found out once.
    for question in questions:
        index.dense_hits(question, CANDIDATES, {"doc_uri NOT": "x"})
    for question in questions:
        ours_ms.append(_milliseconds(lambda: found.append(index.dense_hits(question, K))))  # noqa: B023
        flat_ms.append(_milliseconds(lambda: flat.search(question[None], K)))  # noqa: B023
        numpy_ms.append(_milliseconds(lambda: _nearest(vectors, question)))  # noqa: B023
        filtered_ms.append(_milliseconds(lambda: index.dense_hits(question, K, {"doc_uri NOT": "x"})))  # noqa: B023
        hundred.append(index.dense_hits(question, CANDIDATES))
    ours, peer, plain = (statistics.median(times) for times in (ours_ms, flat_ms, numpy_ms))
    generation = folder / "both" / index.manifest.generation
    disk_mb = sum((generation / name).stat().st_size for name in FILES if (generation / name).exists()) / 1e6
    yield size, "build, s more than words alone", f"{both_s - words_s:.1f}", f"{flat_s:.1f} (faiss flat)", ""
    yield (
        size,
        "search p50, ms of a processor",
        f"{ours:.2f}",
        f"{peer:.2f} (faiss flat)",
        f"time x {ours / peer:.2f}",
    )
    yield (
        size,
        "search p50, ms of a processor",
        f"{ours:.2f}",
        f"{plain:.2f} (numpy)",
        f"time x {ours / plain:.2f}",
    )
    yield size, "under a filter p50, ms of a processor", f"{statistics.median(filtered_ms):.2f}", "", ""
    yield size, f"recall@{K}", f"{_recall(index, found, exact[:, :K]):.4f}", "1 (exact)", ""
    yield size, f"recall@{CANDIDATES}", f"{_recall(index, hundred, exact):.4f}", "1 (exact)", ""
    yield size, "resident growth, MB", f"{grown_mb:.0f}", f"{vectors.nbytes / 1e6:.0f}", ""
    yield size, "disk, MB", f"{disk_mb:.0f}", f"{vectors.nbytes / 1e6:.0f}", ""


class _Given:
    """An embedder whose texts are the numbers of their vectors."""

    name = fingerprint = "given"
    truncated = 0
    dimension = DIMENSION

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = vectors

    def embed_passages(self, texts: Sequence[str]) -> Vectors:
        return self._vectors[[int(text) for text in texts]]

    def embed_query(self, text: str) -> Vectors:
        return self._vectors[int(text)]


def synthetic_vectors(count: int, seed: int = 0) -> tuple[Vectors, Vectors]:
    """Unit vectors with topics, and questions near some: some 100 dimensions matter, as in embeddings of text."""
    generator = np.random.default_rng(seed)
    spread = generator.standard_normal((DIMENSION, DIMENSION)) * (1 + np.arange(DIMENSION)) ** -0.5
    topics = generator.standard_normal((max(count // 50, 1), DIMENSION)).astype(np.float32)

    def draw(some: int) -> Vectors:
        around = topics[generator.integers(0, len(topics), some)]
        vectors = (around + generator.standard_normal(around.shape)) @ spread.T
        unit: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        return unit

    return np.concatenate([draw(min(50_000, count - start)) for start in range(0, count, 50_000)]), draw(
        QUESTIONS
    )


def _nearest(vectors: Vectors, question: Vectors) -> NDArray[np.int64]:
    scores = vectors @ question
    best = np.argpartition(-scores, K)[:K]
    return best[np.argsort(-scores[best])]


def _recall(index: LocalIndex, found: Sequence[Sequence[Hit]], exact: NDArray[np.int64]) -> float:
    shares = []
    for hits, expected in zip(found, exact.tolist(), strict=True):
        numbers = {int(passage.text) for passage in index.passages(hits)}
        shares.append(len(numbers & set(expected)) / len(expected))
    return statistics.fmean(shares)


def _compare_quality(folder: Path, arguments: argparse.Namespace) -> Iterator[Row]:
    """nDCG@10 of documents as single passages; both are fused by half, normalized over a hundred of each."""
    documents = list(read_documents(arguments.data, ReadingSettings(layout="beir")))
    embedder = open_embedder(EmbedderConfig(arguments.model, cache=arguments.cache))
    whole = ChunkingSettings(max_tokens=1_000_000, overlap_tokens=0)
    seconds = _seconds(lambda: LocalIndex.build(folder, documents, chunking=whole, embedder=embedder))
    index = LocalIndex.open(folder)
    scores: dict[str, list[float]] = {"words": [], "vectors": [], "both": []}
    query_ms, dense_ms = [], []
    for question, gold in _judged(arguments.data, arguments.questions):
        started = time.process_time()
        vector = embedder.embed_query(question)
        query_ms.append(1e3 * (time.process_time() - started))
        words = _normalized(index.lexical_hits(question, CANDIDATES))
        dense_ms.append(_milliseconds(lambda: index.dense_hits(vector, CANDIDATES)))  # noqa: B023
        vectors = _normalized(index.dense_hits(vector, CANDIDATES))
        both = {key: words.get(key, 0) + vectors.get(key, 0) for key in words.keys() | vectors.keys()}
        for name, fused in (("words", words), ("vectors", vectors), ("both", both)):
            best = sorted(fused, key=lambda key: (-fused[key], key))[:K]
            found = index.passages([Hit(address, 0.0) for address in best])
            scores[name].append(_ndcg([passage.doc_uri for passage in found], gold))
    size = f"{arguments.data.name}, {len(documents):,}"
    means = {name: statistics.fmean(values) for name, values in scores.items()}
    for name in ("vectors", "both"):
        difference = [a - b for a, b in zip(scores[name], scores["words"], strict=True)]
        error = statistics.stdev(difference) / math.sqrt(len(difference))
        compared = f"{statistics.fmean(difference):+.4f} ± {1.96 * error:.4f}"
        yield size, f"nDCG@{K}, {name}", f"{means[name]:.4f}", f"{means['words']:.4f} (words)", compared
    yield size, "embedding, passages/s", f"{len(documents) / seconds:.1f}", "", f"{embedder.truncated} cut"
    yield size, "a question's vector p50, ms", f"{statistics.median(query_ms):.1f}", "", ""
    yield size, "search p50, ms of a processor", f"{statistics.median(dense_ms):.2f}", "", ""


def _judged(data: Path, limit: int) -> Iterator[tuple[str, dict[str, int]]]:
    gold: dict[str, dict[str, int]] = {}
    for line in (data / "qrels" / "test.tsv").read_text().splitlines()[1:]:
        question_id, doc_uri, grade = line.split("\t")
        gold.setdefault(question_id, {})[doc_uri] = int(grade)
    questions = map(json.loads, (data / "queries.jsonl").read_text().splitlines())
    judged = [(question["text"], gold[question["_id"]]) for question in questions if question["_id"] in gold]
    yield from judged[:limit]


def _normalized(hits: Sequence[Hit]) -> dict[int, float]:
    lowest, highest = min((h.score for h in hits), default=0.0), max((h.score for h in hits), default=1.0)
    return {hit.address: (hit.score - lowest) / ((highest - lowest) or 1.0) for hit in hits}


def _ndcg(ranking: Sequence[str], gold: dict[str, int]) -> float:
    ideal = sorted(gold.values(), reverse=True)[:K]
    return _dcg([gold.get(doc_uri, 0) for doc_uri in ranking]) / _dcg(ideal)


def _dcg(grades: Sequence[int]) -> float:
    return sum(grade / math.log2(rank + 2) for rank, grade in enumerate(grades))


def _seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def _milliseconds(action: Callable[[], object]) -> float:
    """Of a processor, whatever else the machine does meanwhile."""
    started = time.process_time()
    action()
    return 1e3 * (time.process_time() - started)


def _resident_mb() -> float:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 1e6
    except OSError:  # no Linux: the most that it ever was
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def _print_table(rows: Sequence[Row]) -> None:
    header = ("vectors", "measure", "citeqa", "peer", "ratio")
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    for row in (header, ["-" * width for width in widths], *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    main()
