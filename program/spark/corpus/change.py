"""From what a corpus is now to what its table is to be: read, compare, embed, write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from program.spark.corpus import registry, vector_index
from program.spark.corpus.delta import GONE, DeltaStore, Written
from program.spark.corpus.listing import Listing
from program.spark.corpus.outcome import BAD
from program.spark.corpus.passages import DIGEST, PRIMARY_KEY, VECTOR, VECTOR_KEY
from program.spark.corpus.plan import Plan, Stopwatch
from program.spark.corpus.registry import State
from program.spark.corpus.report import PipelineReport
from program.spark.corpus.staging import stage, staging
from program.spark.corpus.vector_index import IndexPlan
from program.spark.corpus.vectors import Embedded, add_vectors
from program.spark.session import parallelism
from retrieval.errors import CorpusError
from retrieval.indexing import RefusedDocument

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

STAGED = (
    "outcome",
    "claims",
    "changes",
    "passages",
    "wanted",
    "slices",
    "vectors",
    "put",
    "rows",
    "registry",
)
"""What a run stages, and removes when it has ended well."""

_MOST_REFUSED = 1000
_OLD_ROWS = f"{PRIMARY_KEY} string, doc_uri string"
_OLD_VECTORS = f"{VECTOR_KEY} string, {VECTOR} array<float>"


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a passage table. Without a `state`, everything is read, and nothing else stays in the table."""

    plan: Plan
    spark: SparkSession
    passages: DeltaStore
    sources: DeltaStore
    listing: Listing
    state: State | None
    index: IndexPlan | None
    watch: Stopwatch

    def make(self, *, strict: bool) -> PipelineReport:
        """Bring the table up to date. Raises as `index_on_spark`."""
        with self.watch.part("reading"):
            self.plan.tell("Reading documents")
            known = self._known()
            comparable = self.state is not None and self.state.reading == self.listing.reading
            sources = registry.known_sources(known, by_time=comparable)
            outcome = self._stage("outcome", self.listing.outcome(self.spark, self.plan.recipe, sources))
        with self.watch.part("comparing"):
            claimed = self._stage("claims", registry.claims(outcome, known))
            changes = self._stage("changes", registry.changes(claimed, known))
            counts = {row["change"]: row["count"] for row in changes.groupBy("change").count().collect()}
            refused_count, refused = _refused(outcome, claimed)
        documents = sum(count for change, count in counts.items() if change != "deleted")
        _check(self.plan.target.name, documents, refused, strict)
        put, embedded = self._with_vectors(self._put(outcome, changes))
        with self.watch.part("writing"):
            self.plan.tell(f"Writing {self.plan.target}")
            written = self._write(put, changes, documents)
            passages = self.passages.count()
            corpus = "" if refused_count else self.listing.digest
        told = self._tell_index()
        with self.watch.part("writing"):
            # The last: what it says is so, and what it does not say is done again by the next run.
            name = self.index.name if self.index else ""
            state = State(self.plan.made_with, self.listing.reading, corpus, documents, passages, name)
            self._write_registry(registry.next_registry(outcome, claimed, state))
        return PipelineReport(
            table=self.plan.target.name,
            **{what: counts.get(what, 0) for what in ("added", "replaced", "deleted", "unchanged")},
            documents=documents,
            passages=passages,
            written=written.inserted + written.updated,
            removed=written.deleted,
            embedded=embedded.made,
            vectors_known=embedded.known,
            version=written.version,
            refused_count=refused_count,
            refused=tuple(refused),
            index=name or None,
            index_state=told,
        )

    def _tell_index(self) -> str | None:
        if self.index is None:
            return None
        self.plan.tell(f"Bringing the index {self.index.name} up to date")
        with self.watch.part("index"):
            return vector_index.sync(self.index)

    def _known(self) -> DataFrame:
        return self.sources.read(self.spark, registry.SCHEMA) if self.state else registry.empty(self.spark)

    def _stage(self, name: str, rows: DataFrame) -> DataFrame:
        return stage(rows, staging(self.plan.target, name))

    def _put(self, outcome: DataFrame, changes: DataFrame) -> DataFrame:
        """The passages of the documents that are new or have changed."""
        key = ["doc_uri", "place", "fingerprint", "position"]
        wanted = changes.where("change in ('added', 'replaced')").select(*key)
        passages = outcome.where("kind = 'passage'").join(wanted, key, "left_semi")
        return passages.select(*self.plan.recipe.rows.schema.names)

    def _with_vectors(self, put: DataFrame) -> tuple[DataFrame, Embedded]:
        how = self.plan.embedding(parallelism(self.spark))
        if how is None:
            return put, Embedded(0, 0)
        with self.watch.part("embedding"):
            put = self._stage("passages", put)
            known = self.spark.createDataFrame([], _OLD_VECTORS)
            if self.passages.exists() and VECTOR in self.passages.columns():
                known = self.passages.read(self.spark, _OLD_VECTORS).select(VECTOR_KEY, VECTOR)
                known = known.join(put.select(VECTOR_KEY).distinct(), VECTOR_KEY, "left_semi")
            return add_vectors(put, known, self.plan.target, how, self.plan.tell)

    def _write(self, put: DataFrame, changes: DataFrame, documents: int) -> Written:
        """Put the passages, and delete those that documents had and have no more. Nothing is written for nothing."""
        from pyspark.sql import functions as f

        names, place = self.plan.recipe.rows.names, staging(self.plan.target, "rows")
        put = put.select(*names).withColumn(GONE, f.lit(False))
        if not self.sources.exists():
            # The mark of a table that is ours, should this end between its two tables.
            self._write_registry(registry.empty(self.spark))
        if not self.passages.exists() or set(self.passages.columns()) != set(names):
            self._check_text(stage(put, place).isEmpty(), documents)
            return self.passages.overwrite(place, names)
        rows = stage(put.unionByName(self._stale(put, changes), allowMissingColumns=True), place)
        found = rows.agg(f.count(f.lit(1)), f.count_if(GONE)).first()
        count, gone = (found[0], found[1]) if found else (0, 0)
        if not count:
            return Written()
        self._check_text(count == gone == self.passages.count(), documents)
        return self.passages.merge(place, names)

    def _stale(self, put: DataFrame, changes: DataFrame) -> DataFrame:
        """The keys of what the table has and is to have no more."""
        from pyspark.sql import functions as f

        before = self.passages.read(self.spark, _OLD_ROWS).select(PRIMARY_KEY, "doc_uri")
        if self.state:
            touched = changes.where("change in ('replaced', 'deleted')").select("doc_uri")
            before = before.join(touched, "doc_uri", "left_semi")
        stale = before.join(put.select(PRIMARY_KEY), PRIMARY_KEY, "left_anti").select(PRIMARY_KEY)
        return stale.withColumns({GONE: f.lit(True), DIGEST: f.lit("")})

    def _check_text(self, is_empty: bool, documents: int) -> None:
        if is_empty:
            raise CorpusError(
                f"None of the {documents} documents holds any text to index. Check the path of the corpus."
            )

    def _write_registry(self, rows: DataFrame) -> None:
        self._stage("registry", rows)
        names = [part.split()[0] for part in registry.SCHEMA.split(", ")]
        self.sources.overwrite(staging(self.plan.target, "registry"), names)


def _refused(outcome: DataFrame, claimed: DataFrame) -> tuple[int, list[RefusedDocument]]:
    """How many documents were refused, and the first of them, with what is told of each."""
    from pyspark.sql import functions as f

    kept = claimed.where("is_kept and is_won").select("place", f.lit(True).alias("is_kept")).distinct()
    bad = outcome.where(f.col("kind") == "source").where(f.col("status") == BAD).join(kept, "place", "left")
    bad = bad.select("ordinal", "place", "reason", f.coalesce("is_kept", f.lit(False)).alias("is_kept"))
    second = claimed.where("not is_won and not is_kept")
    twice = f.format_string(
        "%s: the doc_uri '%s' is already that of %s. Give each document its own.", "place", "doc_uri", "first"
    )
    second = second.select("ordinal", "place", twice.alias("reason"), f.lit(False).alias("is_kept"))
    every = bad.unionByName(second)
    rows = every.orderBy("ordinal", "place").limit(_MOST_REFUSED).collect()
    count = len(rows) if len(rows) < _MOST_REFUSED else every.count()
    return count, [RefusedDocument(row["place"], row["reason"], row["is_kept"]) for row in rows]


def _check(target: str, documents: int, refused: Sequence[RefusedDocument], strict: bool) -> None:
    if refused and strict:
        raise CorpusError(refused[0].reason)
    if not documents and refused:
        raise CorpusError(f"None of {len(refused)} documents can be read. The first: {refused[0].reason}")
    if not documents:
        raise CorpusError(
            f"There is no document to index for '{target}'. Check where the corpus is read from."
        )


def unchanged(target: str, state: State) -> PipelineReport:
    """The report of a run that had nothing to do."""
    report = PipelineReport(target, unchanged=state.documents)
    return replace(report, documents=state.documents, passages=state.passages)
