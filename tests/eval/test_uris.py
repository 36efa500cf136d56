import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.uris import UriNormalization, normalize_uri, uri_normalizer
from retrieval.errors import ConfigurationError

DEFAULTS = UriNormalization()
STRICTEST = UriNormalization(
    strip_trailing_slash=False, drop_query_parameters=(), lowercase_host=False, unify_http=False
)
LOOSEST = UriNormalization(
    strip_fragment=True,
    drop_query_parameters=("utm_*", "ref", "a*"),
    host_aliases={"www.a": "a", "localhost:8000": "docs.a"},
)

URI_TEXT = st.one_of(
    st.text(),
    st.text(alphabet="aA0%2F4E3:/?#[]@&=~. \n゛か設İ"),
    st.builds("{}://{}{}".format, st.sampled_from(["http", "HTTPS", "file", "s3"]), st.text(), st.text()),
    st.builds(
        "http://{}:{}/{}".format,
        st.sampled_from(["A", "www.a", "localhost", "例え.jp"]),
        st.sampled_from(["", "80", "443", "8000"]),
        st.text(alphabet="aA%2F7E3:/?#~&=utm_"),
    ),
)


@given(URI_TEXT, st.sampled_from([DEFAULTS, STRICTEST, LOOSEST]))
def test_normalizing_twice_is_normalizing_once(uri: str, settings: UriNormalization) -> None:
    once = normalize_uri(uri, settings)
    assert normalize_uri(once, settings) == once


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://docs.example.com/guide/", "https://docs.example.com/guide"),
        ("https://docs.example.com/", "https://docs.example.com"),
        ("HTTPS://Docs.Example.com/guide", "https://docs.example.com/guide"),
        ("http://docs.example.com:80/guide", "https://docs.example.com:443/guide"),
        ("http://docs.example.com:443/", "https://docs.example.com"),
        ("https://a/p?utm_source=x&id=7&utm_medium=y", "https://a/p?id=7"),
        ("https://a/p?gclid=1", "https://a/p"),
        ("https://a/p?", "https://a/p#"),
        ("https://a/p#:~:text=found%20here", "https://a/p"),
        ("https://a/p#part:~:text=found", "https://a/p#part"),
        ("https://a/設定/概要", "https://a/%E8%A8%AD%E5%AE%9A/%e6%a6%82%e8%a6%81"),
        ("https://a/か\u3099", "https://a/%E3%81%8C"),
        ("https://例え.jp/x", "https://xn--r8jz45g.jp/x"),
        ("https://a/%7Euser/%41", "https://a/~user/A"),
        ("https://a/a b", "https://a/a%20b"),
        ("file:///data/メモ.md", "file:///data/%E3%83%A1%E3%83%A2.md"),
        ("  doc123\n", "doc123"),
        ("ガイド.md", "カ\u3099イト\u3099.md"),
    ],
)
def test_two_spellings_of_one_document_are_equal(one: str, other: str) -> None:
    assert normalize_uri(one, DEFAULTS) == normalize_uri(other, DEFAULTS)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://a/p#install", "https://a/p#usage"),
        ("https://a/#/route", "https://a/"),
        ("https://a/Guide", "https://a/guide"),
        ("https://a/p?id=7", "https://a/p?id=8"),
        ("https://a/a%2Fb", "https://a/a/b"),
        ("https://a/100%25", "https://a/100"),
        ("https://a/p", "https://www.a/p"),
        ("https://a:8443/p", "https://a/p"),
        ("s3://Bucket/key", "file://bucket/key"),
        ("C#", "C"),
        ("doc/", "doc"),
        ("doc%20a", "doc a"),
    ],
)
def test_different_documents_stay_different(one: str, other: str) -> None:
    assert normalize_uri(one, DEFAULTS) != normalize_uri(other, DEFAULTS)


@pytest.mark.parametrize(
    "opaque", ["doc123", "guides/setup.md", "doc:7", "http://[::1", "http://a:b:c/", "質問-1", ""]
)
def test_what_is_no_address_is_left_as_it_is(opaque: str) -> None:
    assert normalize_uri(opaque, LOOSEST) == opaque


def test_an_ipv6_host_and_a_user_survive() -> None:
    assert normalize_uri("http://me@[::1]:8000/x", STRICTEST) == "http://me@[::1]:8000/x"


def test_undecodable_escapes_are_kept_in_capitals() -> None:
    assert normalize_uri("https://a/%ff%e3%81", DEFAULTS) == "https://a/%FF%E3%81"


def test_each_setting_can_be_turned_round() -> None:
    uri = "http://Docs.A:80/p/?utm_source=x#part"
    assert normalize_uri(uri, STRICTEST) == "http://Docs.A/p/?utm_source=x#part"
    assert normalize_uri(uri, UriNormalization(strip_fragment=True)) == "https://docs.a/p"


def test_a_host_alias_stands_for_its_host_with_or_without_a_port() -> None:
    assert normalize_uri("http://WWW.a/p", LOOSEST) == normalize_uri("https://a/p", LOOSEST)
    assert normalize_uri("http://localhost:8000/p", LOOSEST) == "https://docs.a/p"
    assert normalize_uri("http://localhost:8001/p", LOOSEST) == "https://localhost:8001/p"


def test_an_alias_of_an_alias_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"'a' stands for 'b', which is an alias"):
        UriNormalization(host_aliases={"a": "b", "b": "c"})


def test_the_remembering_normalizer_gives_the_same() -> None:
    normalize = uri_normalizer(LOOSEST)
    for uri in ("https://www.a/p/#x", "doc1", "https://www.a/p/#x"):
        assert normalize(uri) == normalize_uri(uri, LOOSEST)
