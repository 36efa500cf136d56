"""What is asked of `citeqa compile`: its YAML file, read and checked.

name: agent-docs
config: configs/agent.yaml
set: {program.rewrite_query: true}
optimizer: {name: MIPROv2, budget: light}
metric: {fact_recall: 1, citation_precision: 1, abstention_accuracy: 1}
prompt_model: {model: openai/gpt-4o}     # proposes instructions; as language_model where nothing is said
teacher_model: {model: openai/gpt-4o}    # shows how to answer
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from eval.mixes import Mix, parse_mix
from program.settings import LanguageModelSettings, Settings, load_settings, to_overrides
from program.yaml_files import read_yaml
from retrieval.errors import ConfigurationError
from retrieval.suggestions import did_you_mean

MIX = "compiled_metric"
"""What the weighted metric is called in tables and in MLflow."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Limits(_Part):
    """What compiling may spend, the final check on `test` apart. When it is spent, the best so far is chosen."""

    usd: float | None = Field(None, gt=0)
    tokens: int | None = Field(None, gt=0)
    calls: int | None = Field(None, gt=0)
    minutes: float | None = Field(None, gt=0)


class CompileSpecification(_Part):
    """The whole file."""

    name: str = Field("compiled", pattern=r"^[\w.-]+$")
    config: str | None = None
    set: dict[str, Any] = Field(default_factory=dict)
    optimizer: dict[str, Any] | str
    metric: dict[str, float] = Field(
        default_factory=lambda: {"fact_recall": 1.0, "citation_precision": 1.0, "abstention_accuracy": 1.0}
    )
    prompt_model: dict[str, Any] | None = None
    teacher_model: dict[str, Any] | None = None
    train: str = "train"
    dev: str = "dev"
    test: str = "test"
    seed: int = 0
    limits: Limits = Limits()
    output: str | None = Field(None, description="where the better program goes; build/programs/<name>.json")
    results: str = "build/compiled"
    cache: str = "build/stages"

    @property
    def mix(self) -> Mix:
        """The metric that is made large. Raises ConfigurationError as `eval.mixes.parse_mix`."""
        return parse_mix("metric", self.metric)

    @property
    def output_file(self) -> Path:
        """Where the better program goes."""
        return Path(self.output or f"build/programs/{self.name}.json")


def read_specification(path: str | Path) -> CompileSpecification:
    """The specification of a YAML file.

    Raises:
        ConfigurationError: one line for each mistake, naming the file, the key and the value.
    """
    file = Path(path)
    raw = read_yaml(file, f"No compile file at '{file}'. See configs/compile.yaml for one.")
    if not isinstance(raw, dict):
        raise ConfigurationError(f"{file}: must hold keys such as `optimizer:`, not {raw!r}")
    return parse_specification(raw, str(file))


def parse_specification(raw: dict[str, Any], place: str) -> CompileSpecification:
    """The specification that a dictionary says; `place` is named in errors. Raises as `read_specification`."""
    try:
        specification = CompileSpecification.model_validate(raw)
    except ValidationError as error:
        raise ConfigurationError("\n".join(_describe(dict(e), place) for e in error.errors())) from None
    try:
        parse_mix("metric", specification.metric)
    except ConfigurationError as error:
        raise ConfigurationError(f"{place}: {error}") from None
    return specification


def base_settings(specification: CompileSpecification) -> Settings:
    """The configuration that is compiled. Raises ConfigurationError as `load_settings`."""
    return load_settings(specification.config, to_overrides(specification.set))


def model_settings(
    base: LanguageModelSettings, differs: dict[str, Any] | None, place: str
) -> LanguageModelSettings:
    """The settings of another model than the one that answers: what is not said is as for that one.

    Raises:
        ConfigurationError: if a setting is unknown or does not fit; `place` is named.
    """
    if differs is None:
        return base
    try:
        return LanguageModelSettings.model_validate({**base.model_dump(exclude_unset=True), **differs})
    except ValidationError as error:
        raise ConfigurationError(
            "\n".join(_describe(dict(e), place, LanguageModelSettings) for e in error.errors())
        ) from None


def _describe(error: dict[str, Any], place: str, model: type[BaseModel] = CompileSpecification) -> str:
    location = [str(part) for part in error["loc"]]
    key = ".".join(location)
    if error["type"] == "extra_forbidden":
        section = Limits if location[0] == "limits" and len(location) > 1 else model
        known = list(section.model_fields)
        return (
            f"{place}: unknown key '{key}'. {did_you_mean(location[-1], known)}Keys are: {', '.join(known)}."
        )
    if error["type"] == "missing":
        return f"{place}: {key} is missing."
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{place}: {key}: {message}, not {error['input']!r}"
