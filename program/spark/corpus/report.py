"""What a run of the corpus pipeline did, for people and for machines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

from retrieval.indexing import RefusedDocument

_MOST_REFUSALS = 100


@dataclass(frozen=True, slots=True)
class PipelineReport:
    """What a run did. `documents` and `passages` are what the table holds afterwards.

    Of documents, `refused_count` were refused, the first of which are `refused`. Of passages, so many were
    `written` or `removed`; of texts, so many were `embedded`, and `vectors_known` had a vector already. `index_state`
    is what the Vector Search index is at. `stages` are the seconds that each part took.
    """

    table: str
    added: int = 0
    replaced: int = 0
    deleted: int = 0
    unchanged: int = 0
    documents: int = 0
    passages: int = 0
    written: int = 0
    removed: int = 0
    embedded: int = 0
    vectors_known: int = 0
    version: int | None = None
    index: str | None = None
    index_state: str | None = None
    refused_count: int = 0
    refused: tuple[RefusedDocument, ...] = ()
    seconds: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)

    @property
    def documents_per_second(self) -> float:
        """Of those that were read anew."""
        return (self.added + self.replaced) / self.seconds if self.seconds else 0.0

    def render(self) -> str:
        """A few lines for a person."""
        refused = f", {self.refused_count} refused" if self.refused_count else ""
        lines = [
            f"{self.table}: {self.documents} documents, {self.passages} passages ({self.added} added, "
            f"{self.replaced} replaced, {self.deleted} deleted, {self.unchanged} unchanged{refused}) in "
            f"{self.seconds:.1f} s"
        ]
        if self.written or self.removed:
            vectors = (
                f"; {self.embedded} texts embedded, {self.vectors_known} vectors known"
                if self.embedded or self.vectors_known
                else ""
            )
            version = "" if self.version is None else f" (version {self.version} of the table)"
            lines.append(f"{self.written} passages written, {self.removed} removed{version}{vectors}")
        if self.index:
            lines.append(f"{self.index}: {self.index_state}")
        return "\n".join(lines)

    def render_refusals(self) -> Iterator[str]:
        """A line for each document that was refused, up to a hundred."""
        for refused in self.refused[:_MOST_REFUSALS]:
            kept = " Its last good version stays in the table." if refused.is_kept else ""
            yield f"Refused: {refused.reason}{kept}"
        if self.refused_count > len(self.refused[:_MOST_REFUSALS]):
            yield f"Refused: {self.refused_count - len(self.refused[:_MOST_REFUSALS])} more."

    def as_json(self) -> str:
        """All of it."""
        return json.dumps(
            {**asdict(self), "documents_per_second": self.documents_per_second}, ensure_ascii=False, indent=2
        )
