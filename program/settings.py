"""One typed configuration for everything. The only reader of configuration files and of the environment.

Defaults suit a laptop; a file states only what differs. What is said later wins: defaults, the YAML
file, environment variables (`CITEQA_RETRIEVAL__K=10`), `--set retrieval.k=10`. Secrets are not settings:
API keys are read from the environment by the libraries that need them, and never pass through here.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from program.remote_settings import (
    DeploymentSettings,
    MemorySettings,
    PgVectorSettings,
    PipelineSettings,
    VectorSearchSettings,
)
from program.section import Section
from program.yaml_files import read_yaml
from retrieval.chunking import ChunkingSettings
from retrieval.documents.reading import ReadingSettings
from retrieval.errors import ConfigurationError

DEFAULT_FILE = Path("configs/agent.yaml")
ENVIRONMENT_PREFIX = "CITEQA_"


class CorpusSettings(Section):
    """Where the documents are, and how they are read. docs/documents.md tells of each."""

    path: str = "datasets/agent_docs/docs"
    base_url: str | None = Field(None, description="doc_uri of a document without one: this and its path")
    url_template: str | None = Field(
        None,
        description="the same, made of {path}, {stem}, {page}, {name}; in a Git folder {commit}, {branch}",
    )
    layout: Literal["auto", "folder", "git", "jsonl", "beir", "table", "sitemap"] = "auto"
    anchors: Literal["auto", "none"] = Field(
        "auto", description="whether links open the section of a document"
    )
    columns: dict[str, str] = Field(
        default_factory=dict, description="table, jsonl: our field (doc_uri, text, …): its column"
    )
    pages: str | None = Field(None, description="sitemap: the folder of the saved pages; unset: its own")
    max_file_mb: float = Field(50, gt=0, description="larger documents are refused")


class ChunkingConfig(Section):
    """How documents are cut into passages."""

    chunker: Literal["auto", "sentences", "semantic"] = "auto"
    max_tokens: int = Field(200, ge=16, le=8192)
    overlap_tokens: int = Field(40, ge=0)


class EmbedderSettings(Section):
    """The model that makes vectors of passages and questions; without one, words alone are searched.

    It is a directory with an ONNX model, the name of one on the Hugging Face hub, or an endpoint by the string
    that DSPy reaches it by (`openai/…`, `databricks/<endpoint>`, …). What is unset is as the model's files say.
    """

    model: str | None = None
    kind: Literal["auto", "onnx", "endpoint"] = "auto"
    max_tokens: int | None = Field(None, ge=2, description="the rest of a passage is not embedded")
    query_prefix: str | None = Field(None, description="before a question, such as 'query: '")
    passage_prefix: str | None = Field(None, description="before a passage, such as 'passage: '")
    pooling: Literal["auto", "mean", "cls", "last", "none"] = Field("auto", description="onnx only")
    threads: int | None = Field(None, ge=1, description="onnx only; unset: all processors")
    batch_size: int | None = Field(None, ge=1, le=2048, description="texts that are embedded at once")
    api_base: str | None = Field(None, description="endpoint only: where it is, if not at its provider")
    dimensions: int | None = Field(None, ge=1, description="endpoint only: shorter vectors, if it can")
    timeout_s: float = Field(60, gt=0, description="endpoint only: for one request")
    num_retries: int = Field(4, ge=0, le=20, description="endpoint only: when it is busy or fails")
    cache: str | None = Field("build/embeddings.db", description="vectors that were made; can be deleted")


class RerankSettings(Section):
    """A cross-encoder that reads the question and each of the first passages together, and ranks them anew."""

    model: str | None = Field(None, description="a directory with model.onnx and tokenizer.json; unset: none")
    candidates: int = Field(30, ge=1, le=1000, description="how many passages it reads")


class FeedbackSettings(Section):
    """A second search by words, with what the first passages say. Off where `passages` is 0."""

    passages: int = Field(0, ge=0, le=100, description="how many passages are taken to be relevant")
    terms: int = Field(10, ge=1, le=100, description="how many of their terms are searched for, too")
    weight: float = Field(0.3, ge=0, le=1, description="the part of the search that is theirs")


class RetrievalSettings(Section):
    """Where passages are found, how they are ranked, and how many are read. docs/ranking.md tells of each."""

    index: str = "build/index"
    k: int = Field(5, ge=1, le=1000)
    filters: dict[str, Any] = Field(default_factory=dict)
    mode: Literal["auto", "lexical", "dense", "hybrid"] = Field(
        "auto",
        description="auto: hybrid where the index has vectors and an embedder is configured, else lexical",
    )
    fusion: Literal["convex", "rrf"] = Field(
        "convex", description="hybrid: of normalized scores, or of ranks"
    )
    lexical_weight: float = Field(0.5, ge=0, le=1, description="hybrid: the part of the words")
    letters_weight: float = Field(
        0.3, ge=0, le=1, description="the part of likeness letter by letter among the first 30; 0: off"
    )
    candidates: int = Field(100, ge=1, le=10_000, description="hybrid: how many of each ranking are fused")
    rerank: RerankSettings = RerankSettings()
    feedback: FeedbackSettings = FeedbackSettings()
    diversity: float = Field(
        0, ge=0, le=1, description="how much likeness to passages above counts against one"
    )
    max_per_document: int | None = Field(None, ge=1, description="at most so many passages of one document")
    expand: Literal["none", "neighbours", "section"] = Field(
        "none", description="what is read around a passage"
    )
    expand_tokens: int = Field(600, ge=16, le=100_000, description="how long a passage may become by that")
    backend: Literal["local", "vector_search", "pgvector"] = Field(
        "local", description="an index of our own, a Databricks Vector Search index, or a PostgreSQL table"
    )
    vector_search: VectorSearchSettings = VectorSearchSettings()
    pgvector: PgVectorSettings = PgVectorSettings()


class ReaderSettings(Section):
    """Who writes the answer. `auto` is the language model when one is configured, else extractive."""

    kind: Literal["auto", "lm", "extractive"] = "auto"
    fallback: Literal["none", "extractive"] = Field("none", description="who answers when the model fails")
    max_sentences: int = Field(2, ge=1, le=10, description="extractive: sentences in an answer")
    abstain_below: float = Field(0.4, ge=0, le=1, description="extractive: share of the question covered")
    calibration: str | None = Field(
        None, description="extractive: a file of citeqa calibrate; abstain_below is a probability then"
    )
    scoring: Literal["auto", "overlap", "embedding", "both"] = Field(
        "auto",
        description="extractive: by shared terms, vectors or both; auto: both where there is an embedder",
    )


class PriceSettings(Section):
    """What a language model costs, in US dollars for a million tokens."""

    input_usd_per_million: float = Field(ge=0)
    output_usd_per_million: float = Field(ge=0)


class LanguageModelSettings(Section):
    """Any model that DSPy reaches, by its string (`openai/gpt-4o-mini`, `databricks/<endpoint>`, …).

    `requests_per_minute` and `rate_limit_wait_s` are for commands that ask many questions, not for those where
    a person waits. With `cache` off, every call is made, even where one like it was recorded.
    """

    model: str | None = None
    api_base: str | None = None
    temperature: float | None = Field(None, ge=0)
    max_tokens: int | None = Field(1000, ge=1)
    timeout_s: float = Field(60, gt=0)
    num_retries: int = Field(2, ge=0, le=10)
    cache: bool = True
    adapter: Literal["chat", "json", "xml"] = "chat"
    requests_per_minute: float | None = Field(
        None, gt=0, description="never more; unset: as many as it bears"
    )
    rate_limit_wait_s: float = Field(
        300, ge=0, description="how long a call waits for a provider that is busy"
    )
    price: PriceSettings | None = Field(None, description="unset: as LiteLLM's price list says")
    user_credentials: bool = Field(
        False, description="databricks/… only: asked as the user who asks (on behalf of)"
    )


class ProgramSettings(Section):
    """Who searches, and compiled programs (JSON), by the name that a request asks for; `default` serves all others."""

    kind: Literal["fixed", "react"] = Field(
        "fixed",
        description="fixed: one search for each question; react: the model decides what it searches for",
    )
    max_searches: int = Field(5, ge=1, le=50, description="react: searches for one question")
    max_search_s: float = Field(60, gt=0, description="react: after so long it answers from what was found")
    tool_calls: Literal["text", "native"] = Field(
        "text", description="react: written out, as any model can, or by the provider's function calling"
    )
    states: dict[str, str] = Field(default_factory=dict)
    rewrite_query: bool = Field(
        False, description="have the model write the search query; several lines are several, fused"
    )
    search_question_too: bool = Field(
        False, description="fuse what the question finds with what the rewrite does"
    )


class TrackingSettings(Section):
    """Where MLflow keeps runs and traces."""

    uri: str = "sqlite:///build/mlflow.db"
    experiment: str = "citeqa"


class ServingSettings(Section):
    """How `citeqa serve` listens, what it bears, and what it keeps of traces.

    The bearer token, if any, is the environment variable CITEQA_TOKEN: a secret is no setting.
    """

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535, description="0: any free one")
    max_concurrent: int = Field(32, ge=1, le=1000, description="answers under way at once")
    max_queued: int = Field(64, ge=0, description="requests that wait for one of those; more get 429")
    queue_timeout_s: float = Field(30, gt=0)
    deadline_s: float = Field(120, gt=0, description="for one answer, waiting included")
    max_body_mb: float = Field(4, gt=0)
    shutdown_s: float = Field(30, ge=0, description="what streams when the server stops may take this long")
    cors_origins: tuple[str, ...] = ()
    trace_sample_rate: float = Field(1, ge=0, le=1, description="share of requests that are traced")
    trace_spool: str = Field("build/trace-spool", description="traces on their way to the tracking store")
    trace_spool_mb: float = Field(1000, gt=0, description="traces beyond this are dropped, and counted")
    examples: tuple[str, ...] = Field((), description="questions that the page offers to begin with")
    mlflow_ui: str | None = Field(None, description="where MLflow's pages are; else started when needed")


class McpSettings(Section):
    """How `citeqa mcp` shows the agent to others. What it bears is as `serving` says, and so is its token."""

    name: str = Field("citeqa", pattern=r"^[\w.-]+$")
    about: str = Field("", description="what the documents tell of: by this a model decides whether to ask")
    host: str = "127.0.0.1"
    port: int = Field(8001, ge=0, le=65535, description="0: any free one")
    allowed_hosts: tuple[str, ...] = Field(
        (), description="names that it is reached by, with a port or :*; unset: loopback's, or else any"
    )


class UriSettings(Section):
    """How `doc_uri`s are normalized before they are compared, on both sides."""

    strip_fragment: bool = False
    strip_trailing_slash: bool = True
    drop_query_parameters: tuple[str, ...] = ("utm_*", "gclid", "fbclid", "msclkid")
    host_aliases: dict[str, str] = Field(default_factory=dict)
    lowercase_host: bool = True
    unify_http: bool = True


class JudgeSettings(Section):
    """One of MLflow's judges. Its values are the metric `judge_<metric>`; by default, after its name."""

    name: Literal[
        "Completeness",
        "Correctness",
        "Equivalence",
        "Fluency",
        "Guidelines",
        "RelevanceToQuery",
        "RetrievalGroundedness",
        "RetrievalRelevance",
        "RetrievalSufficiency",
        "Safety",
    ]
    metric: str | None = Field(None, pattern=r"^[a-z0-9_]+$")
    guidelines: tuple[str, ...] = Field((), description="Guidelines only: what an answer must keep to")


class JudgeModelSettings(Section):
    """Who judges: a model by its string (`openai/gpt-4o`, `databricks/<endpoint>`, `databricks`, …)."""

    model: str | None = None
    api_base: str | None = Field(None, description="openai/… and azure/… only")
    timeout_s: int = Field(60, ge=1, description="of one attempt; MLflow makes up to 11")
    price: PriceSettings | None = Field(None, description="unset: as MLflow's price list says")


class RetrieverSchemaSettings(Section):
    """Which fields of the rows on a RETRIEVER span name the passage and its document."""

    primary_key: str = "chunk_id"
    doc_uri: str = "doc_uri"


class OtherAgentSettings(Section):
    """An agent that is not ours, asked in the place of ours: `citeqa eval --agent`.

    Its bearer token, if it wants one, is the environment variable CITEQA_AGENT_TOKEN: a secret is no setting.
    """

    uri: str | None = Field(
        None, description="models:/…, runs:/…, the directory of a model, http(s)://…, or endpoints:/<name>"
    )
    label: str = Field("", description="tells apart what stands behind one address at different times")
    api: Literal["auto", "responses", "chat"] = Field("auto", description="what a request looks like")
    custom_inputs: dict[str, Any] = Field(default_factory=dict, description="sent with each question")
    timeout_s: float = Field(120, gt=0, description="for one answer")
    num_retries: int = Field(5, ge=0, le=20, description="when it is busy (429, 503) or not reached")
    trace_wait_s: float = Field(30, ge=0, description="until the trace of an answer is in the store")


class TraceSettings(Section):
    """Traces that are in the tracking store already, scored in the place of new answers: `citeqa eval --traces`."""

    experiment: str | None = Field(None, description="its name or id")
    filter: str | None = Field(None, description="as mlflow.search_traces takes it")
    since: str | None = Field(None, pattern=r"^\d+(m|h|d|w)$", description="such as 90m, 12h, 7d or 2w")
    of_runs: bool = Field(False, description="also those of MLflow runs, such as an evaluation's")


def _as_judge(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class EvaluationSettings(Section):
    """What an evaluation asks, and what it measures."""

    dataset: str = "datasets/agent_docs/ground_truth.jsonl"
    columns: dict[str, str] = Field(default_factory=dict, description="our field: the dataset's column")
    split: str | None = "dev"
    limit: int | None = Field(None, ge=1)
    ks: tuple[int, ...] = (1, 3, 5, 10)
    threads: int = Field(4, ge=1, le=64)
    results: str = "build/runs"
    slices: tuple[str, ...] = ("type", "lang")
    max_failed_share: float = Field(0.2, ge=0, le=1, description="stop when more questions fail")
    uris: UriSettings = UriSettings()
    judges: tuple[Annotated[JudgeSettings, BeforeValidator(_as_judge)], ...] = ()
    judge_model: JudgeModelSettings = JudgeModelSettings()
    agent: OtherAgentSettings = OtherAgentSettings()
    traces: TraceSettings = TraceSettings()
    retriever_schema: RetrieverSchemaSettings | None = Field(None, description="of any RETRIEVER span")
    retriever_schemas: dict[str, RetrieverSchemaSettings] = Field(
        default_factory=dict, description="of the RETRIEVER spans of a name"
    )


class Settings(Section):
    """The whole configuration."""

    corpus: CorpusSettings = CorpusSettings()
    chunking: ChunkingConfig = ChunkingConfig()
    embedder: EmbedderSettings = EmbedderSettings()
    retrieval: RetrievalSettings = RetrievalSettings()
    reader: ReaderSettings = ReaderSettings()
    language_model: LanguageModelSettings = LanguageModelSettings()
    program: ProgramSettings = ProgramSettings()
    tracking: TrackingSettings = TrackingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    serving: ServingSettings = ServingSettings()
    mcp: McpSettings = McpSettings()
    memory: MemorySettings = MemorySettings()
    deployment: DeploymentSettings = DeploymentSettings()
    pipeline: PipelineSettings = PipelineSettings()

    @property
    def answers_with_lm(self) -> bool:
        """Whether a language model writes the answers."""
        return self.reader.kind == "lm" or (self.reader.kind == "auto" and bool(self.language_model.model))


def chunking_settings(settings: Settings) -> ChunkingSettings:
    """The chunker's part of the settings.

    Raises:
        ConfigurationError: if the overlap does not fit the passage.
    """
    chunking = settings.chunking
    chunker = "sentences" if chunking.chunker == "auto" else chunking.chunker
    try:
        return ChunkingSettings(chunking.max_tokens, chunking.overlap_tokens, chunker)
    except ValueError as error:
        raise ConfigurationError(f"chunking: {error}") from error


def reading_settings(settings: Settings) -> ReadingSettings:
    """The part of the settings that says how documents are read."""
    return ReadingSettings(**settings.corpus.model_dump(exclude={"path"}))


def load_settings(
    path: str | Path | None = None,
    overrides: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """The configuration from a file, the environment and `key=value` overrides, in rising precedence.

    Without `path`, `configs/agent.yaml` is read where it exists, and the defaults serve where not.

    Raises:
        ConfigurationError: one line for each wrong setting, naming its source, the key, the value, and
            the nearest key there is.
    """
    environment = os.environ if environment is None else environment
    file = Path(path) if path is not None else DEFAULT_FILE
    sources: list[tuple[str, dict[str, Any]]] = []
    if path is not None or file.exists():
        sources.append((str(file), _read_yaml(file)))
    sources += [
        _from_environment(name, value) for name, value in sorted(environment.items()) if _is_ours(name)
    ]
    sources += [(f"--set {override}", _from_override(override)) for override in overrides]
    return validate_settings(sources)


def to_overrides(values: Mapping[str, Any]) -> list[str]:
    """Values by dotted key as `load_settings` takes overrides.

    As JSON, which is YAML: a split that is called 2024 or no is a name all the same.
    """
    return [f"{key}={json.dumps(value)}" for key, value in values.items()]


def validate_settings(sources: Sequence[tuple[str, Mapping[str, Any]]]) -> Settings:
    """The configuration that named, nested dictionaries add up to; later ones win.

    Raises:
        ConfigurationError: as `load_settings`.
    """
    merged: dict[str, Any] = {}
    for _, values in sources:
        merged = _merge(merged, values)
    try:
        return Settings.model_validate(merged)
    except ValidationError as error:
        lines = [_describe(dict(e), sources) for e in error.errors()]
        raise ConfigurationError("\n".join(lines)) from None


def _read_yaml(file: Path) -> dict[str, Any]:
    values = read_yaml(file, f"No configuration file at '{file}'. Name one with --config.")
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigurationError(f"{file}: must hold sections such as `retrieval:`, not {values!r}")
    # A section whose settings are all commented out says nothing.
    return {section: settings for section, settings in values.items() if settings is not None}


def _is_ours(name: str) -> bool:
    return name.startswith(ENVIRONMENT_PREFIX) and "__" in name


def _from_environment(name: str, value: str) -> tuple[str, dict[str, Any]]:
    keys = name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
    return f"environment variable {name}", _nest(keys, _parse_value(value) if value else value)


def _from_override(override: str) -> dict[str, Any]:
    key, equals, value = override.partition("=")
    if not equals or not key.strip():
        raise ConfigurationError(f"--set {override}: write it as section.key=value, e.g. retrieval.k=10")
    return _nest(key.strip().split("."), _parse_value(value))


def _parse_value(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _nest(keys: Sequence[str], value: Any) -> dict[str, Any]:
    for key in reversed(keys):
        value = {key: value}
    return value  # type: ignore[no-any-return]


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _describe(error: dict[str, Any], sources: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    location = [str(part) for part in error["loc"]]
    source = next((name for name, values in reversed(sources) if _holds(values, location)), "configuration")
    key = ".".join(location)
    if error["type"] == "extra_forbidden":
        return f"{source}: unknown setting '{key}'{_nearest(location)}"
    return f"{source}: {key} = {error['input']!r}: {error['msg'][0].lower()}{error['msg'][1:]}"


def _holds(values: Any, location: Sequence[str]) -> bool:
    for part in location:
        if not isinstance(values, Mapping) or part not in values:
            return isinstance(values, (list, tuple)) or (
                values is not None and not isinstance(values, Mapping)
            )
        values = values[part]
    return True


def _nearest(location: Sequence[str]) -> str:
    """The nearest valid key, or all keys of the section when none is near."""
    model: type[BaseModel] = Settings
    for part in location[:-1]:
        found = _section_type(model.model_fields[part].annotation) if part in model.model_fields else None
        if found is None:
            return ""
        model = found
    near = difflib.get_close_matches(location[-1], model.model_fields, n=1, cutoff=0.5)
    section = ".".join(location[:-1])
    if near:
        return f"; did you mean '{f'{section}.' if section else ''}{near[0]}'?"
    return f"; {section or 'there'} has: {', '.join(model.model_fields)}"


def _section_type(annotation: Any) -> type[BaseModel] | None:
    options = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    return next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)
