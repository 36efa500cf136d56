"""What a served agent may use of its workspace, and as whom."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
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
from retrieval.asking_user import asking_for
from retrieval.workspace import open_workspace

VECTOR_SEARCH_SCOPES = ("vectorsearch.vector-search-endpoints", "vectorsearch.vector-search-indexes")
"""What a user must let the agent do so that it searches with the rights of that user."""

ENDPOINT_SCOPES = ("serving.serving-endpoints",)
"""The same, so that it asks model endpoints with the rights of that user."""


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

    What is searched or asked as the user who asks is no resource of the agent's own.
    """
    retrieval, deployment = settings.retrieval, settings.deployment
    model = settings.language_model.model if settings.answers_with_lm else None
    asks_as_user = model is not None and settings.language_model.user_credentials
    models = [None if asks_as_user else model, settings.embedder.model]
    called = (name.partition("/") for name in models if name is not None)
    index = retrieval.vector_search.index if retrieval.backend == "vector_search" else None
    searches_as_user = index is not None and retrieval.vector_search.user_credentials
    scopes = [
        *(ENDPOINT_SCOPES if asks_as_user else ()),
        *(VECTOR_SEARCH_SCOPES if searches_as_user else ()),
        *deployment.user_scopes,
    ]
    databases = [
        retrieval.pgvector.lakebase_instance if retrieval.backend == "pgvector" else None,
        settings.memory.lakebase_instance if settings.memory.store else None,
    ]
    return Uses(
        endpoints=_once(endpoint for provider, _, endpoint in called if provider == "databricks"),
        indexes=() if searches_as_user else _once([index]),
        databases=_once(databases),
        tables=_once(deployment.tables),
        functions=_once(deployment.functions),
        scopes=_once(scopes),
    )


@contextmanager
def as_oneself(settings: Settings) -> Iterator[str | None]:
    """Within, an agent that acts for the user who asks acts for whoever deploys it; the token, if it does.

    Raises:
        ConfigurationError, WorkspaceError: if it does, and one is not signed in.
    """
    token = open_workspace().token() if uses(settings).scopes else None
    with asking_for(token):
        yield token


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
