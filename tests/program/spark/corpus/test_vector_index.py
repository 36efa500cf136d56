"""The index behind a passage table, made and synced in a workspace by Databricks' own client."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from fake_workspace import FakeWorkspace

from program.spark.corpus.vector_index import IndexPlan, check_index, state_of, sync
from retrieval.errors import CiteqaError, ConfigurationError, WorkspaceError

TABLE, NAME = "main.docs.passages", "main.docs.passages_index"
OURS = IndexPlan(NAME, "vs", TABLE, ("chunk_id", "doc_uri", "text"), dimension=3)
MANAGED = replace(OURS, dimension=None, embedding_endpoint="databricks-gte-large-en")
Rows = list[dict[str, Any]]


@pytest.fixture
def table(workspace: FakeWorkspace) -> Rows:
    """The rows of the table, which a test may change."""
    workspace.vector_search.add_endpoint("vs")
    row = {
        "chunk_id": "u#c0000",
        "doc_uri": "u",
        "text": "Water boils.",
        "team": "red",
        "embedding": [1.0, 0, 0],
    }
    rows: Rows = [row]
    workspace.vector_search.tables[TABLE] = lambda: rows
    return rows


def test_an_index_is_made_over_our_vectors_and_told_to_catch_up_when_it_is_there(
    workspace: FakeWorkspace, table: Rows
) -> None:
    assert check_index(OURS) is False
    assert (sync(OURS), state_of(OURS)) == ("made", "ONLINE_NO_PENDING_UPDATE, 1 rows")
    index = workspace.vector_search.indexes[NAME]
    assert index.spec == {
        "source_table": TABLE,
        "pipeline_type": "TRIGGERED",
        "columns_to_sync": ["chunk_id", "doc_uri", "text"],
        "embedding_vector_columns": [{"name": "embedding", "embedding_dimension": 3}],
    }
    table.append({**table[0], "chunk_id": "u#c0001"})
    assert check_index(OURS) is True
    assert (sync(OURS), state_of(OURS, wait_min=1)) == (
        "told to catch up",
        "ONLINE_NO_PENDING_UPDATE, 2 rows",
    )
    assert len(index.rows) == 2


def test_vectors_can_be_databricks_own_and_an_index_of_words_alone_needs_none(
    workspace: FakeWorkspace, table: Rows
) -> None:
    sync(MANAGED)
    assert workspace.vector_search.indexes[NAME].spec["embedding_source_columns"] == [
        {"name": "text", "embedding_model_endpoint_name": "databricks-gte-large-en"}
    ]
    workspace.vector_search.add_endpoint("large", "STORAGE_OPTIMIZED")
    words = replace(OURS, name="main.docs.words", endpoint="large", dimension=None)
    assert sync(words) == "made"
    assert workspace.vector_search.indexes["main.docs.words"].subtype == "FULL_TEXT"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"table": "main.docs.other"}, "it follows main.docs.passages, and is to be main.docs.other"),
        ({"dimension": 4}, "the length of its vectors is 3, and is to be 4"),
        (
            {"dimension": None, "embedding_endpoint": "gte"},
            "its embedding endpoint is not there, and is to be gte",
        ),
    ],
)
def test_an_index_that_is_another_is_left_alone_and_told(
    workspace: FakeWorkspace, table: Rows, changed: dict[str, Any], said: str
) -> None:
    sync(OURS)
    calls = len(workspace.calls)
    for ask in (check_index, sync):
        with pytest.raises(ConfigurationError, match=said):
            ask(replace(OURS, **changed))
    assert {call.method for call in workspace.calls[calls:]} == {"GET"}


def test_a_new_index_needs_an_endpoint_which_is_told_before_any_work(workspace: FakeWorkspace) -> None:
    with pytest.raises(
        ConfigurationError, match=r"There is no index main.docs.passages_index yet\. Say at which"
    ):
        check_index(replace(OURS, endpoint=None))


def test_what_the_workspace_refuses_is_one_line_that_says_what_could_not_be_done(
    workspace: FakeWorkspace, table: Rows
) -> None:
    def refusal(plan: IndexPlan) -> str:
        with pytest.raises(WorkspaceError) as told:
            sync(plan)
        assert "\n" not in str(told.value)
        return str(told.value)

    assert refusal(replace(OURS, endpoint="none")).startswith(
        f"The index {NAME} cannot be made at the endpoint none: Vector search endpoint none not found."
    )
    assert "Table 'main.docs.gone' does not exist" in refusal(replace(OURS, table="main.docs.gone"))
    sync(OURS)
    workspace.fault(f"POST .*{NAME}/sync", status=403, code="PERMISSION_DENIED", message="no MANAGE")
    assert refusal(OURS).startswith(f"The index {NAME} cannot be synced: no MANAGE.")


def test_an_index_that_does_not_catch_up_in_time_is_told_with_its_state(
    workspace: FakeWorkspace, table: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync(OURS)
    index = workspace.vector_search.indexes[NAME]
    index.state = "ONLINE_TRIGGERED_UPDATE"
    monkeypatch.setattr(index, "sync", lambda: None)
    with pytest.raises(
        WorkspaceError, match=r"is not up to date after 0\.01 min: ONLINE_TRIGGERED_UPDATE, 1 rows"
    ):
        state_of(OURS, wait_min=0.01)
    index.state = "OFFLINE_FAILED"
    with pytest.raises(CiteqaError, match="OFFLINE_FAILED"):
        state_of(OURS, wait_min=5)
