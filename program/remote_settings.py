"""The sections of the settings that name what is elsewhere: a workspace's indexes and endpoints, a database."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from program.section import Section


class ResilienceSettings(Section):
    """What a search bears from a service that is slow, busy or away."""

    timeout_s: float = Field(10, gt=0, description="for one search, retries included")
    attempt_timeout_s: float = Field(5, gt=0, description="for one attempt")
    num_retries: int = Field(3, ge=0, le=20, description="after 429, 5xx and broken connections")
    open_after: int = Field(5, ge=1, description="failures in a row after which the service is left alone")
    open_s: float = Field(10, gt=0, description="for how long, before one search tries again")


class VectorSearchColumns(Section):
    """Which columns of a Vector Search index hold what; `others` travel as metadata.

    Unset, the columns are those that the corpus pipeline makes, as far as the index has them; "" reads none.
    """

    primary_key: str | None = Field(None, description="unset: the index's own")
    text: str | None = Field(None, description="unset: what the index embeds, or text")
    doc_uri: str = "doc_uri"
    title: str | None = Field(None, description="unset: title")
    lang: str | None = Field(None, description="unset: lang")
    url: str | None = Field(None, description="where the passage opens, as doc_uri#section; unset: url")
    start: str | None = Field(None, description="its first character in the document; unset: start_char")
    end: str | None = Field(None, description="unset: end_char")
    headings: str | None = Field(None, description="unset: headings")
    metadata: str | None = Field(None, description="a JSON object; unset: metadata")
    others: tuple[str, ...] = ()


class VectorSearchSettings(Section):
    """A Databricks Vector Search (AI Search) index: `retrieval.backend: vector_search`. See docs/vector-search.md."""

    index: str | None = Field(None, description="catalog.schema.index")
    endpoint: str | None = Field(
        None, description="the Vector Search endpoint; found by the index where unset"
    )
    columns: VectorSearchColumns = VectorSearchColumns()
    query_type: Literal["auto", "ann", "hybrid", "full_text"] = Field(
        "auto", description="auto: hybrid where the question can be embedded, else full_text"
    )
    score_threshold: float | None = Field(
        None, gt=0, le=1, description="what scores less is not found; unset: nothing is"
    )
    rerank_columns: tuple[str, ...] = Field((), description="read by Databricks' reranker; none: off")
    endpoint_kind: Literal["auto", "standard", "storage_optimized"] = Field(
        "auto", description="what filters are written for; auto: as the endpoint says"
    )
    direct: bool = Field(
        True, description="service principals: ask the index's own host, not through the workspace"
    )
    user_credentials: bool = Field(False, description="search as the user who asks (on behalf of)")
    resilience: ResilienceSettings = ResilienceSettings()


class PgVectorSettings(Section):
    """A table in PostgreSQL with pgvector (Lakebase in a workspace): `retrieval.backend: pgvector`.

    The password is PGPASSWORD in the environment, as for every PostgreSQL client, or a Databricks token where
    `lakebase_instance` is set. docs/postgres.md tells more.
    """

    dsn: str | None = Field(
        None, description="host=… dbname=… user=…, or postgresql://…; what it leaves open are PG* variables"
    )
    lakebase_instance: str | None = Field(
        None, description="an instance, or projects/…/branches/…/endpoints/…: its tokens are the password"
    )
    table: str = Field(
        "passages", description="or schema.table; others with names that begin with it are beside it"
    )
    max_connections: int = Field(32, ge=1, le=1000, description="of one process, at once")
    resilience: ResilienceSettings = ResilienceSettings()


class MemorySettings(Section):
    """Where conversations are kept, so that a `conversation_id` goes on with one. docs/memory.md tells more.

    The password of a database is PGPASSWORD, or a Databricks token where `lakebase_instance` is set.
    """

    store: str | None = Field(
        None, description="sqlite:///path, or postgresql://user@host/name; unset: nothing is kept"
    )
    lakebase_instance: str | None = Field(
        None, description="an instance, or projects/…/branches/…/endpoints/…: its tokens are the password"
    )
    expire_days: float = Field(30, gt=0, description="after its last message, a conversation is forgotten")
    recalled_messages: int = Field(
        20, ge=2, le=1000, description="the latest ones, that a request goes on with"
    )
    user_header: str | None = Field(
        None,
        description="citeqa serve: in which a proxy says who asks, such as x-forwarded-email on Databricks Apps; "
        "unset: as the request says",
    )
    resilience: ResilienceSettings = ResilienceSettings()


class DeploymentSettings(Section):
    """What `citeqa deploy` makes in a workspace. docs/databricks.md tells of it."""

    model: str | None = Field(None, description="serving: catalog.schema.model in Unity Catalog")
    endpoint: str | None = Field(None, description="serving: its endpoint; unset: as Databricks names it")
    app: str = Field("citeqa", description="apps: the name of the app")
    bundle: str = Field("build/databricks-app", description="apps: the folder that the bundle is written to")
    chat: str | None = Field(None, description="apps: the folder of Databricks' chat app, shown in front")
    description: str | None = None
    workload_size: Literal["Small", "Medium", "Large"] = Field(
        "Small", description="serving: 4, 8-16 or 16-64 answers at once"
    )
    scale_to_zero: bool = Field(
        False, description="serving: costs nothing unused; the first answer waits then"
    )
    compute_size: Literal["MEDIUM", "LARGE", "XLARGE"] = Field("MEDIUM", description="apps: how large")
    environment: dict[str, str] = Field(default_factory=dict, description="variables of what is deployed")
    secrets: dict[str, str] = Field(default_factory=dict, description="variable: scope/key of a secret")
    tags: dict[str, str] = Field(default_factory=dict, description="serving: of the endpoint")
    tables: tuple[str, ...] = Field((), description="tables that the agent may read besides")
    functions: tuple[str, ...] = Field((), description="functions that it may call besides")
    can_query: tuple[str, ...] = Field((), description="users and groups that may ask it")
    can_manage: tuple[str, ...] = Field((), description="users and groups that may change it")
    user_scopes: tuple[str, ...] = Field((), description="what it may do on behalf of the user who asks")
    usage_policy: str | None = Field(None, description="the id of the policy that it is billed by")
    instance_profile: str | None = Field(None, description="serving: its ARN, on AWS")
    keep_versions: int = Field(2, ge=1, le=15, description="serving: versions that stay, to roll back to")
    check: Literal["environment", "process", "none"] = Field(
        "environment",
        description="serving: asked before it is registered: in an environment of its own, in a process, not",
    )
    question: str | None = Field(None, description="what is asked to check it: one that it can answer")
    timeout_min: float = Field(45, gt=0, description="how long the deployment is waited for")


class PipelineSettings(Section):
    """The corpus pipeline on Spark: `citeqa index --engine spark`. docs/corpus-pipeline.md tells of it.

    Vectors are ours where `embedder.model` is set, or Databricks makes them where `embedding_endpoint` is.
    """

    table: str | None = Field(
        None, description="catalog.schema.table, or a directory: a Delta table either way"
    )
    registered_as: str | None = Field(
        None,
        description="catalog.schema.table, by which Unity Catalog knows a table that is a directory here",
    )
    metadata_columns: dict[str, Literal["string", "bigint", "double", "boolean"]] = Field(
        default_factory=dict, description="metadata with columns of their own, to filter by, and their types"
    )
    index: str | None = Field(None, description="catalog.schema.index that follows the table; unset: none")
    endpoint: str | None = Field(None, description="the Vector Search endpoint that a new index is made at")
    embedding_endpoint: str | None = Field(
        None, description="the serving endpoint by which Databricks embeds; unset: vectors of embedder.model"
    )
    wait_min: float = Field(0, ge=0, description="how long the index is waited for, until it is up to date")
    embedding_tasks: int | None = Field(
        None, ge=1, description="tasks that embed at once; unset: as many as Spark runs"
    )
    requests_per_minute: float | None = Field(
        None, gt=0, description="to the embedding model, of all tasks together; unset: as many as it bears"
    )
