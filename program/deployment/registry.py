"""Versions of a model in Unity Catalog, by what was deployed as them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import mlflow
from mlflow import MlflowClient
from mlflow.entities import LoggedModel
from mlflow.exceptions import MlflowException
from mlflow.types.responses import RESPONSES_AGENT_INPUT_SCHEMA, RESPONSES_AGENT_OUTPUT_SCHEMA

from program.deployment.fingerprint import FINGERPRINT_TAG
from program.deployment.quiet import quiet_mlflow
from retrieval.errors import DeploymentError, WorkspaceError
from retrieval.workspace_errors import workspace_errors

CHECKED_TAG = "citeqa.checked"
_LOOKED_AT = 20


def versions(model: str) -> list[int]:
    """The versions of a model, the newest first; none where there is no such model.

    Raises:
        WorkspaceError: if Unity Catalog refuses.
    """
    with registry_errors(f"The versions of '{model}' cannot be listed"):
        found = _client().search_model_versions(f"name='{model}'")
    return sorted((int(version.version) for version in found), reverse=True)


def find_version(model: str, fingerprint: str) -> int | None:
    """The newest of the last versions that was deployed from the very same; None where there is none.

    Raises:
        WorkspaceError: as `versions`.
    """
    client = _client()
    with registry_errors(f"The versions of '{model}' cannot be read"):
        for number in versions(model)[:_LOOKED_AT]:
            # Unity Catalog's search leaves tags out.
            version = client.get_model_version(model, str(number))
            if version.tags.get(FINGERPRINT_TAG) == fingerprint and version.status == "READY":
                return number
    return None


def find_logged(experiment_id: str, fingerprint: str) -> LoggedModel | None:
    """The model that was logged from the very same before, and perhaps never registered.

    Raises:
        WorkspaceError: if the tracking store refuses.
    """
    with registry_errors("The logged models of the experiment cannot be searched"):
        found = mlflow.search_logged_models(
            experiment_ids=[experiment_id],
            filter_string=f"tags.`{FINGERPRINT_TAG}` = '{fingerprint}'",
            max_results=1,
            output_format="list",
        )
    return found[0] if found else None


def register(model_uri: str, model: str, fingerprint: str) -> int:
    """Register a logged model; the number of its version.

    Raises:
        WorkspaceError: if Unity Catalog refuses.
    """
    with registry_errors(f"The model cannot be registered as '{model}'"), quiet_mlflow():
        version = mlflow.register_model(model_uri, model, tags={FINGERPRINT_TAG: fingerprint})
    return int(version.version)


def check_interface(model: str, version: int) -> None:
    """That the version speaks the interface which the MLflow here deploys.

    Raises:
        DeploymentError: if it was logged with another MLflow, whose agents are asked differently.
        WorkspaceError: if it cannot be read.
    """
    with registry_errors(f"Version {version} of '{model}' cannot be read"), quiet_mlflow():
        info = mlflow.models.get_model_info(f"models:/{model}/{version}")
    signature = info.signature
    asked = signature.inputs.to_dict() if signature and signature.inputs else None
    said = signature.outputs.to_dict() if signature and signature.outputs else None
    wanted = (RESPONSES_AGENT_INPUT_SCHEMA.to_dict(), RESPONSES_AGENT_OUTPUT_SCHEMA.to_dict())
    if (asked, said) != wanted:
        raise DeploymentError(
            f"Version {version} of '{model}' was logged with MLflow {info.mlflow_version}, and agents are asked "
            f"differently in the {mlflow.__version__} that is installed here: databricks-agents would refuse it. "
            f"Deploy it where mlflow=={info.mlflow_version} is installed, or log it anew: citeqa deploy serving"
        )


@contextmanager
def registry_errors(what: str) -> Iterator[None]:
    """What MLflow's clients of a workspace raise is a WorkspaceError of one line that begins with `what`."""
    try:
        with workspace_errors(what):
            yield
    except MlflowException as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise WorkspaceError(f"{what}: {reason}. {_advice(reason)}") from error


def _advice(reason: str) -> str:
    if "PERMISSION_DENIED" in reason:
        return (
            "The owner of the schema grants it: USE CATALOG, USE SCHEMA, CREATE MODEL there, and for a model that "
            "exists, its ownership or CREATE MODEL VERSION."
        )
    if "does not exist" in reason:
        return "Check the name, or have it made: CREATE SCHEMA catalog.schema."
    return "Mend it, and give the same command again."


def _client() -> MlflowClient:
    return MlflowClient(registry_uri="databricks-uc")
