"""What a run is to do: where passages go, and how they are made."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

from program.embedding import embedder_config, open_configured_embedder
from program.settings import Settings, chunking_settings, reading_settings
from program.spark.corpus.passages import FORMAT_VERSION, PassageRows
from program.spark.corpus.reading import Recipe
from program.spark.corpus.vector_index import IndexPlan
from program.spark.corpus.vectors import Embedding
from program.spark.tables import TABLE, Place, passages_place
from retrieval.errors import ConfigurationError

Tell: TypeAlias = Callable[[str], None]
"""Told, for a person, what is being done."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The passage table of the settings, and the recipe of its rows. `tell` hears what is being done."""

    settings: Settings
    target: Place
    recipe: Recipe
    tell: Tell

    @classmethod
    def of(cls, settings: Settings, tell: Tell) -> Plan:
        """What the settings ask for.

        Raises:
            ConfigurationError: if they do not say where to, or contradict each other.
        """
        pipeline = settings.pipeline
        if pipeline.table is None:
            raise ConfigurationError(
                "Where do the passages go? Say --to catalog.schema.table, or --to a/directory (pipeline.table)."
            )
        if pipeline.embedding_endpoint and settings.embedder.model:
            raise ConfigurationError(
                "pipeline.embedding_endpoint and embedder.model: either Databricks makes the vectors or we do. Unset "
                "one of them."
            )
        embedder = open_configured_embedder(settings.embedder)
        rows = PassageRows(pipeline.metadata_columns, embedder.fingerprint if embedder else "")
        recipe = Recipe(reading_settings(settings), chunking_settings(settings), rows)
        return cls(settings, passages_place(pipeline.table), recipe, tell)

    @property
    def made_with(self) -> str:
        """Tables of equal `made_with` have the same columns, and passages that were cut and embedded alike."""
        made = f"{FORMAT_VERSION} {self.recipe.chunking} {self.recipe.rows}"
        return hashlib.blake2b(made.encode(), digest_size=16).hexdigest()

    def embedding(self, parallelism: int) -> Embedding | None:
        """How vectors are made; None where they are not ours to make."""
        settings, pipeline = self.settings.embedder, self.settings.pipeline
        if settings.model is None:
            return None
        tasks = pipeline.embedding_tasks or parallelism
        return Embedding(embedder_config(settings, settings.model), tasks, pipeline.requests_per_minute)

    def index(self) -> IndexPlan | None:
        """The Vector Search index that is to follow the table; None where none is.

        Raises:
            ConfigurationError: if the table has no name that it could follow.
            EmbeddingError: if the embedding model does not tell how long its vectors are.
        """
        pipeline = self.settings.pipeline
        if pipeline.index is None:
            return None
        if self.target.format != TABLE and not pipeline.registered_as:
            raise ConfigurationError(
                f"pipeline.index: an index follows a table of Unity Catalog, and '{self.target}' is a directory. Name "
                "the table that it is there: pipeline.registered_as=catalog.schema.table"
            )
        embedder = open_configured_embedder(self.settings.embedder)
        return IndexPlan(
            name=pipeline.index,
            endpoint=pipeline.endpoint,
            table=pipeline.registered_as or self.target.name,
            columns=tuple(self.recipe.rows.schema.names),
            embedding_endpoint=pipeline.embedding_endpoint,
            dimension=embedder.dimension if embedder else None,
        )


@dataclass(frozen=True, slots=True)
class Stopwatch:
    """The seconds that parts of a run took, by what they are called."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the time within."""
        started = time.perf_counter()
        yield
        self.seconds[name] = round(self.seconds.get(name, 0) + time.perf_counter() - started, 3)
