"""An embedding model behind a workspace's endpoint: signed in to as the workspace is, anew for each request."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from fake_workspace import FakeWorkspace

from retrieval.embedders.embedder import EmbedderConfig
from retrieval.embedders.endpoint import EndpointEmbedder
from retrieval.errors import ConfigurationError, EmbeddingError


@pytest.fixture
def endpoint(workspace: FakeWorkspace) -> FakeWorkspace:
    """A workspace with the embedding model `vectors`: how many words a text has, and how many letters."""

    def embed(texts: Sequence[str]) -> list[list[float]]:
        return [[len(text.split()), len(text)] for text in texts]

    workspace.endpoints.add_embeddings("vectors", embed)
    return workspace


def embedder(**more: object) -> EndpointEmbedder:
    return EndpointEmbedder(EmbedderConfig(model="databricks/vectors", num_retries=0, **more))  # type: ignore[arg-type]


def test_passages_come_back_as_vectors_of_unit_length_in_batches(endpoint: FakeWorkspace) -> None:
    vectors = embedder(batch_size=2).embed_passages(["one", "two words", "now three words"])
    assert vectors.shape == (3, 2)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    assert np.allclose(vectors[1], np.array([2, 9]) / np.hypot(2, 9))
    asked = endpoint.endpoints.asked("vectors")
    assert [(user, len(body["input"])) for user, body in asked] == [
        ("ann@example.com", 2),
        ("ann@example.com", 1),
    ]


def test_the_credentials_of_each_request_are_those_of_its_moment(
    endpoint: FakeWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = embedder()
    model.embed_query("first")
    monkeypatch.setenv("DATABRICKS_TOKEN", endpoint.identity.add_token("bob@example.com"))
    model.embed_query("second")
    assert [user for user, _ in endpoint.endpoints.asked("vectors")] == ["ann@example.com", "bob@example.com"]


def test_refused_credentials_are_told_without_the_token(
    endpoint: FakeWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABRICKS_TOKEN", "dapi-canary-0123456789")
    with pytest.raises(
        EmbeddingError, match=r"'databricks/vectors' failed: .*Credential was not sent"
    ) as told:
        embedder().embed_query("Hi")
    assert "canary" not in str(told.value)


def test_without_credentials_the_ways_in_are_told(
    endpoint: FakeWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATABRICKS_TOKEN")
    with pytest.raises(ConfigurationError, match="No way into a Databricks workspace"):
        embedder().embed_query("Hi")


def test_a_busy_endpoint_is_asked_again(endpoint: FakeWorkspace) -> None:
    endpoint.fault("embeddings", status=429, headers={"Retry-After": "0.01"})
    config = EmbedderConfig(model="databricks/vectors", num_retries=1)
    assert EndpointEmbedder(config).embed_query("Hi").shape == (2,)
