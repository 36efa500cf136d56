"""Find a model that MLflow logged: its files, what they hash to, and how it wants to be asked."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

from program.settings import TrackingSettings
from program.tracking import connect, tracking_errors
from retrieval.errors import AgentError
from retrieval.suggestions import did_you_mean, there_is

Api = Literal["responses", "chat"]

_MODELS = "models:/"
_WRITTEN_LATER = ("registered_model_meta",)
"""Files that MLflow adds where a registered model is downloaded, and does not where the same is not."""
_MISSING = (ErrorCode.Name(RESOURCE_DOES_NOT_EXIST), "NOT_FOUND", "INVALID_PARAMETER_VALUE")


@dataclass(frozen=True, slots=True)
class LoggedModel:
    """A model's files on this disk.

    Attributes:
        uri: what it was asked for by, an alias replaced by the version that it means now.
        name: what to call it.
        directory: where its files are.
        digest: a hash of all of them, 32 characters.
        api: what its signature takes: a ResponsesAgent's `input` or a chat's `messages`; None if neither.
        takes: the names of its signature's inputs; empty without a signature.
    """

    uri: str
    name: str
    directory: Path
    digest: str
    api: Api | None
    takes: tuple[str, ...]


def find_model(uri: str, tracking: TrackingSettings) -> LoggedModel:
    """The model that `models:/…`, `runs:/…` or the path of a directory names, downloaded where it is remote.

    Raises:
        AgentError: if there is none, or it is none that MLflow can load as a Python function.
        StorageError: if the tracking store cannot be reached.
    """
    if ":/" in uri:
        connect(tracking)
        uri, directory = _resolve_and_download(uri, tracking)
    else:
        directory = Path(uri)
        if not directory.is_dir():
            raise AgentError(
                f"No agent at '{uri}'. Give models:/name/version, models:/name@alias, runs:/id/path, the "
                "directory of a logged model, or an address that begins with http:// or https://."
            )
    model = _read_description(uri, directory)
    takes = (
        tuple(map(str, model.signature.inputs.input_names()))
        if model.signature and model.signature.inputs
        else ()
    )
    return LoggedModel(uri, _name(uri, directory), directory, _digest(directory), _api(takes), takes)


def _resolve_and_download(uri: str, tracking: TrackingSettings) -> tuple[str, Path]:
    with tracking_errors(tracking.uri):
        try:
            uri = _without_alias(uri)
            return uri, Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, tracking_uri=tracking.uri))
        except MlflowException as error:
            if error.error_code not in _MISSING:
                raise
            reason = str(error).partition("\n")[0].rstrip(".")
        except OSError as error:
            # What a store of files says of a path that is not there.
            reason = str(error).rstrip(".")
    raise AgentError(
        f"No model at '{uri}' in the tracking store '{tracking.uri}': {reason}. {_nearest(uri)}".rstrip()
    )


def _without_alias(uri: str) -> str:
    name, at, alias = uri.removeprefix(_MODELS).rpartition("@")
    if not uri.startswith(_MODELS) or not at:
        return uri
    version = mlflow.MlflowClient().get_model_version_by_alias(name, alias).version
    return f"{_MODELS}{name}/{version}"


def _nearest(uri: str) -> str:
    if not uri.startswith(_MODELS) or uri.startswith(f"{_MODELS}m-"):
        return ""
    name = uri.removeprefix(_MODELS).partition("@")[0].partition("/")[0]
    names = [model.name for model in mlflow.MlflowClient().search_registered_models()]
    return f"{did_you_mean(name, names) if name not in names else ''}Registered there: {there_is(names)}."


def _read_description(uri: str, directory: Path) -> Model:
    try:
        model: Model = Model.load(str(directory))
    except (MlflowException, OSError, ValueError, TypeError) as error:
        raise AgentError(
            f"'{uri}' is no logged model: it has no MLmodel file that can be read ({error})."
        ) from error
    if mlflow.pyfunc.FLAVOR_NAME not in (model.flavors or {}):
        raise AgentError(
            f"'{uri}' cannot be asked: it has no python_function flavor, but {there_is(model.flavors or ())}."
        )
    return model


def _name(uri: str, directory: Path) -> str:
    if uri.startswith(_MODELS):
        return uri.removeprefix(_MODELS).replace("/", "-")
    return directory.resolve().name if ":/" not in uri else uri.rstrip("/").rpartition("/")[2]


def _api(takes: tuple[str, ...]) -> Api | None:
    if "input" in takes:
        return "responses"
    return "chat" if "messages" in takes else None


def _digest(directory: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(path for path in directory.rglob("*") if path.is_file()):
        place = file.relative_to(directory)
        if "__pycache__" in place.parts or place.name in _WRITTEN_LATER:
            continue
        digest.update(f"{place.as_posix()}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as opened:
            _update(digest, opened)
    return digest.hexdigest()[:32]


def _update(digest: Any, opened: Any) -> None:
    while block := opened.read(1 << 20):
        digest.update(block)
