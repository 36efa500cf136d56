"""An agent of somebody else: flat rows with a declared schema, and set up in all the places where people do."""

from __future__ import annotations

import warnings
from typing import Any

import mlflow
from mlflow.entities import SpanType
from mlflow.pyfunc import ResponsesAgent
from mlflow.types.responses import ResponsesAgentRequest, ResponsesAgentResponse

PAGES = [
    {"url": "https://library.example/water", "pk": 1, "body": "Water boils at 100 degrees at sea level."},
    {"url": "https://library.example/iron", "pk": 2, "body": "Steel is made of iron with a little carbon."},
    {
        "url": "https://library.example/bees",
        "pk": 3,
        "body": "A bee dances to tell its hive where flowers are.",
    },
    {
        "url": "https://library.example/fuji",
        "pk": 4,
        "body": "富士山の高さは何メートルですか 3776メートルです。",
    },
]

mlflow.dspy.autolog()
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    mlflow.models.set_retriever_schema(name="lookup", primary_key="pk", text_column="body", doc_uri="url")


@mlflow.trace(name="lookup", span_type=SpanType.RETRIEVER)
def lookup(question: str) -> list[dict[str, Any]]:
    words = set(question.lower().strip("?").split())
    return sorted(PAGES, key=lambda page: -len(words & set(str(page["body"]).lower().split())))[:2]


class FlatAgent(ResponsesAgent):
    def __init__(self) -> None:
        self.is_set_up = False

    def predict(self, request: ResponsesAgentRequest) -> ResponsesAgentResponse:  # type: ignore[override]
        if not self.is_set_up:
            mlflow.set_experiment("set up at the first question")
            self.is_set_up = True
        print("What a model prints is no result.")
        question = request.input[-1].content
        if "Atlantis" in question:
            raise KeyError("no king")
        rows = lookup(question)
        return ResponsesAgentResponse(output=[self.create_text_output_item(rows[0]["body"], "m1")])


agent = FlatAgent()
mlflow.models.set_model(agent)
