"""Sweeps over the small library: their specifications, a language model that reads, and hand-made trials."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pytest
import yaml

from eval.stats import Interval
from eval.summary import Slice, Summary
from eval.sweep.answering import StagedAgent
from eval.sweep.results import NOTHING, Spending, State, SweepResult, Trial
from eval.sweep.run import SweepOptions, run_sweep
from eval.sweep.specification import SweepSpecification, parse_specification
from retrieval.local_index import LocalIndex

PRICE = {"input_usd_per_million": 100.0, "output_usd_per_million": 1000.0}


@dataclass(frozen=True)
class Sweeps:
    """Makes specifications over the library and runs them, all with one cache and one place for results."""

    base: dict[str, Any]
    directory: Path

    def write_config(self, **sections: dict[str, Any]) -> Path:
        """A configuration file: the library's, with these sections added."""
        values = {
            name: {**self.base.get(name, {}), **sections.get(name, {})} for name in {*self.base, *sections}
        }
        file = self.directory / f"agent-{len(list(self.directory.glob('agent-*.yaml')))}.yaml"
        file.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
        return file

    def keys(self, **keys: Any) -> dict[str, Any]:
        """What the sweep's file says: two configurations of all questions, but for these keys."""
        sections = keys.pop("sections", {})
        return {
            "name": "quiz",
            "config": str(self.write_config(**sections)),
            "factors": {"retrieval.k": [3, 1]},
            "objectives": ["citation_recall"],
            "select_on": None,
            "report_on": None,
            "results": str(self.directory / "sweeps"),
            "cache": str(self.directory / "stages"),
            **keys,
        }

    def specify(self, **keys: Any) -> SweepSpecification:
        return parse_specification(self.keys(**keys), "sweep.yaml")

    def run(self, *, options: SweepOptions | None = None, **keys: Any) -> SweepResult:
        return run_sweep(self.specify(**keys), "sweep.yaml", options)

    def write(self, **keys: Any) -> Path:
        """The sweep's file."""
        file = self.directory / "sweep.yaml"
        file.write_text(yaml.safe_dump(self.keys(**keys), allow_unicode=True), encoding="utf-8")
        return file


@pytest.fixture
def sweeps(library: Path, question_file: Path, tmp_path: Path, mlflow_as_found: None) -> Sweeps:
    base = {
        "retrieval": {"index": str(library), "k": 3},
        "evaluation": {"dataset": str(question_file), "threads": 1, "ks": [1, 3]},
        "tracking": {"uri": f"sqlite:///{tmp_path / 'nothing' / 'mlflow.db'}"},
    }
    return Sweeps(base, tmp_path)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A folder of three documents of several passages, for sweeps over chunking."""
    folder = tmp_path / "docs"
    folder.mkdir()
    for name, topic in (("water", "Water boils"), ("iron", "Iron melts"), ("bread", "Bread rises")):
        sentences = " ".join(f"{topic} in way number {n}, which takes {n} hours." for n in range(30))
        front = f"---\ndoc_uri: https://library.example/{name}\n---\n"
        (folder / f"{name}.md").write_text(f"{front}# {name.title()}\n\n{sentences}\n", encoding="utf-8")
    return folder


class ReadingModel:
    """A scripted language model that answers from what it is shown, the same for the same prompt."""

    def __init__(self, server: Any, layout: Callable[[dict[str, Any]], str]) -> None:
        self.server = server
        self._layout = layout
        self.reads()

    @property
    def prompts(self) -> list[str]:
        """What it was asked, in order."""
        return ["\n".join(str(m["content"]) for m in body["messages"]) for body in self.server.requests]

    def reads(self, **how: Any) -> None:
        """Answer from now on, each in a way that `Reply` takes."""
        self.server.forget()
        self.server.computes(self.answer, **how)

    def answer(self, body: dict[str, Any]) -> str:
        prompt = str(body["messages"][-1]["content"])
        if "standalone_question" in str(body["messages"]):
            return self._layout({"standalone_question": "What makes bread rise?"})
        answerable = "Atlantis" not in prompt and "月の裏側" not in prompt
        return self._layout(
            {
                "answerable": str(answerable),
                "answer": "So it is [1]. 私もそう思う [2]." if answerable else "No idea.",
            }
        )

    def section(self, **more: Any) -> dict[str, Any]:
        """The settings' section that names it."""
        return {
            "model": "openai/test",
            "api_base": self.server.url,
            "num_retries": 0,
            "timeout_s": 10,
            "price": PRICE,
            **more,
        }


@pytest.fixture
def reading_model(language_model: Any) -> Iterator[ReadingModel]:
    def layout(fields: dict[str, Any]) -> str:
        sections = [f"[[ ## {name} ## ]]\n{value}" for name, value in fields.items()]
        return "\n\n".join([*sections, "[[ ## completed ## ]]"])

    yield ReadingModel(language_model, layout)
    mlflow.dspy.autolog(disable=True)


@pytest.fixture
def cold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is asked but what is counted: agents answer nothing to warm up."""
    monkeypatch.setattr(StagedAgent, "_warm_up", lambda *_: None)


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What the index is really searched for from here on, and how deep."""
    made: list[tuple[str, int]] = []
    really_search = LocalIndex.search

    def search(self: LocalIndex, query: str, k: int, filters: Any = None) -> Any:
        made.append((query, k))
        return really_search(self, query, k, filters)

    monkeypatch.setattr(LocalIndex, "search", search)
    return made


MakeTrial = Callable[..., Trial]


@pytest.fixture
def make_trial() -> MakeTrial:
    """A trial with these objectives, for rankings."""

    def make(
        number: int,
        state: State = "complete",
        usd: float | None = 0.0,
        parameters: dict[str, Any] | None = None,
        **objectives: float | None,
    ) -> Trial:
        intervals = {
            name: Interval(value, value - 0.1, value + 0.1, 12)
            for name, value in objectives.items()
            if value is not None
        }
        return Trial(
            number=number,
            parameters=parameters or {"retrieval.k": number},
            state=state,
            reason="" if state == "complete" else "because",
            path=Path(f"trials/{number}"),
            objectives=objectives,
            summary=Summary(Slice(intervals, 12, 0, {}), {}),
            spending=NOTHING if usd == 0 else Spending(usd, 11, 7, 1),
        )

    return make


def without_latencies(value: Any) -> Any:
    """A result without what clocks say, and what is computed from it."""
    if isinstance(value, dict):
        return {
            k: without_latencies(v) for k, v in value.items() if k not in ("latency_ms", "latency_ms_p95")
        }
    return [without_latencies(item) for item in value] if isinstance(value, list) else value


@pytest.fixture
def comparable() -> Callable[[Path], Any]:
    """What a sweep wrote as its result, without latencies."""

    def read(result: Path) -> Any:
        return without_latencies(json.loads((result / "result.json").read_bytes()))

    return read
