"""Which packages a served agent needs: those that are installed here, at the versions that are installed here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from program.deployment.artifacts import models_on_disk
from program.settings import Settings
from retrieval.errors import ConfigurationError

REQUIREMENTS = ("dspy", "filelock", "mlflow", "pydantic", "pyyaml", "tantivy")
"""The distributions that `program` and `retrieval` import when they serve, but for those MLflow brings."""

MODEL_REQUIREMENTS = ("onnxruntime", "tokenizers")
"""Those of an embedding model or a reranker that travels with the agent; vectors need `VECTOR_REQUIREMENTS`."""

VECTOR_REQUIREMENTS = ("faiss-cpu",)
VECTOR_SEARCH_REQUIREMENTS = ("databricks-ai-search",)
POSTGRES_REQUIREMENTS = ("psycopg", "psycopg-binary", "pgvector")
DATABRICKS_REQUIREMENTS = ("databricks-sdk",)

_TARGET = {
    "os_name": "posix",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "extra": "",
}
"""Where agents are served, whatever this machine is."""


def pip_requirements(settings: Settings | None = None) -> list[str]:
    """What a served agent imports as configured, at the versions that are installed here.

    Raises:
        ConfigurationError: if one of them is not installed here, so that nobody knows whether it works.
    """
    return [_pinned(name) for name in _needed(settings)]


def constraints(requirements: Iterable[str]) -> list[str]:
    """The version that is installed here of everything that the requirements draw in, themselves included.

    What another platform would need besides is left to the installer.
    """
    return list(_constraints(tuple(requirements)))


@lru_cache(maxsize=8)  # reading what some hundred packages require takes half a second
def _constraints(requirements: tuple[str, ...]) -> tuple[str, ...]:
    versions: dict[str, str] = {}
    waiting = [Requirement(line) for line in requirements]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        wanted = waiting.pop()
        name, extras = _normal(wanted.name), frozenset(wanted.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        versions[name] = distribution.version
        waiting += _drawn_in(distribution.requires or (), extras)
    # The version of a build of one's own, such as 2.1+cpu, is on no index.
    return tuple(sorted(f"{name}=={version}" for name, version in versions.items() if "+" not in version))


def write_constraints(requirements: Sequence[str], file: Path) -> Path:
    """`constraints` as a file that pip reads."""
    file.write_text("\n".join([*constraints(requirements), ""]), encoding="utf-8")
    return file


def _needed(settings: Settings | None) -> list[str]:
    packages = list(REQUIREMENTS)
    if settings is None:
        return packages
    packages += MODEL_REQUIREMENTS if models_on_disk(settings) else ()
    packages += VECTOR_REQUIREMENTS if settings.embedder.model else ()
    backend, store = settings.retrieval.backend, settings.memory.store or ""
    if backend == "vector_search":
        packages += VECTOR_SEARCH_REQUIREMENTS
    if backend == "pgvector" or store.startswith("postgres"):
        packages += POSTGRES_REQUIREMENTS
    if _calls_databricks(settings):
        packages += DATABRICKS_REQUIREMENTS
    return packages


def _calls_databricks(settings: Settings) -> bool:
    models = (settings.language_model.model, settings.embedder.model)
    instances = (settings.retrieval.pgvector.lakebase_instance, settings.memory.lakebase_instance)
    return (
        settings.retrieval.backend == "vector_search"
        or any((model or "").startswith("databricks/") for model in models)
        or any(instances)
    )


def _pinned(package: str) -> str:
    try:
        return f"{package}=={metadata.version(package)}"
    except metadata.PackageNotFoundError as error:
        raise ConfigurationError(
            f"The agent as configured needs the package '{package}' where it serves, and it is not installed here: "
            f"pip install {package}"
        ) from error


def _drawn_in(lines: Iterable[str], extras: frozenset[str]) -> list[Requirement]:
    found = []
    for line in lines:
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({**_TARGET, "extra": e}) for e in ("", *extras)):
            found.append(requirement)
    return found


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
