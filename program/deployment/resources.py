"""What a served agent may use of its workspace, and as whom."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mlflow.models.auth_policy import AuthPolicy, SystemAuthPolicy, UserAuthPolicy
from mlflow.models.resources import (
    DatabricksFunction,
    DatabricksLakebase,
    DatabricksServingEndpoint,
    DatabricksTable,
    DatabricksVectorSearchIndex,
    Resource,
)

from program.settings import Settings

VECTOR_SEARCH_SCOPES = ("vectorsearch.vector-search-endpoints", "vectorsearch.vector-search-indexes")
"""What a user must let the agent do so that it searches with the rights of that user."""


@dataclass(frozen=True, slots=True)
class Uses:
    """Names of what the agent calls by itself, and the scopes of what it does on behalf of the user who asks."""

    endpoints: tuple[str, ...] = ()
    indexes: tuple[str, ...] = ()
    databases: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()


def uses(settings: Settings) -> Uses:
    """What the settings make the agent call: model endpoints, the index, databases, and what is stated besides.

    An index that is searched as the user who asks is no resource of the agent's own.
    """
    retrieval, deployment = settings.retrieval, settings.deployment
    models = [settings.language_model.model if settings.answers_with_lm else None, settings.embedder.model]
    called = (model.partition("/") for model in models if model is not None)
    index = retrieval.vector_search.index if retrieval.backend == "vector_search" else None
    as_user = index is not None and retrieval.vector_search.user_credentials
    databases = [
        retrieval.pgvector.lakebase_instance if retrieval.backend == "pgvector" else None,
        settings.memory.lakebase_instance if settings.memory.store else None,
    ]
    return Uses(
        endpoints=_once(endpoint for provider, _, endpoint in called if provider == "databricks"),
        indexes=() if as_user else _once([index]),
        databases=_once(databases),
        tables=_once(deployment.tables),
        functions=_once(deployment.functions),
        scopes=_once([*(VECTOR_SEARCH_SCOPES if as_user else ()), *deployment.user_scopes]),
    )


def databricks_resources(settings: Settings) -> list[Resource]:
    """What a served agent calls in its workspace: Databricks gives a logged model access to these, and no other."""
    used = uses(settings)
    return [
        *(DatabricksServingEndpoint(endpoint_name=name) for name in used.endpoints),
        *(DatabricksVectorSearchIndex(index_name=name) for name in used.indexes),
        *(DatabricksLakebase(database_instance_name=name) for name in used.databases),
        *(DatabricksTable(table_name=name) for name in used.tables),
        *(DatabricksFunction(function_name=name) for name in used.functions),
    ]


def auth_policy(settings: Settings) -> AuthPolicy | None:
    """The resources and the scopes together; None where nothing is done on behalf of a user."""
    scopes = uses(settings).scopes
    if not scopes:
        return None
    return AuthPolicy(
        system_auth_policy=SystemAuthPolicy(resources=databricks_resources(settings)),
        user_auth_policy=UserAuthPolicy(api_scopes=list(scopes)),
    )


def _once(names: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in names if name))
