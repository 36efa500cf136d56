"""Where a program is: at a path, among the artifacts of a run, in a logged model, or in the Prompt Registry.

    build/programs/tutorial.json           a file
    runs:/<run id>/<artifact path>          an artifact of an MLflow run
    models:/<name>/<version>, @<alias>      the compiled program that an agent was logged with; one that has several
    models:/m-<id>                          is asked for one with #<name of the program>
    prompts:/<name>/<version>, @<alias>     the Prompt Registry (program.prompt_registry)

MLflow is imported for a URI alone.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from program.mlflow_progress import without_progress_bar
from retrieval.errors import ProgramStateError, StorageError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

DOWNLOADS = Path("build/downloaded-programs")
"""Programs that came from MLflow, by the hash of their content. Can be deleted at any time."""

NOT_THERE = ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "INVALID_PARAMETER_VALUE")
"""MLflow's codes for what does not exist; the last, of an alias."""

_URI = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+):/")  # not C:/, a drive
_RUN = re.compile(r"runs:/(?P<run>[^/]+)/(?P<path>.+)")
_MODEL = re.compile(
    r"models:/(?:(?P<id>m-[0-9a-f]+)|(?P<name>[^/@#]+)(?:/(?P<version>\d+)|@(?P<alias>[^/#]+)))(?:#(?P<program>.+))?"
)
_PROMPT = re.compile(r"prompts:/(?P<name>[^/@#]+)(?:/(?P<version>\d+)|@(?P<alias>[^/#]+))")
_FORMS = {
    "runs": "runs:/<run id>/<artifact path>",
    "models": "models:/<name>/<version> or models:/<name>@<alias>",
    "prompts": "prompts:/<name>/<version> or prompts:/<name>@<alias>",
}
_LOCAL_STORE = "sqlite:///"
_DEFAULT = "default"


def locate_state(source: str, tracking_uri: str) -> Path:
    """The program file of a path or URI, on this machine; a path may lead nowhere still.

    What a URI means is asked once a process: an alias that moves is seen by the next one, and until then
    what answers is what was noted.

    Raises:
        ProgramStateError: if there is nothing at the URI, with the nearest that is, or it has no such form.
        StorageError: if the tracking store cannot be reached, or the disk refuses what came from there.
    """
    if not is_uri(source):
        return Path(source)
    return _keep(_content(source, tracking_uri))


def is_uri(source: str) -> bool:
    """Whether it is to be looked up, and no path of this machine."""
    return _URI.match(source) is not None


def state_artifact(program: str) -> str:
    """The name under which a compiled program is logged with the model."""
    return f"program_{program}"


def parse_prompt_uri(uri: str) -> tuple[str, str | None, str | None]:
    """Name, version and alias of a prompt; one of the latter is None.

    Raises:
        ProgramStateError: if it has another form.
    """
    match = _match(_PROMPT, uri, "prompts")
    return match["name"], match["version"], match["alias"]


def forget_located() -> None:
    """What URIs mean is asked anew."""
    _content.cache_clear()


@lru_cache(maxsize=64)
def _content(source: str, tracking_uri: str) -> bytes:
    scheme = source.partition(":")[0]
    if scheme not in _FORMS:
        raise ProgramStateError(
            f"A program cannot be read from '{source}'. Name a path, or {', '.join(_FORMS.values())}."
        )
    if tracking_uri.startswith(_LOCAL_STORE) and not Path(tracking_uri.removeprefix(_LOCAL_STORE)).exists():
        # MLflow would make one, and look into it.
        raise ProgramStateError(
            f"No program at '{source}': there is no MLflow store at '{tracking_uri}'. Name it with "
            "--set tracking.uri=…"
        )
    from mlflow import MlflowClient

    from program.tracking import tracking_errors

    with tracking_errors(tracking_uri):
        client = MlflowClient(tracking_uri=tracking_uri)
        match scheme:
            case "runs":
                return _from_run(client, source, tracking_uri)
            case "models":
                return _from_model(client, source, tracking_uri)
        return _from_prompts(client, source)


def _from_run(client: MlflowClient, source: str, tracking_uri: str) -> bytes:
    from mlflow.exceptions import MlflowException

    match = _match(_RUN, source, "runs")
    run, path = match["run"], match["path"]
    try:
        client.get_run(run)
    except MlflowException as error:
        raise _missing(error, source, f"the store at '{tracking_uri}' has no run '{run}'.") from error
    try:
        return _download(source, source, tracking_uri, client)
    except MlflowException as error:
        folder = path.rpartition("/")[0]
        there = [item.path for item in client.list_artifacts(run, folder or None)]
        raise _missing(error, source, f"the run has no such artifact{_nearest(path, there)}") from error


def _from_model(client: MlflowClient, source: str, tracking_uri: str) -> bytes:
    import yaml

    match = _match(_MODEL, source, "models")
    root = _model_root(client, source, match)
    described = yaml.safe_load(_download(f"{root}/MLmodel", source, tracking_uri, client)) or {}
    artifacts: dict[str, Any] = described.get("flavors", {}).get("python_function", {}).get("artifacts") or {}
    program = match["program"] or _DEFAULT
    found = artifacts.get(state_artifact(program))
    if found is None:
        prefix = state_artifact("")
        there = [name.removeprefix(prefix) for name in artifacts if name.startswith(prefix)]
        known = (
            f"it has {', '.join(there)}; write #{there[0]} after its URI." if there else "it has none at all."
        )
        raise ProgramStateError(
            f"No program at '{source}': the model was logged without a compiled program '{program}'; {known}"
        )
    return _download(f"{root}/{found['path']}", source, tracking_uri, client)


def _model_root(client: MlflowClient, source: str, match: re.Match[str]) -> str:
    """Where the model's files are, as a URI of artifacts."""
    from mlflow.exceptions import MlflowException

    name, version = match["name"], match["version"]
    try:
        if match["id"]:
            return str(client.get_logged_model(match["id"]).artifact_location)
        if match["alias"]:
            version = str(client.get_model_version_by_alias(name, match["alias"]).version)
        if _registry(client).startswith("databricks"):
            # Unity Catalog gives access by the model's name alone.
            return f"models:/{name}/{version}"
        location = client.get_model_version_download_uri(name, version)
        if location.startswith("models:/"):
            return str(client.get_logged_model(location.removeprefix("models:/")).artifact_location)
        return str(location)
    except MlflowException as error:
        raise _missing(error, source, _why_no_model(client, match)) from error


def _why_no_model(client: MlflowClient, match: re.Match[str]) -> str:
    from mlflow.exceptions import MlflowException

    if match["id"]:
        return "there is no logged model of this id."
    name = match["name"]
    try:
        aliases = list(client.get_registered_model(name).aliases)
    except MlflowException:
        names = [model.name for model in client.search_registered_models(max_results=200)]
        return f"no model '{name}' is registered{_nearest(name, names)}"
    if match["alias"]:
        return f"'{name}' has no alias '{match['alias']}'{_nearest(match['alias'], aliases)}"
    return f"'{name}' has no version {match['version']}."


def _from_prompts(client: MlflowClient, source: str) -> bytes:
    import json

    from program.prompt_registry import fetch_program

    program = fetch_program(client, source)
    return f"{json.dumps(program.as_json(), ensure_ascii=False, indent=2)}\n".encode()


def _download(uri: str, source: str, tracking_uri: str, client: MlflowClient) -> bytes:
    from mlflow.artifacts import download_artifacts

    from program.program_file import MAX_BYTES

    with tempfile.TemporaryDirectory(prefix="citeqa-") as folder, without_progress_bar():
        registry_uri = _registry(client)
        path = Path(
            download_artifacts(uri, dst_path=folder, tracking_uri=tracking_uri, registry_uri=registry_uri)
        )
        if not path.is_file():
            raise ProgramStateError(f"'{source}' is a folder of artifacts. Name the program file in it.")
        if path.stat().st_size > MAX_BYTES:
            raise ProgramStateError(f"'{source}' is larger than {MAX_BYTES / 1e6:g} MB: no program file.")
        return path.read_bytes()


def _registry(client: MlflowClient) -> str:
    # MLflow's own functions look at this attribute from outside; it has no public name.
    return str(client._registry_uri)


def _keep(content: bytes) -> Path:
    file = DOWNLOADS / f"{hashlib.sha256(content).hexdigest()[:32]}.json"
    if file.exists():
        return file
    unfinished = file.with_suffix(f".{os.getpid()}")
    try:
        DOWNLOADS.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(content)
        unfinished.replace(file)
    except OSError as error:
        raise StorageError(f"'{file}' cannot be written: {error.strerror}.") from error
    return file


def _match(pattern: re.Pattern[str], source: str, scheme: str) -> re.Match[str]:
    match = pattern.fullmatch(source)
    if match is None:
        raise ProgramStateError(f"'{source}' names no program. Write it as {_FORMS[scheme]}.")
    return match


def _missing(error: MlflowException, source: str, reason: str) -> Exception:
    """That there is nothing, or what MLflow said where it said something else."""
    if error.error_code not in NOT_THERE:
        return error
    return ProgramStateError(f"No program at '{source}': {reason}")


def _nearest(name: str, there: list[str]) -> str:
    near = get_close_matches(name, there, n=1, cutoff=0.5)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; there {'is' if len(there) == 1 else 'are'} {', '.join(there[:10])}." if there else "."
