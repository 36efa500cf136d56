"""Metadata filters: how a document's values are indexed as facet terms, and filters as queries over these."""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import cast

from tantivy import FieldType, Occur, Query, Schema

from retrieval.conditions import COMPARISONS, Condition, read_conditions
from retrieval.types import Filters, MetadataValue, Passage

FACETS = "facets"
"""The multi-valued, untokenized index field that holds the facet terms of a passage."""

TITLES = "titles"
"""The column that holds the `title_number` of a passage."""

_LONGEST_VALUE = 200
_HEX_DIGITS = "0123456789abcdef"


def facets_of(passage: Passage) -> list[str]:
    """The facet terms of a passage: one per field that can be filtered on, but for the title (`title_number`)."""
    facets = [_DOC_URI + _encode_text(passage.doc_uri)] if passage.doc_uri else []
    if passage.lang:
        facets.append(_LANG + _encode_text(passage.lang))
    if passage.metadata:
        own = {"doc_uri": passage.doc_uri, "title": passage.title, "lang": passage.lang}
        facets += [facet(name, value) for name, value in passage.metadata.items() if not own.get(name)]
    return facets


def title_number(title: str) -> int:
    """What stands for a title in the column `TITLES`: 64 bits of its digest; 0 where there is none.

    Titles are mostly of one document each, and as terms they would be a seventh of the time of a build.
    """
    if not title:
        return 0
    raw = title.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little")


def facet(name: str, value: MetadataValue) -> str:
    """The term that stands for `name` having `value`.

    Text, numbers and truth values never equal one another; `1` equals `1.0`. Numbers are 64-bit floats,
    written so that the order of the terms is the order of the numbers.
    """
    kind = "b" if isinstance(value, bool) else "s" if isinstance(value, str) else "n"
    return _prefix(name, kind) + _encode(value)


def filter_query(schema: Schema, filters: Filters) -> Query | None:
    """The query that matches what fulfils all `filters`; None when there are none.

    Raises:
        FilterError: if a filter has an unknown operator, or a value that its operator does not take.
    """
    clauses = [_clause(schema, condition) for condition in read_conditions(filters)]
    if not clauses:
        return None
    # What is only excluded must be excluded from something.
    return Query.boolean_query([(Occur.Must, Query.all_query()), *clauses])


def _clause(schema: Schema, condition: Condition) -> tuple[Occur, Query]:
    if condition.operator in COMPARISONS:
        bound = _to_float(cast("float", condition.values[0]))
        pattern = "|".join(_patterns(condition.field, condition.operator, bound))
        return Occur.Must, Query.regex_query(schema, FACETS, pattern)
    terms = [facet(condition.field, one) for one in condition.values]
    query = Query.term_set_query(schema, FACETS, terms)
    if condition.field == "title":
        numbers = [title_number(one) for one in condition.values if isinstance(one, str) and one]
        among = [Query.range_query(schema, TITLES, FieldType.Unsigned, one, one) for one in numbers]
        # The facet is that of a document whose metadata alone has a title.
        query = Query.boolean_query([(Occur.Should, one) for one in (query, *among)])
    return (Occur.MustNot if condition.operator else Occur.Must), query


@lru_cache(maxsize=1024)
def _prefix(name: str, kind: str) -> str:
    # Hexadecimal, so that no name can end early or need an escape in a pattern.
    return f"{name.encode('utf-8', 'surrogatepass').hex()}:{kind}:"


def _encode(value: MetadataValue) -> str:
    if isinstance(value, bool):
        return str(int(value))
    return _encode_text(value) if isinstance(value, str) else _sortable(_to_float(value))


def _encode_text(value: str) -> str:
    if len(value) <= _LONGEST_VALUE and value.isascii() and value.isprintable():
        return value
    raw = value.encode("utf-8", "surrogatepass")
    # Terms have a greatest length; a digest of a long value still tells it from all others.
    is_short = len(raw) <= _LONGEST_VALUE and value.isprintable()
    return value if is_short else f"#{hashlib.sha256(raw).hexdigest()}"


def _to_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _sortable(number: float) -> str:
    """16 hexadecimal digits in the order of the numbers: sign bit flipped, all bits for negative ones."""
    (bits,) = struct.unpack(">Q", struct.pack(">d", number + 0.0))
    return f"{bits ^ (0xFFFFFFFFFFFFFFFF if bits >> 63 else 1 << 63):016x}"


def _patterns(name: str, operator: str, bound: float) -> Iterator[str]:
    """Regular expressions of the terms beyond `bound`: for each of its digits, what first differs there."""
    prefix, digits = _prefix(name, "n"), _sortable(bound)
    if "=" in operator:
        yield prefix + digits
    for position, digit in enumerate(digits):
        place = _HEX_DIGITS.index(digit)
        beyond = _HEX_DIGITS[place + 1 :] if ">" in operator else _HEX_DIGITS[:place]
        if beyond:
            yield f"{prefix}{digits[:position]}[{beyond}].*"


_DOC_URI, _LANG = (_prefix(name, "s") for name in ("doc_uri", "lang"))
