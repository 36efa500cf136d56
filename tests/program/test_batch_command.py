"""`citeqa answer` as a person meets it: what it says, where, and what it leaves behind, however it ends."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import SpanType
from mlflow.tracking import fluent
from mlflow.tracking._tracking_service import utils as tracking_service

from program.cli import main

Run = Callable[..., tuple[int, str, str]]
QUESTIONS = "q,team\nWhen does water boil?,a\n富士山の高さは？,b\n"
ASKING = ["answer", "q.csv", "--column", "question=q", "--out"]


@pytest.fixture
def run(index_path: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Calls `citeqa` in this process, with MLflow as a new process has it: its exit code, stdout and stderr."""
    monkeypatch.setenv("CITEQA_RETRIEVAL__INDEX", index_path)
    # Set first, so that what the command puts into the environment is taken back after the test.
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["citeqa", *arguments])
        monkeypatch.setattr(tracking_service, "_tracking_uri", None)
        monkeypatch.setattr(fluent, "_active_experiment_id", None)
        capfd.readouterr()
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0), *capfd.readouterr()
        return 0, *capfd.readouterr()

    return call


def complaint(said: tuple[int, str, str]) -> str:
    """The one line on stderr of a person's mistake."""
    code, out, err = said
    assert (code, out, err.count("\n")) == (2, "", 1), said
    return err.strip()


def test_a_table_is_answered_once(run: Run) -> None:
    Path("q.csv").write_text(QUESTIONS, encoding="utf-8")
    code, out, err = run(*ASKING, "a.csv")
    assert (code, err) == (0, "")
    assert out.startswith("a.csv: 2 questions, 2 answered; 2 asked now in ")
    with Path("a.csv").open(encoding="utf-8", newline="") as file:
        water, fuji = csv.DictReader(file)
    assert (water["id"], water["team"], water["error"]) == ("1", "a", "")
    assert json.loads(water["cited_uris"])[0] == "https://docs.example/water"
    assert fuji["answer"].startswith("富士山の高さは3776メートルです。[1]")
    assert run(*ASKING, "a.csv") == (0, "a.csv: nothing to do, 2 questions answered before\n", "")
    assert "retrieval.k was 5 and is 2" in complaint(run(*ASKING, "a.csv", "-k", "2"))


def test_what_is_wrong_is_told_before_anything_is_asked_and_nothing_is_left(run: Run) -> None:
    Path("q.csv").write_text(QUESTIONS, encoding="utf-8")
    for arguments, expected in {
        ("q.csv", "--out", "a.jsonl"): "Error: q.csv: there is no column 'question' for question.",
        ("none.csv", "--out", "a.jsonl"): "Error: Cannot read none.csv: No such file or directory.",
        ("q.csv", "--out", "q.csv"): "Error: --out q.csv: these are the questions.",
        ("q.csv", "--out", "a.xlsx"): "Error: --out a.xlsx: answers are written as .csv, .jsonl, .parquet.",
        ("q.csv", "--out", "a.csv", "--column", "quesion=q"): "Error: --column quesion=q: there is no field",
        ("q.csv", "--out", "a.csv", "--column", "question=q", "--set", "retrieval.index=none"): (
            "Error: No index at 'none'."
        ),
        (
            "q.csv",
            "--out",
            "q.csv/a.csv",
            "--column",
            "question=q",
        ): "Error: 'q.csv/a.csv.run' cannot be written",
    }.items():
        assert complaint(run("answer", *arguments)).startswith(expected)
    assert [path.name for path in Path().iterdir()] == ["q.csv"]


def test_a_model_that_cannot_be_reached_stops_early_and_the_same_command_goes_on(
    run: Run, language_model: Any
) -> None:
    Path("q.csv").write_text("q\n" + "When does water boil?\n" * 60, encoding="utf-8")
    setting = [
        "language_model.model=openai/test",
        "language_model.num_retries=0",
        "language_model.cache=false",
    ]
    model = [
        part for s in [*setting, f"language_model.api_base={language_model.url}"] for part in ("--set", s)
    ]
    language_model.says("bad key sk-canary-0123456789", status=401)
    said = complaint(run(*ASKING, "a.jsonl", *model, "--threads", "2"))
    assert said.startswith("Error: Stopped: the last 10 questions all failed, because: The language model ")
    assert "Check its API key in the environment. 0 of 60 are answered and kept; mend the cause" in said
    assert "canary" not in said
    assert "canary" not in Path("a.jsonl.run/journal.jsonl").read_text()
    assert len(language_model.requests) <= 12
    assert not Path("a.jsonl").exists()

    language_model.forget()
    language_model.fills({"answerable": True, "answer": "At 100 degrees [1]."})
    code, out, _ = run(*ASKING, "a.jsonl", *model)
    assert (code, out.split(";")[0]) == (0, "a.jsonl: 60 questions, 60 answered")
    first = json.loads(Path("a.jsonl").read_text().splitlines()[0])
    assert (first["answer"], first["reader"]) == ("At 100 degrees [1].", "openai/test")
    assert first["usage"] == {"input_tokens": 11, "output_tokens": 7, "total_tokens": 18}


def test_failures_are_counted_and_told_with_the_first_reason(run: Run) -> None:
    Path("q.csv").write_text("q,k\nWhen does water boil?,2\nAnd ice?,many\n", encoding="utf-8")
    command = [*ASKING, "a.jsonl", "--column", "k=k"]
    failed = "1 failed (--retry-errors asks again), the first because: k is 'many', not a whole number.\n"
    assert run(*command)[1].endswith(f". {failed}")
    assert run(*command)[1] == f"a.jsonl: nothing to do, 2 questions answered before. {failed}"
    assert "; 1 asked now in " in run(*command, "--retry-errors")[1]


def test_each_answer_names_its_trace_in_the_store(run: Run, tmp_path: Path) -> None:
    # Its whole path: MLflow keeps a store open by its address, and another test's may be open under `build`.
    store = f"sqlite:///{tmp_path}/mlflow.db"
    Path("q.jsonl").write_text('{"question": "When does water boil?", "id": "w1"}\n')
    code, out, err = run("answer", "q.jsonl", "--out", "a.jsonl", "--trace", "--set", f"tracking.uri={store}")
    assert (code, out.split(";")[0]) == (0, "a.jsonl: 1 question, 1 answered")
    assert "Warning" not in err, err
    row = json.loads(Path("a.jsonl").read_text())
    mlflow.set_tracking_uri(store)
    trace = mlflow.get_trace(row["trace_id"])
    assert trace is not None
    assert trace.info.client_request_id == "w1"
    assert len(trace.search_spans(span_type=SpanType.RETRIEVER)) == 1
    assert row["answer"] in json.dumps(trace.data.spans[0].outputs, ensure_ascii=False)
    assert not list(Path("build/trace-spool").iterdir())


# However it ends


SLOW = """
import sys, time
from retrieval.local_index import LocalIndex
search = LocalIndex.search
def slowly(self, *args):
    time.sleep(0.2)
    return search(self, *args)
LocalIndex.search = slowly
from program.cli import main
sys.argv[0] = "citeqa"
main()
"""


def begin_slowly(threads: int) -> subprocess.Popen[str]:
    """The command as a process of its own, each answer of which takes a fifth of a second."""
    rows = "".join(f"When does water boil? {n},{n}\n" for n in range(12))
    Path("q.csv").write_text(f"q,n\n{rows}")
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SLOW, *ASKING, "a.jsonl", "--threads", str(threads)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 90
    while answered() < 3:
        assert time.monotonic() < deadline, "no answers came"
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    return process


def answered() -> int:
    journal = Path("a.jsonl.run/journal.jsonl")
    return journal.read_bytes().count(b"}\n") - 1 if journal.exists() else 0


def check_goes_on(run: Run) -> None:
    kept = answered()
    assert 3 <= kept < 12
    assert not Path("a.jsonl").exists()
    code, out, err = run(*ASKING, "a.jsonl")
    assert (code, err) == (0, "")
    assert f"; {12 - kept} asked now in " in out
    rows = [json.loads(line) for line in Path("a.jsonl").read_text().splitlines()]
    assert [(row["n"], row["error"]) for row in rows] == [(str(n), None) for n in range(12)]
    journal = [json.loads(line) for line in Path("a.jsonl.run/journal.jsonl").read_text().splitlines()]
    assert sorted(entry["row"] for entry in journal if "row" in entry) == list(range(12)), "asked twice"


def test_ctrl_c_keeps_what_is_answered_and_the_same_command_goes_on(run: Run) -> None:
    process = begin_slowly(threads=2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    kept = f"Interrupted: {answered()} of 12 questions are answered and kept."
    assert err.splitlines()[-1] == f"{kept} The same command goes on from there."
    assert "Traceback" not in err
    check_goes_on(run)


@pytest.mark.skipif(os.name != "posix", reason="kills as POSIX does")
def test_killed_it_goes_on_where_it_was(run: Run) -> None:
    process = begin_slowly(threads=2)
    process.kill()
    process.communicate()
    with Path("a.jsonl.run/journal.jsonl").open("ab") as journal:
        journal.write(b'{"row": 11, "answer": "cut of')
    check_goes_on(run)


def test_a_second_process_is_told_that_there_is_one(run: Run) -> None:
    process = begin_slowly(threads=1)
    assert complaint(run(*ASKING, "a.jsonl")).startswith(
        "Error: Another process is answering into 'a.jsonl.run'."
    )
    process.kill()
    process.communicate()
