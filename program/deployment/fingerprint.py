"""What would be deployed, in one word: the same word, and there is nothing to do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from program.agent import INDEX_ARTIFACT
from program.deployment.artifacts import artifacts, model_config
from program.deployment.log import code_paths
from program.deployment.requirements import constraints, pip_requirements
from program.deployment.resources import uses
from program.retrievers import corpus_hash
from program.settings import Settings

FINGERPRINT_TAG = "citeqa.fingerprint"


def fingerprint(settings: Settings) -> str:
    """A hash of the code, the configuration, what travels along, what it needs and what it may use.

    An index that is elsewhere counts by its name: its content is not deployed.

    Raises:
        RetrievalError, ProgramStateError, ConfigurationError: if something that travels along is not there.
    """
    requirements = pip_requirements(settings)
    parts = {
        "code": [_hash_of(Path(folder), "*.py") for folder in code_paths()],
        "configuration": model_config(settings),
        "artifacts": dict(_artifact_hashes(settings)),
        "requirements": [requirements, constraints(requirements)],
        "uses": repr(uses(settings)),
    }
    config = parts["configuration"]
    if isinstance(config, dict):
        # Where the index lies on this machine is no part of what is deployed.
        config["retrieval"]["index"] = None
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()


def _artifact_hashes(settings: Settings) -> Iterator[tuple[str, str]]:
    for name, place in artifacts(settings).items():
        yield name, corpus_hash(settings) if name == INDEX_ARTIFACT else _hash_of(Path(place), "*")


def _hash_of(place: Path, pattern: str) -> str:
    if place.is_file():
        return hashlib.blake2b(place.read_bytes(), digest_size=16).hexdigest()
    total = hashlib.blake2b(digest_size=16)
    for file in sorted(place.rglob(pattern)):
        if file.is_file() and "__pycache__" not in file.parts:
            total.update(str(file.relative_to(place)).encode() + b"\0")
            total.update(hashlib.blake2b(file.read_bytes(), digest_size=16).digest())
    return total.hexdigest()
