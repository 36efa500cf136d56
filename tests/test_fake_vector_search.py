"""The double of Vector Search, as both of Databricks' clients meet it: what the service would refuse, it refuses."""

from __future__ import annotations

import os
from typing import Any

import pytest
from databricks.ai_search.client import AISearchClient
from databricks.ai_search.exceptions import AISearchException, BadRequest, NotFound, ResourceConflict
from databricks.ai_search.index import AISearchIndex
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import DatabricksError
from databricks.sdk.errors import NotFound as SdkNotFound
from databricks.sdk.service import vectorsearch as wire
from fake_workspace import FakeWorkspace

ROWS = [{"id": f"k{number}", "text": f"row {number}", "n": number} for number in range(5)]
NAME = "main.docs.index"
SCHEMA = {"id": "string", "text": "string", "vector": "array<float>"}


@pytest.fixture
def client(workspace: FakeWorkspace) -> AISearchClient:
    workspace.model_serving.add_foundation_model("embedder")
    return AISearchClient(workspace.url, os.environ["DATABRICKS_TOKEN"], disable_notice=True)


def delta_sync(client: AISearchClient, workspace: FakeWorkspace, **how: Any) -> AISearchIndex:
    workspace.vector_search.tables["main.docs.rows"] = ROWS
    embedding = {"embedding_source_column": "text", "embedding_model_endpoint_name": "embedder"}
    said = {"endpoint_name": "vs", "index_name": NAME, "primary_key": "id", "pipeline_type": "TRIGGERED"}
    return client.create_delta_sync_index(
        **{**said, "source_table_name": "main.docs.rows", **embedding, **how}
    )


def test_an_index_is_made_filled_synced_searched_and_deleted(
    client: AISearchClient, workspace: FakeWorkspace
) -> None:
    client.create_endpoint("vs")
    index = delta_sync(client, workspace)
    index.wait_until_ready()
    assert index.describe()["status"]["indexed_row_count"] == 5
    workspace.vector_search.tables["main.docs.rows"] = ROWS[:2]
    assert index.describe()["status"]["indexed_row_count"] == 5
    index.sync()
    assert index.describe()["status"]["indexed_row_count"] == 2
    said = index.similarity_search(["id", "n"], query_text="row 1", num_results=1, disable_notice=True)
    assert said["result"]["data_array"][0][:2] == ["k1", 1.0]  # whole numbers come with a point
    assert [one["name"] for one in client.list_indexes("vs")["vector_indexes"]] == [NAME]
    client.delete_index("vs", NAME)
    client.delete_endpoint("vs")
    assert not client.endpoint_exists("vs")


def test_rows_are_written_to_a_direct_access_index_alone(
    client: AISearchClient, workspace: FakeWorkspace
) -> None:
    client.create_endpoint("vs")
    index = client.create_direct_access_index("vs", "main.docs.direct", "id", 2, "vector", SCHEMA)
    index.upsert(
        [{"id": "a", "text": "x", "vector": [1.0, 0.0]}, {"id": "b", "text": "y", "vector": [0.0, 1.0]}]
    )
    index.delete(["a"])
    said = index.similarity_search(["id"], query_vector=[1.0, 0.0], disable_notice=True)
    assert said["result"]["data_array"][0][0] == "b"
    with pytest.raises(BadRequest, match="must hold 2 numbers"):
        index.upsert([{"id": "c", "text": "z", "vector": [1.0]}])
    with pytest.raises(BadRequest, match="not in the index's schema"):
        index.upsert([{"id": "c", "colour": "red", "vector": [1.0, 0.0]}])
    with pytest.raises(BadRequest, match="cannot be written to"):
        delta_sync(client, workspace).upsert([{"id": "c"}])


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"query_text": "x", "columns": ["colour"]}, "not present in index: colour"),
        ({"query_text": "x", "query_type": "BM25"}, "Unsupported query type BM25"),
        ({"query_text": "x", "query_type": "HYBRID", "num_results": 201}, "from 1 to 200"),
        ({"query_vector": [1.0], "query_type": "FULL_TEXT"}, "query_text is required"),
        ({"query_text": "x", "filters": "n = 1"}, "filter_string is not supported"),
        ({"query_text": "x", "filters": {"colour": "red"}}, "'colour' is not a column"),
        ({}, "query_text or query_vector is required"),
    ],
    ids=str,
)
def test_a_query_that_the_service_refuses_is_refused(
    client: AISearchClient, workspace: FakeWorkspace, query: dict[str, Any], message: str
) -> None:
    client.create_endpoint("vs")
    index = delta_sync(client, workspace)
    with pytest.raises(BadRequest, match=message):
        index.similarity_search(**{"columns": ["id"], "disable_notice": True, **query})


def test_a_field_that_the_request_does_not_have_is_refused(
    client: AISearchClient, workspace: FakeWorkspace
) -> None:
    client.create_endpoint("vs")
    index = delta_sync(client, workspace)
    with pytest.raises(BadRequest, match=r"Unknown fields .*query_experiment_config"):
        index.similarity_search(["id"], "x", disable_notice=True, _query_experiment_config={"a": 1})


def test_what_is_not_there_or_there_already_is_told(client: AISearchClient, workspace: FakeWorkspace) -> None:
    with pytest.raises(NotFound, match="endpoint vs not found"):
        delta_sync(client, workspace)
    client.create_endpoint("vs")
    with pytest.raises(ResourceConflict, match="already exists"):
        client.create_endpoint("vs")
    with pytest.raises(NotFound, match=r"Table 'main\.docs\.no' does not exist"):
        delta_sync(client, workspace, source_table_name="main.docs.no")
    with pytest.raises(BadRequest, match=r"must be catalog\.schema\.index"):
        delta_sync(client, workspace, index_name="docs")
    delta_sync(client, workspace)
    with pytest.raises(ResourceConflict, match="already exists"):
        delta_sync(client, workspace)
    with pytest.raises(AISearchException, match="still has indexes"):
        client.delete_endpoint("vs")


def test_what_only_storage_optimized_endpoints_do_is_refused_elsewhere(
    client: AISearchClient, workspace: FakeWorkspace
) -> None:
    client.create_endpoint("vs")
    client.create_endpoint("large", "STORAGE_OPTIMIZED")
    words = {"index_subtype": "FULL_TEXT", "embedding_source_column": None}
    with pytest.raises(BadRequest, match="FULL_TEXT needs a storage-optimized endpoint"):
        delta_sync(client, workspace, **words)
    with pytest.raises(BadRequest, match="sync TRIGGERED only"):
        delta_sync(client, workspace, endpoint_name="large", pipeline_type="CONTINUOUS")
    with pytest.raises(BadRequest, match="target_qps is for STANDARD"):
        client.create_endpoint("fast", "STORAGE_OPTIMIZED", target_qps=100)
    index = delta_sync(client, workspace, endpoint_name="large", **words)
    assert "indexed_row_count" not in index.describe()["status"]
    with pytest.raises(BadRequest, match="is a full-text index"):
        index.similarity_search(["id"], "x", disable_notice=True)


def test_the_sdk_meets_the_same_service(workspace: FakeWorkspace) -> None:
    sdk = WorkspaceClient()
    workspace.vector_search.add_endpoint("vs")
    workspace.vector_search.tables["main.docs.rows"] = ROWS
    source = wire.EmbeddingSourceColumn(name="text", embedding_model_endpoint_name="embedder")
    made = sdk.vector_search_indexes.create_index(
        NAME,
        "vs",
        "id",
        wire.VectorIndexType.DELTA_SYNC,
        delta_sync_index_spec=wire.DeltaSyncVectorIndexSpecRequest(
            source_table="main.docs.rows",
            pipeline_type=wire.PipelineType.TRIGGERED,
            embedding_source_columns=[source],
        ),
    )
    assert made.status is not None
    assert made.status.ready
    found = sdk.vector_search_indexes.query_index(NAME, ["id"], query_text="row 3", num_results=1)
    assert found.result is not None
    assert (found.result.data_array or [[]])[0][0] == "k3"
    assert len(sdk.vector_search_indexes.scan_index(NAME, num_results=3).data or []) == 3
    assert [column.name for column in sdk.tables.get(NAME).columns or []] == ["id", "text", "n"]
    with pytest.raises(SdkNotFound):
        sdk.vector_search_indexes.get_index("main.docs.no")
    workspace.vector_search.indexes[NAME].readers = {"bob@example.com"}
    with pytest.raises(DatabricksError, match="does not have SELECT"):
        sdk.vector_search_indexes.query_index(NAME, ["id"], query_text="row 3")
