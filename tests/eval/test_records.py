"""A run on disk: whatever ends it, what was finished is there, whole and once."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow.entities import Trace

from eval.observations import Observation, RetrievedDocument
from eval.records import FORMAT_VERSION, AnswerRecord, Retrieved, RunDirectory, to_json
from eval.traces import collect_traces
from retrieval.errors import DataError, StorageError

# Half of an emoji is text to Python and to language models, but not to UTF-8.
ANY_TEXT = st.text(st.characters(codec=None))
RECORDS = st.builds(
    AnswerRecord,
    id=ANY_TEXT,
    error=st.none() | ANY_TEXT,
    answer=ANY_TEXT,
    abstained=st.booleans(),
    retrieved=st.lists(
        st.builds(
            Retrieved,
            doc_uri=ANY_TEXT,
            chunk_id=st.none() | ANY_TEXT,
            score=st.none() | st.floats(allow_nan=False),
        ),
        max_size=3,
    ).map(tuple),
    cited_uris=st.lists(ANY_TEXT, max_size=3).map(tuple),
    dropped_markers=st.integers(0, 99),
    latency_ms=st.floats(0, 1e9),
    reader=ANY_TEXT,
    usage=st.dictionaries(ANY_TEXT, st.integers(0, 10**9), max_size=2),
    usd=st.none() | st.floats(0, 1e6),
    calls=st.none() | st.integers(0, 99),
    trace_id=st.none() | ANY_TEXT,
)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunDirectory]:
    with RunDirectory(tmp_path / "runs" / "one") as directory:
        yield directory


def answered(id_: str, **fields: object) -> AnswerRecord:
    return AnswerRecord(id=id_, **fields)


def a_trace() -> Trace:
    @mlflow.trace
    def answer() -> str:
        return "日本"

    with collect_traces() as collector:
        return collector.call(answer).traces[0]


def ids(run: RunDirectory) -> list[str]:
    return list(run.read_answers())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(st.lists(RECORDS, max_size=4, unique_by=lambda record: record.id))
def test_what_is_written_is_read_again(run: RunDirectory, records: list[AnswerRecord]) -> None:
    run.forget_answers()
    for record in records:
        run.append_answer(record, ())
    assert list(run.read_answers().values()) == records


def test_a_new_run_is_empty(run: RunDirectory) -> None:
    assert run.read_answers() == {}
    assert run.read_manifest() == {}
    assert run.pending_traces() == []
    run.forget_pending_traces()


def test_answers_are_text_that_a_person_can_read(run: RunDirectory) -> None:
    run.append_answer(answered("q1", answer="富士山"), ())
    assert "富士山" in run.answers_file.read_text(encoding="utf-8")


def test_of_several_lines_of_a_question_the_last_counts(run: RunDirectory) -> None:
    for record in (answered("a", error="no"), answered("b"), answered("a", answer="yes")):
        run.append_answer(record, ())
    assert run.read_answers() == {"a": answered("a", answer="yes"), "b": answered("b")}


@pytest.mark.parametrize("torn", [b'{"id": "c", "answ', b"{", '{"id": "富'.encode()[:-1], b"\x00\x00"])
def test_a_line_that_a_crash_cut_short_is_dropped_and_later_ones_stay_whole(
    run: RunDirectory, torn: bytes
) -> None:
    run.append_answer(answered("a"), ())
    with run.answers_file.open("ab") as file:
        file.write(torn)
    assert ids(run) == ["a"]
    run.append_answer(answered("b"), ())
    assert ids(run) == ["a", "b"]


@pytest.mark.parametrize("broken", [b"{oops", b'{"id": "\xff"}', b"", b"[]", b'{"id": "b", "answr": ""}'])
def test_a_broken_line_before_the_last_is_named_with_its_file(run: RunDirectory, broken: bytes) -> None:
    run.append_answer(answered("a"), ())
    with run.answers_file.open("ab") as file:
        file.write(broken + b"\n")
    run.append_answer(answered("c"), ())
    with pytest.raises(DataError, match=r"answers\.jsonl, line 2: not an answer record .*asked again") as e:
        run.read_answers()
    assert "\n" not in str(e.value)


def test_failures_can_be_forgotten_and_nothing_else_is(run: RunDirectory) -> None:
    for record in (answered("a", error="no"), answered("b", answer="yes"), answered("c", error="no")):
        run.append_answer(record, ())
    run.forget_failures()
    assert run.read_answers() == {"b": answered("b", answer="yes")}


def test_all_answers_can_be_forgotten(run: RunDirectory) -> None:
    run.append_answer(answered("b"), ())
    run.forget_answers()
    assert run.read_answers() == {}


def test_a_failed_question_is_no_observation_and_an_answered_one_is(run: RunDirectory) -> None:
    assert answered("a", error="no").observation() is None
    record = answered("a", answer="x", retrieved=(Retrieved(doc_uri="d", chunk_id="c", score=2.0),))
    assert record.observation() == Observation(retrieved=(RetrievedDocument("d", "c", 2.0),), answer="x")


def test_traces_wait_whole_until_they_have_arrived(run: RunDirectory, mlflow_as_found: None) -> None:
    trace = a_trace()
    run.append_answer(answered("a"), [trace])
    (pending,) = run.pending_traces()
    assert pending.to_dict() == trace.to_dict()
    run.forget_pending_traces()
    assert run.pending_traces() == []


def test_a_torn_trace_is_dropped_and_a_broken_one_is_named(run: RunDirectory, mlflow_as_found: None) -> None:
    run.append_answer(answered("a"), [a_trace()])
    with run.traces_file.open("ab") as file:
        file.write(b'{"info": ')
    assert len(run.pending_traces()) == 1
    with run.traces_file.open("ab") as file:
        file.write(b'{"info": 1}\n')
    with pytest.raises(DataError, match=r"traces\.jsonl, line 2: not a trace"):
        run.pending_traces()


def test_the_manifest_keeps_what_the_run_is_of(run: RunDirectory) -> None:
    run.write_manifest({"dataset": {"path": "質問.jsonl"}})
    assert run.read_manifest() == {"dataset": {"path": "質問.jsonl"}, "format_version": FORMAT_VERSION}


def test_a_damaged_manifest_is_named(run: RunDirectory) -> None:
    (run.path / "run.json").write_text("{")
    with pytest.raises(DataError, match=r"run\.json is damaged"):
        run.read_manifest()


def test_a_run_of_another_format_is_refused(run: RunDirectory) -> None:
    (run.path / "run.json").write_text(json.dumps({"format_version": FORMAT_VERSION + 1}))
    with pytest.raises(DataError, match=f"format {FORMAT_VERSION + 1}, this citeqa uses {FORMAT_VERSION}"):
        run.read_manifest()


def test_scores_are_one_line_each_and_replaced_as_a_whole(run: RunDirectory) -> None:
    run.write_scores([{"id": "a"}, {"id": "\ud83d"}])
    run.write_scores([{"id": "日"}, {"id": "\ud83d"}])
    lines = run.scores_file.read_bytes().decode().splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["日", "\ud83d"]
    assert to_json({"id": "日"}) == '{"id": "日"}'.encode()


def test_a_second_process_is_told_that_the_run_is_taken(tmp_path: Path) -> None:
    script = "import sys; from pathlib import Path; from filelock import FileLock\n"
    script += "with FileLock(sys.argv[1]): print('held', flush=True); sys.stdin.read()"
    lock = tmp_path / "run" / ".lock"
    lock.parent.mkdir()
    command = [sys.executable, "-c", script, str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(StorageError, match=r"Another process is working on the run at '.*run'"):
            RunDirectory(tmp_path / "run").__enter__()
        other.communicate()
    with RunDirectory(tmp_path / "run") as directory:
        assert directory.read_answers() == {}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS], ids=["full disk", "read-only disk"])
def test_a_disk_that_refuses_is_named_and_what_was_done_stays(
    run: RunDirectory, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.append_answer(answered("a"), ())
    run.write_summary({"kept": True})
    refuse_writes(monkeypatch, code)
    for write in (
        lambda: run.append_answer(answered("b"), ()),
        lambda: run.write_summary({"kept": False}),
        lambda: run.write_manifest({}),
        run.forget_answers,
    ):
        with pytest.raises(StorageError, match=rf"cannot be written: {os.strerror(code)}\. .*is kept"):
            write()
    monkeypatch.undo()
    assert ids(run) == ["a"]
    assert json.loads(run.summary_file.read_text()) == {"kept": True}
    run.append_answer(answered("b"), ())
    assert ids(run) == ["a", "b"]


def test_a_disk_that_fills_within_a_line_costs_that_line_only(run: RunDirectory) -> None:
    """A real full disk: the device that is always full stands in for the rest of the file."""
    run.append_answer(answered("a"), ())
    run.answers_file.rename(run.path / "kept")
    run.answers_file.symlink_to("/dev/full")
    with pytest.raises(StorageError, match="No space left on device"):
        run.append_answer(answered("b", answer="x" * 100_000), ())
    run.answers_file.unlink()
    (run.path / "kept").rename(run.answers_file)
    assert ids(run) == ["a"]


def test_a_place_that_cannot_be_a_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"'.*file/run' cannot be written: Not a directory"):
        RunDirectory(tmp_path / "file" / "run").__enter__()


def refuse_writes(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Opening a file to write it fails, as on a disk that is full or read-only (root may write anywhere)."""
    really_open = Path.open

    def open_(path: Path, mode: str = "r", *args: object, **kwargs: object) -> object:
        if set(mode) & set("wax+"):
            raise OSError(code, os.strerror(code))
        return really_open(path, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", open_)
