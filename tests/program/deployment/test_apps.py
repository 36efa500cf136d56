"""A bundle that Databricks Apps run: what it says, what it holds, and that the app in it answers."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import httpx
import mlflow
import pytest
import yaml
from click.testing import CliRunner
from fake_workspace import FakeWorkspace

from program.cli import cli
from program.deployment.apps import plan_app, served_settings, write_bundle
from program.deployment.bundle import app_yaml, databricks_yaml, validate
from program.deployment.wheel import write_wheel
from program.settings import Settings, validate_settings
from retrieval.errors import ConfigurationError

HOST = "https://example.cloud.databricks.com"


@pytest.fixture
def everything(make_settings: Any) -> Settings:
    """An app that uses all that an app can."""
    settings: Settings = make_settings(
        retrieval={
            "backend": "vector_search",
            "vector_search": {"index": "main.rag.passages", "user_credentials": False},
        },
        language_model={"model": "databricks/chat"},
        embedder={"model": "databricks/embed"},
        tracking={"uri": "databricks", "experiment": "/Shared/citeqa"},
        deployment={
            "app": "docs-agent",
            "secrets": {"CITEQA_EXTRA_KEY": "rag/extra"},
            "environment": {"LOG_LEVEL": "info"},
            "tables": ["main.rag.facts"],
            "functions": ["main.rag.lookup"],
            "can_query": ["bob@example.com", "readers"],
            "can_manage": ["admins"],
            "usage_policy": "policy-1",
            "user_scopes": ["sql"],
        },
    )
    return settings


def test_the_app_may_use_what_the_settings_make_it_use_and_nothing_else(everything: Settings) -> None:
    bundle = databricks_yaml(everything, HOST, experiment_id="7")
    app = bundle["resources"]["apps"]["docs_agent"]
    assert app["resources"] == [
        {"name": "experiment", "experiment": {"experiment_id": "7", "permission": "CAN_EDIT"}},
        {"name": "endpoint-1", "serving_endpoint": {"name": "chat", "permission": "CAN_QUERY"}},
        {"name": "endpoint-2", "serving_endpoint": {"name": "embed", "permission": "CAN_QUERY"}},
        *(
            {
                "name": f"table-{number}",
                "uc_securable": {
                    "securable_full_name": name,
                    "securable_type": "TABLE",
                    "permission": "SELECT",
                },
            }
            for number, name in ((1, "main.rag.passages"), (2, "main.rag.facts"))
        ),
        {
            "name": "function-1",
            "uc_securable": {
                "securable_full_name": "main.rag.lookup",
                "securable_type": "FUNCTION",
                "permission": "EXECUTE",
            },
        },
        {"name": "citeqa-extra-key", "secret": {"scope": "rag", "key": "extra", "permission": "READ"}},
    ]
    assert app["permissions"] == [
        {"level": "CAN_USE", "user_name": "bob@example.com"},
        {"level": "CAN_USE", "group_name": "readers"},
        {"level": "CAN_MANAGE", "group_name": "admins"},
    ]
    assert (app["usage_policy_id"], app["user_api_scopes"]) == ("policy-1", ["sql"])
    assert bundle["targets"]["default"]["workspace"]["host"] == HOST
    validate(bundle, app_yaml(everything))


def test_the_app_serves_on_the_port_that_it_is_given_with_its_secrets_by_name(everything: Settings) -> None:
    said = app_yaml(everything)
    assert said["command"][-1].endswith("--host 0.0.0.0 --port $DATABRICKS_APP_PORT")
    assert said["env"] == [
        {"name": "LOG_LEVEL", "value": "info"},
        {"name": "CITEQA_EXTRA_KEY", "valueFrom": "citeqa-extra-key"},
    ]


def test_an_index_that_is_searched_as_the_user_is_no_resource_but_a_scope(everything: Settings) -> None:
    searched = everything.retrieval.vector_search.model_copy(update={"user_credentials": True})
    retrieval = everything.retrieval.model_copy(update={"vector_search": searched})
    bundle = databricks_yaml(everything.model_copy(update={"retrieval": retrieval}), HOST, "7")
    app = bundle["resources"]["apps"]["docs_agent"]
    assert "main.rag.passages" not in str(app["resources"])
    assert "vectorsearch.vector-search-indexes" in app["user_api_scopes"]


def test_an_experiment_that_is_not_there_yet_is_made_with_the_app(everything: Settings) -> None:
    bundle = databricks_yaml(everything, HOST, experiment_id=None)
    assert bundle["resources"]["experiments"] == {"docs_agent": {"name": "/Shared/citeqa"}}
    experiment = bundle["resources"]["apps"]["docs_agent"]["resources"][0]["experiment"]
    assert experiment["experiment_id"] == "${resources.experiments.docs_agent.id}"
    validate(bundle, app_yaml(everything))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda b, a: b["resources"]["apps"]["docs_agent"].update(surprise=1), "surprise"),
        (lambda b, a: b["resources"]["apps"]["docs_agent"].pop("source_code_path"), "source_code_path"),
        (
            lambda b, a: b["resources"]["apps"]["docs_agent"]["resources"].append(
                {"name": "x", "vector_index": {"name": "y"}}
            ),
            "knows no resource such as",
        ),
        (
            lambda b, a: b["resources"]["apps"]["docs_agent"]["resources"][1]["serving_endpoint"].update(
                colour="red"
            ),
            "knows no resource such as",
        ),
        (lambda b, a: a["env"].append({"name": "TOKEN", "valueFrom": "nowhere"}), "no resource of the app"),
        (lambda b, a: a["env"].append({"name": "BOTH"}), "either value or valueFrom"),
        (lambda b, a: a.update(comand=[]), "comand"),
    ],
)
def test_a_bundle_that_databricks_would_not_take_is_told(
    everything: Settings, spoil: Any, message: str
) -> None:
    bundle, app = databricks_yaml(everything, HOST, "7"), app_yaml(everything)
    spoil(bundle, app)
    with pytest.raises(ConfigurationError, match="The bundle is not valid") as error:
        validate(bundle, app)
    assert message in str(error.value)


def test_the_settings_of_the_app_say_what_differs_and_make_the_same_agent(
    everything: Settings, deployable: Any
) -> None:
    assert served_settings(deployable("app", {"retrieval": {"k": 7}})) == {
        "embedder": {"cache": None},
        "retrieval": {"index": "index", "k": 7},
        "tracking": {"uri": "databricks", "experiment": "/Shared/citeqa"},
    }
    again = validate_settings([("app", served_settings(everything))])
    assert again.retrieval.vector_search.index == "main.rag.passages"
    assert again.language_model == everything.language_model


def test_a_bundle_is_written_checked_and_written_over(
    workspace: FakeWorkspace, deployable: Any, tmp_path: Path
) -> None:
    settings = deployable("app", bundle=str(tmp_path / "bundle"), can_query=("readers",))
    bundle = plan_app(settings)
    assert bundle.troubles == ()
    write_bundle(bundle)
    (tmp_path / "bundle" / ".databricks").mkdir()
    (tmp_path / "bundle" / "app" / "left-over").touch()
    write_bundle(bundle)

    app = tmp_path / "bundle" / "app"
    assert (tmp_path / "bundle" / ".databricks").exists()
    assert not (app / "left-over").exists()
    assert yaml.safe_load((app / "app.yaml").read_text()) == bundle.app_yml
    assert yaml.safe_load((tmp_path / "bundle" / "databricks.yml").read_text()) == bundle.databricks_yml
    assert (app / "index").is_dir()
    [wheel] = app.glob("citeqa-*.whl")
    assert (app / "requirements.txt").read_text() == f"-c constraints.txt\n./{wheel.name}[databricks]\n"
    pins = (app / "constraints.txt").read_text().splitlines()
    assert f"mlflow=={mlflow.__version__}" in pins
    assert any(pin.startswith("databricks-ai-search==") for pin in pins)
    assert not any(pin.startswith("citeqa==") for pin in pins)


def test_what_is_wrong_with_an_app_is_told_before_anything_is_written(
    workspace: FakeWorkspace, deployable: Any, tmp_path: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    with pytest.raises(ConfigurationError, match="holds something else than a bundle"):
        write_bundle(plan_app(deployable("app", bundle=str(tmp_path / "full"))))
    with pytest.raises(ConfigurationError, match=r"2 to 30 small letters"):
        plan_app(deployable("app", app="Docs_Agent"))
    with pytest.raises(ConfigurationError, match=r"there is no package\.json"):
        plan_app(deployable("app", chat=str(tmp_path)))
    with pytest.raises(ConfigurationError, match=r"an app keeps its traces in the workspace"):
        plan_app(deployable("app", {"tracking": {"uri": "sqlite:///x.db"}}))
    gone = plan_app(deployable("app", {"embedder": {"model": "databricks/gone"}}))
    assert gone.troubles == ("The endpoint 'gone' does not exist",)


def test_databricks_chat_app_comes_along_where_it_is_named(
    workspace: FakeWorkspace, deployable: Any, tmp_path: Path
) -> None:
    chat = tmp_path / "e2e-chatbot-app-next"
    (chat / "node_modules").mkdir(parents=True)
    (chat / "package.json").write_text("{}")
    settings = deployable("app", bundle=str(tmp_path / "bundle"), chat=str(chat))
    bundle = plan_app(settings)
    write_bundle(bundle)
    assert (tmp_path / "bundle/app/chat/package.json").exists()
    assert not (tmp_path / "bundle/app/chat/node_modules").exists()
    command = bundle.app_yml["command"][-1]
    assert "--host 127.0.0.1 --port 8001 &" in command
    assert "API_PROXY=http://127.0.0.1:8001/invocations" in command


def test_the_command_shows_the_bundle_or_writes_it_and_says_how_to_deploy_it(
    workspace: FakeWorkspace, index_path: str, tmp_path: Path
) -> None:
    options = [
        *("--set", f"retrieval.index={index_path}", "--set", "tracking.uri=databricks"),
        *("--set", "tracking.experiment=/Shared/citeqa", "--set", "deployment.app=docs-agent"),
        *("--set", f"deployment.bundle={tmp_path / 'bundle'}"),
    ]
    shown = CliRunner().invoke(cli, ["deploy", "apps", *options, "--dry-run"])
    assert shown.exit_code == 0, shown.output
    assert "name: docs-agent" in shown.output
    assert not (tmp_path / "bundle").exists()
    written = CliRunner().invoke(cli, ["deploy", "apps", *options])
    assert written.exit_code == 0, written.output
    assert "databricks bundle deploy && databricks bundle run docs_agent" in written.output


def test_the_same_code_is_the_same_wheel_and_it_holds_the_command_and_the_page(tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    wheel, again = write_wheel(tmp_path), write_wheel(tmp_path / "again")
    assert wheel.name == again.name
    assert wheel.read_bytes() == again.read_bytes()
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        [info] = {name.partition("/")[0] for name in names if ".dist-info/" in name}
        record = archive.read(f"{info}/RECORD").decode()
        described = archive.read(f"{info}/METADATA").decode()
        assert archive.read(f"{info}/entry_points.txt") == b"[console_scripts]\nciteqa = program.cli:main\n"
    assert {"program/cli.py", "program/playground/index.html", "retrieval/types.py"} <= names
    assert not any(name.endswith(".pyc") for name in names)
    assert all(f"{name}," in record for name in names)
    assert re.search(r"^Version: \d+\.\d+\.\d+\+[0-9a-f]{12}$", described, re.MULTILINE)
    assert "Requires-Dist: mlflow" in described


@pytest.mark.slow
def test_the_app_in_the_bundle_answers_from_its_own_folder_alone(
    workspace: FakeWorkspace, deployable: Any, tmp_path: Path
) -> None:
    settings = deployable("app", bundle=str(tmp_path / "bundle"))
    bundle = plan_app(settings)
    write_bundle(bundle)
    app, site = tmp_path / "bundle" / "app", tmp_path / "site"
    [wheel] = app.glob("citeqa-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    (site / "bin").mkdir()
    start = (
        f"#!{sys.executable}\nimport sys\nsys.path[0] = {str(site)!r}\n"
        "sys.meta_path[:] = [finder for finder in sys.meta_path if 'editable' not in repr(finder)]\n"
        f"import program\nassert program.__file__.startswith({str(site)!r})\n"
        "from program.cli import main\nmain()\n"
    )
    (site / "bin" / "citeqa").write_text(start)
    (site / "bin" / "citeqa").chmod(0o755)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    variables = {
        **os.environ,
        "PATH": f"{site / 'bin'}:{os.environ['PATH']}",
        "DATABRICKS_APP_PORT": str(port),
    }
    server = subprocess.Popen(bundle.app_yml["command"], cwd=app, env=variables, start_new_session=True)
    try:
        answer = _ask(f"http://127.0.0.1:{port}", server)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)
    [content] = answer["output"][0]["content"]
    assert "71 degrees" in content["text"]
    assert content["annotations"][0]["url"] == "https://docs.example/mountains"


def _ask(address: str, server: subprocess.Popen[bytes]) -> Any:
    request = {"input": [{"role": "user", "content": "When does water boil on Everest?"}]}
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and server.poll() is None:
        try:
            return httpx.post(f"{address}/invocations", json=request, timeout=30).raise_for_status().json()
        except httpx.TransportError:
            time.sleep(0.2)
    raise AssertionError(f"the app ended with {server.poll()}, or never answered")
