"""The workspace: what each of its APIs knows, behind one address."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from fake_workspace.agent_deployments import AgentDeployments
from fake_workspace.datasets import Datasets
from fake_workspace.deployed_agents import DeployedAgents
from fake_workspace.endpoints import Endpoints
from fake_workspace.files import Files
from fake_workspace.identity import Identity
from fake_workspace.lakebase import Lakebase
from fake_workspace.mlflow_api import MlflowApi
from fake_workspace.model_serving import ModelServing
from fake_workspace.search import VectorSearch
from fake_workspace.unity_catalog import UnityCatalog
from fake_workspace.wire import Call, Fault, Router, Wire


class FakeWorkspace:
    """A workspace that is running, to be stopped with `close`; `with FakeWorkspace() as workspace` does both.

    Each API is an attribute: `workspace.identity`, `workspace.vector_search`, … `workspace.calls` is what came,
    `workspace.unknown` what no API of ours answers: a test that leaves any there has found a gap of the double.
    """

    def __init__(self) -> None:
        self.router = Router()
        self.identity = Identity(self)
        self.files = Files(self)
        self.unity_catalog = UnityCatalog(self)
        self.datasets = Datasets(self)  # before Vector Search, which answers for all other tables
        self.vector_search = VectorSearch(self)
        self.model_serving = ModelServing(self)
        self.deployed_agents = DeployedAgents(self)  # before the endpoints, which answer what it does not
        self.endpoints = Endpoints(self)
        self.lakebase = Lakebase(self)
        self.agent_deployments = AgentDeployments(self)
        self.mlflow = MlflowApi(self)  # the last: it takes every path below mlflow/ that is left
        self._wire = Wire(self.router, self.identity.user_of)
        self._thread = threading.Thread(target=self._wire.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def __enter__(self) -> FakeWorkspace:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop answering."""
        self._wire.shutdown()
        self._wire.server_close()
        self._thread.join()
        self.deployed_agents.close()
        self.mlflow.close()

    @property
    def url(self) -> str:
        """Its address: DATABRICKS_HOST."""
        return self._wire.url

    @property
    def calls(self) -> list[Call]:
        """Every request that came, in the order in which they were answered."""
        return self._wire.calls

    @property
    def unknown(self) -> list[str]:
        """`METHOD /path` of requests that no API of ours answers."""
        return self._wire.unknown

    def calls_of(self, path: str) -> list[Call]:
        """The requests of one path."""
        return [call for call in self.calls if call.path == path]

    def fault(self, pattern: str, **how: object) -> Fault:
        """Let something go wrong, as `Fault` says."""
        fault = Fault(pattern, **how)  # type: ignore[arg-type]
        self._wire.faults.append(fault)
        return fault

    @contextmanager
    def slow(self, seconds: float) -> Iterator[None]:
        """Within, every answer takes so much longer."""
        self._wire.latency_s = seconds
        try:
            yield
        finally:
            self._wire.latency_s = 0.0
