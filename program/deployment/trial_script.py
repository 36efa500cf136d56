"""Run by another Python, where nothing of ours is but the model: load it, ask it, and say what was found.

python trial_script.py MODEL_DIRECTORY REQUEST
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any


def hide_this_checkout() -> None:
    """In a mere process, the packages of a checkout could stand in for those that the model must bring."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder)]


def find_problems(
    body: dict[str, Any], events: list[dict[str, Any]], trace: Any
) -> tuple[list[str], list[str]]:
    """What keeps the sources from showing, and what may be meant so."""
    problems: list[str] = []
    warnings: list[str] = []
    content = body["output"][-1]["content"][0]
    links = [note for note in content.get("annotations", []) if note.get("type") == "url_citation"]
    spans = trace.search_spans(span_type="RETRIEVER") if trace else []
    rows = [row for span in spans for row in span.outputs or []]
    if not content.get("text", "").strip():
        problems.append("its answer is empty")
    if not spans:
        problems.append("its trace has no RETRIEVER span")
    elif rows and not all(row.get("page_content") and row["metadata"].get("doc_uri") for row in rows):
        problems.append("passages on its RETRIEVER span lack page_content or doc_uri")
    if trace and "retrievers" not in trace.info.tags:
        problems.append("its trace does not tell the retriever's schema")
    if not links:
        warnings.append(
            "the answer to the question links no source; set deployment.question to one that it can answer"
        )
    told = [event for event in events if event["type"] == "response.output_text.annotation.added"]
    streamed = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    finished = [event for event in events if event["type"] == "response.output_item.done"]
    if not finished:
        problems.append("its stream does not finish the answer")
    elif streamed != finished[-1]["item"]["content"][0]["text"]:
        problems.append("the text that it streams is not the text of its finished answer")
    elif len(told) != len(finished[-1]["item"]["content"][0].get("annotations", [])):
        problems.append("its stream tells other sources than its finished answer")
    return problems, warnings


def main() -> None:
    """Print one line with what was found."""
    hide_this_checkout()
    import mlflow

    model, request = sys.argv[1], json.loads(sys.argv[2])
    began = time.monotonic()
    mlflow.set_experiment("trial")
    agent = mlflow.pyfunc.load_model(model)
    loaded = time.monotonic()
    from retrieval.asking_user import asking_for  # of the model, which is loaded by now

    with asking_for(os.environ.pop("CITEQA_TRIAL_USER_TOKEN", None)):
        body = agent.predict(request)
        answered = time.monotonic()
        events = list(agent.predict_stream(request))
    trace_id = mlflow.get_last_active_trace_id()
    trace = mlflow.get_trace(trace_id) if trace_id else None
    problems, warnings = find_problems(body, events, trace)
    content = body["output"][-1]["content"][0]
    found = {
        "answer": content.get("text", ""),
        "links": [note["url"] for note in content.get("annotations", []) if note.get("url")],
        "problems": problems,
        "warnings": warnings,
        "load_s": loaded - began,
        "answer_s": answered - loaded,
    }
    print("citeqa-trial:" + json.dumps(found))


if __name__ == "__main__":
    main()
