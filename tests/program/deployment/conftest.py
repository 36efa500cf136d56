"""A workspace that lasts as long as a module, and settings that deploy the small corpus there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_workspace import FakeWorkspace

from program.settings import Settings

ANN = "ann@example.com"
QUESTION = "When does water boil on Everest?"

Deployable = Callable[..., Settings]


@pytest.fixture(scope="module")
def lasting_workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeWorkspace]:
    """A workspace that ann signs in to; nothing may have asked for what it lacks."""
    with pytest.MonkeyPatch.context() as patch, FakeWorkspace() as workspace:
        for name in [name for name in os.environ if name.startswith("DATABRICKS_")]:
            patch.delenv(name)
        patch.setenv("DATABRICKS_CONFIG_FILE", str(Path(tmp_path_factory.mktemp("home")) / "none"))
        patch.setenv("DATABRICKS_HOST", workspace.url)
        patch.setenv("DATABRICKS_TOKEN", workspace.identity.add_token(ANN))
        yield workspace
        assert workspace.unknown == []


@pytest.fixture
def workspace(lasting_workspace: FakeWorkspace) -> FakeWorkspace:
    """The workspace of the module, in the place of one for each test."""
    return lasting_workspace


@pytest.fixture
def models_without_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logged models leave our packages out, some 300 files: they are loaded here, where these are."""
    for module in ("log", "fingerprint"):
        monkeypatch.setattr(f"program.deployment.{module}.code_paths", list)


@pytest.fixture
def deployable(make_settings: Any) -> Deployable:
    """Settings that deploy as `main.rag.<name>`; keyword arguments are settings of the deployment."""

    def make(name: str, sections: dict[str, Any] | None = None, **deployment: Any) -> Settings:
        values: dict[str, Any] = {
            "tracking": {"uri": "databricks", "experiment": "/Shared/citeqa"},
            "deployment": {
                "model": f"main.rag.{name}",
                "endpoint": name,
                "question": QUESTION,
                "check": "none",
                **deployment,
            },
        }
        for section, given in (sections or {}).items():
            values[section] = {**values.get(section, {}), **given}
        settings: Settings = make_settings(**values)
        return settings

    return make
