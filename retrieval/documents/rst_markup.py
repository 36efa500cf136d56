"""Directives and roles that docutils does not know, Sphinx's above all: their words are text."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive, directives, roles
from docutils.parsers.rst.languages import en

_DIRECTIVE = re.compile(r"^[ \t]*\.\. (?:\|[^|\n]+\| )?([A-Za-z][\w:+.-]*?)::(?=\s|$)", re.MULTILINE)
_ROLE = re.compile(r":([A-Za-z][\w:+.-]*?):`|`:([A-Za-z][\w:+.-]*?):")
_WITH_TARGET = re.compile(r"(?P<words>.*\S)\s*<(?P<target>[^<>]+)>$", re.DOTALL)

# What the page does not show, or makes of something that is not in the file.
_SILENT = frozenset(
    {
        "bibliography",
        "codeauthor",
        "contents",
        "currentmodule",
        "default-domain",
        "footbibliography",
        "graphviz",
    }
    | {
        "highlight",
        "image",
        "include",
        "index",
        "inheritance-diagram",
        "literalinclude",
        "meta",
        "module",
        "plot",
    }
    | {
        "py:currentmodule",
        "py:module",
        "raw",
        "sectionauthor",
        "sectnum",
        "tabularcolumns",
        "testcleanup",
        "testsetup",
    }
    | {"toctree"}
)
_CODE = frozenset(
    {
        "code",
        "code-block",
        "console",
        "doctest",
        "ipython",
        "jupyter-execute",
        "math",
        "mermaid",
        "productionlist",
    }
    | {"prompt", "sourcecode", "testcode", "testoutput"}
)
_SAID = {
    "versionadded": "New in version",
    "versionchanged": "Changed in version",
    "deprecated": "Deprecated since version",
}
_SAID |= {"seealso": "See also", "todo": "To do"}
_WITHOUT_ARGUMENT = frozenset(
    {"container", "cssclass", "grid", "hlist", "ifconfig", "only", "rst-class", "tab-set", "tabs"}
)
_OBJECTS = frozenset(
    {"attribute", "class", "classmethod", "cmdoption", "confval", "data", "decorator", "envvar", "exception"}
    | {"function", "macro", "member", "method", "option", "property", "staticmethod", "type", "var"}
)
_WORDS = frozenset(
    {"doc", "download", "numref", "ref", "term", "abbr", "cite", "eq", "guilabel", "menuselection", "issue"}
)


class _AnyOption(dict[str, Callable[[str], Any]]):
    """Every option is there, and taken as it is."""

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, name: str) -> Callable[[str], Any]:
        return directives.unchanged


class _Silent(Directive):
    has_content = True
    optional_arguments = 1
    final_argument_whitespace = True
    option_spec = _AnyOption()

    def run(self) -> Sequence[nodes.Node]:
        return []


class _Code(_Silent):
    def run(self) -> Sequence[nodes.Node]:
        # The argument of most is the language of the code, and of `math` a formula.
        is_code = self.name.lower() == "math"
        lines = [*(self.arguments if is_code else ()), *self.content]
        code = "\n".join(lines)
        return [nodes.literal_block(code, code)]


class _Words(_Silent):
    def run(self) -> Sequence[nodes.Node]:
        box = nodes.container()
        name = self.name.lower()
        argument = "" if name in _WITHOUT_ARGUMENT else " ".join(self.arguments).strip()
        if name.rpartition(":")[2] in _OBJECTS:
            for signature in filter(None, map(str.strip, argument.splitlines())):
                box += nodes.paragraph("", "", nodes.literal(signature, signature))
        elif words := " ".join(filter(None, (_SAID.get(name, ""), argument))):
            box += nodes.paragraph(words, words)
        self.state.nested_parse(self.content, self.content_offset, box)
        return [box]


def _role(
    name: str, rawtext: str, text: str, lineno: int, inliner: Any,
    options: Mapping[str, Any] | None = None, content: Sequence[str] = (),
) -> tuple[list[nodes.Node], list[nodes.system_message]]:  # fmt: skip
    words = text.replace("\x00", "")
    if titled := _WITH_TARGET.match(words):
        words = titled["words"]
    elif words.startswith("~"):
        words = words.rpartition(".")[2].lstrip("~")
    words = words.lstrip("!")
    made = nodes.inline if name.rpartition(":")[2] in _WORDS else nodes.literal
    return [made(rawtext, words)], []


def learn(text: str) -> None:
    """Make docutils accept what `text` uses. What it knows itself stays, but for what shows nothing or too much."""
    for found in set(_DIRECTIVE.findall(text)):
        name = found.lower()
        if name in _SILENT or name.startswith("auto"):
            directives.register_directive(name, _Silent)
        elif name in _CODE:
            directives.register_directive(name, _Code)
        elif name not in en.directives:
            directives.register_directive(name, _Words)
    for before, after in set(_ROLE.findall(text)):
        name = (before or after).lower()
        if name not in en.roles:
            roles.register_local_role(name, _role)  # type: ignore[arg-type]  # its stubs know references alone
