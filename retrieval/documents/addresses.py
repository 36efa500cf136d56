"""The `doc_uri` of a file that states none: made from its path, never from one of this machine."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from urllib.parse import quote

from retrieval.errors import ConfigurationError, CorpusError

# Of these, sites make a page that has no extension of its own; others are the file itself.
_PAGES = frozenset({".md", ".markdown", ".mdx", ".txt", ".html", ".htm", ".rst", ".ipynb"})
OF_FILES = ("path", "stem", "page", "name")
OF_GIT = ("commit", "branch")


@dataclass(frozen=True, slots=True)
class Addresses:
    """Makes them of `url_template`, else of `base_url` and the path.

    The template's fields: `{path}` (`guide/index.md`), `{stem}` (`guide/index`), `{page}` (`guide/`: the stem, and
    for `index` its folder), `{name}` (`index.md`), and in a Git folder, where paths count from the root of the
    repository, `{commit}` and `{branch}`. `root` is the path of the corpus within it.

    Raises:
        ConfigurationError: if the template is malformed, or has another field.
    """

    base_url: str | None = None
    url_template: str | None = None
    root: str = ""
    given: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = (*OF_FILES, *OF_GIT)
        unknown = [name for name in template_fields(self.url_template) if name not in known]
        if unknown:
            raise ConfigurationError(
                f"corpus.url_template: unknown field {{{unknown[0]}}}. There are: "
                f"{', '.join(f'{{{name}}}' for name in known)}."
            )

    def of(self, relative: str, place: str) -> str:
        """The address of the file at `relative`.

        Raises:
            CorpusError: naming `place`, where there is nothing to make it of.
        """
        path = PurePosixPath(relative)
        if self.url_template is not None:
            path = PurePosixPath(self.root) / path
            fields = {"path": str(path), "stem": _stem(path), "page": _page(path), "name": path.name}
            return self.url_template.format_map(
                {**self.given, **{name: _quote(value) for name, value in fields.items()}}
            )
        if self.base_url is None:
            raise CorpusError(
                f"{place}: no doc_uri. Add 'doc_uri: https://…' to its front matter, or give --base-url https://…."
            )
        page = _page(path) if path.suffix.lower() in _PAGES else str(path)
        return f"{self.base_url.rstrip('/')}/{_quote(page)}"


def template_fields(template: str | None) -> list[str]:
    """The fields that a URL template names.

    Raises:
        ConfigurationError: if it is malformed.
    """
    try:
        return [name for _, name, _, _ in string.Formatter().parse(template or "") if name is not None]
    except ValueError as error:
        raise ConfigurationError(
            f"corpus.url_template = {template!r}: {error}. Write fields as {{path}}."
        ) from None


def _quote(path: str) -> str:
    return quote(path, errors="surrogateescape")


def _stem(path: PurePosixPath) -> str:
    return str(path.with_suffix(""))


def _page(path: PurePosixPath) -> str:
    stem = _stem(path)
    return stem[: -len("index")] if stem == "index" or stem.endswith("/index") else stem
