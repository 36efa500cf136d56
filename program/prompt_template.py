"""A predictor's prompt as a template of MLflow's Prompt Registry, and back.

A person reads, and may edit, the instructions as they are; fields and demonstrations follow as YAML below a line
that says so. A template without that line is instructions alone: fields are then as the program is written, and
there are no demonstrations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from program.program_file import PredictorState, parse_program
from program.strict_json import MAX_DEPTH, check_plain
from retrieval.errors import ProgramStateError

_SEPARATOR = "---- Fields and demonstrations, as YAML ----"


def render_prompt(predictor: PredictorState) -> str:
    """The template; `parse_prompt` gives back the same predictor."""
    instructions = predictor.signature.instructions
    # A line ends with \n in it, as an editor in a browser leaves it.
    parts: dict[str, Any] = {}
    if "\r" in instructions:
        parts["instructions"] = instructions
    if predictor.signature.fields is not None:
        parts["fields"] = [f.model_dump(mode="json", exclude_none=True) for f in predictor.signature.fields]
    if predictor.demos:
        parts["demos"] = list(predictor.demos)
    if not parts and _SEPARATOR not in instructions:
        return instructions
    return f"{instructions}\n\n{_SEPARATOR}\n{render_yaml(parts)}"


def parse_prompt(template: str, source: str) -> PredictorState:
    """The predictor of a template.

    Raises:
        ProgramStateError: if what is below the line is not as `render_prompt` writes it.
    """
    text = template.replace("\r\n", "\n")
    instructions, separator, rest = text.rpartition(f"\n\n{_SEPARATOR}\n")
    if not separator:
        instructions, rest = text, ""
    parts = parse_yaml(rest, source)
    if unknown := sorted(map(str, parts.keys() - {"instructions", "fields", "demos"})):
        raise ProgramStateError(f"{source}: {unknown[0]!r} is none of fields and demos.")
    signature = {"instructions": parts.get("instructions", instructions)}
    if "fields" in parts:
        signature["fields"] = parts["fields"]
    body = {"predictors": {"prompt": {"signature": signature, "demos": parts.get("demos") or []}}}
    return parse_program(body, source).predictors["prompt"]


def render_yaml(value: Mapping[str, Any]) -> str:
    """YAML in the order given, with texts of several lines as blocks of lines where YAML can."""
    text: str = yaml.dump(
        dict(value), Dumper=_ReadableDumper, allow_unicode=True, sort_keys=False, width=float("inf")
    )
    return text


def parse_yaml(text: str, source: str) -> dict[str, Any]:
    """The mapping of a YAML text; empty for an empty one.

    Raises:
        ProgramStateError: if it is no mapping, or holds more than data (tags, aliases, dates).
    """
    try:
        value = yaml.load(text, Loader=_PlainLoader) or {}
        check_plain(value)
    except (yaml.YAMLError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ProgramStateError(f"{source}: its YAML cannot be read: {reason}.") from error
    if not isinstance(value, dict):
        raise ProgramStateError(f"{source}: its YAML must be a mapping, not {type(value).__name__}.")
    return value


class _ReadableDumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


class _PlainLoader(yaml.SafeLoader):
    """Of YAML, what JSON has. An alias could make a short text endless, and depth takes time by its square."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed")
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.YAMLError(f"it is nested deeper than {MAX_DEPTH} levels")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # YAML takes these for line breaks and writes a plain one in their place, unless they stand in quotes.
    odd = any(character in text for character in "\r\x85\u2028\u2029")
    style = '"' if odd else "|" if "\n" in text.strip("\n") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _represent_list(dumper: yaml.SafeDumper, values: list[Any]) -> yaml.SequenceNode:
    # A score is a line, not four.
    is_score = bool(values) and all(isinstance(value, (int, float)) for value in values)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=is_score)


_ReadableDumper.add_representer(str, _represent_text)
_ReadableDumper.add_representer(list, _represent_list)
# A date in quotes is text; one without would be no JSON.
_PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
