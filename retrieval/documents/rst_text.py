"""A tree of docutils to text with Markdown's headings, lists and code fences."""

from __future__ import annotations

import re
from collections.abc import Iterator

from docutils import nodes

from retrieval.documents.markdown import code_fence
from retrieval.documents.parsed import Parsed
from retrieval.types import Anchor, MetadataValue

_COUNTED_ID = re.compile(r"id\d+$")
_ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_MOST_LEVELS = 6
_UNSEEN = (
    nodes.comment, nodes.substitution_definition, nodes.system_message, nodes.pending, nodes.raw, nodes.target,
    nodes.transition, nodes.docinfo, nodes.meta, nodes.image, nodes.colspec, nodes.decoration,
)  # fmt: skip
_NAMED = (
    nodes.note, nodes.warning, nodes.tip, nodes.hint, nodes.important, nodes.caution, nodes.danger, nodes.attention,
    nodes.error,
)  # fmt: skip


def write(tree: nodes.document) -> Parsed:
    """The document's text, title, date and anchors."""
    writer = _Writer()
    writer.blocks(tree, 0)
    title = next(tree.findall(nodes.title), None)
    return Parsed(
        "".join(writer.pieces),
        _inline(title).replace("`", "") if title else "",
        metadata=_metadata(tree),
        anchors=tuple(writer.anchors),
    )


def _metadata(tree: nodes.document) -> dict[str, MetadataValue]:
    stated = (
        node.astext() for node in tree.findall(nodes.field) if node.children[0].astext().lower() == "date"
    )
    date = next((found[0] for text in stated if (found := _ISO_DATE.search(text))), "")
    return {"date": date} if date else {}


class _Writer:
    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.anchors: list[Anchor] = []
        self._length = 0
        self._ids: list[str] = []
        self._was_item = False

    def blocks(self, parent: nodes.Element, level: int) -> None:
        for node in parent.children:
            if isinstance(node, nodes.Element) and not isinstance(node, _UNSEEN):
                self._block(node, level)

    def _block(self, node: nodes.Element, level: int) -> None:
        self._ids += node.get("ids", ())
        match node:
            case nodes.section():
                self.blocks(node, level + 1)
            case nodes.title():
                marks = "#" * min(max(level, 1), _MOST_LEVELS)
                self._write(f"{marks} {' '.join(_inline(node).split())}")
            case nodes.literal_block() | nodes.doctest_block() | nodes.math_block():
                self._write(code_fence(node.astext()))
            case nodes.bullet_list() | nodes.enumerated_list():
                self._items(node, level, "")
            case nodes.definition_list() | nodes.field_list() | nodes.option_list():
                self._definitions(node, level)
            case nodes.table():
                self._table(node)
            case nodes.line_block():
                self._write("\n".join(filter(None, (_inline(line) for line in node.findall(nodes.line)))))
            case nodes.footnote() | nodes.citation():
                label, *rest = node.children
                self._write(f"[{label.astext()}] {' '.join(child.astext() for child in rest)}")
            case _ if isinstance(node, _NAMED):
                self._write(f"**{node.tagname.capitalize()}**")
                self.blocks(node, level)
            case nodes.admonition() | nodes.topic() | nodes.sidebar():
                self._titled(node, level)
            case _ if isinstance(node, nodes.TextElement):
                self._write(_inline(node))
            case _:
                self.blocks(node, level)

    def _titled(self, node: nodes.Element, level: int) -> None:
        for child in node.children:
            if isinstance(child, nodes.title):
                self._write(f"**{_inline(child)}**")
            elif isinstance(child, nodes.Element) and not isinstance(child, _UNSEEN):
                self._block(child, level)

    def _items(self, node: nodes.Element, level: int, indent: str) -> None:
        for number, item in enumerate(_elements(node), start=int(node.get("start", 1))):
            mark = f"{indent}{number}. " if isinstance(node, nodes.enumerated_list) else f"{indent}- "
            for position, child in enumerate(_elements(item)):
                if isinstance(child, nodes.bullet_list | nodes.enumerated_list):
                    self._items(child, level, f"{indent}  ")
                elif position == 0 and isinstance(child, nodes.TextElement):
                    self._write(mark + _inline(child), is_item=True)
                else:
                    self._block(child, level)

    def _definitions(self, node: nodes.Element, level: int) -> None:
        for item in _elements(node):
            term, *bodies = _elements(item)
            self._ids += [*item.get("ids", ()), *term.get("ids", ())]
            self._write(_inline(term) if isinstance(term, nodes.TextElement) else term.astext())
            for body in bodies:
                if isinstance(body, nodes.TextElement):
                    self._write(_inline(body))
                else:
                    self.blocks(body, level)

    def _table(self, node: nodes.Element) -> None:
        rows = []
        for row in node.findall(nodes.row):
            cells = [" ".join(entry.astext().split()) for entry in row.children]
            if any(cells):
                rows.append(f"| {' | '.join(cells)} |")
        title = next((_inline(child) for child in node.children if isinstance(child, nodes.title)), "")
        self._write("\n".join([*filter(None, [title]), *rows]))

    def _write(self, words: str, *, is_item: bool = False) -> None:
        words = words.strip("\n").rstrip()
        if not words:
            return
        gap = "" if not self.pieces else "\n" if is_item and self._was_item else "\n\n"
        self._length += len(gap)
        if self._ids:
            # Of several ids, one that somebody wrote: counted ones change as the document does.
            name = next((name for name in self._ids if not _COUNTED_ID.match(name)), self._ids[0])
            self.anchors.append(Anchor(self._length, name))
            self._ids = []
        self.pieces += (gap, words)
        self._length += len(words)
        self._was_item = is_item


def _elements(node: nodes.Node) -> Iterator[nodes.Element]:
    return (
        child
        for child in node.children
        if isinstance(child, nodes.Element) and not isinstance(child, _UNSEEN)
    )


def _inline(node: nodes.Node) -> str:
    match node:
        case nodes.Text():
            return node.astext()
        case nodes.literal():
            return f"`{node.astext()}`"
        case nodes.image():
            return str(node.get("alt", ""))
        case nodes.footnote_reference() | nodes.citation_reference() | nodes.system_message() | nodes.raw():
            return ""
        case nodes.problematic():
            return node.astext().strip("|`")
    return "".join(map(_inline, node.children))
