"""Deploy to Databricks Apps: write a bundle that holds all the app needs, and check it against the workspace."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import yaml

from program.deployment.artifacts import artifacts, model_config, models_on_disk
from program.deployment.bundle import app_yaml, databricks_yaml, validate
from program.deployment.registry import registry_errors
from program.deployment.requirements import write_constraints
from program.deployment.survey import survey_resources
from program.deployment.wheel import write_wheel
from program.settings import Settings
from retrieval.errors import ConfigurationError, DeploymentError, StorageError
from retrieval.secrets import hide_secrets
from retrieval.workspace import open_workspace
from retrieval.workspace_errors import workspace_errors

_CLI_S = 120


@dataclass(frozen=True, slots=True)
class AppBundle:
    """What an app is made of. Nothing is written yet.

    `troubles` stand against deploying it: what it uses and is not there.
    """

    settings: Settings
    folder: Path
    host: str
    databricks_yml: dict[str, Any]
    app_yml: dict[str, Any]
    artifacts: dict[str, str]
    chat: Path | None
    troubles: tuple[str, ...] = ()


def plan_app(settings: Settings) -> AppBundle:
    """The bundle for these settings, checked; the workspace is only looked at.

    Raises:
        ConfigurationError: if the settings cannot be meant, or the bundle would not be valid.
        RetrievalError, ProgramStateError: if something that travels along is not there.
        WorkspaceError: if the workspace refuses to be looked at.
    """
    deployment, tracking = settings.deployment, settings.tracking
    if tracking.uri != "databricks":
        raise ConfigurationError(
            f"tracking.uri = {tracking.uri!r}: an app keeps its traces in the workspace. Set it to databricks"
        )
    if not tracking.experiment.startswith("/"):
        raise ConfigurationError(
            f"tracking.experiment = {tracking.experiment!r}: in a workspace an experiment is named by its path, "
            f"such as /Shared/{tracking.experiment}"
        )
    chat = Path(deployment.chat) if deployment.chat else None
    if chat is not None and not (chat / "package.json").is_file():
        raise ConfigurationError(
            f"deployment.chat = {deployment.chat!r}: there is no package.json. It is the folder e2e-chatbot-app-next "
            "of https://github.com/databricks/app-templates"
        )
    travels = artifacts(settings)
    for name, place in travels.items():
        if not Path(place).exists():
            raise ConfigurationError(f"The app needs '{place}' ({name}), and it is not there.")
    workspace = open_workspace()
    with workspace_errors(f"The workspace {workspace.host} cannot be used"):
        troubles = tuple(survey_resources(workspace.client, settings))
    with registry_errors(f"The experiment '{tracking.experiment}' cannot be looked at"):
        mlflow.set_tracking_uri(tracking.uri)
        experiment = mlflow.get_experiment_by_name(tracking.experiment)
    databricks_yml = databricks_yaml(
        settings, workspace.host, str(experiment.experiment_id) if experiment else None
    )
    app_yml = app_yaml(settings)
    validate(databricks_yml, app_yml)
    return AppBundle(
        settings, Path(deployment.bundle), workspace.host, databricks_yml, app_yml, travels, chat, troubles
    )


def write_bundle(bundle: AppBundle) -> list[str]:
    """Write the bundle into its folder, over what this wrote before; the files' names.

    What Databricks' command line keeps there of its own stays.

    Raises:
        ConfigurationError: if the folder holds something else.
        StorageError: if it cannot be written.
    """
    folder, app = bundle.folder, bundle.folder / "app"
    if folder.exists() and any(folder.iterdir()) and not (folder / "databricks.yml").exists():
        raise ConfigurationError(
            f"'{folder}' holds something else than a bundle. Name another in deployment.bundle"
        )
    try:
        if app.exists():
            shutil.rmtree(app)
        app.mkdir(parents=True)
        _write_yaml(folder / "databricks.yml", bundle.databricks_yml)
        _write_yaml(app / "app.yaml", bundle.app_yml)
        _write_yaml(app / "agent.yaml", served_settings(bundle.settings))
        wheel = write_wheel(app)
        requirement = f"citeqa{_extras(bundle.settings)}"
        write_constraints([requirement], app / "constraints.txt")
        # Ours is installed from the file, whatever an index holds by its name.
        pins = (app / "constraints.txt").read_text(encoding="utf-8").splitlines()
        pins = [line for line in pins if not line.startswith("citeqa==")]
        (app / "constraints.txt").write_text("\n".join([*pins, ""]), encoding="utf-8")
        lines = ["-c constraints.txt", f"./{wheel.name}{_extras(bundle.settings)}", ""]
        (app / "requirements.txt").write_text("\n".join(lines), encoding="utf-8")
        for name, place in bundle.artifacts.items():
            _copy(Path(place), app / name)
        if bundle.chat is not None:
            shutil.copytree(
                bundle.chat, app / "chat", ignore=shutil.ignore_patterns("node_modules", ".git", ".env*")
            )
    except OSError as error:
        raise StorageError(f"The bundle cannot be written to '{folder}': {error}") from error
    return sorted(str(file.relative_to(folder)) for file in folder.iterdir()) + sorted(
        f"app/{file.name}" for file in app.iterdir()
    )


def validate_with_cli(folder: Path) -> bool:
    """Have Databricks' command line validate the bundle; False where it is not installed.

    Raises:
        DeploymentError: if it finds the bundle invalid, with what it says.
    """
    command = shutil.which("databricks")
    if command is None:
        return False
    try:
        done = subprocess.run(
            [command, "bundle", "validate"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=_CLI_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DeploymentError(f"`databricks bundle validate` did not end as it should: {error}") from error
    if done.returncode != 0:
        told = " ".join(hide_secrets(done.stderr or done.stdout).split())[:500]
        raise DeploymentError(f"`databricks bundle validate` in '{folder}' found: {told}")
    return True


def served_settings(settings: Settings) -> dict[str, Any]:
    """The settings of the app: what answers depend on, with what travels along by its place in the app."""
    said: dict[str, Any] = dict(model_config(settings))
    if settings.retrieval.backend == "local":
        said["retrieval"]["index"] = "index"
    said["tracking"] = settings.tracking.model_dump(mode="json")
    said["serving"] = settings.serving.model_dump(mode="json", exclude={"host", "port"})
    return _differing(said, Settings().model_dump(mode="json"))


def _differing(said: dict[str, Any], default: dict[str, Any]) -> dict[str, Any]:
    """What is not as it is by default."""
    found: dict[str, Any] = {}
    for name, value in said.items():
        usual = default.get(name)
        if isinstance(value, dict) and isinstance(usual, dict):
            if within := _differing(value, usual):
                found[name] = within
        elif value != usual:
            found[name] = value
    return found


def _extras(settings: Settings) -> str:
    return f"[{','.join(sorted(set(_wanted_extras(settings))))}]"


def _wanted_extras(settings: Settings) -> Iterator[str]:
    yield "databricks"
    if models_on_disk(settings) or settings.embedder.model:
        yield "dense"
    if settings.retrieval.backend == "pgvector" or (settings.memory.store or "").startswith("postgres"):
        yield "postgres"


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


def _write_yaml(file: Path, content: dict[str, Any]) -> None:
    file.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
