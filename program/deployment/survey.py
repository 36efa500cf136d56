"""A look at the workspace before anything is made there: what is missing, and what will not be allowed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from program.deployment.resources import uses
from program.settings import Settings
from retrieval.workspace_errors import kind_of

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

_FOR_MODELS = {"CREATE_MODEL", "ALL_PRIVILEGES", "CREATE_REGISTERED_MODEL"}


def survey_schema(client: WorkspaceClient, schema: str, user: str) -> Iterator[str]:
    """What stands against registering a model in `catalog.schema` as this user, one sentence each."""
    catalog = schema.partition(".")[0]
    trouble = _missing(lambda: client.catalogs.get(catalog), f"The catalog '{catalog}'")
    trouble = trouble or _missing(lambda: client.schemas.get(schema), f"The schema '{schema}'")
    if trouble:
        yield trouble
    elif _FOR_MODELS.isdisjoint(held := _privileges(client, schema, user)) and held:
        yield (
            f"{user} may not make models in '{schema}'. Its owner grants it: GRANT USE SCHEMA, CREATE MODEL ON SCHEMA "
            f"{schema} TO `{user}`"
        )


def survey_resources(client: WorkspaceClient, settings: Settings) -> Iterator[str]:
    """What the agent will call and is not there, one sentence each."""
    used = uses(settings)
    for name in used.endpoints:
        yield from _found(_missing(partial(client.serving_endpoints.get, name), f"The endpoint '{name}'"))
    index = settings.retrieval.vector_search.index
    if settings.retrieval.backend == "vector_search" and index is not None:
        yield from _found(
            _missing(lambda: client.vector_search_indexes.get_index(index), f"The index '{index}'")
        )
    for place in settings.deployment.secrets.values():
        yield from _found(_missing(partial(_secret, client, place), f"The secret {place}"))
    model = settings.language_model.model or ""
    if settings.answers_with_lm and not model.startswith("databricks/") and not _has_key(settings):
        yield (
            f"The language model '{model}' is not the workspace's, and no variable of the deployment looks like its "
            "key: name one in deployment.secrets, such as OPENAI_API_KEY: scope/key"
        )


def _secret(client: WorkspaceClient, place: str) -> None:
    from databricks.sdk.errors import NotFound

    scope, _, key = place.partition("/")
    if key not in {secret.key for secret in client.secrets.list_secrets(scope)}:
        raise NotFound(f"The scope holds no key '{key}'")


def _has_key(settings: Settings) -> bool:
    names = (*settings.deployment.secrets, *settings.deployment.environment)
    return any(name.endswith(("_KEY", "_TOKEN")) for name in names)


def _privileges(client: WorkspaceClient, schema: str, user: str) -> set[str]:
    """What the user may do in the schema; nothing where that is not told, as to those who do not own it."""
    try:
        effective = client.grants.get_effective("schema", schema, principal=user)
    except Exception as error:
        if kind_of(error) is None:
            raise
        return set()
    return {
        str(privilege.privilege.value)
        for assignment in effective.privilege_assignments or ()
        for privilege in assignment.privileges or ()
        if privilege.privilege is not None
    }


def _missing(look: Callable[[], Any], what: str) -> str | None:
    """A sentence if the look finds nothing or is not allowed; other trouble is raised as it is."""
    try:
        look()
    except Exception as error:
        match kind_of(error):
            case "not_found":
                return f"{what} does not exist"
            case "permission":
                return f"{what} may not be used: {' '.join(str(error).split()).rstrip('.')}"
            case _:
                raise
    return None


def _found(trouble: str | None) -> Iterator[str]:
    if trouble is not None:
        yield trouble
