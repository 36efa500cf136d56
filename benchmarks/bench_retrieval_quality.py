"""Retrieval quality on a BEIR directory and on the sample's questions: each mode beside its peers, in one run.

python benchmarks/bench_retrieval_quality.py --data path/to/beir
python benchmarks/bench_retrieval_quality.py --data path/to/beir --embedder path/to/model --reranker path/to/model

Where queries.jsonl has `answers`, the extractive reader is measured, too: how often the one or two sentences
that it chooses contain one of them.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import tempfile
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
import Stemmer
from numpy.typing import NDArray

from eval.ground_truth import read_ground_truth
from eval.paired import compare_paired
from program.extractive import ExtractiveReader, ExtractiveSettings
from retrieval.chunking import ChunkingSettings
from retrieval.corpus import ReadingSettings, read_documents
from retrieval.embedders import Embedder, EmbedderConfig, open_embedder
from retrieval.local_index import LocalIndex
from retrieval.local_retriever import LocalRetriever, RankingSettings
from retrieval.ranking.cross_encoder import open_reranker
from retrieval.types import Document, Passage

K = 10
READ = 5
SAMPLE = Path(__file__).parents[1] / "datasets" / "agent_docs"
Search = Callable[[str], Sequence[Passage]]
Row = tuple[str, ...]


@dataclass(frozen=True)
class Judged:
    """A question with the grades of documents, and the answers that are right where the data has some."""

    text: str
    gold: Mapping[str, int]
    answers: Sequence[str] = ()


def main() -> None:
    """Print the tables."""
    arguments = _parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        embedder = None
        if arguments.embedder:
            embedder = open_embedder(EmbedderConfig(arguments.embedder, cache=Path(folder) / "vectors.db"))
        if arguments.data:
            documents = list(read_documents(arguments.data, ReadingSettings(layout="beir")))
            questions = _read_questions(arguments.data, arguments.questions)
            whole = ChunkingSettings(max_tokens=1_000_000, overlap_tokens=0)
            LocalIndex.build(Path(folder) / "data", documents, chunking=whole, embedder=embedder)
            modes = _modes(LocalIndex.open(Path(folder) / "data"), embedder, arguments.reranker)
            print(f"{arguments.data.name}: {len(documents):,} documents, {len(questions):,} questions\n")
            _print_table(_ranking_rows(modes, documents, questions))
            if any(question.answers for question in questions):
                print(
                    f"\nExtractive reader: share whose answer is in the sentences chosen of {READ} passages\n"
                )
                _print_table(_reading_rows(modes, questions, embedder))
        else:
            print("No collection was measured: give a BEIR directory with --data.\n")
        LocalIndex.build(Path(folder) / "sample", read_documents(SAMPLE / "docs"), embedder=embedder)
        modes = _modes(LocalIndex.open(Path(folder) / "sample"), embedder, arguments.reranker)
        print(f"\nThe sample, split {arguments.split}: recall@5\n")
        _print_table(_sample_rows(modes, arguments.split))


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="a BEIR directory with qrels/test.tsv")
    parser.add_argument("--embedder", help="an embedding model: a directory with ONNX, or a name")
    parser.add_argument("--reranker", help="a directory with a cross-encoder in ONNX")
    parser.add_argument("--questions", type=int, default=2_000, help="at most so many of the collection")
    parser.add_argument("--split", default="dev", help="of the sample")
    return parser.parse_args()


def _modes(index: LocalIndex, embedder: Embedder | None, reranker: str | None) -> dict[str, LocalRetriever]:
    """What is measured, by name."""
    modes = {
        "lexical (words alone)": LocalRetriever(index, RankingSettings(mode="lexical", letters_weight=0)),
        "default without a model": LocalRetriever(index),
    }
    if embedder is not None:
        for name, settings in {
            "dense": RankingSettings(mode="dense", letters_weight=0),
            "hybrid, ranks": RankingSettings(mode="hybrid", fusion="rrf", letters_weight=0),
            "hybrid, scores": RankingSettings(mode="hybrid", letters_weight=0),
            "default with a model": RankingSettings(),
        }.items():
            modes[name] = LocalRetriever(index, settings, embedder=embedder)
    if reranker is not None:
        modes["default, reranked"] = LocalRetriever(
            index, embedder=embedder, reranker=open_reranker(reranker)
        )
    return modes


def _ranking_rows(
    modes: Mapping[str, LocalRetriever], documents: Sequence[Document], questions: Sequence[Judged]
) -> Iterator[Row]:
    yield ("ranking", f"nDCG@{K}", "p50 ms", "against the best part or peer", "95 % interval", "p")
    scores = {"bm25s, stemmed": _ndcg_of(bm25s_search(documents), questions)}
    yield "bm25s, stemmed", f"{scores['bm25s, stemmed'][0].mean():.4f}", "", "", "", ""
    for name, retriever in modes.items():
        scores[name] = _ndcg_of(lambda q, r=retriever: [p.doc_uri for p in r.search(q, K)], questions)
        values, p50 = scores[name]
        peer = max(_peers(name, scores), key=lambda other: scores[other][0].mean())
        pair = compare_paired("ndcg", scores[peer][0], values)
        assert pair is not None
        low, high = pair.difference.low, pair.difference.high
        against = f"{pair.difference.mean:+.4f} (x {values.mean() / scores[peer][0].mean():.3f}) {peer}"
        yield (
            name,
            f"{values.mean():.4f}",
            f"{p50:.2f}",
            against,
            f"{low:+.4f} to {high:+.4f}",
            f"{pair.p_value:.4f}",
        )


def _peers(name: str, scores: Mapping[str, Any]) -> list[str]:
    """What a ranking has to be better than: its parts, or plain BM25."""
    parts = ["lexical (words alone)", "dense"] if name not in ("lexical (words alone)", "dense") else []
    return [part for part in parts if part in scores] or ["bm25s, stemmed"]


def _ndcg_of(
    search: Callable[[str], Sequence[str]], questions: Sequence[Judged]
) -> tuple[NDArray[np.float64], float]:
    values, times = [], []
    for question in questions:
        started = time.perf_counter()
        ranking = search(question.text)
        times.append(1e3 * (time.perf_counter() - started))
        ideal = sorted(question.gold.values(), reverse=True)[:K]
        values.append(_dcg([question.gold.get(uri, 0) for uri in ranking]) / _dcg(ideal))
    return np.array(values), float(np.median(times))


def _dcg(grades: Sequence[int]) -> float:
    return sum(grade / math.log2(rank + 2) for rank, grade in enumerate(grades))


def bm25s_search(documents: Sequence[Document]) -> Callable[[str], list[str]]:
    stemmer = Stemmer.Stemmer("english")

    def tokenize(texts: list[str]) -> object:
        return bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, show_progress=False)

    engine = bm25s.BM25(method="lucene")
    engine.index(tokenize([f"{d.title}\n{d.text}" for d in documents]), show_progress=False)
    k = min(K, len(documents))

    def search(question: str) -> list[str]:
        numbers, _ = engine.retrieve(tokenize([question]), k=k, show_progress=False)
        return [documents[number].doc_uri for number in numbers[0]]

    return search


def _reading_rows(
    modes: Mapping[str, LocalRetriever], questions: Sequence[Judged], embedder: Embedder | None
) -> Iterator[Row]:
    yield "retrieval", "scoring", "one sentence", "two sentences", "in the passages at all"
    asked = [question for question in questions if question.answers]
    for name in ("default without a model", "default with a model"):
        if name not in modes:
            continue
        retriever = modes[name]
        found = [retriever.search(question.text, READ) for question in asked]
        ceiling = _share(asked, [" ".join(p.text for p in passages) for passages in found])
        for scoring in ("overlap", "embedding", "both") if embedder is not None else ("overlap",):
            shares = []
            for sentences in (1, 2):
                settings = ExtractiveSettings(
                    max_sentences=sentences,
                    abstain_below=0,
                    next_sentence_ratio=0,
                    scoring=scoring,  # type: ignore[arg-type]
                )
                reader = ExtractiveReader(settings, weigh=retriever.idf, embedder=embedder)
                texts = [reader(q.text, passages).text for q, passages in zip(asked, found, strict=True)]
                shares.append(f"{_share(asked, texts):.3f}")
            yield name, scoring, *shares, f"{ceiling:.3f}"


def _share(questions: Sequence[Judged], texts: Sequence[str]) -> float:
    held = [
        any(_folded(answer) in _folded(re.sub(r" ?\[\d+\]", "", text)) for answer in question.answers)
        for question, text in zip(questions, texts, strict=True)
    ]
    return sum(held) / len(held)


def _folded(text: str) -> str:
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).lower()))


def _sample_rows(modes: Mapping[str, LocalRetriever], split: str) -> Iterator[Row]:
    truth = read_ground_truth(SAMPLE / "ground_truth.jsonl", split=split)
    asked = [question for question in truth.questions if question.gold]
    slices: dict[str, list[Any]] = {}
    for question in asked:
        kind = ", other language" if question.tags.get("type") == "cross_language" else ""
        slices.setdefault(f"{question.tags.get('lang')}{kind}", []).append(question)
    names = sorted(slices)
    yield "ranking", "all", *(f"{name} ({len(slices[name])})" for name in names)
    for mode, retriever in modes.items():
        recalls = {question.id: _recall(retriever, question) for question in asked}
        parts = [asked, *(slices[name] for name in names)]
        yield mode, *(f"{np.mean([recalls[q.id] for q in part]):.3f}" for part in parts)


def _recall(retriever: LocalRetriever, question: Any) -> float:
    """The share of what a question needs that is among the documents of its first five passages."""
    found = {passage.doc_uri for passage in retriever.search(question.question, READ)}
    return sum(any(item.doc_uri in found for item in part) for part in question.gold) / len(question.gold)


def _read_questions(data: Path, limit: int) -> list[Judged]:
    gold: dict[str, dict[str, int]] = {}
    for line in (data / "qrels" / "test.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        question_id, doc_uri, grade = line.split("\t")
        gold.setdefault(question_id, {})[doc_uri] = int(grade)
    rows = map(json.loads, (data / "queries.jsonl").read_text(encoding="utf-8").splitlines())
    judged = [row for row in rows if any(gold.get(row["_id"], {}).values())][:limit]
    return [Judged(row["text"], gold[row["_id"]], tuple(row.get("answers") or ())) for row in judged]


def _print_table(rows: Iterator[Row]) -> None:
    header, *body = rows
    widths = [max(len(row[column]) for row in (header, *body)) for column in range(len(header))]
    for row in (header, tuple("-" * width for width in widths), *body):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    main()
