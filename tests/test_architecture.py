"""Who may know whom: the folders are the architecture."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(file: Path, *, top_level_only: bool = False) -> Iterator[str]:
    """The top-level packages that a module imports."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0]


@pytest.mark.parametrize("file", modules("retrieval"), ids=lambda file: file.stem)
def test_retrieval_knows_no_language_model_and_nobody_above_it(file: Path) -> None:
    known = set(imports(file))
    # Embeddings endpoints are reached through the clients that DSPy uses.
    clients = {"litellm", "openai"} if file.parts[-2:] == ("embedders", "endpoint.py") else set()
    assert not known & {"program", "eval", "dspy", "litellm", "openai"} - clients
    assert ("mlflow" in known) == (file.name == "tracing.py"), "tracing alone knows MLflow"


@pytest.mark.parametrize("file", modules("program"), ids=lambda file: file.stem)
def test_the_program_knows_no_evaluation_but_in_the_body_of_a_command(file: Path) -> None:
    assert "eval" not in set(imports(file, top_level_only=file.parent.name == "commands"))


@pytest.mark.parametrize(
    "file", [ROOT / "program/cli.py", *modules("program/commands")], ids=lambda f: f.stem
)
def test_the_command_line_imports_click_and_nothing_heavier_at_the_top(file: Path) -> None:
    light = {
        "__future__",
        "collections",
        "json",
        "os",
        "re",
        "sys",
        "typing",
        "click",
        "program",
        "retrieval",
    }
    assert set(imports(file, top_level_only=True)) <= light


def test_every_package_is_installed() -> None:
    stated = re.findall(
        r'^  "([a-z_.]+)",$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE
    )
    there = {
        ".".join(file.parent.relative_to(ROOT).parts)
        for top in ("program", "retrieval", "eval")
        for file in (ROOT / top).rglob("__init__.py")
    }
    assert there <= set(stated)


def test_data_folders_hold_no_code_and_test_folders_are_no_packages() -> None:
    assert not list((ROOT / "datasets").rglob("*.py"))
    support = ROOT / "tests" / "support"  # what tests import: doubles of services that are not ours
    packages = (ROOT / "tests").rglob("__init__.py")
    assert [file for file in packages if support not in file.parents] == []
