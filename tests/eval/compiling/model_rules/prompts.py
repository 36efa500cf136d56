"""What a prompt in the layout of DSPy's chat or JSON adapter asks: instructions, fields, demonstrations, inputs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

_HEADER = re.compile(r"^\[\[ ## (\w+) ## \]\][ \t]*", re.MULTILINE)
_FIELD = re.compile(r"^\d+\. `(\w+)` \((.*?)\):", re.MULTILINE)
_OBJECTIVE = "In adhering to this structure, your objective is:"
_OUTPUTS = "Your output fields are:"
_STRUCTURE = "All interactions will be structured"
_JSON_OUTPUTS = "Outputs will be a JSON object"
_REQUEST = re.compile(r"\n\n?Respond with (?:the corresponding output fields|a JSON object).*\Z", re.DOTALL)
_NOT_SUPPLIED = "Not supplied for this"


@dataclass(frozen=True, slots=True)
class Demonstration:
    """One worked example; fields that were not supplied are absent."""

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as it is understood. `outputs` maps each field asked for to its type; none: free text."""

    instructions: str = ""
    outputs: Mapping[str, str] = field(default_factory=dict)
    demonstrations: Sequence[Demonstration] = ()
    inputs: Mapping[str, str] = field(default_factory=dict)
    wants_json: bool = False

    @property
    def lesson(self) -> str:
        """All that teaches how to answer, in one string: prompts with the same lesson treat an input alike."""
        return json.dumps([self.instructions, [[d.inputs, d.outputs] for d in self.demonstrations]])

    def write(self, fields: Mapping[str, Any]) -> str:
        """A completion with these output fields, in the layout that the prompt asks for."""
        if not self.outputs:
            return "\n".join(str(value) for value in fields.values())
        if self.wants_json:
            return json.dumps(dict(fields), ensure_ascii=False)
        sections = [f"[[ ## {name} ## ]]\n{_as_text(value)}" for name, value in fields.items()]
        return "\n\n".join([*sections, "[[ ## completed ## ]]"])


def read_prompt(messages: Sequence[Mapping[str, Any]]) -> Prompt:
    """The prompt of a request's messages; free text where they are not laid out by DSPy."""
    system = "\n".join(text_of(m) for m in messages if m.get("role") in ("system", "developer"))
    turns = [(str(m.get("role")), text_of(m)) for m in messages if m.get("role") in ("user", "assistant")]
    asked = turns[-1][1] if turns else ""
    if _OUTPUTS not in system or _OBJECTIVE not in system:
        return Prompt(instructions=system, inputs={"text": asked})
    return Prompt(
        instructions=_undented(system.split(_OBJECTIVE, 1)[1]),
        outputs=_output_fields(system),
        demonstrations=_demonstrations(turns[:-1]),
        inputs=_sections(_REQUEST.sub("", asked)),
        wants_json=_JSON_OUTPUTS in system,
    )


def text_of(message: Mapping[str, Any]) -> str:
    """The text of a message, whose content is a string or a list of parts."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))


def _output_fields(system: str) -> dict[str, str]:
    described = system.split(_OUTPUTS, 1)[1].split(_STRUCTURE, 1)[0]
    return dict(_FIELD.findall(described))


def _undented(objective: str) -> str:
    return "\n".join(line.strip() for line in objective.strip().splitlines())


def _demonstrations(turns: Sequence[tuple[str, str]]) -> tuple[Demonstration, ...]:
    return tuple(
        Demonstration(_sections(user), _outputs(assistant))
        for (role, user), (next_role, assistant) in pairwise(turns)
        if (role, next_role) == ("user", "assistant")
    )


def _outputs(text: str) -> dict[str, str]:
    if _HEADER.search(text):
        return _sections(text)
    try:
        fields = json.loads(text)
    except json.JSONDecodeError:
        return {}
    return _supplied({name: _as_text(value) for name, value in fields.items()})


def _sections(text: str) -> dict[str, str]:
    parts = _HEADER.split(text)
    found = dict(zip(parts[1::2], (part.strip() for part in parts[2::2]), strict=True))
    found.pop("completed", None)
    return _supplied(found)


def _supplied(fields: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in fields.items() if not value.startswith(_NOT_SUPPLIED)}


def _as_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else str(value)
