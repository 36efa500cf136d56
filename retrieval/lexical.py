"""The tantivy side of the embedded index: its fields, its documents, and queries built from terms."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping

import tantivy
from tantivy import Occur, Query, Schema, SchemaBuilder, Searcher

from retrieval.analysis import (
    CJK_RUN,
    analyze,
    content_terms,
    may_have_names,
    name_analyzer,
    split_scripts,
    word_analyzer,
)
from retrieval.filters import FACETS, TITLES, facets_of, title_number
from retrieval.types import Passage

WORDS, NAMES, GRAMS, ROW, PAYLOAD = "words", "names", "grams", "row", "payload"

_MOST_TERMS = 256
_WORD_TOKENIZER, _NAME_TOKENIZER, _LIST_TOKENIZER = "citeqa_words", "citeqa_names", "citeqa_list"


def build_schema() -> Schema:
    """The fields of a passage: one for each kind of term, the facets, and one record of what it consists of.

    `words` and `names` are analyzed by tantivy itself, so that English text is never tokenized in Python;
    `grams` come as a list. Title and headings are indexed with the text, in the same fields: in a field
    of their own, where few words are common, "how" and "use" would weigh as much as names do. `row`
    numbers the passages in the order in which they were ever added: vectors are kept by it.
    """
    builder = SchemaBuilder()
    builder.add_text_field(WORDS, tokenizer_name=_WORD_TOKENIZER, index_option="freq")
    builder.add_text_field(NAMES, tokenizer_name=_NAME_TOKENIZER, index_option="freq")
    builder.add_text_field(GRAMS, tokenizer_name=_LIST_TOKENIZER, index_option="freq")
    builder.add_text_field(FACETS, tokenizer_name="raw", index_option="basic")
    builder.add_unsigned_field(TITLES, fast=True)
    builder.add_unsigned_field(ROW, fast=True)
    builder.add_bytes_field(PAYLOAD, stored=True)
    return builder.build()


def register_tokenizers(index: tantivy.Index) -> None:
    """Give `index` the tokenizers that the schema names: tantivy stores only their names."""
    index.register_tokenizer(_WORD_TOKENIZER, word_analyzer())
    index.register_tokenizer(_NAME_TOKENIZER, name_analyzer())
    index.register_tokenizer(
        _LIST_TOKENIZER, tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.whitespace()).build()
    )


def to_index_document(passage: Passage, row: int) -> tantivy.Document:
    """What the index holds of `passage`, which is the `row`th that was ever added."""
    document = tantivy.Document()
    words, grams = split_scripts(indexed_text(passage))
    document.add_text(WORDS, words)
    if may_have_names(words):
        document.add_text(NAMES, words)
    if grams:
        document.add_text(GRAMS, " ".join(grams))
    for term in facets_of(passage):
        document.add_text(FACETS, term)
    document.add_unsigned(TITLES, title_number(passage.title))
    document.add_unsigned(ROW, row)
    document.add_bytes(PAYLOAD, _pack(passage))
    return document


def indexed_text(passage: Passage) -> str:
    """What is searched of a passage: its text, below its title and headings."""
    context = dict.fromkeys(filter(None, (passage.title, *passage.headings)))
    return "\n".join((*context, passage.text))


def _pack(passage: Passage) -> bytes:
    """The record of a passage: a line of JSON, and the text as it is, which then costs nothing to write or read."""
    chunk_id, doc_uri = passage.chunk_id, passage.doc_uri
    head = [
        doc_uri,
        # Mostly an address and a number: what repeats the address is cut.
        chunk_id[len(doc_uri) :] if chunk_id.startswith(doc_uri) else [chunk_id],
        passage.title,
        passage.lang,
        passage.start,
        passage.end,
        passage.headings,
        # A mapping of any kind.
        {**passage.metadata},
        passage.fragment,
    ]
    return f"{_encode_head(head)}\n{passage.text}".encode("utf-8", "surrogatepass")


_encode_head = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode


def to_passage(document: tantivy.Document, score: float) -> Passage:
    """The passage that was given to `to_index_document`, with the score of a search."""
    record = document.get_first(PAYLOAD).decode("utf-8", "surrogatepass")  # type: ignore[union-attr]
    head, _, text = record.partition("\n")
    doc_uri, chunk_id, title, lang, start, end, headings, metadata, fragment = json.loads(head)
    chunk_id = doc_uri + chunk_id if isinstance(chunk_id, str) else chunk_id[0]
    return Passage(
        chunk_id, doc_uri, text, title, lang, start, end, tuple(headings), metadata, score, fragment
    )


def terms_query(schema: Schema, searcher: Searcher, text: str) -> Query | None:
    """Any of the content terms of `text`, each as often as it is there; None when there is no term.

    The query is made of terms and never parsed, so that nothing in `text` is an operator. Of more than
    256 different terms, the 256 rarest that the index holds are asked for.
    """
    counts: Mapping[str, int] = Counter(content_terms(analyze(text)))
    terms = list(counts) if len(counts) <= _MOST_TERMS else _rarest(searcher, counts)
    clauses = [(Occur.Should, _weighted(_term_query(schema, term), counts[term])) for term in terms]
    return Query.boolean_query(clauses) if clauses else None


def weighted_terms_query(schema: Schema, weights: Mapping[str, float]) -> Query | None:
    """Any of the terms of `analyze`, each with its weight; None when no weight is above 0."""
    clauses = [
        (Occur.Should, Query.boost_query(_term_query(schema, term), weight))
        for term, weight in weights.items()
        if weight > 0
    ]
    return Query.boolean_query(clauses) if clauses else None


def inverse_document_frequency(searcher: Searcher, term: str) -> float:
    """BM25's weight of a term: ln(1 + (N - n + 0.5) / (n + 0.5)), for n of N passages that hold it."""
    holding = searcher.doc_freq(_field(term), term)
    return math.log1p((max(searcher.num_docs, holding) - holding + 0.5) / (holding + 0.5))


def _rarest(searcher: Searcher, terms: Iterable[str]) -> list[str]:
    frequencies = {term: searcher.doc_freq(_field(term), term) for term in terms}
    return sorted(filter(frequencies.get, frequencies), key=frequencies.__getitem__)[:_MOST_TERMS]


def _term_query(schema: Schema, term: str) -> Query:
    return Query.term_query(schema, _field(term), term, "freq")


def _field(term: str) -> str:
    """The field that holds a term of `analyze`: only names have a dot or underscore, only grams are CJK."""
    if term.isascii():
        return NAMES if "." in term or "_" in term else WORDS
    return GRAMS if CJK_RUN.match(term) else WORDS


def _weighted(query: Query, count: int) -> Query:
    return query if count == 1 else Query.boost_query(query, count)
