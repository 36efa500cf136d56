"""The embedded index beside raw tantivy and bm25s, in one run: build, search and quality, as ratios.

python benchmarks/bench_retrieval.py                          speed, on synthetic text
python benchmarks/bench_retrieval.py --data path/to/beir      and quality, on a BEIR directory
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path

import bm25s
import Stemmer
import tantivy

from retrieval import Document
from retrieval.analysis import analyze_words, word_analyzer
from retrieval.chunking import ChunkingSettings
from retrieval.corpus import ReadingSettings, read_documents
from retrieval.local_index import LocalIndex

K = 10
WORDS_PER_PASSAGE = 100
QUESTIONS = 300
Search = Callable[[str], Sequence[str]]


def main() -> None:
    """Print one table."""
    arguments = _parse_arguments()
    rows: list[tuple[str, str, str, str, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        for count in arguments.passages:
            rows += _compare_speed(Path(folder) / str(count), count)
        if arguments.data:
            rows += _compare_quality(Path(folder) / "quality", arguments.data, arguments.questions)
    _print_table(rows)
    if not arguments.data:
        print("\nQuality was not measured: give a BEIR directory with --data.")


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="a BEIR directory with qrels/test.tsv")
    parser.add_argument(
        "--passages", type=int, nargs="*", default=[5_000, 100_000], help="sizes for the speed part"
    )
    parser.add_argument("--questions", type=int, default=2_000, help="at most so many for the quality part")
    return parser.parse_args()


def _compare_speed(folder: Path, count: int) -> Iterator[tuple[str, str, str, str, str]]:
    """Build rate and median search time, the two indexes asked in turn so that both see the same machine."""
    documents = list(synthetic_documents(count))
    ours_s = _seconds(lambda: LocalIndex.build(folder / "ours", documents))
    raw_s = _seconds(lambda: build_raw(folder / "raw", documents))
    index, raw = LocalIndex.open(folder / "ours"), RawTantivy(folder / "raw")
    ours_ms, raw_ms = [], []
    for question in synthetic_questions(QUESTIONS):
        ours_ms.append(1e3 * _seconds(lambda: index.search(question, K)))  # noqa: B023
        raw_ms.append(1e3 * _seconds(lambda: raw.search(question, K)))  # noqa: B023
    ours_p50, raw_p50 = statistics.median(ours_ms), statistics.median(raw_ms)
    size = f"{count:,} passages"
    yield (
        size,
        "build, passages/s",
        f"{count / ours_s:,.0f}",
        f"{count / raw_s:,.0f}",
        f"time x {ours_s / raw_s:.2f}",
    )
    yield size, "search p50, ms", f"{ours_p50:.3f}", f"{raw_p50:.3f}", f"time x {ours_p50 / raw_p50:.2f}"


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


def _compare_quality(folder: Path, data: Path, limit: int) -> Iterator[tuple[str, str, str, str, str]]:
    """nDCG@10 of documents as single passages, against bm25s with Lucene's formula and English stems."""
    documents = list(read_documents(data, ReadingSettings(layout="beir")))
    LocalIndex.build(folder, documents, chunking=ChunkingSettings(max_tokens=1_000_000, overlap_tokens=0))
    index = LocalIndex.open(folder)
    ours = _mean_ndcg(data, limit, lambda question: [p.doc_uri for p in index.search(question, K)])
    peer = _mean_ndcg(data, limit, bm25s_search(documents))
    yield (
        f"{data.name}, {len(documents):,}",
        f"nDCG@{K}",
        f"{ours:.4f}",
        f"{peer:.4f} (bm25s)",
        f"{ours - peer:+.4f}",
    )


def bm25s_search(documents: Sequence[Document]) -> Search:
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


def _mean_ndcg(data: Path, limit: int, search: Search) -> float:
    gold: dict[str, dict[str, int]] = {}
    for line in (data / "qrels" / "test.tsv").read_text().splitlines()[1:]:
        question_id, doc_uri, grade = line.split("\t")
        gold.setdefault(question_id, {})[doc_uri] = int(grade)
    questions = map(json.loads, (data / "queries.jsonl").read_text().splitlines())
    judged = [question for question in questions if question["_id"] in gold][:limit]
    return statistics.fmean(_ndcg(search(question["text"]), gold[question["_id"]]) for question in judged)


def _ndcg(ranking: Sequence[str], gold: dict[str, int]) -> float:
    ideal = sorted(gold.values(), reverse=True)[:K]
    return _dcg([gold.get(doc_uri, 0) for doc_uri in ranking]) / _dcg(ideal)


def _dcg(grades: Sequence[int]) -> float:
    return sum(grade / math.log2(rank + 2) for rank, grade in enumerate(grades))


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    header = ("corpus", "measure", "citeqa", "peer (raw tantivy)", "ratio")
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    for row in (header, ["-" * width for width in widths], *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    main()
