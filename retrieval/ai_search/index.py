"""A Databricks Vector Search (AI Search) index, asked through Databricks' own client, within limits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from retrieval.ai_search.description import Description, read_description
from retrieval.ai_search.transport import exchange
from retrieval.errors import CiteqaError, ConfigurationError, IndexMissingError, RetrievalError
from retrieval.extras import needs_extra
from retrieval.resilience import PassingError, Resilience, retry_after_s
from retrieval.workspace import Workspace
from retrieval.workspace_errors import kind_of, sentence, status_of

if TYPE_CHECKING:
    from databricks.ai_search.client import AISearchClient
    from databricks.ai_search.index import AISearchIndex

T = TypeVar("T")
Row = Mapping[str, Any]

_PASSING = {
    "busy": "",
    "server": "",
    "timeout": "no answer in time",
    "network": "the connection failed ({})",
    "broken": "its answer broke off ({})",
}
"""The kinds of failures that may be over soon, and their reason; "" where the service gives one."""
_NO_TOKEN = "the transport puts the credentials on"
"""The client insists on a token when it is made."""


class RemoteIndex:
    """One index. Safe to share between threads.

    A call is made again after 429, 5xx and broken connections, within the limits of `resilience`. Credentials are the
    workspace's, fresh at each attempt; with `as_user`, those of the user who asks. A service principal's searches go to
    the index's own host (`direct`), which Databricks recommends for much traffic.
    """

    def __init__(
        self,
        name: str,
        workspace: Workspace,
        resilience: Resilience,
        *,
        endpoint: str | None = None,
        as_user: bool = False,
        direct: bool = True,
    ) -> None:
        """Makes no request.

        Raises:
            ConfigurationError: if Databricks' client is not installed, or is one that this code does not know.
        """
        self.name = name
        self._workspace = workspace
        self._resilience = resilience
        self._endpoint = endpoint
        self._as_user = as_user
        self._direct = direct and not as_user
        self._lock = threading.Lock()
        self._searched: AISearchIndex | None = None
        self._is_direct = False
        _check_client()

    def describe(self) -> Description:
        """What it is now, as far as one request tells.

        Raises:
            IndexMissingError: if there is none of this name.
            ServiceUnavailableError: if the workspace is busy, failing or away.
            RetrievalError: if one may not see it.
        """
        return read_description(self.name, self._call(lambda: self._plain.describe()), self._endpoint)

    def inspect(self) -> Description:
        """What it is now, with its columns and the kind of its endpoint where one may look these up.

        Raises as `describe`.
        """
        found = self.describe()
        described = replace(
            found,
            columns=found.columns or self._columns(),
            storage_optimized=self._is_storage_optimized(found.endpoint),
        )
        self._take_up(described)
        return described

    def search(self, **arguments: Any) -> list[Row]:
        """The rows of `similarity_search(**arguments)`, best first; `score` is among their fields.

        Raises:
            IndexMissingError, ServiceUnavailableError, RetrievalError: as `describe`; the last also if the index
                refuses the query.
        """
        said = self._call(
            lambda: self._asked.similarity_search(disable_notice=True, total_retries=0, **arguments),
            by_itself=self._is_direct,
        )
        try:
            names = [column["name"] for column in said["manifest"]["columns"]]
            return [dict(zip(names, row, strict=True)) for row in said["result"].get("data_array") or []]
        except (KeyError, TypeError, ValueError) as error:
            raise RetrievalError(
                f"The index '{self.name}' answered in a form that this version does not know ({error!r})."
            ) from error

    def scan(self, rows: int, after: str | None = None) -> tuple[list[Row], str | None]:
        """So many rows in the order of their keys, and the last key; None after the last row.

        Raises:
            as `search`.
        """
        said = self._call(
            lambda: self._asked.scan(num_results=rows, last_primary_key=after), by_itself=self._is_direct
        )
        data = said.get("data") or []
        return [_struct(row) for row in data], said.get("last_primary_key") if data else None

    @cached_property
    def _plain(self) -> AISearchIndex:
        """The index, asked over the workspace."""
        from databricks.ai_search.index import AISearchIndex

        return AISearchIndex(
            workspace_url=self._workspace.host,
            index_url=None,
            name=self.name,
            endpoint_name=self._endpoint,
            personal_access_token=_NO_TOKEN,
            use_user_passed_credentials=True,
            get_reranker_url_callable=lambda: None,
        )

    @cached_property
    def _client(self) -> AISearchClient:
        from databricks.ai_search.client import AISearchClient

        return AISearchClient(
            workspace_url=self._workspace.host, personal_access_token=_NO_TOKEN, disable_notice=True
        )

    @property
    def _asked(self) -> AISearchIndex:
        return self._searched or self._plain

    def _take_up(self, described: Description) -> None:
        """Ask the index's own host from now on, where a service principal is signed in and it has one."""
        if self._searched is not None or not self._direct or not described.url:
            return
        config = self._workspace.client.config
        if self._workspace.method != "oauth-m2m" or not (config.client_id and config.client_secret):
            return
        with self._lock:
            try:
                # The client looks up the embedding endpoint, to name it in its token where it is route-optimized.
                self._searched = self._open_directly(described, described.embedding_endpoint)
            except RetrievalError:
                self._searched = self._open_directly(described, None)
            self._is_direct = True

    def _open_directly(self, described: Description, embedding_endpoint: str | None) -> AISearchIndex:
        from databricks.ai_search.index import AISearchIndex

        config = self._workspace.client.config
        return self._call(
            lambda: AISearchIndex(
                workspace_url=self._workspace.host,
                index_url=described.url,
                name=self.name,
                endpoint_name=described.endpoint,
                mlserving_endpoint_name=embedding_endpoint,
                service_principal_client_id=config.client_id,
                service_principal_client_secret=config.client_secret,
                use_user_passed_credentials=True,
                get_reranker_url_callable=lambda: self._plain.index_url,
            ),
            by_itself=True,
        )

    def _columns(self) -> tuple[str, ...] | None:
        """The columns, as Unity Catalog knows them of the index; None where one may not look there."""
        from databricks.ai_search.utils import RequestUtils

        url = f"{self._workspace.host}/api/2.1/unity-catalog/tables/{self.name}"
        try:
            found = self._call(lambda: RequestUtils.issue_request(url=url, method="GET"))
        except RetrievalError:
            return None
        names = tuple(str(column["name"]) for column in found.get("columns") or [] if column.get("name"))
        return names or None

    def _is_storage_optimized(self, endpoint: str) -> bool | None:
        try:
            said = self._call(lambda: self._client.get_endpoint(endpoint)) if endpoint else {}
        except RetrievalError:
            return None
        kind = said.get("endpoint_type")
        return None if kind is None else kind == "STORAGE_OPTIMIZED"

    def _call(self, ask: Callable[[], T], *, by_itself: bool = False) -> T:
        """What `ask` returns, within the limits; `by_itself`, the client authenticates."""
        return self._resilience.call(lambda timeout_s: self._attempt(ask, timeout_s, by_itself))

    def _attempt(self, ask: Callable[[], T], timeout_s: float, by_itself: bool) -> T:
        headers = {} if by_itself else self._headers()
        with exchange(timeout_s, headers) as current:
            try:
                return ask()
            except CiteqaError:
                raise
            except Exception as error:
                if (kind := kind_of(error)) is None:
                    raise
                raise self._error(kind, error, current.retry_after) from error

    def _headers(self) -> dict[str, str]:
        try:
            return self._workspace.headers(as_user=self._as_user)
        except CiteqaError as error:
            raise RetrievalError(f"The index '{self.name}' cannot be searched. {error}") from error

    def _error(self, kind: str, error: Exception, retry_after: str | None) -> Exception:
        """The error that says what an attempt met."""
        if kind in _PASSING:
            status = status_of(error)
            text = f"HTTP {status}: {error}" if status else _PASSING[kind].format(_innermost(error))
            return PassingError(text, retry_after_s=retry_after_s(retry_after), busy=status == 429)
        what = f"The index '{self.name}' cannot be searched"
        error_type = IndexMissingError if kind == "not_found" else RetrievalError
        return error_type(sentence(what, kind, error, as_user=self._as_user))


def _check_client() -> None:
    with needs_extra("databricks", "a Vector Search index"):
        import databricks.ai_search.index  # noqa: F401
    from databricks.ai_search import utils, version

    if not hasattr(utils, "_cached_get_request_session"):
        raise ConfigurationError(
            f"databricks-ai-search {version.VERSION} sends its requests in a way that this version of citeqa does not "
            "know, so that nothing would limit their time: pip install 'databricks-ai-search<0.82'"
        )


def _innermost(error: BaseException) -> BaseException:
    """What an error of the network comes from: those around it repeat it, with addresses of objects."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return error


def _struct(row: Mapping[str, Any]) -> Row:
    """A row from protobuf's JSON form of a struct; lists are left out, which hold vectors."""
    found = {}
    for field in row.get("fields") or []:
        for kind, value in (field.get("value") or {}).items():
            if kind in ("string_value", "number_value", "bool_value"):
                found[field["key"]] = value
    return found
