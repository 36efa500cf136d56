"""How rare terms are in an index that tells no statistics: counted in a sample of its passages."""

from __future__ import annotations

import logging
import math
import threading
from collections import Counter
from collections.abc import Callable, Sequence

from retrieval.ai_search.columns import Columns
from retrieval.ai_search.index import Row
from retrieval.analysis import analyze, content_terms
from retrieval.errors import CiteqaError

logger = logging.getLogger(__name__)

_SAMPLE = 1_000
_AT_ONCE = 100


class SampledWeights:
    """The inverse document frequencies of terms, in the first 1,000 passages by their keys.

    The sample is drawn when it is first asked for, and once; where it cannot be, all terms weigh alike.
    """

    def __init__(self, scan: Callable[[int, str | None], tuple[list[Row], str | None]]) -> None:
        self._scan = scan
        self._lock = threading.Lock()
        self._counts: Counter[str] | None = None
        self._passages = 0

    def idf(self, terms: Sequence[str], columns: Columns) -> list[float]:
        """BM25's weight of each term, and 0 for the function words among other terms."""
        asked = frozenset(content_terms(terms))
        with self._lock:
            if self._counts is None:
                self._counts = self._count(columns)
        return [self._weight(self._counts[term]) if term in asked else 0.0 for term in terms]

    def _weight(self, count: int) -> float:
        return math.log1p((self._passages - count + 0.5) / (count + 0.5)) if self._passages else 1.0

    def _count(self, columns: Columns) -> Counter[str]:
        counts: Counter[str] = Counter()
        after: str | None = None
        try:
            while self._passages < _SAMPLE:
                rows, after = self._scan(_AT_ONCE, after)
                for row in rows:
                    text = "\n".join(
                        str(row.get(name) or "") for name in (columns.title, columns.text) if name
                    )
                    counts.update(set(analyze(text)))
                self._passages += len(rows)
                if len(rows) < _AT_ONCE:
                    break
        except CiteqaError as error:
            logger.warning("All terms of a question weigh alike: %s", error)
            self._passages = 0
            return Counter()
        return counts
