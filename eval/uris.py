"""When two URIs name the same document: one function, used on gold, retrieved and cited URIs alike."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from urllib.parse import quote, unquote

from retrieval.errors import ConfigurationError

# RFC 3986, appendix B. urlsplit raises on some hosts, rewrites control characters, and is slower.
_ADDRESS = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)"
    r"(?P<path>[^?#]*)(?:\?(?P<query>[^#]*))?(?:#(?P<fragment>.*))?",
    re.DOTALL,
)
_AUTHORITY = re.compile(r"(?P<user>.*@)?(?P<host>\[.*\]|[^:]*)(?::(?P<port>\d*))?")
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ESCAPES = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_RESERVED = ":/?#[]@!$&'()*+,;="
_PLAIN = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]*")
_DEFAULT_PORTS = {"http": "80", "https": "443"}


@dataclass(frozen=True, slots=True)
class UriNormalization:
    """What is ignored when two URIs are compared.

    Fragments are kept: some sites put every document behind one (`#/route`), and the two mistakes are not
    alike. A fragment kept in error shows at once, as gold that names an unknown document; one stripped in
    error merges documents and raises the scores in silence. Text fragments (`#:~:text=…`) point into a
    page and never name one, so they always go.

    Attributes:
        strip_fragment: `page#section` is `page`.
        strip_trailing_slash: `https://host/docs/` is `https://host/docs`.
        drop_query_parameters: globs over the names of parameters that do not choose the document.
        host_aliases: `{host: host it stands for}`, with the port where one is written, lower case.
        lowercase_host: `Docs.Example.com` is `docs.example.com`.
        unify_http: `http://` is `https://`.

    Raises:
        ConfigurationError: if an alias leads to another alias.
    """

    strip_fragment: bool = False
    strip_trailing_slash: bool = True
    drop_query_parameters: tuple[str, ...] = ("utm_*", "gclid", "fbclid", "msclkid")
    host_aliases: Mapping[str, str] = field(default_factory=dict)
    lowercase_host: bool = True
    unify_http: bool = True

    def __post_init__(self) -> None:
        for alias, host in self.host_aliases.items():
            if host in self.host_aliases:
                raise ConfigurationError(
                    f"host_aliases: {alias!r} stands for {host!r}, which is an alias itself. "
                    "Let each alias name the final host."
                )


def uri_normalizer(settings: UriNormalization) -> Callable[[str], str]:
    """`normalize_uri` under these settings, which remembers its answers: scoring meets a URI many times."""
    return lru_cache(maxsize=None)(lambda uri: normalize_uri(uri, settings))


def normalize_uri(uri: str, settings: UriNormalization) -> str:
    """The spelling under which `uri` is compared; two URIs name one document if and only if these are equal.

    Addresses (`scheme://…`) follow RFC 3986, section 6: percent-encoding in one form, in Unicode's NFC, so
    that `/設定` and `/%E8%A8%AD%E5%AE%9A` are equal; default ports dropped; then what the settings name. Any
    other identifier (`doc123`, `guides/setup.md`, `doc:7`, or an address that does not parse) is opaque:
    NFC, without surrounding white space. Idempotent.
    """
    uri = unicodedata.normalize("NFC", uri).strip()
    address = _ADDRESS.fullmatch(uri)
    authority = _AUTHORITY.fullmatch(address["authority"]) if address else None
    if not address or not authority:
        return uri
    scheme = address["scheme"].lower()
    return (
        f"{_scheme(scheme, settings)}://{_host(authority, scheme, settings)}"
        f"{_path(address['path'], settings)}"
        f"{_query(address['query'] or '', settings)}"
        f"{_fragment(address['fragment'] or '', settings)}"
    )


def _scheme(scheme: str, settings: UriNormalization) -> str:
    return "https" if scheme == "http" and settings.unify_http else scheme


def _host(authority: re.Match[str], scheme: str, settings: UriNormalization) -> str:
    host = authority["host"]
    if settings.lowercase_host:
        host = _ascii_host(host.lower())
    if authority["port"] and authority["port"] not in _ports_to_drop(scheme, settings):
        host = f"{host}:{authority['port']}"
    return (authority["user"] or "") + settings.host_aliases.get(host, host)


def _ports_to_drop(scheme: str, settings: UriNormalization) -> set[str]:
    # Once http and https are one, so are their ports, or http://host:443 would change twice.
    if settings.unify_http and scheme in _DEFAULT_PORTS:
        return set(_DEFAULT_PORTS.values())
    return {_DEFAULT_PORTS.get(scheme, "")}


def _ascii_host(host: str) -> str:
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError:
        return host


def _path(path: str, settings: UriNormalization) -> str:
    path = _canonical_escapes(path)
    return path.rstrip("/") if settings.strip_trailing_slash else path


def _query(query: str, settings: UriNormalization) -> str:
    def is_kept(parameter: str) -> bool:
        name = parameter.partition("=")[0]
        return not any(fnmatchcase(name, glob) for glob in settings.drop_query_parameters)

    kept = [
        parameter for parameter in _canonical_escapes(query).split("&") if parameter and is_kept(parameter)
    ]
    return "?" + "&".join(kept) if kept else ""


def _fragment(fragment: str, settings: UriNormalization) -> str:
    fragment = _canonical_escapes(fragment).partition(":~:")[0]
    return f"#{fragment}" if fragment and not settings.strip_fragment else ""


def _canonical_escapes(text: str) -> str:
    if _PLAIN.fullmatch(text):
        return text
    # A stray % is escaped before anything is decoded: decoding could otherwise complete a new escape.
    decoded = _ESCAPES.sub(_decode_where_harmless, _STRAY_PERCENT.sub("%25", text))
    return quote(
        unicodedata.normalize("NFC", decoded),
        safe=_RESERVED + "%",
        encoding="utf-8",
        errors="surrogatepass",
    )


def _decode_where_harmless(escapes: re.Match[str]) -> str:
    try:
        characters = unquote(escapes[0], errors="strict")
    except UnicodeDecodeError:
        return escapes[0].upper()
    return "".join(
        character if character in _UNRESERVED or not character.isascii() else f"%{ord(character):02X}"
        for character in characters
    )
