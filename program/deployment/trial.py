"""Try a logged model as Databricks will: in an environment with nothing but what it says it needs, and one question."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from program.deployment.quiet import quiet_mlflow
from program.deployment.registry import registry_errors
from retrieval.errors import DeploymentError
from retrieval.secrets import hide_secrets

ENVIRONMENTS = Path("build/deployment-environments")
"""Environments that were made, by what is in them; can be deleted at any time."""

USER_TOKEN = "CITEQA_TRIAL_USER_TOKEN"
_MARK = "citeqa-trial:"
_LAST_LINES = 12


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of it: the answer, its sources' links, what is wrong, and what may be."""

    answer: str
    links: tuple[str, ...]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    load_s: float
    answer_s: float


def try_model(
    model_uri: str,
    example: Mapping[str, Any],
    where: Literal["environment", "process"],
    *,
    environment: Mapping[str, str] | None = None,
    user_token: str | None = None,
    timeout_s: float = 900,
    say: Callable[[str], None] = lambda _: None,
) -> Trial:
    """Load the model and ask it `example`, whole and streamed, elsewhere: nothing of this process is there.

    `where` is an environment that is made of the model's requirements, which takes minutes the first time, or a
    mere process with the packages of this one. `environment` holds further variables, `user_token` stands for the
    user who asks.

    Raises:
        DeploymentError: if the environment cannot be made, the model does not load or answer, or answers without
            what makes its sources show.
        WorkspaceError: if the model cannot be fetched.
    """
    import mlflow

    with tempfile.TemporaryDirectory() as folder:
        with registry_errors(f"The model '{model_uri}' cannot be fetched"), quiet_mlflow():
            model = Path(mlflow.artifacts.download_artifacts(model_uri, dst_path=str(Path(folder) / "model")))
        python = sys.executable if where == "process" else str(_environment(model, say))
        more = {**(environment or {}), **({USER_TOKEN: user_token} if user_token else {})}
        trial = _run(python, model, example, more, Path(folder), timeout_s)
    if trial.problems:
        raise DeploymentError(
            f"The logged model '{model_uri}' is not fit to be served: {'; '.join(trial.problems)}."
        )
    return trial


def _environment(model: Path, say: Callable[[str], None]) -> Path:
    """A Python with exactly what the model requires, made where there is none yet."""
    needed = b"".join((model / name).read_bytes() for name in ("requirements.txt", "constraints.txt"))
    key = hashlib.blake2b(needed + sys.version.encode(), digest_size=8).hexdigest()
    place = (ENVIRONMENTS / key).absolute()
    python, done = place / "bin" / "python", place / "complete"
    if not done.exists():
        say("making an environment of the model's requirements, which takes minutes")
        _call([sys.executable, "-m", "venv", "--clear", str(place)], "An environment cannot be made")
        _call(
            [
                str(python),
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "-r",
                "requirements.txt",
            ],
            "What the model requires cannot be installed",
            cwd=model,
        )
        done.touch()
    return python


def _run(
    python: str,
    model: Path,
    example: Mapping[str, Any],
    more: Mapping[str, str],
    folder: Path,
    timeout_s: float,
) -> Trial:
    script = str(resources.files("program") / "deployment" / "trial_script.py")
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    variables = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MLFLOW_"))},
        # What is only said to be a secret here is known where it is served.
        **{name: value for name, value in more.items() if not value.startswith("{{secrets/")},
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/traces.db",
        "MLFLOW_ENABLE_ASYNC_TRACE_LOGGING": "false",
    }
    done = _call(
        [python, script, str(model), json.dumps(example)],
        "The logged model does not load and answer elsewhere",
        cwd=elsewhere,
        env=variables,
        timeout_s=timeout_s,
    )
    said = next((line for line in done.splitlines() if line.startswith(_MARK)), None)
    if said is None:
        raise DeploymentError("The logged model ended without an answer when it was tried elsewhere.")
    found = json.loads(said.removeprefix(_MARK))
    return Trial(
        answer=found["answer"],
        links=tuple(found["links"]),
        problems=tuple(found["problems"]),
        warnings=tuple(found["warnings"]),
        load_s=found["load_s"],
        answer_s=found["answer_s"],
    )


def _call(
    command: list[str],
    trouble: str,
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float = 3600,
) -> str:
    try:
        done = subprocess.run(
            command, cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise DeploymentError(f"{trouble}: not done after {timeout_s:.0f} s.") from error
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        told = lines[-1] if lines else f"exit code {done.returncode}"
        raise DeploymentError(f"{trouble}: {_hide(told, env).rstrip('.')}.") from RuntimeError(
            _hide("\n".join(lines[-_LAST_LINES:]), env)
        )
    return done.stdout


def _hide(text: str, env: Mapping[str, str] | None) -> str:
    """Without secrets of this environment, and without the token that the other process was given."""
    token = (env or {}).get(USER_TOKEN)
    return hide_secrets(text.replace(token, f"${USER_TOKEN}") if token else text)
