from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from program.commands.memory import memory
from program.memory.conversations import Conversation
from program.memory.opening import open_store
from program.remote_settings import MemorySettings
from program.types import Message

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`citeqa memory …` over a file with a conversation of Ann's, one of Bob's, and one of nobody's."""
    monkeypatch.chdir(tmp_path)
    place = f"sqlite:///{tmp_path}/memory.db"
    store = open_store(MemorySettings(store=place))
    assert store is not None
    for user in ("ann", "bob", ""):
        messages = [Message("user", f"a question of {user}"), Message("assistant", "an answer")]
        store.add(Conversation(user, "trip"), f"turn of {user}", messages)

    def run(*words: str) -> Result:
        return CliRunner().invoke(memory, [*words, "--set", f"memory.store={place}"])

    return run


def test_conversations_are_listed_for_people_and_machines(run: Run) -> None:
    lines = run("list").stdout.splitlines()
    assert sorted(line.split()[-2:] for line in lines) == [
        ["(nobody)", "trip"],
        ["ann", "trip"],
        ["bob", "trip"],
    ]

    (listed,) = json.loads(run("list", "--user", "ann", "--json").stdout)
    assert (listed["user"], listed["id"], listed["messages"]) == ("ann", "trip", 2)


def test_a_conversation_is_shown_to_whom_it_belongs(run: Run) -> None:
    assert run("show", "trip", "--user", "ann").stdout == "user: a question of ann\n\nassistant: an answer\n"
    unknown = run("show", "other", "--user", "ann")
    assert unknown.exit_code == 2
    assert "ann has no conversation 'other'" in unknown.stderr


def test_one_is_forgotten_or_all_of_a_user(run: Run) -> None:
    assert run("delete", "trip", "--user", "ann").stdout == "1 forgotten\n"
    assert run("delete", "trip", "--user", "ann").exit_code == 2
    assert run("delete", "--all", "--user", "bob").stdout == "1 forgotten\n"
    assert len(json.loads(run("list", "--json").stdout)) == 1


@pytest.mark.parametrize("words", [["delete"], ["delete", "trip", "--all"]])
def test_it_has_to_be_said_what_is_forgotten(run: Run, words: list[str]) -> None:
    assert run(*words).exit_code == 2
    assert len(json.loads(run("list", "--json").stdout)) == 3


def test_what_has_expired_is_forgotten(run: Run) -> None:
    assert run("expire").stdout == "0 forgotten\n"
    assert run("expire", "--set", "memory.expire_days=1e-9").stdout == "3 forgotten\n"


def test_without_a_store_it_says_how_to_have_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    result = CliRunner().invoke(memory, ["list"])

    assert result.exit_code == 2
    assert "memory.store" in result.stderr
