"""The agent as tools of the Model Context Protocol: `ask` and `search`, for other agents to call.

Of failures that a person can mend, the caller reads the reason; of others, that there was one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from importlib import metadata
from typing import Annotated, Any, TypeVar

import anyio
from anyio import to_thread
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import CallToolResult, ResourceLink, TextContent, ToolAnnotations
from pydantic import BaseModel, Field

from program.agent import CitingAgent
from program.asking import ask_agent
from program.mcp_results import Answer, FoundPassages, answer_text, found_text, to_answer, to_found
from program.settings import Settings
from program.streaming import StreamAbandonedError
from retrieval.asking_user import USER_TOKEN_HEADER, asking_for
from retrieval.errors import CiteqaError
from retrieval.tracing import in_current_trace, traced_search
from retrieval.types import CorpusRetriever

T = TypeVar("T")

_READS = ToolAnnotations(
    read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False
)

Question = Annotated[
    str, Field(min_length=1, description="stands alone: the tool knows nothing of your conversation")
]
Query = Annotated[str, Field(min_length=1, description="words that would stand in the passage")]
Count = Annotated[int | None, Field(ge=1, le=100, description="how many passages; by default, as configured")]
Conditions = Annotated[
    dict[str, Any] | None,
    Field(
        description='conditions on metadata that all must hold: {"lang": "ja"}, {"lang": ["en", "ja"]} (one of), '
        '{"lang NOT": "ja"}, {"year >=": 2024}'
    ),
]


def create_server(agent: CitingAgent, retriever: CorpusRetriever, settings: Settings) -> MCPServer[Any]:
    """An MCP server whose tools are the agent and its retriever."""
    about = settings.mcp.about or "the documents that this server has"
    server: MCPServer[Any] = MCPServer(
        settings.mcp.name,
        title=settings.mcp.name,
        instructions=f"Answers questions about {about}, with links to the sources. Show the links.",
        version=metadata.version("citeqa"),
        log_level="WARNING",
    )
    work = _Work(settings.serving.max_concurrent, settings.serving.deadline_s)

    @server.tool(
        description=f"Answer a question about {about}. Each statement has a marker such as [1], whose source, with "
        "a link, is among the sources. Where the documents do not hold the answer, it says so (abstained).",
        annotations=_READS,
    )
    async def ask(
        question: Question, context: Context[Any, Any], k: Count = None, filters: Conditions = None
    ) -> Annotated[CallToolResult, Answer]:
        def answer(go_on: Callable[[Any], None]) -> Answer:
            return to_answer(ask_agent(agent, question, filters, go_on, k=k, on_step=go_on))

        said = await work.do(answer, context)
        links = [_link(source.title, source.url) for source in said.sources]
        return _result(answer_text(said), links, said)

    @server.tool(
        description=f"Find passages about {about} by words and meaning, without answering: for questions that you "
        "want to answer yourself.",
        annotations=_READS,
    )
    async def search(
        query: Query, context: Context[Any, Any], k: Count = None, filters: Conditions = None
    ) -> Annotated[CallToolResult, FoundPassages]:
        conditions = {**settings.retrieval.filters, **(filters or {})}

        def find(_: Callable[[Any], None]) -> FoundPassages:
            return to_found(traced_search(retriever, query, k or settings.retrieval.k, conditions or None))

        found = await work.do(find, context)
        links = [_link(passage.title, passage.url) for passage in found.passages]
        return _result(found_text(found), links, found)

    return server


class _Work:
    """Does what is asked in threads, so many at once, each until a deadline and as the user who asks."""

    def __init__(self, at_once: int, deadline_s: float) -> None:
        self._limiter = anyio.CapacityLimiter(at_once)
        self._deadline_s = deadline_s

    async def do(self, task: Callable[[Callable[[Any], None]], T], context: Context[Any, Any]) -> T:
        """What the task returns. It is given what to call at each piece: that stops it, once nobody waits any more."""
        is_left = threading.Event()
        token = _user_token(context)

        def go_on(_: Any) -> None:
            if is_left.is_set():
                raise StreamAbandonedError

        def run() -> T:
            with asking_for(token):
                return task(go_on)

        try:
            with anyio.fail_after(self._deadline_s):
                return await to_thread.run_sync(
                    in_current_trace(run), abandon_on_cancel=True, limiter=self._limiter
                )
        except CiteqaError as error:
            raise ToolError(str(error)) from error
        except TimeoutError:
            raise ToolError(f"There was no answer within {self._deadline_s:g} seconds.") from None
        finally:
            is_left.set()


def _user_token(context: Context[Any, Any]) -> str | None:
    request = context.request_context.request  # of HTTP; None over stdio
    return request.headers.get(USER_TOKEN_HEADER) if request is not None else None


def _link(title: str, url: str) -> ResourceLink:
    return ResourceLink(name=title, title=title, uri=url)


def _result(text: str, links: list[ResourceLink], structured: BaseModel) -> CallToolResult:
    unique = {link.uri: link for link in links}
    return CallToolResult(
        content=[TextContent(text=text), *unique.values()],
        structured_content=structured.model_dump(mode="json"),
    )
