"""A workspace on the wire: who signs in how, what is said when that fails, and whose token is whose."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import pytest
import requests
from databricks.sdk.core import ApiClient
from fake_workspace import FakeWorkspace

from retrieval.errors import ConfigurationError, RetrievalError, WorkspaceError
from retrieval.secrets import hide_secrets
from retrieval.workspace import asking_for, invoker_token, open_workspace, user_token, workspace_errors

TOKEN_VARIABLES = ("DATABRICKS_TOKEN", "DATABRICKS_CLIENT_ID", "DATABRICKS_CLIENT_SECRET")


@pytest.fixture
def service_principal(workspace: FakeWorkspace, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeWorkspace]:
    """The workspace, signed in to by a service principal in place of ann."""
    monkeypatch.delenv("DATABRICKS_TOKEN")
    monkeypatch.setenv("DATABRICKS_CLIENT_ID", "robot")
    monkeypatch.setenv("DATABRICKS_CLIENT_SECRET", "canary-client-secret")
    workspace.identity.add_service_principal("robot", "canary-client-secret")
    return workspace


def who(headers: dict[str, str]) -> str:
    url = open_workspace().host
    answer = requests.get(f"{url}/api/2.0/preview/scim/v2/Me", headers=headers, timeout=5)
    answer.raise_for_status()
    return str(answer.json()["userName"])


def test_a_token_in_the_environment_signs_in(workspace: FakeWorkspace) -> None:
    opened = open_workspace()
    assert (opened.host, opened.method) == (workspace.url, "pat")
    assert who(opened.headers()) == "ann@example.com"
    assert opened.client.current_user.me().user_name == "ann@example.com"


def test_the_workspace_is_opened_once_and_anew_when_the_environment_changes(
    workspace: FakeWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len({id(opened) for opened in pool.map(lambda _: open_workspace(), range(16))}) == 1
    monkeypatch.setenv("DATABRICKS_TOKEN", workspace.identity.add_token("bob@example.com"))
    assert who(open_workspace().headers()) == "bob@example.com"


def test_a_profile_signs_in(
    workspace: FakeWorkspace, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    token = workspace.identity.add_token("carl@example.com")
    file = tmp_path_factory.mktemp("profiles") / "databrickscfg"
    file.write_text(f"[work]\nhost = {workspace.url}\ntoken = {token}\n")
    for name in ("DATABRICKS_HOST", "DATABRICKS_TOKEN"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", str(file))
    monkeypatch.setenv("DATABRICKS_CONFIG_PROFILE", "work")
    assert who(open_workspace().headers()) == "carl@example.com"


def test_a_service_principal_gets_tokens_and_a_new_one_when_the_old_one_runs_out(
    service_principal: FakeWorkspace,
) -> None:
    service_principal.identity.token_lifetime_s = 1.0
    opened = open_workspace()
    assert (opened.method, who(opened.headers())) == ("oauth-m2m", "robot")
    first = opened.token()
    threading.Event().wait(1.1)
    assert opened.token() != first
    assert who(opened.headers()) == "robot"


def test_a_service_principal_whose_secret_is_wrong_is_told_so_without_the_secret(
    service_principal: FakeWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABRICKS_CLIENT_SECRET", "another-canary-secret")
    with pytest.raises(WorkspaceError, match=r"\(oauth-m2m\): invalid_client.*Set DATABRICKS_HOST") as told:
        open_workspace().headers()
    assert "canary" not in str(told.value)


def test_without_any_credentials_it_says_which_ways_there_are(
    workspace: FakeWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATABRICKS_TOKEN")
    with pytest.raises(
        ConfigurationError, match=r"cannot configure default credentials.*`databricks auth login`"
    ):
        open_workspace()


def test_two_ways_in_that_contradict_each_other_are_named(
    service_principal: FakeWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABRICKS_TOKEN", "dapi-canary")
    with pytest.raises(
        ConfigurationError, match="more than one authorization method configured: oauth and pat"
    ):
        open_workspace()


def test_an_expired_token_says_which_method_was_tried(
    workspace: FakeWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = workspace.identity.add_token("ann@example.com", lasts_s=-1)
    monkeypatch.setenv("DATABRICKS_TOKEN", token)
    opened = open_workspace()
    with pytest.raises(RetrievalError) as told, workspace_errors("The index a.b.c", RetrievalError):
        opened.client.current_user.me()
    assert str(told.value) == (
        "The index a.b.c: Token is expired. Please generate a new token and try again. Tried: pat (DATABRICKS_TOKEN). "
        "Renew the token, or sign in with `databricks auth login`; `databricks auth describe` shows what is used."
    )


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (
            {"status": 403, "code": "PERMISSION_DENIED", "message": "no SELECT"},
            "no SELECT. Tried: pat .* Ask the owner",
        ),
        ({"status": 404, "code": "NOT_FOUND", "message": "no such index"}, "no such index. Check the name"),
        ({"status": 400, "code": "BAD_REQUEST", "message": "k is negative"}, "k is negative.$"),
        ({"status": 500, "message": "boom"}, "boom. Ask again later; https://status"),
        ({"truncate_at": 7}, "Its answer broke off or was no JSON"),
        ({"body": b"<html>a proxy's page</html>"}, "Its answer broke off or was no JSON"),
    ],
    ids=lambda value: str(value.get("status", "body")) if isinstance(value, dict) else "",
)
def test_every_fault_of_the_wire_is_one_line_with_advice(
    workspace: FakeWorkspace, fault: dict[str, object], said: str
) -> None:
    opened = open_workspace()
    workspace.fault("scim", **fault)
    with pytest.raises(WorkspaceError, match=f"^Asking: .*{said}") as told, workspace_errors("Asking"):
        opened.client.current_user.me()
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"status": 429, "headers": {"Retry-After": "1"}}, "Ask again later, or raise the limit"),
        ({"hang_s": 0.5}, "did not answer in time"),
        ({"refuse": True}, "Check DATABRICKS_HOST"),
    ],
    ids=["429", "hang", "closed"],
)
def test_what_the_sdk_retried_in_vain_is_told_by_its_cause(
    workspace: FakeWorkspace, monkeypatch: pytest.MonkeyPatch, fault: dict[str, object], said: str
) -> None:
    config = open_workspace().client.config.copy()
    workspace.fault("scim", times=9, **fault)
    config.retry_timeout_seconds, config.http_timeout_seconds = 1, 0.2
    with (
        pytest.raises(WorkspaceError, match=f"^Asking: Timed out after 0:00:01: .*{said}"),
        workspace_errors("Asking"),
    ):
        ApiClient(config).do("GET", "/api/2.0/preview/scim/v2/Me")


def test_a_host_that_is_not_there_is_told(workspace: FakeWorkspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrieval.workspace._OPENING_S", 1)
    monkeypatch.setattr("retrieval.workspace._RETRYING_S", 1)
    monkeypatch.setenv("DATABRICKS_HOST", "http://127.0.0.1:9")
    opened = open_workspace()
    with (
        pytest.raises(WorkspaceError, match=r"Connection refused.*Check DATABRICKS_HOST"),
        workspace_errors("Asking"),
    ):
        opened.client.current_user.me()


def test_errors_of_programs_and_ours_pass_as_they_are() -> None:
    with pytest.raises(KeyError), workspace_errors("Asking"):
        raise KeyError("a programming error")
    with pytest.raises(ConfigurationError, match=r"^ours$"), workspace_errors("Asking"):
        raise ConfigurationError("ours")


def test_on_behalf_of_a_user_the_token_is_the_one_of_who_asks(workspace: FakeWorkspace) -> None:
    opened = open_workspace()
    with asking_for(workspace.identity.add_token("bob@example.com")):
        assert who(opened.headers(as_user=True)) == "bob@example.com"
        assert who(opened.headers()) == "ann@example.com"
    assert user_token() is None
    with pytest.raises(WorkspaceError, match="x-forwarded-access-token"):
        opened.headers(as_user=True)


def test_interleaved_users_keep_their_tokens_in_threads_and_copied_contexts(workspace: FakeWorkspace) -> None:
    opened = open_workspace()
    tokens = {f"user{number}": workspace.identity.add_token(f"user{number}") for number in range(8)}
    together = threading.Barrier(len(tokens))

    def ask(user: str) -> set[str]:
        with asking_for(tokens[user]), ThreadPoolExecutor(2) as pool:
            together.wait(5)
            asked = [pool.submit(copy_context().run, opened.headers, True) for _ in range(4)]
            return {who(one.result()) for one in asked}

    with ThreadPoolExecutor(len(tokens)) as users:
        assert list(users.map(ask, tokens)) == [{user} for user in tokens]


def test_the_invokers_token_is_read_on_model_serving_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(threading.main_thread().__dict__, "invokers_token", "canary-token")
    assert invoker_token() is None
    monkeypatch.setenv("IS_IN_DB_MODEL_SERVING_ENV", "true")
    assert invoker_token() == "canary-token"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Authorization: Bearer abcdef0123456789", "Authorization: Bearer $TOKEN"),
        ("token dapi0123456789abcdef0123456789abcdef-2 is bad", "token $DATABRICKS_TOKEN is bad"),
        ("postgresql://ann:canary@db/x", "postgresql://ann:$PASSWORD@db/x"),
        ("host=db password=canary dbname=x", "host=db password=$SECRET dbname=x"),
        ("see https://docs.databricks.com:443/a@b", "see https://docs.databricks.com:443/a@b"),
        ("the bearer of news", "the bearer of news"),
    ],
)
def test_secrets_are_known_by_their_shape(text: str, shown: str) -> None:
    assert hide_secrets(text) == shown


def test_the_token_of_the_user_who_asks_is_hidden() -> None:
    with asking_for("canary-user-token"):
        assert hide_secrets("refused canary-user-token") == "refused $USER_TOKEN"
