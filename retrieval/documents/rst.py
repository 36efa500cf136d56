"""reStructuredText: what docutils understands of it, and of Sphinx's additions their text."""

from __future__ import annotations

from threading import Lock
from typing import Any

from retrieval.documents.parsed import Parsed
from retrieval.errors import CorpusError
from retrieval.extras import needs_extra

_MOST_CHARACTERS = 5_000_000

_SETTINGS: dict[str, Any] = {
    "_disable_config": True,
    "auto_id_prefix": "id",
    "doctitle_xform": False,
    "file_insertion_enabled": False,
    "halt_level": 5,
    "line_length_limit": _MOST_CHARACTERS,
    "raw_enabled": False,
    "report_level": 5,
    "syntax_highlight": "none",
    "warning_stream": False,
}

_lock = Lock()  # docutils keeps the directives and roles that it knows for the whole process


def read_rst(text: str, place: str) -> Parsed:
    """The document as text with Markdown's headings, lists and code fences.

    Nothing that it includes is read, and no raw HTML. The content of a directive and the words of a role that
    docutils does not know, such as Sphinx's, are text. Anchors are the ids that docutils and Sphinx give to sections,
    and explicit targets.

    Raises:
        CorpusError: if it is no reStructuredText.
        ConfigurationError: if docutils is not installed.
    """
    with needs_extra("documents", "reStructuredText"):
        import docutils.core

        from retrieval.documents.rst_markup import learn
        from retrieval.documents.rst_text import write
    if len(text) > _MOST_CHARACTERS:
        raise CorpusError(f"{place}: more than {_MOST_CHARACTERS} characters of reStructuredText. Divide it.")
    with _lock:
        learn(text)
        try:
            tree = docutils.core.publish_doctree(text, source_path=place, settings_overrides=_SETTINGS)
            return write(tree)
        except Exception as error:
            # docutils raises whatever a malformed directive happens to cause.
            said = " ".join(str(error).split())[:200] or type(error).__name__
            raise CorpusError(f"{place}: not reStructuredText that can be read ({said}).") from error
