"""The retriever over Vector Search, through Databricks' own client, against a workspace on loopback."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from fake_workspace import FakeWorkspace
from fake_workspace.search import ranking

from retrieval.ai_search.columns import Columns
from retrieval.ai_search.index import RemoteIndex
from retrieval.ai_search.plan import SearchSettings
from retrieval.errors import (
    CiteqaError,
    ConfigurationError,
    FilterError,
    IndexMissingError,
    IndexUnusableError,
    RetrievalError,
    ServiceUnavailableError,
)
from retrieval.late_fusion import search_many
from retrieval.resilience import Limits, Resilience
from retrieval.types import CorpusFacts
from retrieval.vector_search import VectorSearchRetriever
from retrieval.workspace import asking_for, open_workspace

NAME = "main.docs.passages_index"
QUERY = f"/api/2.0/vector-search/indexes/{NAME}/query"
ROWS = [
    {
        "chunk_id": str(number),
        "doc_uri": f"https://e.org/{number % 3}",
        "text": text,
        "lang": lang,
        "year": year,
    }
    for number, (text, lang, year) in enumerate(
        [
            ("Dogs bark at night.", "en", 2023),
            ("Cats sleep by day.", "en", 2024),
            ("A dog's bark is loud.", "en", None),
            ("犬は夜に吠えます。", "ja", 2025),
        ]
    )
]


class WordEmbedder:
    """An embedder by words and letters, of `dimension` numbers."""

    name, fingerprint, truncated = "words", "words-1", 0

    def __init__(self, dimension: int = 256) -> None:
        self.dimension = dimension

    def embed_passages(self, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        return ranking.embed(texts)[:, : self.dimension]

    def embed_query(self, text: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        return self.embed_passages([text])[0]


@pytest.fixture
def fake(workspace: FakeWorkspace) -> FakeWorkspace:
    workspace.vector_search.add_index(NAME, ROWS)
    return workspace


def retriever(
    name: str = NAME,
    *,
    embedder: WordEmbedder | None = None,
    as_user: bool = False,
    direct: bool = True,
    limits: Limits | None = None,
    **settings: Any,
) -> VectorSearchRetriever:
    resilience = Resilience(f"The index '{name}'", limits or Limits(timeout_s=5, attempt_timeout_s=2))
    index = RemoteIndex(name, open_workspace(), resilience, as_user=as_user, direct=direct)
    return VectorSearchRetriever(index, SearchSettings(**settings), embedder=embedder, as_user=as_user)


def found(passages: Sequence[Any]) -> list[str]:
    return [passage.chunk_id for passage in passages]


def asked(fake: FakeWorkspace) -> dict[str, Any]:
    """What the last query said, without what was left open."""
    body: dict[str, Any] = fake.calls_of(QUERY)[-1].json
    return {name: value for name, value in body.items() if value is not None}


# What is sent


def test_a_query_asks_for_the_columns_and_as_many_passages_as_are_wanted(fake: FakeWorkspace) -> None:
    passages = retriever().search("dog bark", 2)
    assert found(passages)[0] in ("0", "2")
    assert asked(fake) == {
        "columns": ["chunk_id", "text", "doc_uri", "lang"],
        "debug_level": 0,
        "num_results": 2,
        "query_text": "dog bark",
        "query_type": "HYBRID",
    }


@pytest.mark.parametrize("query_type", ["ann", "hybrid", "full_text"])
def test_each_kind_of_query_can_be_chosen(fake: FakeWorkspace, query_type: str) -> None:
    searched = retriever(query_type=query_type)
    assert set(found(searched.search("dog bark", 2))) == {"0", "2"}
    assert asked(fake)["query_type"] == query_type.upper()
    assert (
        searched.identity["mode"] == {"ann": "dense", "hybrid": "hybrid", "full_text": "lexical"}[query_type]
    )


def test_a_standard_endpoint_gets_filters_as_a_dictionary(fake: FakeWorkspace) -> None:
    filters = {"lang": ["en", "ja"], "year >=": 2024, "doc_uri NOT": "https://e.org/9"}
    assert set(found(retriever().search("dog cat 犬", 9, filters))) == {"1", "3"}
    assert asked(fake)["filters_json"] == (
        '{"lang": ["en", "ja"], "year >=": 2024, "doc_uri NOT": "https://e.org/9"}'
    )


def test_a_storage_optimized_endpoint_gets_them_as_text(workspace: FakeWorkspace) -> None:
    workspace.vector_search.add_index(NAME, ROWS, kind="STORAGE_OPTIMIZED")
    filters = {"lang": ["en", "ja"], "year NOT": 2023, "doc_uri": "it's"}
    assert retriever().search("dog", 9, filters) == []
    assert asked(workspace)["filter_string"] == (
        "lang IN ('en', 'ja') AND (year IS NULL OR year <> 2023) AND doc_uri = 'it''s'"
    )


def test_an_endpoint_that_one_may_not_see_is_taken_for_a_standard_one_unless_said(
    fake: FakeWorkspace,
) -> None:
    fake.fault("endpoints/vs$", status=403, code="PERMISSION_DENIED", times=9)
    retriever().search("dog", 1, {"lang": "en"})
    assert "filters_json" in asked(fake)
    with pytest.raises(RetrievalError, match="filter_string is not supported for standard"):
        retriever(endpoint_kind="storage_optimized").search("dog", 1, {"lang": "en"})


def test_filters_use_the_columns_that_hold_what_they_name(workspace: FakeWorkspace) -> None:
    rows = [{"id": 7, "body": "Dogs bark.", "link": "https://e.org/a", "language": "en"}]
    workspace.vector_search.add_index(NAME, rows, primary_key="id", text="body")
    columns = Columns(doc_uri="link", lang="language")
    passage = retriever(columns=columns).search("dog", 3, {"doc_uri": "https://e.org/a", "lang": "en"})[0]
    assert asked(workspace)["filters_json"] == '{"link": "https://e.org/a", "language": "en"}'
    assert (passage.chunk_id, passage.text, passage.doc_uri, passage.lang) == (
        "7",
        "Dogs bark.",
        "https://e.org/a",
        "en",
    )


def test_a_filter_on_what_is_no_column_says_which_there_are(fake: FakeWorkspace) -> None:
    with pytest.raises(
        FilterError, match=r"Filter 'colour': .* It has: chunk_id, doc_uri, text, lang, year\."
    ):
        retriever().search("dog", 1, {"colour": "red"})


def test_the_reranker_reads_the_columns_that_are_named(fake: FakeWorkspace) -> None:
    retriever(rerank_columns=("text",)).search("dog bark", 2)
    assert asked(fake)["reranker"] == {
        "model": "databricks_reranker",
        "model_type": "MODEL_TYPE_BASE",
        "parameters": {"columns_to_rerank": ["text"]},
    }


def test_what_scores_less_than_the_threshold_is_not_found(fake: FakeWorkspace) -> None:
    everything = retriever(query_type="ann").search("dog bark", 9)
    threshold = everything[1].score - 1e-6
    assert found(retriever(query_type="ann", score_threshold=threshold).search("dog bark", 9)) == found(
        everything[:2]
    )


def test_results_that_come_in_pages_are_put_together(fake: FakeWorkspace) -> None:
    fake.vector_search.page_rows = 2
    assert len(retriever(query_type="ann").search("dog", 4)) == 4
    assert [call.path.rpartition("/")[2] for call in fake.calls[-2:]] == ["query", "query-next-page"]


def test_more_than_databricks_gives_is_refused_with_what_to_do(fake: FakeWorkspace) -> None:
    with pytest.raises(RetrievalError, match=r"at most 200 passages to a search of the kind hybrid, and 201"):
        retriever().search("dog", 201)
    assert len(retriever(query_type="ann").search("dog", 201)) == 4


def test_of_a_question_of_megabytes_the_beginning_is_sent(fake: FakeWorkspace) -> None:
    retriever().search("dog " * 500_000, 1)
    assert len(asked(fake)["query_text"]) == 30_000


def test_rows_that_name_no_document_are_left_out_and_told(
    fake: FakeWorkspace, caplog: pytest.LogCaptureFixture
) -> None:
    fake.vector_search.indexes[NAME].rows[0]["doc_uri"] = None
    assert "0" not in found(retriever().search("dog bark", 9))
    assert "1 rows of 'main.docs.passages_index' have no text, or no doc_uri to link to" in caplog.text


def test_nothing_is_printed_and_nothing_is_deprecated(
    fake: FakeWorkspace, capsys: pytest.CaptureFixture[str]
) -> None:
    retriever().search("dog", 1)
    assert capsys.readouterr() == ("", "")
    assert "databricks.vector_search" not in sys.modules


# Vectors of one's own


def test_where_the_index_embeds_nothing_the_query_comes_with_its_vector(workspace: FakeWorkspace) -> None:
    embedder = WordEmbedder()
    workspace.vector_search.add_index(NAME, with_vectors(embedder), vector=("embedding", 256))
    searched = retriever(embedder=embedder)
    assert set(found(searched.search("dog bark", 2))) == {"0", "2"}
    assert asked(workspace)["query_text"] == "dog bark"
    assert asked(workspace)["query_vector"] == pytest.approx(list(embedder.embed_query("dog bark")))
    assert searched.identity["embedder"] == "words-1"
    assert retriever(embedder=embedder, query_type="ann").search("dog bark", 2)
    assert "query_text" not in asked(workspace)


def test_without_a_model_such_an_index_is_searched_by_words(workspace: FakeWorkspace) -> None:
    workspace.vector_search.add_index(NAME, with_vectors(WordEmbedder()), vector=("embedding", 256))
    assert retriever().identity["mode"] == "lexical"
    with pytest.raises(ConfigurationError, match=r"name it with embedder\.model, or set .* to full_text"):
        retriever(query_type="hybrid")


def test_a_model_of_another_dimension_is_told_at_the_start(workspace: FakeWorkspace) -> None:
    workspace.vector_search.add_index(NAME, with_vectors(WordEmbedder()), vector=("embedding", 256))
    with pytest.raises(IndexUnusableError, match="holds vectors of 256 numbers, and words makes 64"):
        retriever(embedder=WordEmbedder(64))


def test_an_index_that_embeds_needs_no_model_of_ours(fake: FakeWorkspace) -> None:
    assert "embedder" not in retriever(embedder=WordEmbedder(64)).identity


def with_vectors(embedder: WordEmbedder) -> list[dict[str, Any]]:
    return [{**row, "embedding": [float(n) for n in embedder.embed_query(str(row["text"]))]} for row in ROWS]


# What is checked at the start


def test_columns_that_are_not_there_are_named_with_those_that_are(fake: FakeWorkspace) -> None:
    columns = Columns(title="titel", others=("year", "colour"))
    with pytest.raises(IndexUnusableError) as caught:
        retriever(columns=columns, rerank_columns=("body",))
    assert str(caught.value) == (
        "The index 'main.docs.passages_index' lacks the columns 'titel' (columns.title), 'colour' "
        "(columns.others.colour), 'body' (rerank_columns.body) of retrieval.vector_search. It has: chunk_id, doc_uri, "
        "text, lang, year."
    )


def test_columns_that_unity_catalog_does_not_show_are_checked_by_the_first_search(
    fake: FakeWorkspace,
) -> None:
    fake.fault("unity-catalog/tables", status=403, code="PERMISSION_DENIED", times=9)
    searched = retriever(columns=Columns(title="titel"))
    with pytest.raises(RetrievalError, match="Requested columns to fetch are not present in index: titel"):
        searched.search("dog", 1)


def test_a_schema_that_changed_after_the_start_is_told_by_the_search(fake: FakeWorkspace) -> None:
    searched = retriever()
    del fake.vector_search.indexes[NAME].schema["lang"]
    with pytest.raises(RetrievalError, match="not present in index: lang"):
        searched.search("dog", 1)


def test_an_index_that_is_not_ready_says_its_state(fake: FakeWorkspace) -> None:
    index = fake.vector_search.indexes[NAME]
    index.state, index.message = "PROVISIONING_INITIAL_SNAPSHOT", "3 of 900 rows are indexed."
    with pytest.raises(
        IndexUnusableError, match=r"not ready: PROVISIONING_INITIAL_SNAPSHOT \(3 of 900 rows are"
    ):
        retriever()


def test_an_index_that_goes_offline_is_trouble_that_is_told(fake: FakeWorkspace) -> None:
    searched = retriever()
    assert searched.facts().passages == 4
    fake.vector_search.indexes[NAME].state = "OFFLINE_FAILED"
    assert searched.facts().trouble == ""  # asked again every 30 seconds
    searched._facts_until = 0.0
    assert "not ready: OFFLINE_FAILED" in searched.facts().trouble
    with pytest.raises(RetrievalError, match="is not ready: OFFLINE_FAILED"):
        searched.search("dog", 1)


def test_an_index_that_is_not_there_is_told_with_what_was_said(workspace: FakeWorkspace) -> None:
    with pytest.raises(
        IndexMissingError, match=r"'main\.docs\.no' cannot be searched.* does not exist.*Check the name"
    ):
        retriever("main.docs.no")


def test_the_version_of_the_table_is_the_content_hash(fake: FakeWorkspace) -> None:
    first = retriever().content_hash
    assert retriever().content_hash == first
    fake.vector_search.indexes[NAME].sync()
    assert retriever().content_hash != first


def test_documents_of_a_large_index_are_not_listed(
    fake: FakeWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert retriever().doc_uris() == {"https://e.org/0", "https://e.org/1", "https://e.org/2"}
    monkeypatch.setattr("retrieval.vector_search._LISTED_ROWS", 3)
    assert retriever().doc_uris() is None


def test_terms_weigh_by_a_sample_of_the_passages(fake: FakeWorkspace) -> None:
    searched = retriever()
    dog, cat, nowhere, the = searched.idf(["dog", "cat", "elephant", "the"])
    assert 0 == the < dog < cat < nowhere
    searched.idf(["dog"])
    assert len([call for call in fake.calls if call.path.endswith("/scan")]) == 1


def test_where_no_sample_can_be_had_terms_weigh_alike(
    fake: FakeWorkspace, caplog: pytest.LogCaptureFixture
) -> None:
    searched = retriever()
    fake.fault("/scan", status=403, code="PERMISSION_DENIED")
    assert searched.idf(["dog", "elephant"]) == [1.0, 1.0]
    assert "All terms of a question weigh alike: " in caplog.text
    assert searched.search("dog", 1)


# What goes wrong


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 429, "code": "REQUEST_LIMIT_EXCEEDED", "headers": {"Retry-After": "0.1"}},
        {"status": 429, "code": "REQUEST_LIMIT_EXCEEDED"},
        {"status": 500},
        {"status": 502, "body": b"<html>bad gateway</html>"},
        {"status": 503, "code": "TEMPORARILY_UNAVAILABLE"},
        {"status": 504, "code": "DEADLINE_EXCEEDED"},
        {"truncate_at": 60},
        {"truncate_at": 0},
        {"refuse": True},
        {"body": b'{"manifest": {"columns": ['},
    ],
    ids=str,
)
def test_what_passes_is_tried_again(fake: FakeWorkspace, fault: dict[str, Any]) -> None:
    searched = retriever()
    fake.fault("/query", times=2, **fault)
    assert set(found(searched.search("dog bark", 2))) == {"0", "2"}
    assert len(fake.calls_of(QUERY)) == 3


def test_retry_after_is_waited_for(fake: FakeWorkspace) -> None:
    searched = retriever()
    fake.fault("/query", status=429, headers={"Retry-After": "0.6"})
    began = time.monotonic()
    searched.search("dog", 1)
    assert time.monotonic() - began >= 0.6


def test_a_longer_retry_after_than_there_is_time_for_ends_the_search_at_once(fake: FakeWorkspace) -> None:
    searched = retriever()
    fake.fault("/query", status=429, message="too many", headers={"Retry-After": "60"}, times=9)
    began = time.monotonic()
    with pytest.raises(
        ServiceUnavailableError, match=r"is busy: HTTP 429: .*too many, and asks to wait 60 s"
    ):
        searched.search("dog", 1)
    assert time.monotonic() - began < 2


def test_a_hung_connection_ends_with_the_time_of_an_attempt(fake: FakeWorkspace) -> None:
    searched = retriever()
    searched._index._resilience.limits = Limits(timeout_s=1.0, attempt_timeout_s=0.3, num_retries=9)
    fake.fault("/query", hang_s=10, times=9)
    began = time.monotonic()
    with pytest.raises(ServiceUnavailableError, match=r"cannot be used now: no answer in time \(\d attempts"):
        searched.search("dog", 1)
    assert 0.5 < time.monotonic() - began < 5


def test_an_answer_that_drips_ends_with_the_time_of_an_attempt(
    fake: FakeWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched = retriever()
    searched._index._resilience.limits = Limits(timeout_s=0.6, attempt_timeout_s=0.6, num_retries=0)
    with dripping_server() as url:
        monkeypatch.setattr(searched._index._plain, "index_url", url)
        began = time.monotonic()
        with pytest.raises(ServiceUnavailableError, match="no answer in time"):
            searched.search("dog", 1)
        assert time.monotonic() - began < 5


def test_a_service_that_keeps_failing_is_left_alone(fake: FakeWorkspace) -> None:
    searched = retriever(limits=Limits(num_retries=0, open_after=2, open_s=0.4))
    fake.fault("/query", status=500, times=2)
    for _ in range(2):
        with pytest.raises(ServiceUnavailableError, match="HTTP 500"):
            searched.search("dog", 1)
    with pytest.raises(ServiceUnavailableError, match="is left alone for another 0"):
        searched.search("dog", 1)
    assert len(fake.calls_of(QUERY)) == 2
    time.sleep(0.45)
    assert searched.search("dog", 1)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            {"status": 401, "code": "UNAUTHENTICATED", "message": "Token is expired."},
            r"Tried: pat .*Renew the token",
        ),
        ({"status": 403, "code": "PERMISSION_DENIED", "message": "No SELECT."}, r"No SELECT\. Tried: pat"),
        ({"status": 400, "code": "BAD_REQUEST", "message": "Bad\nquery"}, r"Bad query"),
    ],
    ids=str,
)
def test_what_is_refused_is_told_at_once_with_what_to_do(
    fake: FakeWorkspace, fault: dict[str, Any], message: str
) -> None:
    searched = retriever()
    fake.fault("/query", times=9, **fault)
    with pytest.raises(RetrievalError, match=message) as caught:
        searched.search("dog", 1)
    assert "\n" not in str(caught.value)
    assert len(fake.calls_of(QUERY)) == 1


def test_an_answer_of_another_form_is_no_programming_error(fake: FakeWorkspace) -> None:
    searched = retriever()
    fake.fault("/query", body=b'{"rows": []}')
    with pytest.raises(RetrievalError, match="answered in a form that this version does not know"):
        searched.search("dog", 1)


def test_a_host_that_is_away_is_a_failure_that_may_pass(
    fake: FakeWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched = retriever(limits=Limits(num_retries=1))
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    for name in ("index_url", "workspace_url"):
        monkeypatch.setattr(searched._index._plain, name, address)
    with pytest.raises(
        ServiceUnavailableError, match=r"now: the connection failed \(.*Connection refused\) \(2 attempts"
    ):
        searched.search("dog", 1)
    searched._facts_until = 0.0
    assert "the connection failed" in searched.facts().trouble


def test_without_the_package_the_extra_is_named(fake: FakeWorkspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "databricks.ai_search.index", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'citeqa\[databricks\]'"):
        retriever()


def test_a_client_that_sends_in_another_way_is_refused_rather_than_left_without_limits(
    fake: FakeWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("databricks.ai_search.utils._cached_get_request_session")
    with pytest.raises(ConfigurationError, match=r"pip install 'databricks-ai-search<0\.82'"):
        retriever()


# Who asks


def test_each_search_has_the_token_of_its_user_however_they_interleave(fake: FakeWorkspace) -> None:
    users = {f"user{number}@example.com" for number in range(6)}
    tokens = {user: fake.identity.add_token(user) for user in users}
    fake.vector_search.indexes[NAME].readers = users
    searched = retriever(as_user=True)

    def ask(user: str) -> int:
        with asking_for(tokens[user]):
            return len(searched.search(f"dog of {user}", 1))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, sorted(users) * 10)) == [1] * 60
    queries = fake.calls_of(QUERY)
    assert len(queries) == 60
    assert all(call.json["query_text"] == f"dog of {call.user}" for call in queries)


def test_a_server_of_users_is_ready_though_nobody_asks_yet(fake: FakeWorkspace) -> None:
    fake.vector_search.indexes[NAME].readers = {"ann@example.com"}
    searched = retriever(as_user=True)
    assert searched.facts() == CorpusFacts()
    with asking_for(fake.identity.add_token("ann@example.com")):
        searched.search("dog", 1)
    assert searched.facts() == CorpusFacts(passages=4)


def test_while_one_looks_at_a_workspace_that_hangs_others_tell_what_was_known(fake: FakeWorkspace) -> None:
    searched = retriever()
    searched._facts_until = 0.0
    fake.fault("indexes/main.docs.passages_index$", hang_s=1.5)
    looking = threading.Thread(target=searched.facts)
    looking.start()
    time.sleep(0.3)
    began = time.monotonic()
    assert searched.facts().passages == 4
    assert time.monotonic() - began < 0.5
    looking.join()


def test_several_queries_of_a_user_are_searched_at_once_and_as_the_user(fake: FakeWorkspace) -> None:
    fake.vector_search.indexes[NAME].readers = {"ann@example.com"}
    searched = retriever(as_user=True)
    with asking_for(fake.identity.add_token("ann@example.com")):
        searched.search("dog", 1)
        with fake.slow(0.5):
            began = time.monotonic()
            passages = search_many(searched, ["dog bark", "cat sleeps", "犬"], 3)
            assert time.monotonic() - began < 1.2
    assert "1" in found(passages)
    assert {call.user for call in fake.calls_of(QUERY)} == {"ann@example.com"}


def test_on_behalf_of_nobody_nothing_is_searched(fake: FakeWorkspace) -> None:
    searched = retriever(as_user=True)
    with pytest.raises(CiteqaError, match=r"on behalf of the user, and no user's token came"):
        searched.search("dog", 1)
    assert fake.calls_of(QUERY) == []


def test_a_user_without_permission_is_told_and_others_go_on(fake: FakeWorkspace) -> None:
    fake.vector_search.indexes[NAME].readers = {"ann@example.com"}
    searched = retriever(as_user=True)
    told = r"does not have SELECT.*the token of the user who asks"
    with (
        asking_for(fake.identity.add_token("bob@example.com")),
        pytest.raises(RetrievalError, match=told),
    ):
        searched.search("dog", 1)
    with asking_for(fake.identity.add_token("ann@example.com")):
        assert searched.search("dog", 1)


def test_on_model_serving_the_client_looks_for_no_credentials_by_itself(
    fake: FakeWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched = retriever(as_user=True)
    for name in ("IS_IN_DB_MODEL_SERVING_ENV", "IS_IN_DATABRICKS_MODEL_SERVING_ENV"):
        monkeypatch.setenv(name, "true")
    with asking_for(fake.identity.add_token("bob@example.com")):
        assert searched.search("dog", 1)
    assert fake.calls_of(QUERY)[-1].user == "bob@example.com"


@pytest.fixture
def service_principal(fake: FakeWorkspace, monkeypatch: pytest.MonkeyPatch) -> str:
    fake.identity.add_service_principal("robot", "canary-secret-0123")
    fake.model_serving.add_foundation_model("embedder")
    monkeypatch.delenv("DATABRICKS_TOKEN")
    monkeypatch.setenv("DATABRICKS_CLIENT_ID", "robot")
    monkeypatch.setenv("DATABRICKS_CLIENT_SECRET", "canary-secret-0123")
    fake.vector_search.direct_url = fake.url.replace("127.0.0.1", "localhost")
    return "robot"


def test_a_service_principal_asks_the_host_of_the_index_itself(
    fake: FakeWorkspace, service_principal: str
) -> None:
    assert retriever().search("dog", 1)
    call = fake.calls_of(QUERY)[-1]
    assert (call.user, call.headers["host"].split(":")[0]) == (service_principal, "localhost")
    assert retriever(direct=False).search("dog", 1)
    assert fake.calls_of(QUERY)[-1].headers["host"].startswith("127.0.0.1")


def test_the_reranker_is_asked_over_the_workspace(fake: FakeWorkspace, service_principal: str) -> None:
    assert retriever(rerank_columns=("text",)).search("dog", 1)
    assert fake.calls_of(QUERY)[-1].headers["host"].startswith("127.0.0.1")


def test_a_service_principal_gets_a_new_token_before_its_old_one_ends(
    fake: FakeWorkspace, service_principal: str
) -> None:
    fake.identity.token_lifetime_s = 100.5  # the client renews 100 seconds before
    searched = retriever()
    searched.search("dog", 1)
    issued = fake.identity.tokens_issued
    time.sleep(0.6)
    searched.search("dog", 1)
    assert fake.identity.tokens_issued == issued + 1


def test_an_embedding_endpoint_that_one_may_not_see_hinders_no_search(
    fake: FakeWorkspace, service_principal: str
) -> None:
    fake.fault("serving-endpoints/embedder", status=403, code="PERMISSION_DENIED", times=9)
    assert retriever().search("dog", 1)


@contextmanager
def dripping_server() -> Iterator[str]:
    """A server that promises much and sends a byte every tenth of a second."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        stop = threading.Event()

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n")
                while not stop.wait(0.1):
                    try:
                        connection.sendall(b" ")
                    except OSError:
                        return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        stop.set()
        thread.join()
