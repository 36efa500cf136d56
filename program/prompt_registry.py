"""Compiled programs as versions of prompts in MLflow's Prompt Registry.

A program `qa` is one prompt for each predictor (`qa_condense`, `qa_reader_answer`) and one, `qa`, that names the
version of each and holds the provenance. So a version of a program never changes, and an alias moves from one to
the next at once: `prompts:/qa@champion` is never half of each. Underscores, since in Unity Catalog dots part
catalog, schema and name: there, the program is called `catalog.schema.qa`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import PromptVersion
from mlflow.exceptions import MlflowException

from program.program_file import PredictorState, ProgramFile, parse_program, read_program_file
from program.program_sources import NOT_THERE, forget_located, parse_prompt_uri
from program.prompt_template import parse_prompt, parse_yaml, render_prompt, render_yaml
from program.tracking import tracking_errors
from retrieval.errors import ProgramStateError

MAX_CHARACTERS = 100_000
"""Of one prompt, in MLflow's own registry."""

PROGRAM_TAG = "citeqa_program"
"""The tag that says which program a prompt is of. Without dots: Unity Catalog has none in tags."""

_VERSIONS_LOOKED_AT = 20


@dataclass(frozen=True, slots=True)
class RegisteredProgram:
    """A version of a program in the registry, and of the prompt of each of its predictors, as URIs."""

    uri: str
    prompts: Mapping[str, str] = field(default_factory=dict)


def register_program(path: str | Path, name: str, alias: str | None = None) -> RegisteredProgram:
    """Register a program file under a name in the registry that MLflow points at; `alias` then means this version.

    Registered once more, what did not change keeps its version. The alias is set on the predictors' prompts, too,
    for whoever uses them without this program.

    Raises:
        ProgramStateError: if the file is not usable, or does not fit into the registry.
        StorageError: if the registry refuses.
    """
    program = read_program_file(path)
    templates = {
        prompt_name(name, predictor): render_prompt(state) for predictor, state in program.predictors.items()
    }
    for prompt, template in templates.items():
        _check_length(prompt, template)
    client = MlflowClient()
    with tracking_errors(mlflow.get_tracking_uri()):
        _check_names(client, [name, *templates])
        message = _message(program)
        uris = {
            predictor: _register(client, prompt, templates[prompt], message, name)
            for predictor, prompt in ((p, prompt_name(name, p)) for p in program.predictors)
        }
        contents = {"predictors": uris, "provenance": program.provenance.as_json()}
        overview = render_yaml(contents)
        _check_length(name, overview)
        uri = _register(client, name, overview, message, name)
        if alias is not None:
            # That of the program last: it is the one which counts, and what it names is there by then.
            for registered in (*uris.values(), uri):
                prompt, version, _ = parse_prompt_uri(registered)
                client.set_prompt_alias(prompt, alias, int(version or 0))
    forget_located()
    return RegisteredProgram(uri, uris)


def fetch_program(client: MlflowClient, uri: str) -> ProgramFile:
    """The program of a version (`prompts:/qa/3`) or alias (`prompts:/qa@champion`) in the client's registry.

    Raises:
        ProgramStateError: if it is not there, with the nearest that is, or is no program.
        MlflowException: if the registry refuses.
    """
    overview = fetch_prompt(client, uri)
    contents = _contents(overview, uri)
    predictors = {
        str(predictor): _fetch_predictor(client, prompt)
        for predictor, prompt in contents["predictors"].items()
    }
    body = {"provenance": contents.get("provenance") or {}, "predictors": {}}
    provenance = parse_program(body, f"The program at '{overview.uri}'").provenance
    return ProgramFile(predictors=predictors, provenance=provenance)


def fetch_prompt(client: MlflowClient, uri: str) -> PromptVersion:
    """One version of a prompt.

    Raises:
        ProgramStateError: if it is not there, with the nearest that is.
        MlflowException: if the registry refuses.
    """
    name, version, alias = parse_prompt_uri(uri)
    try:
        if version is not None:
            prompt = client.get_prompt_version(name, version)
        else:
            prompt = client.get_prompt_version_by_alias(name, str(alias))
    except MlflowException as error:
        if error.error_code not in NOT_THERE:
            raise
        prompt = None
    if not isinstance(prompt, PromptVersion):
        raise ProgramStateError(f"No prompt at '{uri}': {_why_missing(client, name, version, alias)}")
    return prompt


def prompt_name(program: str, predictor: str) -> str:
    """What the prompt of a predictor is called."""
    return f"{program}_{predictor.replace('.', '_')}"


def _contents(overview: PromptVersion, uri: str) -> dict[str, Any]:
    """What a program's own prompt says."""
    reason = "it does not name the prompts of its predictors."
    try:
        contents = parse_yaml(_text(overview), "it names no prompts of predictors")
    except ProgramStateError as error:
        contents, reason = {}, str(error)
    prompts = contents.get("predictors")
    if isinstance(prompts, dict) and all(isinstance(prompt, str) for prompt in prompts.values()):
        return contents
    program = overview.tags.get(PROGRAM_TAG)
    hint = (
        f" Did you mean the program it is of, prompts:/{program}?"
        if program not in (None, overview.name)
        else ""
    )
    raise ProgramStateError(f"The prompt at '{uri}' is no program of citeqa: {reason}{hint}")


def _fetch_predictor(client: MlflowClient, uri: str) -> PredictorState:
    prompt = fetch_prompt(client, uri)
    return parse_prompt(_text(prompt), f"The prompt at '{prompt.uri}'")


def _text(prompt: PromptVersion) -> str:
    if not prompt.is_text_prompt:
        raise ProgramStateError(f"The prompt at '{prompt.uri}' is a chat; citeqa's are text.")
    return str(prompt.template)


def _register(client: MlflowClient, name: str, template: str, message: str, program: str) -> str:
    latest = _latest(client, name)
    if latest is not None and latest.template == template:
        return str(latest.uri)
    registered = client.register_prompt(name, template, commit_message=message, tags={PROGRAM_TAG: program})
    return str(registered.uri)


def _latest(client: MlflowClient, name: str) -> PromptVersion | None:
    try:
        latest = client.load_prompt(f"prompts:/{name}@latest", allow_missing=True, cache_ttl_seconds=0)
    except MlflowException:
        return None  # Registered anew then, and the reason, if it has one, is told there.
    return latest if isinstance(latest, PromptVersion) else None


def _check_length(name: str, template: str) -> None:
    if len(template) > MAX_CHARACTERS:
        raise ProgramStateError(
            f"Prompt '{name}' would have {len(template):,} characters; MLflow's registry takes {MAX_CHARACTERS:,}. "
            "Keep fewer demonstrations, or name the program by its file, or by the run or model that holds it."
        )


def _check_names(client: MlflowClient, names: list[str]) -> None:
    if mlflow.get_registry_uri().startswith("databricks"):
        return  # There, models and prompts are apart.
    for name in names:
        # One that is a prompt is not found as a model.
        try:
            client.get_registered_model(name)
        except MlflowException as error:
            if error.error_code in NOT_THERE:
                continue
            raise
        raise ProgramStateError(
            f"'{name}' is a registered model, and a prompt cannot have its name. Choose another, such as "
            f"{name}_prompts."
        )


def _message(program: ProgramFile) -> str:
    provenance = program.provenance
    optimizer = provenance.optimizer.name if provenance.optimizer else None
    parts = (
        provenance.name,
        f"by {optimizer}" if optimizer else None,
        provenance.created and f"of {provenance.created}",
    )
    return " ".join(part for part in parts if part) or "Registered by citeqa"


def _why_missing(client: MlflowClient, name: str, version: str | None, alias: str | None) -> str:
    known = _versions(client, name)
    if not known:
        near = get_close_matches(name, _names(client), n=1, cutoff=0.5)
        return f"there is no prompt '{name}'{f'; did you mean {near[0]!r}?' if near else '.'}"
    if version is not None:
        return f"'{name}' has no version {version}; its latest is {max(known)}."
    aliases = sorted({alias for found in known.values() for alias in found})
    near = get_close_matches(str(alias), aliases, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"it has {', '.join(aliases) or 'none'}."
    return f"'{name}' has no alias '{alias}'; {hint}"


def _versions(client: MlflowClient, name: str) -> dict[int, list[str]]:
    """The aliases of the newest versions; empty where it cannot be told."""
    try:
        numbers = sorted((found.version for found in client.search_prompt_versions(name)), reverse=True)
        prompts: dict[int, Any] = {
            number: client.get_prompt_version(name, str(number)) for number in numbers[:_VERSIONS_LOOKED_AT]
        }
    except MlflowException:
        return {}
    return {number: list(prompt.aliases) for number, prompt in prompts.items() if prompt is not None}


def _names(client: MlflowClient) -> list[str]:
    try:
        return [prompt.name for prompt in client.search_prompts(max_results=200)]
    except MlflowException:
        return []
