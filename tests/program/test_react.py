"""The agentic program: the model decides what is searched for, and its calls are seen wherever the answer is."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import SpanType, Trace
from mlflow.genai.utils.trace_utils import extract_retrieval_context_from_trace
from mlflow.types.responses import ResponsesAgentRequest

from eval.evidence import retrieved_documents
from program.agent import CiteqaAgent
from program.asking import ask_agent, render_sources_list
from program.assembly import build_program
from program.content_store import ContentStore
from program.react import ReActQA
from program.research import MOST_PASSAGES, Research
from program.state import load_state, save_state
from program.types import Citation, CitedAnswer, Message, Piece, ToolCall, ToolResult, Turn
from retrieval.errors import ConfigurationError, LanguageModelError, ProgramStateError, RetrievalError
from retrieval.local_index import LocalIndex
from retrieval.types import Filters, Passage

WATER, IRON = "https://docs.example/water", "https://docs.example/iron"
QUESTION = "When does water boil, and when does iron melt?"
BOTH = {"answerable": True, "answer": "Water at 100 degrees [1], iron at 1538 [2]. Ice is blue [7]."}


def searches(*queries: str) -> dict[str, Any]:
    """The output fields of a model that wants these searches."""
    return calls(*({"name": "search", "args": {"query": query}} for query in queries))


def calls(*wanted: dict[str, Any]) -> dict[str, Any]:
    return {"next_thought": "Something is missing.", "tool_calls": json.dumps({"tool_calls": wanted})}


FINISH = calls({"name": "finish", "args": {}})


@pytest.fixture
def make_program(make_settings: Any, index: LocalIndex, language_model: Any) -> Callable[..., ReActQA]:
    """The program over the small corpus, which finds one passage a search unless told otherwise."""

    def make(
        k: int = 1, retriever: Any = None, reader: dict[str, Any] | None = None, **program: Any
    ) -> ReActQA:
        settings = make_settings(
            language_model,
            retrieval={"k": k},
            reader=reader or {},
            program={"kind": "react", **program},
        )
        made = build_program(settings, index)
        assert isinstance(made, ReActQA)
        if retriever is not None:
            made.retriever = retriever
        return made

    return make


def passage(name: str) -> Passage:
    return Passage(f"{name}#1", f"https://docs.example/{name}", f"All about {name}.", name)


class Shelf:
    """A retriever that finds the passage named like each word of a query, and fails for the word `outage`."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int, Filters | None]] = []

    def search(self, query: str, k: int, filters: Filters | None = None) -> list[Passage]:
        self.asked.append((query, k, filters))
        if "outage" in query:
            raise RetrievalError("The shelf cannot be reached.")
        return [passage(word) for word in query.split()][:k]


def queries(answer: CitedAnswer) -> list[str]:
    return [step.arguments["query"] for step in answer.steps if isinstance(step, ToolCall)]


def results(answer: CitedAnswer) -> list[ToolResult]:
    return [step for step in answer.steps if isinstance(step, ToolResult)]


def test_the_model_searches_until_it_finishes_and_the_answer_cites_what_all_searches_found(
    make_program: Callable[..., ReActQA], language_model: Any
) -> None:
    for fields in (searches("water boils"), searches("iron melts"), FINISH, BOTH):
        language_model.fills(fields)
    answer = make_program().respond(Turn(QUESTION))
    assert queries(answer) == ["water boils", "iron melts"]
    assert answer.query == "water boils\niron melts"
    assert [found.doc_uri for found in answer.passages] == [WATER, IRON]
    assert answer.cited_uris == [WATER, IRON]
    assert answer.dropped_markers == 1, "the seventh passage was never found"
    assert len(language_model.requests) == 4
    assert answer.usage["total_tokens"] == 4 * 18


def test_the_model_reads_what_it_found_with_the_numbers_that_the_answer_cites(
    make_program: Callable[..., ReActQA], language_model: Any
) -> None:
    for fields in (searches("water boils"), searches("iron melts", "ice water"), FINISH, BOTH):
        language_model.fills(fields)
    make_program().respond(Turn(QUESTION))
    assert "Nothing was searched for yet." in language_model.prompt(0)
    first, second, reading = map(language_model.prompt, (1, 2, 3))
    assert f"search(query='water boils'):\n[1] Water ({WATER})" in first
    assert "[2]" not in first.rpartition("[[ ## searches ## ]]")[2]
    assert f"search(query='iron melts'):\n[2] Iron ({IRON})" in second
    assert "search(query='ice water'):\n[1] again" in second
    assert f"[1] Water ({WATER})" in reading
    assert f"[2] Iron ({IRON})" in reading


def test_several_searches_can_be_called_for_at_once(
    make_program: Callable[..., ReActQA], language_model: Any
) -> None:
    for fields in (searches("water boils", "iron melts"), FINISH, BOTH):
        language_model.fills(fields)
    answer = make_program().respond(Turn(QUESTION))
    assert queries(answer) == ["water boils", "iron melts"]
    assert len(language_model.requests) == 3


def test_no_more_than_the_searches_that_are_allowed_are_made(
    make_program: Callable[..., ReActQA], language_model: Any
) -> None:
    language_model.fills(searches("water", "iron"))
    language_model.fills(searches("steel", "everest", "ice"))
    language_model.fills(BOTH)
    answer = make_program(max_searches=3).respond(Turn(QUESTION))
    assert queries(answer) == ["water", "iron", "steel"]
    assert len(language_model.requests) == 3, "the last search is followed by the answer"
    assert "[[ ## searches_left ## ]]\n1\n" in language_model.prompt(1)


def test_after_the_time_to_search_it_answers_from_what_it_found(
    make_program: Callable[..., ReActQA], language_model: Any
) -> None:
    language_model.fills(searches("water"), delay_s=0.3)
    language_model.fills(BOTH)
    answer = make_program(max_search_s=0.2).respond(Turn(QUESTION))
    assert queries(answer) == ["water"]
    assert len(language_model.requests) == 2


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(FINISH, id="finishes at once"),
        pytest.param(calls(), id="calls nothing"),
        pytest.param({"next_thought": "Hm.", "tool_calls": "I would search for it"}, id="cannot be read"),
    ],
)
def test_without_any_search_of_the_model_the_question_itself_is_searched_for(
    make_program: Callable[..., ReActQA], language_model: Any, said: dict[str, Any]
) -> None:
    language_model.computes(lambda body: chat(BOTH if "answerable" in str(body) else said))
    answer = make_program().respond(Turn("When does water boil?"))
    assert queries(answer) == ["When does water boil?"]
    assert answer.cited_uris == [WATER]


def chat(fields: dict[str, Any]) -> str:
    return "\n\n".join(f"[[ ## {name} ## ]]\n{value}" for name, value in fields.items())


def test_a_call_that_is_wrong_tells_the_model_why_and_counts(
    make_program: Callable[..., ReActQA], language_model: Any
) -> None:
    wrong = [
        {"name": "delete", "args": {"query": "iron"}},
        {"name": "search", "args": {"words": "iron"}},
        {"name": "search", "args": {"query": "  "}},
    ]
    language_model.fills(calls({"name": "search", "args": {"query": "water"}}, *wrong))
    language_model.fills(searches("iron"))
    language_model.fills(BOTH)
    answer = make_program(max_searches=5).respond(Turn(QUESTION))
    assert [result.problem for result in results(answer)] == [
        "",
        "There is no tool 'delete': call search or finish.",
        "search needs a query, which is text.",
        "search needs a query, which is text.",
        "",
    ]
    assert "There is no tool 'delete'" in language_model.prompt(1)


def test_a_model_whose_first_call_is_wrong_may_try_again(
    make_program: Callable[..., ReActQA], language_model: Any
) -> None:
    for fields in (calls({"name": "lookup", "args": {"q": "iron"}}), searches("water boils"), FINISH, BOTH):
        language_model.fills(fields)
    answer = make_program().respond(Turn(QUESTION))
    assert "There is no tool 'lookup': call search or finish." in language_model.prompt(1)
    assert answer.query == "water boils"


def test_a_model_that_finishes_with_its_last_searches_is_not_asked_again(
    make_program: Callable[..., ReActQA], language_model: Any
) -> None:
    language_model.fills(
        calls({"name": "search", "args": {"query": "water boils"}}, {"name": "finish", "args": {}})
    )
    language_model.fills(BOTH)
    assert make_program().respond(Turn(QUESTION)).query == "water boils"
    assert len(language_model.requests) == 2


def test_a_model_that_only_repeats_itself_has_finished(
    make_program: Callable[..., ReActQA], language_model: Any
) -> None:
    language_model.fills(searches("water boils"))
    language_model.fills(searches(" Water  boils"))
    language_model.fills(BOTH)
    shelf = Shelf()
    answer = make_program(retriever=shelf).respond(Turn(QUESTION))
    assert [query for query, _, _ in shelf.asked] == ["water boils"]
    assert results(answer)[1].problem.startswith("That was searched for before.")


def test_the_model_chooses_words_alone_and_the_request_what_may_be_found(
    make_program: Callable[..., ReActQA], language_model: Any
) -> None:
    widened = {"name": "search", "args": {"query": "iron", "k": 99, "filters": {"lang": "en"}}}
    for fields in (calls(widened), FINISH, BOTH):
        language_model.fills(fields)
    shelf = Shelf()
    make_program(retriever=shelf).respond(Turn(QUESTION, k=2, filters={"lang": "ja"}))
    assert shelf.asked == [("iron", 2, {"lang": "ja"})]


def test_a_follow_up_is_made_to_stand_alone_before_anything_is_decided(
    make_program: Callable[..., ReActQA], language_model: Any
) -> None:
    language_model.fills({"standalone_question": "When does iron melt?"})
    for fields in (searches("iron melts"), FINISH, {"answerable": True, "answer": "At 1538 degrees [1]."}):
        language_model.fills(fields)
    history = (Message("user", "When does water boil?"), Message("assistant", "At 100 degrees [1]."))
    answer = make_program().respond(Turn("And iron?", history))
    assert "[[ ## question ## ]]\nWhen does iron melt?" in language_model.prompt(1)
    assert answer.cited_uris == [IRON]


def test_a_first_search_that_fails_is_the_failure_of_the_answer(
    make_program: Callable[..., ReActQA], language_model: Any
) -> None:
    language_model.fills(searches("outage"))
    with pytest.raises(RetrievalError, match="The shelf cannot be reached"):
        make_program(retriever=Shelf()).respond(Turn(QUESTION))


def test_a_later_search_that_fails_leaves_the_answer_to_what_was_found(
    make_program: Callable[..., ReActQA], language_model: Any
) -> None:
    for fields in (searches("water"), searches("outage"), FINISH, BOTH):
        language_model.fills(fields)
    answer = make_program(retriever=Shelf()).respond(Turn(QUESTION))
    assert results(answer)[1].problem == "The search failed: The shelf cannot be reached."
    assert "The search failed" in language_model.prompt(2)
    assert answer.cited_uris == [WATER]


def test_a_model_that_fails_is_said_or_replaced_as_it_is_configured(
    make_program: Callable[..., ReActQA], language_model: Any
) -> None:
    language_model.says("no such key", status=401)
    with pytest.raises(LanguageModelError):
        make_program().respond(Turn("When does water boil?"))
    answer = make_program(reader={"fallback": "extractive"}).respond(Turn("When does water boil?"))
    assert answer.reader == "extractive"
    assert answer.fallback_reason
    assert queries(answer) == ["When does water boil?"]
    assert answer.cited_uris == [WATER]


def test_the_pieces_are_calls_with_their_results_and_then_the_text(
    make_program: Callable[..., ReActQA], language_model: Any
) -> None:
    for fields in (searches("water boils", "iron melts"), FINISH, BOTH):
        language_model.fills(fields, chunk=3)
    pieces: list[Piece] = []
    answer = make_program().respond(Turn(QUESTION), pieces.append)
    assert pieces[:4] == list(answer.steps)
    assert [type(piece) for piece in pieces[:4]] == [ToolCall, ToolResult] * 2
    assert "".join(piece for piece in pieces if isinstance(piece, str)) == answer.text
    assert [piece for piece in pieces if isinstance(piece, Citation)] == list(answer.citations)
    assert len(pieces) > 10, "the text came as it was written"


def test_passages_beyond_what_a_marker_can_name_are_not_read() -> None:
    shelf = Shelf()
    research = Research(lambda query: shelf.search(query, 100), max_searches=50)
    research.call("search", {"query": " ".join(f"a{n}" for n in range(60))})
    assert research.searches_left == 49
    research.call("search", {"query": " ".join(f"b{n}" for n in range(60))})
    assert len(research.passages) == MOST_PASSAGES
    assert research.searches_left == 0


def completion(message: dict[str, Any]) -> bytes:
    """A whole completion of OpenAI's, whose message is the one given."""
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
    body = {"id": "c1", "object": "chat.completion", "created": 0, "model": "test"}
    return json.dumps({**body, "choices": [choice], "usage": usage}).encode()


def called(*wanted: tuple[str, dict[str, Any]]) -> bytes:
    calls = [
        {
            "id": f"call_{n}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(arguments)},
        }
        for n, (name, arguments) in enumerate(wanted)
    ]
    return completion({"content": None, "tool_calls": calls})


@pytest.mark.parametrize("adapter", ["chat", "json"])
def test_the_tools_can_be_offered_by_the_providers_function_calling(
    make_settings: Any, index: LocalIndex, language_model: Any, adapter: str
) -> None:
    language_model.says(
        body=called(("search", {"query": "water boils"}), ("search", {"query": "iron melts"}))
    )
    language_model.says(body=called(("finish", {})))
    said = json.dumps(BOTH) if adapter == "json" else chat(BOTH)
    language_model.says(body=completion({"content": said}))
    native = make_settings(
        language_model,
        retrieval={"k": 1},
        program={"kind": "react", "tool_calls": "native"},
        language_model={"adapter": adapter},
    )
    answer = build_program(native, index).respond(Turn(QUESTION))
    assert answer.cited_uris == [WATER, IRON]
    first, _, reading = language_model.requests
    assert [tool["function"]["name"] for tool in first["tools"]] == ["search", "finish"]
    assert first["tool_choice"] == "required"
    assert "tools" not in reading


@pytest.mark.parametrize("tool_calls", ["native", "text"])
def test_what_the_model_decided_is_recorded_with_its_answer(
    make_settings: Any, index: LocalIndex, language_model: Any, tmp_path: Path, tool_calls: str
) -> None:
    native = tool_calls == "native"
    wanted = called(("search", {"query": "water boils"})), called(("finish", {}))
    for body, fields in zip(wanted, (searches("water boils"), FINISH), strict=True):
        language_model.says(**({"body": body} if native else {"text": chat(fields)}))
    language_model.fills(BOTH)
    settings = make_settings(
        language_model,
        language_model={"cache": True},
        program={"kind": "react", "tool_calls": tool_calls},
    )
    with ContentStore(tmp_path / "calls.db") as calls_made:
        first, again = (
            build_program(settings, index, record_in=calls_made).respond(Turn(QUESTION)) for _ in range(2)
        )
    assert len(language_model.requests) == 3
    assert (again.text, again.passages, again.usage) == (first.text, first.passages, first.usage)


@pytest.mark.parametrize("adapter", ["chat", "json"])
def test_by_default_the_tools_stand_in_the_prompt(
    make_settings: Any, index: LocalIndex, language_model: Any, adapter: str
) -> None:
    write = json.dumps if adapter == "json" else chat
    for fields in (searches("water boils"), FINISH, BOTH):
        language_model.says(write(fields))
    settings = make_settings(language_model, program={"kind": "react"}, language_model={"adapter": adapter})
    assert queries(build_program(settings, index).respond(Turn(QUESTION))) == ["water boils"]
    assert not any("tools" in request for request in language_model.requests)


@pytest.fixture
def agent(make_settings: Any, language_model: Any) -> CiteqaAgent:
    settings = make_settings(language_model, retrieval={"k": 1}, program={"kind": "react"})
    return CiteqaAgent(settings)


@pytest.fixture
def scripted(language_model: Any) -> None:
    for fields in (searches("water boils"), searches("iron melts"), FINISH, BOTH):
        language_model.fills(fields)


def request(*before: dict[str, Any], **more: Any) -> ResponsesAgentRequest:
    return ResponsesAgentRequest(input=[*before, {"role": "user", "content": QUESTION}], **more)


def items(response: Sequence[Any]) -> list[dict[str, Any]]:
    return [item.model_dump(exclude_none=True) for item in response]


@pytest.mark.usefixtures("scripted")
def test_the_response_holds_each_call_and_its_output_before_the_message(agent: CiteqaAgent) -> None:
    *steps, message = items(agent.predict(request()).output)
    assert [item["type"] for item in steps] == ["function_call", "function_call_output"] * 2
    called, output = steps[2:]
    assert (called["name"], json.loads(called["arguments"])) == ("search", {"query": "iron melts"})
    assert called["call_id"] == output["call_id"]
    [found] = json.loads(output["output"])["passages"]
    assert (found["number"], found["title"], found["url"]) == (2, "Iron", IRON)
    assert "1538" in found["snippet"]
    assert len({item["id"] for item in (*steps, message)}) == 5
    assert message["type"] == "message"


@pytest.mark.usefixtures("scripted")
def test_the_stream_holds_the_same_items_and_the_text_after_them(agent: CiteqaAgent) -> None:
    events = [event.model_dump(exclude_none=True) for event in agent.predict_stream(request())]
    kinds = [event["type"] for event in events]
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert [item["type"] for item in done] == ["function_call", "function_call_output"] * 2 + ["message"]
    assert kinds.index("response.output_text.delta") == 4
    said = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    assert done[-1]["content"][0]["text"] == said


def test_a_conversation_may_hold_the_items_of_earlier_answers(
    agent: CiteqaAgent, language_model: Any
) -> None:
    for fields in (searches("water boils"), FINISH, {"answerable": True, "answer": "At 100 degrees [1]."}):
        language_model.fills(fields)
    earlier = items(agent.predict(request()).output)
    language_model.forget()
    language_model.fills({"standalone_question": "When does iron melt?"})
    for fields in (searches("iron melts"), FINISH, {"answerable": True, "answer": "At 1538 degrees [1]."}):
        language_model.fills(fields)
    response = agent.predict(request({"role": "user", "content": "When does water boil?"}, *earlier))
    assert "assistant: At 100 degrees [1]." in language_model.prompt(0)
    assert response.custom_outputs["sources"][0]["doc_uri"] == IRON  # type: ignore[index]


def test_a_conversation_that_is_kept_goes_on_with_what_was_said_and_not_with_what_was_searched(
    make_settings: Any, language_model: Any
) -> None:
    settings = make_settings(
        language_model, program={"kind": "react"}, memory={"store": "sqlite:///memory.db"}
    )
    same = {"conversation_id": "c1", "user_id": "ann"}
    for fields in (searches("water boils"), FINISH, {"answerable": True, "answer": "At 100 degrees [1]."}):
        language_model.fills(fields)
    CiteqaAgent(settings).predict(request(context=same))
    language_model.forget()
    language_model.fills({"standalone_question": "When does iron melt?"})
    for fields in (searches("iron melts"), FINISH, {"answerable": True, "answer": "At 1538 degrees [1]."}):
        language_model.fills(fields)
    CiteqaAgent(settings).predict(request(context=same))
    condensing = language_model.prompt(0)
    assert "assistant: At 100 degrees [1]." in condensing
    assert "function_call" not in condensing


@pytest.mark.usefixtures("scripted")
def test_one_retriever_span_holds_all_passages_around_one_for_each_search(
    agent: CiteqaAgent, tracing: Callable[[], Trace]
) -> None:
    agent.predict(request())
    trace = tracing()
    spans = {span.span_id: span for span in trace.data.spans}
    retrievers = [span for span in trace.data.spans if span.span_type == SpanType.RETRIEVER]
    assert [span.name for span in retrievers] == ["retrieve", "search", "search"]
    above = [spans[span.parent_id] for span in retrievers[1:]]
    assert [(span.span_type, span.inputs["query"]) for span in above] == [
        (SpanType.TOOL, "water boils"),
        (SpanType.TOOL, "iron melts"),
    ]
    assert {span.parent_id for span in above} == {retrievers[0].span_id}
    [seen] = extract_retrieval_context_from_trace(trace).values()
    assert [chunk["doc_uri"] for chunk in seen] == [WATER, IRON]
    assert [document.doc_uri for document in retrieved_documents(trace)] == [WATER, IRON]


@pytest.mark.usefixtures("scripted")
def test_a_terminal_shows_what_was_searched_for(agent: CiteqaAgent) -> None:
    answer = ask_agent(agent, QUESTION)
    assert len(answer["steps"]) == 4
    assert "\nSearched for\n  water boils\n  iron melts\n" in render_sources_list(answer)


def test_many_can_ask_at_once_and_no_search_strays(
    make_program: Callable[..., ReActQA], language_model: Any
) -> None:
    def model(body: dict[str, Any]) -> str:
        asked = next(word for word in body["messages"][-1]["content"].split() if word.startswith("topic"))
        if "answerable" in body["messages"][0]["content"]:
            return chat({"answerable": True, "answer": f"About {asked} [1][2]."})
        begun = "Nothing was searched" in body["messages"][-1]["content"]
        return chat(searches(f"{asked} more{asked}") if begun else FINISH)

    language_model.computes(model)
    program = make_program(k=2, retriever=Shelf())
    topics = [f"topic{n}" for n in range(16)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda topic: program.respond(Turn(f"Tell of {topic} now")), topics))
    for topic, answer in zip(topics, answers, strict=True):
        assert [found.title for found in answer.passages] == [topic, f"more{topic}"]
        assert answer.text == f"About {topic} [1][2]."


def test_it_needs_a_language_model_and_writes_its_own_queries(
    make_settings: Any, index: LocalIndex, language_model: Any
) -> None:
    with pytest.raises(ConfigurationError, match=r"program.kind = react: .*Set language_model.model"):
        build_program(make_settings(program={"kind": "react"}), index)
    settings = make_settings(language_model, program={"kind": "react", "rewrite_query": True})
    with pytest.raises(ConfigurationError, match="writes its own queries"):
        build_program(settings, index)


def test_what_was_compiled_for_it_comes_back_and_does_not_fit_the_fixed_program(
    make_program: Callable[..., ReActQA],
    make_settings: Any,
    index: LocalIndex,
    language_model: Any,
    tmp_path: Path,
) -> None:
    program = make_program()
    program.decide.signature = program.decide.signature.with_instructions("Search thrice.")
    save_state(program, tmp_path / "react.json")
    again = make_program()
    load_state(again, tmp_path / "react.json")
    assert again.decide.signature.instructions == "Search thrice."
    fixed = build_program(make_settings(language_model), index)
    with pytest.raises(ProgramStateError, match=r"Set program\.kind to react\."):
        load_state(fixed, tmp_path / "react.json")
    save_state(fixed, tmp_path / "fixed.json")
    with pytest.raises(
        ProgramStateError, match=r"Set program\.kind to fixed, or compile the program with it\."
    ):
        load_state(again, tmp_path / "fixed.json")
