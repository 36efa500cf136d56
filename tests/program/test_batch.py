"""A batch under way: what is kept of it whatever happens, and when it stops."""

from __future__ import annotations

import csv
import json
import shutil
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from program.agent import CiteqaAgent, CitingAgent
from program.batch import BatchPlan, open_batch
from program.batch_asking import FAILURES_IN_A_ROW, answer_batch
from program.batch_journal import Journal
from program.batch_questions import QuestionTable, parse_columns
from program.types import Citation, CitedAnswer, Emit, Turn
from retrieval.errors import ConfigurationError, DataError, LanguageModelError, RunStoppedError, StorageError
from retrieval.types import Passage

OUT = Path("a.jsonl")
JOURNAL = Path("a.jsonl.run/journal.jsonl")
IDENTITY = {"index": "abc", "retrieval": {"k": 5, "filters": {}}}


class Answers:
    """Answers every question with itself and one source, fails where it says `fail`, and counts what it is asked."""

    def __init__(self, hook: Callable[[Turn], Any] = lambda turn: None, *, failing: bool = True) -> None:
        self.asked: list[str] = []
        self.turns: list[Turn] = []
        self._hook = hook
        self._failing = failing

    def __call__(self, turn: Turn, emit: Emit | None = None) -> CitedAnswer:
        self.asked.append(turn.question)
        self.turns.append(turn)
        self._hook(turn)
        if self._failing and "fail" in turn.question:
            raise LanguageModelError(f"no answer to {turn.question}\nnone")
        passage = Passage(chunk_id="c", doc_uri="https://d", text=turn.question, title="D", fragment="part")
        text = f"{turn.question} [1][1]"
        end = len(turn.question)
        citations = tuple(Citation(1, passage, end + 1 + 3 * n, end + 4 + 3 * n, 0, end) for n in range(2))
        usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
        return CitedAnswer(
            text, citations, (passage,), "test", turn.question, "?" in turn.question, usage=usage
        )


def table(questions: Sequence[Any], *columns: str) -> QuestionTable:
    rows = [q if isinstance(q, dict) else {"question": q, "extra": f"x{n}"} for n, q in enumerate(questions)]
    Path("q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return QuestionTable.open(Path("q.jsonl"), parse_columns(columns))


def plan(questions: Sequence[Any], *columns: str, limit: int | None = None) -> BatchPlan:
    return BatchPlan(table(questions, *columns), OUT, IDENTITY, limit)


def answer(batch_plan: BatchPlan, answers: Answers, *, retry: bool = False, **how: Any) -> int:
    """One run of the command: ask what waits, write the output; how many were asked."""
    with open_batch(batch_plan) as batch:
        if retry:
            batch.forget_failures()
        asked = answer_batch(batch, CitingAgent(answers), **how) if batch.waiting else 0
        batch.finish()
        return asked


def written() -> list[dict[str, Any]]:
    return _without_latency(OUT)


def test_each_question_has_its_answer_with_its_sources_in_the_order_of_the_table() -> None:
    slow_first = Answers(lambda turn: time.sleep(0.05 if turn.question == "q0" else 0))
    assert answer(plan(["q0", "q1?", "fail"]), slow_first, threads=3, max_failed_share=1) == 3
    first, second, third = written()
    assert first == {
        "id": 1,
        "question": "q0",
        "answer": "q0 [1][1]",
        "cited_uris": ["https://d"],
        "sources": [
            {
                "number": 1,
                "cited": True,
                "doc_uri": "https://d",
                "url": "https://d#part",
                "title": "D",
                "chunk_id": "c",
                "score": 0.0,
                "quotes": ["q0"],
            }
        ],
        "abstained": False,
        "reader": "test",
        "fallback_reason": None,
        "usage": {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
        "trace_id": None,
        "error": None,
        "extra": "x0",
    }
    assert (second["abstained"], second["error"]) == (True, None)
    assert (third["error"], third["answer"], third["sources"]) == ("no answer to fail none", None, [])


def test_the_configured_agent_answers_in_both_languages(make_settings: Any) -> None:
    batch_plan = plan(["When does water boil?", "富士山の高さは？", "half \ud83d"])
    with open_batch(batch_plan) as batch:
        answer_batch(batch, CiteqaAgent(make_settings()), threads=2)
        batch.finish()
    water, fuji, half = written()
    assert water["cited_uris"][0] == "https://docs.example/water"
    assert "Water boils at 100 degrees at sea level." in water["sources"][0]["quotes"]
    assert "富士山の高さは3776メートルです。[1]" in fuji["answer"]
    assert (half["error"], half["question"], half["abstained"]) == (None, "half \ud83d", True)


def test_history_k_and_filters_reach_the_agent() -> None:
    row = {"question": "q", "h": [{"role": "user", "content": "before"}], "n": 3, "f": {"lang": "ja"}}
    narrator = {"question": "r", "h": [{"role": "narrator", "content": "Once"}]}
    many = {"question": "s", "n": 5000}
    answers = Answers()
    answer(plan([row, narrator, many], "history=h", "k=n", "filters=f"), answers, threads=1)
    (turn,) = answers.turns
    assert [(m.role, m.text) for m in turn.history] == [("user", "before")]
    assert (turn.k, turn.filters) == (3, {"lang": "ja"})
    _, second, third = written()
    assert second["error"].startswith("The question and its history are no request to an agent:")
    assert third["error"].startswith("custom_inputs: k = 5000: ")


def test_what_failed_is_recorded_and_asked_again_only_when_told() -> None:
    batch_plan = plan(["a", "fail", "b", None, 7])
    assert answer(batch_plan, Answers(), max_failed_share=1) == 5
    assert [row["error"] for row in written()] == [
        None,
        "no answer to fail none",
        None,
        "The question is empty.",
        "The question is 7, which is not text.",
    ]
    mended = Answers(failing=False)
    assert answer(batch_plan, mended) == 0
    assert answer(batch_plan, mended, retry=True) == 3
    assert mended.asked == ["fail"]
    assert [row["answer"] for row in written()] == ["a [1][1]", "fail [1][1]", "b [1][1]", None, None]


def test_a_finished_batch_asks_and_writes_nothing() -> None:
    batch_plan, answers = plan(["a", "b"]), Answers()
    answer(batch_plan, answers)
    before = (OUT.stat().st_mtime_ns, JOURNAL.read_bytes())
    with open_batch(batch_plan) as batch:
        assert batch.waiting == 0
        assert batch.finish() is False
    assert (OUT.stat().st_mtime_ns, JOURNAL.read_bytes()) == before


def test_an_output_that_was_lost_is_written_again_without_asking() -> None:
    batch_plan, answers = plan(["a", "b"]), Answers()
    answer(batch_plan, answers)
    content = OUT.read_bytes()
    OUT.unlink()
    assert answer(batch_plan, answers) == 0
    assert OUT.read_bytes() == content


def test_a_batch_tried_with_a_limit_goes_on_without_one() -> None:
    answers = Answers()
    assert answer(plan(["a", "b", "c"], limit=1), answers) == 1
    assert len(written()) == 1
    assert answer(plan(["a", "b", "c"], limit=9), answers) == 2
    assert answers.asked == ["a", "b", "c"]
    assert [row["question"] for row in written()] == ["a", "b", "c"]


# Whatever ends it


_questions = st.lists(
    st.text("ab?高\n\ud83d", min_size=1, max_size=4) | st.just("fail") | st.none(), min_size=1, max_size=8
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(_questions, st.floats(0, 1), st.integers(1, 4), st.sampled_from([".jsonl", ".csv", ".parquet"]))
def test_killed_at_any_byte_the_same_batch_ends_as_if_it_had_not_been(
    asked: list[str | None], point: float, threads: int, suffix: str
) -> None:
    out = Path(f"a{suffix}")
    batch_plan = BatchPlan(table([*asked, "sure"]), out, IDENTITY)
    journal = Journal(out).file
    how: dict[str, Any] = {"threads": threads, "max_failed_share": 1}
    try:
        answer(batch_plan, Answers(), **how)
        whole = _without_latency(out)
        content = journal.read_bytes()
        kept = content[: int(point * len(content))]
        journal.write_bytes(kept)
        out.unlink()
        done = [json.loads(line) for line in kept.split(b"\n")[:-1]]
        rows_done = {entry["row"] for entry in done if "row" in entry}
        assert answer(batch_plan, Answers(), **how) == len(asked) + 1 - len(rows_done)
        assert _without_latency(out) == whole
    finally:
        out.unlink(missing_ok=True)
        shutil.rmtree(journal.parent, ignore_errors=True)


def _without_latency(out: Path) -> list[dict[str, Any]]:
    match out.suffix:
        case ".jsonl":
            rows = [json.loads(line) for line in out.read_bytes().splitlines()]
        case ".csv":
            with out.open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file, strict=True))
        case _:
            rows = pyarrow.parquet.read_table(out).to_pylist()
    return [{name: value for name, value in row.items() if name != "latency_ms"} for row in rows]


def test_what_is_running_when_it_is_interrupted_is_kept() -> None:
    together = threading.Barrier(3, timeout=5)

    def interrupt(turn: Turn) -> None:
        together.wait()
        if turn.question == "q1":
            raise KeyboardInterrupt
        time.sleep(0.05)

    batch_plan, interrupted, resumed = plan([f"q{n}" for n in range(6)]), Answers(interrupt), Answers()
    with pytest.raises(KeyboardInterrupt):
        answer(batch_plan, interrupted, threads=3)
    assert sorted(interrupted.asked) == ["q0", "q1", "q2"]
    assert not OUT.exists()
    answer(batch_plan, resumed, threads=1)
    assert resumed.asked == ["q1", "q3", "q4", "q5"]
    assert [row["question"] for row in written()] == [f"q{n}" for n in range(6)]


@contextmanager
def a_full_disk(after: int, name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    really_open, opened = Path.open, count(1)

    def open_(path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if name in path.name and mode != "rb" and next(opened) > after:
            raise OSError(28, "No space left on device")
        return really_open(path, mode, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", open_)
        yield


@pytest.mark.parametrize(("name", "after", "kept"), [("journal", 3, 2), ("draft", 0, 4)])
def test_a_full_disk_costs_nothing_that_is_answered(
    name: str, after: int, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_plan, answers = plan(["a", "b", "c", "d"]), Answers()
    with a_full_disk(after, name, monkeypatch), pytest.raises(StorageError, match="No space left on device"):
        answer(batch_plan, Answers(), threads=1)
    assert not OUT.exists()
    assert answer(batch_plan, answers) == 4 - kept
    assert len(written()) == 4


def test_ended_just_before_the_output_is_in_its_place_it_is_put_there_without_asking(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batch_plan, answers = plan(["a", "fail"]), Answers(failing=False)
    answer(batch_plan, Answers())
    before = OUT.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            answer(batch_plan, answers, retry=True)
    assert OUT.read_bytes() == before
    assert answer(batch_plan, answers) == 0
    assert (answers.asked, [row["error"] for row in written()]) == (["fail"], [None, None])


def test_nothing_is_left_over_but_the_output_and_its_journal() -> None:
    answer(plan(["a"]), Answers())
    assert sorted(path.name for path in Path().iterdir()) == ["a.jsonl", "a.jsonl.run", "q.jsonl"]


def test_two_processes_never_work_on_one_output() -> None:
    batch_plan = plan(["a"])
    with (
        open_batch(batch_plan),
        pytest.raises(StorageError, match=r"Another process is answering into 'a\.jsonl\.run'"),
    ):
        answer(batch_plan, Answers())


def test_a_damaged_line_is_told_and_not_passed_over() -> None:
    batch_plan = plan(["a", "b"])
    answer(batch_plan, Answers())
    lines = JOURNAL.read_bytes().splitlines(keepends=True)
    for line in (b"{]\n", b"[]\n", b'{"row": 99}\n', b'{"what": 1}\n'):
        JOURNAL.write_bytes(b"".join([lines[0], line, *lines[2:]]))
        with pytest.raises(DataError, match=r"journal\.jsonl, line 2: damaged .* Remove the line"):
            answer(batch_plan, Answers())
    JOURNAL.write_bytes(b'{"format_version": 99, "binding": {}}\n')
    with pytest.raises(DataError, match="written in format 99, this citeqa uses 1"):
        answer(batch_plan, Answers())


# What is another batch


def refusal(batch_plan: BatchPlan) -> str:
    with pytest.raises(ConfigurationError) as caught:
        answer(batch_plan, Answers())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_changed_input_or_configuration_is_refused_saying_what_differs_and_how_to_start_anew() -> None:
    first = plan(["a"])
    answer(first, Answers())
    before = (OUT.read_bytes(), JOURNAL.read_bytes())
    changed: Mapping[str, Any] = {"index": "abc", "retrieval": {"k": 8, "filters": {"lang": "ja"}}, "new": 1}
    assert refusal(BatchPlan(first.table, OUT, changed)) == (
        "'a.jsonl' was begun otherwise: retrieval.k was 5 and is 8; retrieval.filters.lang was None and is "
        "'ja'; new was None and is 1. Go on as it was begun, name another --out, or start anew: "
        "rm -r a.jsonl a.jsonl.run"
    )
    assert "the indexed documents have changed since." in refusal(
        BatchPlan(first.table, OUT, {**IDENTITY, "index": "xyz"})
    )
    assert "questions.columns.question was 'question' and is 'extra'" in refusal(
        plan(["a"], "question=extra")
    )
    assert "the questions have changed since." in refusal(plan(["b"]))
    assert (OUT.read_bytes(), JOURNAL.read_bytes()) == before
    shutil.rmtree("a.jsonl.run")
    OUT.unlink()
    assert answer(plan(["b"]), Answers()) == 1


def test_values_that_json_has_not_are_no_difference() -> None:
    import datetime

    batch_plan = BatchPlan(
        table(["a"]), OUT, {"filters": {"day": datetime.date(2026, 1, 1), "in": ("x", "y")}}
    )
    answer(batch_plan, Answers())
    assert answer(batch_plan, Answers()) == 0


def test_an_output_that_is_somebody_elses_is_never_replaced() -> None:
    batch_plan = plan(["a"])
    OUT.write_text("precious")
    assert refusal(batch_plan).startswith("--out a.jsonl: exists, and not as this batch wrote it.")
    assert not JOURNAL.exists()
    OUT.unlink()
    answer(batch_plan, Answers())
    OUT.write_text("edited by hand")
    assert refusal(batch_plan).startswith("--out a.jsonl: exists, and not as this batch wrote it.")
    assert OUT.read_text() == "edited by hand"


def test_an_output_that_can_be_none_is_refused() -> None:
    questions = table(["a"])
    Path("folder.csv").mkdir()
    Path("link.jsonl").symlink_to("q.jsonl")
    for out, complaint in {
        "q.jsonl": "these are the questions",
        "./q.jsonl": "these are the questions",
        "link.jsonl": "these are the questions",
        "a.txt": "answers are written as .csv, .jsonl, .parquet",
        "a": "answers are written as",
        "a.jsonl.gz": "answers are written as",
        "folder.csv": "is a directory",
    }.items():
        assert complaint in refusal(BatchPlan(questions, Path(out), IDENTITY))


def test_a_place_that_cannot_be_written_is_told_before_anything_is_asked() -> None:
    Path("file").write_text("")
    answers = Answers()
    with pytest.raises(StorageError, match=r"'file/a\.jsonl\.run' cannot be written: .*name another --out"):
        answer(BatchPlan(table(["a"]), Path("file/a.jsonl"), IDENTITY), answers)
    assert answers.asked == []


def test_questions_that_change_meanwhile_are_told_and_what_is_answered_is_kept() -> None:
    batch_plan = plan(["a", "b"])
    content = Path("q.jsonl").read_bytes()
    with pytest.raises(DataError, match=r"q\.jsonl changed while it was answered"):
        answer(batch_plan, Answers(lambda turn: Path("q.jsonl").write_bytes(content + b"\n")))
    Path("q.jsonl").write_bytes(content)
    assert answer(batch_plan, Answers()) == 0
    assert len(written()) == 2


# When it stops


def stop(batch_plan: BatchPlan, answers: Answers, **how: Any) -> str:
    with pytest.raises(RunStoppedError) as caught:
        answer(batch_plan, answers, **how)
    assert not OUT.exists()
    return str(caught.value)


def test_a_model_that_fails_every_call_stops_the_batch_early_and_what_was_answered_is_kept() -> None:
    good = [f"q{n}" for n in range(5)]
    batch_plan, answers = plan([*good, *["fail"] * 500]), Answers()
    reason = stop(batch_plan, answers, threads=2)
    assert reason == (
        "Stopped: the last 10 questions all failed, because: no answer to fail none 5 of 505 are answered and "
        "kept; mend the cause and the same command goes on, or never stop: --max-failed-share 1."
    )
    # Each thread may have failed once before the last good answer came in, and be asking once more at the end.
    assert len(answers.asked) <= 5 + FAILURES_IN_A_ROW + 2 * 2
    again = Answers()
    stop(batch_plan, again, threads=1)
    assert set(again.asked) == {"fail"}, "what failed is asked again, what was answered is not"


def test_too_many_failures_stop_it_and_more_can_be_allowed() -> None:
    batch_plan, answers = plan(["fail", "ok"] * 20), Answers()
    assert stop(batch_plan, answers, threads=1).startswith("Stopped: 9 questions failed, because: ")
    assert len(answers.asked) < 20
    assert answer(batch_plan, Answers(), max_failed_share=1) == 40 - len(answers.asked) // 2
    assert sum(row["error"] is not None for row in written()) == 20


def test_a_few_questions_may_all_fail() -> None:
    assert answer(plan(["fail"] * 3), Answers()) == 3
    assert [row["error"] for row in written()] == ["no answer to fail none"] * 3


def test_rows_that_cannot_be_answered_as_they_ask_say_nothing_of_the_model() -> None:
    many = [{"question": "q", "n": 5000}] * (FAILURES_IN_A_ROW + 5)
    assert answer(plan([*many, *[{"question": "q", "n": 1}] * 100], "k=n"), Answers(), threads=1) == 115


def test_rows_without_a_question_say_nothing_of_the_model() -> None:
    empty = [None] * (FAILURES_IN_A_ROW + 5)
    assert answer(plan([*empty, *["q"] * 100]), Answers(), threads=1) == 115


def test_a_table_that_mostly_asks_nothing_is_told_before_anything_is_asked() -> None:
    answers = Answers()
    assert stop(plan([*["q"] * 10, *[""] * 10]), answers).startswith(
        "10 of 20 rows ask nothing, first q.jsonl:11: The question is empty. Name the column of the questions"
    )
    assert "1 of 1 rows ask nothing" in stop(BatchPlan(table([None]), Path("b.jsonl"), IDENTITY), answers)
    assert answers.asked == []


def test_a_programming_error_is_the_failure_of_its_row_and_shows_no_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-0123456789")

    def crash(turn: Turn) -> None:
        raise ZeroDivisionError("sk-canary-0123456789\nis wrong")

    answer(plan(["a"]), Answers(crash))
    assert written()[0]["error"] == r"ZeroDivisionError('$OPENAI_API_KEY\nis wrong')"


# Size


def test_many_answers_are_not_held_in_memory() -> None:
    batch_plan = plan([f"q{n} " + "x" * 2000 for n in range(2000)])
    tracemalloc.start()
    try:
        answer(batch_plan, _Forgetful())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert OUT.stat().st_size > 12_000_000
    assert peak < 4_000_000


class _Forgetful(Answers):
    def __call__(self, turn: Turn, emit: Emit | None = None) -> CitedAnswer:
        answered = super().__call__(turn, emit)
        self.asked.clear()
        self.turns.clear()
        return answered


def test_threads_never_mix_answers() -> None:
    questions = [f"q{n}" for n in range(200)]
    answer(
        plan(questions), Answers(lambda turn: time.sleep(int(turn.question[1:]) * 5 % 7 / 2000)), threads=16
    )
    assert [row["answer"] for row in written()] == [f"{question} [1][1]" for question in questions]


def test_progress_counts_what_was_done_before() -> None:
    seen: list[tuple[int, int]] = []
    answer(plan(["a", "b", "c"], limit=2), Answers())
    answer(plan(["a", "b", "c"]), Answers(), on_answer=lambda *progress: seen.append(progress))
    assert seen == [(3, 3)]


def test_a_batch_counts_what_became_of_its_rows() -> None:
    answer(plan(["a", "b?", "fail", "c"], limit=3), Answers())
    with open_batch(plan(["a", "b?", "fail", "c"])) as batch:
        assert (batch.total, batch.waiting, batch.abstained, batch.failed) == (4, 1, 1, 1)
        assert batch.first_failure == "no answer to fail none"
