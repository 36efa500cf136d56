"""What every store of conversations keeps to: each test runs with a file, and with a real PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fake_workspace import FakeWorkspace
from postgres_server import PostgresServer

from program.memory.conversations import Conversation, ConversationStore
from program.memory.opening import open_store
from program.remote_settings import MemorySettings
from program.types import Message
from retrieval.errors import CiteqaError, ConfigurationError, StorageError

OpenAgain = Callable[..., ConversationStore]

TRIP = Conversation("ann", "trip")
AN_INSTANT = 1e-6  # days


def turn(number: int) -> tuple[Message, Message]:
    return Message("user", f"question {number}"), Message("assistant", f"answer {number}")


def texts(store: ConversationStore, conversation: Conversation = TRIP, most: int = 100) -> list[str]:
    return [message.text for message in store.messages(conversation, most)]


def test_what_was_said_comes_back_in_its_order(store: ConversationStore) -> None:
    store.add(TRIP, "t1", turn(1))
    store.add(TRIP, "t2", turn(2))

    assert store.messages(TRIP, 100) == (*turn(1), *turn(2))
    assert store.messages(TRIP, 2) == turn(2)


def test_another_replica_goes_on(open_again: OpenAgain) -> None:
    first, second = open_again(), open_again()
    first.add(TRIP, "t1", turn(1))
    second.add(TRIP, "t2", turn(2))

    assert texts(first) == texts(second) == ["question 1", "answer 1", "question 2", "answer 2"]


def test_the_same_id_is_another_conversation_for_another_user(store: ConversationStore) -> None:
    store.add(TRIP, "t1", turn(1))
    store.add(Conversation("bob", "trip"), "t2", turn(2))
    store.add(Conversation("", "trip"), "t3", turn(3))

    assert texts(store) == ["question 1", "answer 1"]
    assert texts(store, Conversation("bob", "trip")) == ["question 2", "answer 2"]
    assert texts(store, Conversation("", "trip")) == ["question 3", "answer 3"]
    assert texts(store, Conversation("ann", "tri")) == []


def test_a_turn_that_is_kept_again_is_kept_once(store: ConversationStore) -> None:
    store.add(TRIP, "t1", turn(1))
    store.add(TRIP, "t1", turn(1))

    assert len(texts(store)) == 2


def test_what_a_client_brings_takes_the_place_of_what_was_there(store: ConversationStore) -> None:
    store.add(TRIP, "t1", turn(1))
    store.add(TRIP, "t2", (*turn(7), *turn(8)), True)

    assert store.messages(TRIP, 100) == (*turn(7), *turn(8))


def test_turns_that_come_at_once_are_all_kept_and_none_is_torn(open_again: OpenAgain) -> None:
    stores = [open_again(), open_again()]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: stores[n % 2].add(TRIP, f"t{n}", turn(n)), range(24)))

    said = texts(stores[0])
    assert sorted(said[::2]) == sorted(f"question {n}" for n in range(24))
    assert [question.replace("question", "answer") for question in said[::2]] == said[1::2]


def test_conversations_are_listed_the_latest_first(store: ConversationStore) -> None:
    for place, conversation in enumerate((TRIP, Conversation("bob", "b"), Conversation("ann", "later"))):
        store.add(conversation, f"t{place}", turn(place))
        time.sleep(0.01)

    assert [(one.conversation.id, one.messages) for one in store.conversations("ann")] == [
        ("later", 2),
        ("trip", 2),
    ]
    assert [one.conversation.user for one in store.conversations()] == ["ann", "bob", "ann"]
    assert abs(store.conversations("ann")[0].updated_at.timestamp() - time.time()) < 60


def test_what_is_forgotten_is_gone_and_nothing_else_is(store: ConversationStore) -> None:
    for user, name in (("ann", "trip"), ("ann", "b"), ("ann", "c"), ("bob", "trip")):
        store.add(Conversation(user, name), f"{user}{name}", turn(1))

    assert store.delete("ann", "trip") == 1
    assert store.delete("ann", "trip") == 0
    assert texts(store) == []
    assert texts(store, Conversation("bob", "trip")) == ["question 1", "answer 1"]
    assert store.delete("ann") == 2
    assert [one.conversation.user for one in store.conversations()] == ["bob"]


def test_what_has_expired_is_shown_to_nobody_and_then_deleted(open_again: OpenAgain) -> None:
    keeping, forgetting = open_again(), open_again(expire_days=AN_INSTANT)
    keeping.add(TRIP, "t1", turn(1))
    time.sleep(0.15)

    assert texts(forgetting) == []
    assert forgetting.conversations() == []
    assert texts(keeping) == ["question 1", "answer 1"]
    assert forgetting.expire() == 1
    assert texts(keeping) == []


def test_an_expired_conversation_that_goes_on_begins_anew(open_again: OpenAgain) -> None:
    keeping, forgetting = open_again(), open_again(expire_days=AN_INSTANT)
    keeping.add(TRIP, "t1", turn(1))
    time.sleep(0.15)
    forgetting.add(TRIP, "t2", turn(2))

    assert texts(keeping) in ([], ["question 2", "answer 2"])


def test_a_server_forgets_what_has_expired_as_it_goes(open_again: OpenAgain) -> None:
    keeping = open_again()
    keeping.add(TRIP, "t1", turn(1))
    time.sleep(0.15)
    open_again(expire_days=AN_INSTANT).add(Conversation("bob", "b"), "t2", turn(2))

    assert texts(keeping) == []


@pytest.mark.parametrize(
    "text", ["", "日本語 🎌", "a\x00b", "half \ud83d", "' OR 1=1 --", "%s", "x" * 200_000]
)
def test_any_text_is_kept(store: ConversationStore, text: str) -> None:
    conversation = Conversation("an'n %s", text[:100])
    store.add(conversation, "t1", [Message("user", text)])

    (kept,) = texts(store, conversation)
    assert len(kept) == len(text)
    assert kept == text or "\ufffd" in kept


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"store": "mysql://db"}, "neither sqlite:///path nor postgresql://"),
        ({"store": "postgresql://me:hunter2hunter2@db/x"}, "memory: a password does not belong"),
        ({"store": "sqlite:///x.db", "lakebase_instance": "rag"}, "is for PostgreSQL"),
    ],
)
def test_a_store_that_is_none_is_refused(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        open_store(MemorySettings.model_validate(settings))
    assert "hunter2" not in str(caught.value)


def test_a_file_that_is_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("These are notes of ours. " * 100)

    with pytest.raises(StorageError, match=r"notes\.txt.*memory\.store"):
        open_store(MemorySettings(store=f"sqlite:///{tmp_path}/notes.txt"))


def test_a_file_is_for_its_owner_alone_and_keeps_nothing_of_what_was_deleted(tmp_path: Path) -> None:
    store = open_store(MemorySettings(store=f"sqlite:///{tmp_path}/memory.db"))
    assert store is not None
    store.add(TRIP, "t1", [Message("user", "a canary that sings")])
    assert (tmp_path / "memory.db").stat().st_mode & 0o077 == 0

    store.delete("ann")
    left = b"".join(path.read_bytes() for path in tmp_path.glob("memory.db*"))
    store.close()

    assert b"canary" not in left


def test_a_database_that_refuses_says_why(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "canary-of-a-password")
    store = open_store(MemorySettings(store=postgres_url, expire_days=3))
    assert store is not None

    with pytest.raises(CiteqaError, match="password authentication failed") as caught:
        store.messages(TRIP, 1)
    assert "canary" not in str(caught.value)
    store.close()


def test_who_may_only_use_the_tables_uses_them(
    open_again: OpenAgain, postgres_server: PostgresServer, request: pytest.FixtureRequest
) -> None:
    if "sqlite" in request.node.name:
        pytest.skip("a file has no roles")
    open_again().add(TRIP, "t1", turn(1))
    postgres_server.run("CREATE ROLE app LOGIN PASSWORD 's3cret-of-the-owner'")
    try:
        postgres_server.run(
            "REVOKE CREATE ON SCHEMA public FROM PUBLIC; "
            "GRANT SELECT, INSERT, UPDATE, DELETE ON citeqa_conversations, citeqa_messages TO app",
            "shared",
        )
        url = request.getfixturevalue("postgres_url").replace("postgres@", "app@")
        store = open_again(store=url)
        store.add(TRIP, "t2", turn(2))
        assert len(texts(store)) == 4
    finally:
        postgres_server.run("DROP OWNED BY app; DROP ROLE app", "shared")


def test_on_lakebase_a_token_of_the_workspace_is_the_password(
    workspace: FakeWorkspace, postgres_server: PostgresServer, postgres_url: str
) -> None:
    workspace.lakebase.add("rag", "127.0.0.1")

    def become_the_password(user: str, token: str) -> None:
        postgres_server.run(f"ALTER ROLE \"{user}\" PASSWORD '{token}'")

    workspace.lakebase.on_token = become_the_password
    postgres_server.run('CREATE ROLE "ann@example.com" LOGIN')
    try:
        postgres_server.run('GRANT CREATE ON SCHEMA public TO "ann@example.com"', "shared")
        url = f"postgresql:///shared?port={postgres_server.port}&sslmode=disable"
        store = open_store(MemorySettings(store=url, lakebase_instance="rag"))
        assert store is not None
        store.add(TRIP, "t1", turn(1))

        assert texts(store) == ["question 1", "answer 1"]
        owners = "SELECT tableowner FROM pg_tables WHERE tablename = 'citeqa_messages'"
        assert postgres_server.run(owners, "shared") == [("ann@example.com",)]
        store.close()
    finally:
        postgres_server.run('DROP OWNED BY "ann@example.com"', "shared")
        postgres_server.run('DROP ROLE "ann@example.com"')
