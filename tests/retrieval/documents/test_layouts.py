"""Corpora that are more than a folder of files: Git folders, tables, saved sites."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from retrieval.corpus import ReadingSettings, read_documents
from retrieval.errors import ConfigurationError, CorpusError
from retrieval.types import Document

BLOB = "https://git.example/o/r/blob/{commit}/{path}"


def read(path: Path, **settings: Any) -> list[Document]:
    return list(read_documents(path, ReadingSettings(**settings)))


def git(folder: Path, *arguments: str) -> str:
    own = ("-c", "user.name=a", "-c", "user.email=a@e.org", "-c", "init.defaultBranch=main")
    return subprocess.run(
        ["git", "-C", str(folder), *own, *arguments], check=True, capture_output=True, text=True
    ).stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name in ("README.md", "docs/index.md", "docs/日本.md", "docs/build/out.md", "docs/new.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"# {name}\n")
    (tmp_path / ".gitignore").write_text("build/\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".gitignore", "README.md", "docs/index.md", "docs/日本.md")
    git(tmp_path, "commit", "-qm", "first")
    return tmp_path


def test_a_git_folder_is_what_git_tracks_with_links_to_its_commit(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD").strip()
    assert [document.doc_uri for document in read(repository, url_template=BLOB)] == [
        f"https://git.example/o/r/blob/{commit}/README.md",
        f"https://git.example/o/r/blob/{commit}/docs/index.md",
        f"https://git.example/o/r/blob/{commit}/docs/%E6%97%A5%E6%9C%AC.md",
    ]
    below = read(repository / "docs", url_template="https://e.org/{branch}/{page}", layout="git")
    assert [document.doc_uri for document in below] == [
        "https://e.org/main/docs/",
        "https://e.org/main/docs/%E6%97%A5%E6%9C%AC",
    ]


def test_a_template_is_made_of_the_path_outside_git_too(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a b.md").write_text("x")
    (document,) = read(tmp_path, url_template="https://e.org/{stem}.html?of={name}")
    assert document.doc_uri == "https://e.org/sub/a%20b.html?of=a%20b.md"


def test_what_a_template_cannot_be_made_of_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("x")
    with pytest.raises(ConfigurationError, match=r"unknown field \{slug\}. There are: \{path\}"):
        read(tmp_path, url_template="https://e.org/{slug}")
    with pytest.raises(ConfigurationError, match=r"url_template = 'x\{'"):
        read(tmp_path, url_template="x{")
    with pytest.raises(ConfigurationError, match="are those of a Git folder"):
        read(tmp_path, url_template=BLOB, layout="folder")
    with pytest.raises(CorpusError, match="cannot be read as a Git folder"):
        read(tmp_path, url_template=BLOB)


def test_a_csv_has_a_document_in_each_row(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text(
        'url,body,title,metadata,area\nhttps://e.org/a,"# One\n\ntext",A,"{""year"": 1}",x\nhttps://e.org/b,Two,,,\n'
    )
    columns = {"doc_uri": "url", "text": "body"}
    first, second = read(path, columns=columns)
    assert (first.doc_uri, first.text, first.title) == ("https://e.org/a", "# One\n\ntext", "A")
    assert first.metadata == {"area": "x", "year": 1}
    assert first.anchors[0].fragment == "one"
    assert second == Document("https://e.org/b", "Two", "", "en")
    with pytest.raises(ConfigurationError, match="unknown field 'uri'"):
        read(path, columns={"uri": "url"})


def test_a_bad_row_is_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("doc_uri,text,metadata\na,One,{\n,Two,\nc,Three,\n")
    told: list[str] = []
    found = list(read_documents(path, on_refused=lambda place, error: told.append(str(error))))
    assert [document.doc_uri for document in found] == ["c"]
    assert told[0].startswith("d.csv:2: metadata is '{', which is not JSON")
    assert told[1].startswith("d.csv:3: no doc_uri")


def test_parquet_has_a_document_in_each_row_and_typed_metadata(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    rows = {"id": [1, 2], "text": ["One", None], "year": [2024, 2025], "metadata": [{"draft": True}, None]}
    pyarrow.parquet.write_table(pa.table(rows), path)
    told: list[str] = []
    (document,) = read_documents(
        path, ReadingSettings(base_url="https://e.org/"), on_refused=lambda _, error: told.append(str(error))
    )
    assert document == Document("https://e.org/1", "One", "", "en", {"year": 2024, "draft": True})
    assert told == ["d.parquet, row 2: no text. Name the field one of: text, contents, page_content."]
    path.write_bytes(b"PAR1 no more")
    with pytest.raises(CorpusError, match=r"Cannot read d\.parquet as Parquet"):
        read(path)


SITEMAP = """<?xml version="1.0"?><urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{}</urlset>"""


def test_a_saved_site_has_the_addresses_of_its_sitemap(tmp_path: Path) -> None:
    pages = {"e.org/index.html": "Home", "e.org/a/index.html": "A", "e.org/b.html": "B", "c.html": "C"}
    for name, words in pages.items():
        (tmp_path / "site" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "site" / name).write_text(
            f"<link rel=canonical href=https://other.org/><h1 id=h>{words}</h1>"
        )
    (tmp_path / "outside.html").write_text("secret")
    addresses = [
        "https://e.org/",
        "https://e.org/a/",
        "https://e.org/b",
        "https://e.org/c",
        "https://e.org/gone",
    ]
    listed = "".join(f"<url><loc>{one}</loc><lastmod>2024-05-06T07:00Z</lastmod></url>" for one in addresses)
    listed += "<url><loc>https://e.org/../outside.html</loc></url>"
    (tmp_path / "sitemap.xml").write_text(SITEMAP.format(listed))
    told: dict[str, str] = {}
    found = list(
        read_documents(
            tmp_path / "sitemap.xml",
            ReadingSettings(pages=str(tmp_path / "site")),
            on_refused=lambda place, error: told.update({place: str(error)}),
        )
    )
    assert [(document.doc_uri, document.text) for document in found] == [
        (address, f"# {words}") for address, words in zip(addresses, ["Home", "A", "B", "C"], strict=False)
    ]
    assert found[0].metadata == {"date": "2024-05-06"}
    assert list(told) == ["https://e.org/gone", "https://e.org/../outside.html"]


def test_a_sitemap_of_sitemaps_is_followed_and_a_bad_one_is_told(tmp_path: Path) -> None:
    index = '<sitemapindex xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{}</sitemapindex>'
    parts = ["one.xml", "sitemap.xml", "gone.xml", "bomb.xml", "broken.xml"]
    entries = "".join(f"<sitemap><loc>https://e.org/{part}</loc></sitemap>" for part in parts)
    (tmp_path / "sitemap.xml").write_text(index.format(entries))
    (tmp_path / "one.xml").write_text(SITEMAP.format("<url><loc>https://e.org/a</loc></url>"))
    (tmp_path / "a.html").write_text("<p>Text")
    (tmp_path / "bomb.xml").write_text('<!DOCTYPE x [<!ENTITY a "ha">]><urlset>&a;</urlset>')
    (tmp_path / "broken.xml").write_text("<urlset>")
    told: list[str] = []
    found = read_documents(tmp_path / "sitemap.xml", on_refused=lambda _, error: told.append(str(error)))
    assert [document.doc_uri for document in found] == ["https://e.org/a"]
    assert len(told) == 4
    assert any("document type" in reason for reason in told)
    assert any("not valid XML" in reason for reason in told)
