"""HTML to the text that a reader sees, with Markdown headings, list items and code fences, and its anchors."""

from __future__ import annotations

import re
from itertools import accumulate

from selectolax.lexbor import LexborHTMLParser, LexborNode

from retrieval.documents.markdown import code_fence
from retrieval.documents.parsed import Parsed
from retrieval.types import Anchor, MetadataValue

_UNSEEN = (
    "script, style, noscript, template, svg, iframe, [hidden], [aria-hidden=true], .sr-only, .visually-hidden"
)
# What surrounds the text on a site: by its role, by the names that site builders give it.
_AROUND = ", ".join(
    (
        "nav, aside, footer, dialog, body > header",
        "[role=navigation], [role=banner], [role=contentinfo], [role=search], [role=dialog], [role=alertdialog]",
        *(
            f"[{attribute}*={word}-{part}]"
            for attribute in ("class", "id")
            for word in ("cookie", "consent", "gdpr")
            for part in ("banner", "bar", "notice", "popup", "modal", "dialog", "overlay")
        ),
        "#onetrust-consent-sdk, #CybotCookiebotDialog, .cc-window, .osano-cm-window",
        "[class*=edit-this-page], [class*=edit-page], [class*=editThisPage], .edit-link, .gh-edit, .md-content__button",
        "[class*=breadcrumb], [class*=pagination-nav], .prev-next-area, .prev-next-footer, .rst-footer-buttons",
        "[class*=table-of-contents], [class*=tableOfContents], .toc-tree, .toc-drawer, .md-sidebar, .sphinxsidebar",
        ".wy-nav-side, .bd-sidebar, .bd-toc, .sidebar, #sidebar, #toc, .theme-doc-toc-mobile, .theme-doc-toc-desktop",
        "[class*=skip-link], [class*=skip-to-content], [class*=skipToContent], .skip-nav",
        "[class*=newsletter], [class*=share-buttons], [class*=social-share], [class*=page-feedback]",
        ".theme-doc-footer, .theme-last-updated, .page-nav, .related-pages, .admonition-edit, button",
    )
)
_PERMALINKS = (
    ".headerlink, .hash-link, .anchor-link, .anchorjs-link, .heading-anchor, .header-anchor, .permalink, "
    "a.anchor[aria-hidden], .octicon-link"
)
_BLOCKS = frozenset(
    {"address", "article", "blockquote", "body", "dd", "details", "div", "dl", "dt", "fieldset", "figcaption"}
    | {"figure", "form", "header", "hr", "html", "li", "main", "ol", "p", "section", "summary", "table"}
    | {"tbody", "thead", "tr", "ul"}
)
_HEADINGS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})

# Characters that no text has stand for what must survive tidying: a space and a line of code, and an anchor.
_SPACE, _LINE, _ANCHOR = "\ufdd0", "\ufdd1", "\ufdd2"
_MARKS = re.compile("[\ufdd0-\ufdd2]")

_DECLARED = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.IGNORECASE)
_PERMALINK_SIGNS = re.compile(r"^(?:[§¶🔗]|#(?= ))\s*|\s*[§¶🔗]$|\s+#$")
_ABSOLUTE = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_DATES = (
    "meta[property='article:modified_time']",
    "meta[property='article:published_time']",
    "meta[name='last-modified']",
    "meta[name='date']",
    "meta[name='DC.date']",
)
_ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def declared_encoding(data: bytes) -> str:
    """The encoding that the page says it is in, or ""."""
    found = _DECLARED.search(data[:4096])
    return found[1].decode("ascii") if found else ""


def read_html(html: str) -> Parsed:
    """The page that `html` is, without what surrounds its text. Any text is accepted.

    The text is that of `<main>`, or of the only `<article>`, where it has one. Its `doc_uri` is the canonical link,
    unless that is relative.
    Anchors are the ids of headings and their sections, of definitions (`<dt>`), and of `<a id>` and `<a name>`.
    """
    tree = LexborHTMLParser(_MARKS.sub("", html))
    title = _inline(tree.css_first("title"))
    language = (_attribute(tree, "html", "lang") or "").split("-")[0].lower()
    canonical = (_attribute(tree, "link[rel=canonical]", "href") or "").strip()
    canonical = canonical if _ABSOLUTE.match(canonical) else ""
    if tree.css_first("meta[http-equiv=refresh i][content*=url i]"):
        return Parsed("", title, language, canonical, is_moved=True)
    metadata = _metadata(tree)
    for node in tree.css(f"{_UNSEEN}, {_PERMALINKS}"):
        node.decompose()
    title = title or _inline(tree.css_first("h1"))
    root = _main_part(tree)
    if root is None:
        return Parsed("", title, language, canonical, metadata)
    for node in root.css(_AROUND):
        if node.mem_id != root.mem_id:
            node.decompose()
    fragments: list[str] = []
    text, anchors = _take_anchors(_tidy("".join(_render(root, fragments))), fragments)
    return Parsed(text, title, language, canonical, metadata, anchors)


def _main_part(tree: LexborHTMLParser) -> LexborNode | None:
    main = tree.css_first("main") or tree.css_first("[role=main]")
    if main:
        return main
    articles = tree.css("article")
    return articles[0] if len(articles) == 1 else tree.body


def _metadata(tree: LexborHTMLParser) -> dict[str, MetadataValue]:
    stated = (_attribute(tree, selector, "content") for selector in _DATES)
    date = next((found[0] for value in stated if (found := _ISO_DATE.match(value or ""))), "")
    return {"date": date} if date else {}


def _attribute(tree: LexborHTMLParser, selector: str, name: str) -> str | None:
    node = tree.css_first(selector)
    return node.attributes.get(name) if node else None


def _inline(node: LexborNode | None) -> str:
    return " ".join(node.text().split()) if node else ""


def _render(root: LexborNode, fragments: list[str]) -> list[str]:
    """Pieces of text; a stack in place of recursion, since the depth of a page is its author's choice.

    An anchor adds its name to `fragments` and a mark to the text, before what is read next after the id.
    """
    pieces: list[str] = []
    stack: list[LexborNode | str] = [root]
    pending = ""
    while stack:
        node = stack.pop()
        if isinstance(node, str):
            pieces.append(node)
            continue
        tag = node.tag or ""
        pending = _id_for_what_follows(node, tag) or pending
        if tag in _HEADINGS:
            pending = _id_of_heading(node) or pending
            before, words, after = (
                "\n\n",
                f"{'#' * int(tag[1])} {_PERMALINK_SIGNS.sub('', _inline(node))}",
                "\n\n",
            )
        elif tag == "pre":
            before, words, after = "\n\n", _fence(node.text().strip("\n")), "\n\n"
        elif tag == "-text":
            text = re.sub(r"\s+", " ", node.text_content or "")
            before, words, after = text[: len(text) - len(text.lstrip())], text.lstrip(), ""
        else:
            before, after = _around(tag)
            pieces.append(before)
            stack.append(after)
            stack += reversed(list(node.iter(include_text=True)))
            continue
        if pending and words:
            fragments.append(pending)
            words, pending = _ANCHOR + words, ""
        pieces += (before, words, after)
    return pieces


def _id_for_what_follows(node: LexborNode, tag: str) -> str:
    """The id of a section or a definition, or of an element that is there for its id alone."""
    if tag in ("section", "article", "dt", "a"):
        return _id(node)
    if tag in ("div", "span") and "id" in node.attributes:
        is_section = "section" in (node.attributes.get("class") or "").split()
        return _id(node) if is_section or node.child is None else ""
    return ""


def _id_of_heading(node: LexborNode) -> str:
    return _id(node) or next(filter(None, map(_id, node.css("[id], a[name]"))), "")


def _id(node: LexborNode) -> str:
    attributes = node.attributes
    named = attributes.get("name") if node.tag == "a" else None
    return (attributes.get("id") or named or "").strip()


def _around(tag: str) -> tuple[str, str]:
    match tag:
        case "br":
            return "\n", ""
        case "li":
            return "\n- ", "\n"
        case "td" | "th":
            return "", " | "
        case "p":
            return "\n\n", "\n\n"
        case _ if tag in _BLOCKS:
            return "\n", "\n"
    return "", ""


def _fence(code: str) -> str:
    # Stand-ins keep the code's own spaces and blank lines from being tidied.
    return code_fence(code).replace(" ", _SPACE).replace("\n", _LINE)


def _tidy(text: str) -> str:
    text = re.sub(r"[ \t]*\n[ \t]*", "\n", text)
    text = re.sub(r"[ \t]+", " ", text)
    text = re.sub(r"\n-\n+", "\n- ", text)
    text = re.sub(r"\n{3,}", "\n\n", text).strip()
    return text.replace(_SPACE, " ").replace(_LINE, "\n")


def _take_anchors(text: str, fragments: list[str]) -> tuple[str, tuple[Anchor, ...]]:
    """`text` without the marks, and the anchors where they were."""
    pieces = text.split(_ANCHOR)
    ends = accumulate(map(len, pieces[:-1]))
    return "".join(pieces), tuple(map(Anchor, ends, fragments))
