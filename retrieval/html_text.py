"""HTML to the text that a reader sees, with Markdown headings, list items and code fences."""

from __future__ import annotations

import re
from dataclasses import dataclass

from selectolax.lexbor import LexborHTMLParser, LexborNode

_UNSEEN = "script, style, noscript, template, svg, nav, aside, footer, [hidden]"
_BLOCKS = frozenset(
    {"address", "article", "blockquote", "body", "dd", "details", "div", "dl", "dt", "fieldset", "figcaption"}
    | {"figure", "form", "header", "hr", "html", "li", "main", "ol", "p", "section", "summary", "table"}
    | {"tbody", "thead", "tr", "ul"}
)
_HEADINGS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})


@dataclass(frozen=True, slots=True)
class Page:
    """A page as text. `doc_uri` is its canonical address, `lang` its two-letter language; "" without."""

    text: str
    title: str
    lang: str
    doc_uri: str


def read_page(html: str) -> Page:
    """The page that `html` is; its `<main>` or `<article>` alone where it has one. Any text is accepted."""
    tree = LexborHTMLParser(html)
    title = _inline(tree.css_first("title")) or _inline(tree.css_first("h1"))
    language = (_attribute(tree, "html", "lang") or "").split("-")[0].lower()
    canonical = _attribute(tree, "link[rel=canonical]", "href") or ""
    for node in tree.css(_UNSEEN):
        node.decompose()
    root = tree.css_first("main") or tree.css_first("article") or tree.body
    return Page(_tidy("".join(_render(root))) if root else "", title, language, canonical.strip())


def _attribute(tree: LexborHTMLParser, selector: str, name: str) -> str | None:
    node = tree.css_first(selector)
    return node.attributes.get(name) if node else None


def _inline(node: LexborNode | None) -> str:
    return " ".join(node.text().split()) if node else ""


def _render(root: LexborNode) -> list[str]:
    """Pieces of text; a stack in place of recursion, since the depth of a page is its author's choice."""
    pieces: list[str] = []
    stack: list[LexborNode | str] = [root]
    while stack:
        node = stack.pop()
        if isinstance(node, str):
            pieces.append(node)
        elif node.tag in _HEADINGS:
            pieces.append(f"\n\n{'#' * int(node.tag[1])} {_inline(node)}\n\n")
        elif node.tag == "pre":
            pieces.append(_fence(node.text().strip("\n")))
        else:
            before, after = _around(node)
            pieces.append(before)
            stack.append(after)
            stack += reversed(list(node.iter(include_text=True)))
    return pieces


def _around(node: LexborNode) -> tuple[str, str]:
    match node.tag:
        case "-text":
            return re.sub(r"\s+", " ", node.text_content or ""), ""
        case "br":
            return "\n", ""
        case "li":
            return "\n- ", "\n"
        case "td" | "th":
            return "", " | "
        case "p":
            return "\n\n", "\n\n"
        case tag if tag in _BLOCKS:
            return "\n", "\n"
    return "", ""


def _fence(code: str) -> str:
    # Zero-width marks keep the code's own spaces and blank lines from being tidied.
    return f"\n\n```\n{code.replace(' ', _SPACE).replace(chr(10), _LINE)}\n```\n\n"


_SPACE, _LINE = "\ue000", "\ue001"


def _tidy(text: str) -> str:
    text = re.sub(r"[ \t]*\n[ \t]*", "\n", text)
    text = re.sub(r"[ \t]+", " ", text)
    text = re.sub(r"\n-\n+", "\n- ", text)
    text = re.sub(r"\n{3,}", "\n\n", text).strip()
    return text.replace(_SPACE, " ").replace(_LINE, "\n")
