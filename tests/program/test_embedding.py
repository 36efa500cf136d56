from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from program.commands.index import index
from program.embedding import open_configured_embedder
from program.indexing import index_corpus, render_report
from program.retrievers import open_retriever
from program.settings import EmbedderSettings, Settings, load_settings
from retrieval.errors import ConfigurationError
from retrieval.local_index import LocalIndex


@pytest.fixture
def overrides(tiny_embedding_model: Path, tmp_path: Path) -> list[str]:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "a.md").write_text("# Travel\n\nThe automobile is fast.")
    (docs / "b.md").write_text("# Health\n\nA physician begins.")
    return [
        f"corpus.path={docs}",
        "corpus.base_url=https://e.org/",
        f"retrieval.index={tmp_path / 'index'}",
        f"embedder.model={tiny_embedding_model}",
        f"embedder.cache={tmp_path / 'embeddings.db'}",
    ]


@pytest.fixture
def settings(overrides: list[str]) -> Settings:
    return load_settings(None, overrides, {})


def test_by_default_there_is_no_embedding_model() -> None:
    assert open_configured_embedder(EmbedderSettings()) is None


def test_a_model_is_opened_once_for_all_who_ask(settings: Settings) -> None:
    assert open_configured_embedder(settings.embedder) is open_configured_embedder(settings.embedder)


def test_indexing_embeds_and_searching_finds_what_was_meant(settings: Settings, tmp_path: Path) -> None:
    report = index_corpus(settings)
    assert report.truncated == 0
    assert LocalIndex.open(settings.retrieval.index).embedder_name == "tiny-embedder"
    found = open_retriever(settings).search("自動車", 1)
    assert [passage.title for passage in found] == ["Travel"]
    assert (tmp_path / "embeddings.db").exists()


def test_what_the_model_did_not_read_whole_is_said(settings: Settings, overrides: list[str]) -> None:
    short = load_settings(None, [*overrides, "embedder.max_tokens=4"], {})
    report = index_corpus(short)
    assert report.truncated == 2
    assert render_report(short, report).endswith("of 2 passages the embedding model read only the beginning")


def test_another_model_than_the_indexs_is_refused_when_it_is_searched(
    settings: Settings, overrides: list[str]
) -> None:
    index_corpus(settings)
    other = load_settings(None, [*overrides, "embedder.max_tokens=9"], {})
    with pytest.raises(Exception, match="was built with another embedding model"):
        open_retriever(other)
    index_corpus(other)
    assert open_retriever(other).search("自動車", 1)


def test_indexing_says_which_model_is_not_there(overrides: list[str]) -> None:
    arguments = [argument for override in overrides for argument in ("--set", override)]
    done = CliRunner().invoke(index, [*arguments, "--set", "embedder.model=./no/such"])
    assert isinstance(done.exception, ConfigurationError)
    assert str(done.exception) == "embedder.model = './no/such': there is no such directory."
    with pytest.raises(ConfigurationError, match=r"embedder\.kind"):
        load_settings(None, ["embedder.kind=word2vec"], {})
