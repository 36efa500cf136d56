"""The command line as a person meets it: what it says, where it says it, and what it leaves behind."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click
import mlflow
import pytest
from mlflow.tracking import fluent
from mlflow.tracking._tracking_service import utils as tracking_service

from program.cli import cli, main
from program.commands.filters import parse_filters
from retrieval.errors import IndexMissingError
from retrieval.local_index import LocalIndex

ROOT = Path(__file__).parents[1]
Run = Callable[..., "Said"]


def commands(group: click.Group, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command by the words that call it, groups and what is in them alike."""
    for name, command in sorted(group.commands.items()):
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)


COMMANDS = dict(commands(cli))


def parse(words: Sequence[str]) -> None:
    """Parse the words of a call after `citeqa`; raises where they are not understood."""
    path = max((path for path in COMMANDS if tuple(words[: len(path)]) == path), key=len)
    COMMANDS[path].make_context(" ".join(path), list(words[len(path) :]), resilient_parsing=False)


class Said:
    """What one call of the command said, and how it ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def complaint(self) -> str:
        """The one line on stderr of a person's mistake."""
        assert self.code == 2, (self.code, self.out, self.err)
        assert self.out == ""
        assert self.err.count("\n") == 1, self.err
        assert "Traceback" not in self.err
        return self.err.strip()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Calls `citeqa` in an empty directory, in this process, each call with MLflow as a new process has it."""
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)

    def call(*arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["citeqa", *arguments])
        monkeypatch.setattr(tracking_service, "_tracking_uri", None)
        monkeypatch.setattr(fluent, "_active_experiment_id", None)
        mlflow.tracing.reset()
        capfd.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        return Said(code, *capfd.readouterr())

    yield call
    mlflow.tracing.reset()


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A folder of two documents, one in each language."""
    folder = tmp_path / "docs"
    folder.mkdir()
    write(folder / "water.md", "https://d.example/water", "Water boils at 100 degrees at sea level.")
    write(folder / "fuji.md", "https://d.example/fuji", "富士山の高さは3776メートルです。")
    return folder


def write(file: Path, doc_uri: str, text: str) -> None:
    file.write_text(f"---\ndoc_uri: {doc_uri}\ntitle: {file.stem}\n---\n{text}\n", encoding="utf-8")


# Help


def test_help_starts_without_the_libraries_that_are_slow_to_import() -> None:
    probe = (
        "import sys; sys.argv=['citeqa','--help']\n"
        "from program.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(sorted({'mlflow','dspy','pandas','numpy','pydantic','tantivy'} & set(sys.modules)))"
    )
    before = os.times().children_user
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
    assert os.times().children_user - before < 0.5, "seconds of CPU; it is 0.1 where nothing else runs"


def test_indexing_imports_no_language_model_library(corpus: Path) -> None:
    probe = (
        "import sys; sys.argv=['citeqa','index','--corpus','docs']\n"
        "from program.cli import main\n"
        "main()\n"
        "print(sorted({'mlflow','dspy','pandas'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True, cwd=corpus.parent
    )
    assert done.stdout.endswith("[]\n")


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_explains_itself_with_an_example_that_parses(path: tuple[str, ...]) -> None:
    command = COMMANDS[path]
    text = command.help or ""
    assert command.get_short_help_str()
    example = next(line for line in text.splitlines() if line.strip().startswith("Example: "))
    words = shlex.split(example.strip().removeprefix("Example: "))
    assert tuple(words[: len(path) + 1]) == ("citeqa", *path)
    parse(words[1:])


def test_the_commands_in_the_readme_parse() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    calls = [
        shlex.split(line.strip().lstrip("$ "), comments=True)
        for line in lines
        if line.strip().lstrip("$ ").startswith("citeqa ")
    ]
    assert calls
    for words in calls:
        parse(words[1:])


# Index


def test_indexing_again_writes_only_what_changed(run: Run, corpus: Path) -> None:
    assert "2 documents" in run("index", "--corpus", "docs").out
    assert "2 unchanged" in run("index", "--corpus", "docs").out
    write(corpus / "water.md", "https://d.example/water", "Water boils at 71 degrees on Everest.")
    assert "1 replaced, 0 deleted, 1 unchanged" in run("index", "--corpus", "docs").out
    (corpus / "fuji.md").unlink()
    assert "1 deleted" in run("index", "--corpus", "docs").out


def test_a_bad_document_is_told_with_its_file_and_the_rest_goes_on(run: Run, corpus: Path) -> None:
    (corpus / "bad.md").write_text("---\ndoc_uri: https://d.example/bad\ntitle: [unclosed\n---\ntext\n")
    said = run("index", "--corpus", "docs")
    assert said.code == 0
    assert said.err.startswith("Refused: bad.md:4: the front matter is not valid YAML")
    assert said.err.count("\n") == 1
    assert "2 documents, 2 passages (2 added, 0 replaced, 0 deleted, 0 unchanged, 1 refused)" in said.out


def test_a_document_that_turned_bad_keeps_its_last_good_version(run: Run, corpus: Path) -> None:
    run("index", "--corpus", "docs")
    (corpus / "fuji.md").write_bytes(b"---\ndoc_uri: [unclosed\n---\n")
    assert "Its last good version stays in the index." in run("index", "--corpus", "docs").err
    assert len(LocalIndex.open("build/index").doc_uris()) == 2
    assert run("index", "--corpus", "docs", "--rebuild").out.startswith("build/index: 1 documents")


def test_strictly_a_bad_document_is_an_error_and_keeps_the_old_index(run: Run, corpus: Path) -> None:
    run("index", "--corpus", "docs")
    (corpus / "bad.md").write_text("---\ndoc_uri: https://d.example/bad\ntitle: [unclosed\n---\ntext\n")
    write(corpus / "water.md", "https://d.example/water", "Other words.")
    complaint = run("index", "--corpus", "docs", "--strict").complaint
    assert complaint.startswith("Error: bad.md:4: the front matter is not valid YAML")
    assert LocalIndex.open("build/index").search("boils", 1)


def test_a_hundred_bad_documents_are_told_and_more_are_counted(run: Run, tmp_path: Path) -> None:
    lines = ['{"doc_uri": "a", "text": "fine"}', *["{" for _ in range(120)]]
    (tmp_path / "docs.jsonl").write_text("\n".join(lines))
    told = run("index", "--corpus", "docs.jsonl").err.splitlines()
    assert len(told) == 101
    assert told[-1] == "Refused: 20 more."


def test_a_duplicate_doc_uri_names_both_files(run: Run, corpus: Path) -> None:
    write(corpus / "again.md", "https://d.example/water", "Water again.")
    for arguments in ((), ("--rebuild",)):
        told = run("index", "--corpus", "docs", *arguments).err
        assert "https://d.example/water" in told
        assert "again.md" in told
        assert "water.md" in told


def test_a_broken_line_of_json_is_told_with_its_number(run: Run, tmp_path: Path) -> None:
    (tmp_path / "docs.jsonl").write_text('{"doc_uri": "a", "text": "fine"}\n{"doc_uri": \n')
    assert run("index", "--corpus", "docs.jsonl").err.startswith("Refused: docs.jsonl:2: not valid JSON")


def test_watching_and_rebuilding_do_not_go_together(run: Run) -> None:
    assert "--watch and --rebuild" in run("index", "--watch", "--rebuild").complaint


def test_the_stats_of_an_index(run: Run, corpus: Path) -> None:
    run("index", "--corpus", "docs")
    said = run("index", "stats")
    facts = dict(line.split("  ", 1) for line in said.out.splitlines())
    assert facts["documents"].strip() == "2"
    assert facts["languages"].strip() == "en 1, ja 1"
    assert "vectors" in facts
    stats = json.loads(run("index", "stats", "--json").out)
    assert stats["passages"] == stats["sampled"] == 2
    assert stats["languages"] == {"en": 1, "ja": 1}
    assert stats["bytes"] == sum(stats["bytes_of"].values())
    assert stats["bytes"] == sum(file.stat().st_size for file in Path("build/index").glob("generation-*/*"))
    assert stats["chunking"]["max_tokens"] == 200
    assert stats["age_s"] < 100


def test_what_several_documents_have_in_common_is_found(run: Run, corpus: Path) -> None:
    run("index", "--corpus", "docs")
    assert "0 of 2 passages are in 0 groups" in run("index", "duplicates").out
    write(corpus / "again.md", "https://d.example/again", "Water boils at 100 degrees at the sea level.")
    write(corpus / "copy.md", "https://d.example/copy", "富士山の高さは3776メートルです。")
    run("index", "--corpus", "docs")
    said = run("index", "duplicates", "--threshold", "0.6", "--limit", "1").out
    assert "2 passages, similarity 1.00: 富士山" in said
    assert "  https://d.example/copy\n  https://d.example/fuji\n" in said
    assert "4 of 4 passages are in 2 groups of near duplicates.\nThe 1 largest are shown" in said
    found = json.loads(run("index", "duplicates", "--threshold", "0.6", "--json").out)
    assert [len(group["passages"]) for group in found["groups"]] == [2, 2]
    assert found["groups"][0]["passages"][0]["text"].startswith("富士山")


def test_a_folder_that_is_not_there(run: Run) -> None:
    assert "'nowhere'" in run("index", "--corpus", "nowhere").complaint


def test_a_disk_that_refuses_leaves_the_old_index(
    run: Run, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("index", "--corpus", "docs")
    write(corpus / "water.md", "https://d.example/water", "Other words.")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    monkeypatch.setattr(Path, "replace", full)
    assert "No space left on device" in run("index", "--corpus", "docs").complaint
    monkeypatch.undo()
    assert LocalIndex.open(corpus.parent / "build/index").search("boils", 1)


# Settings


def test_an_unknown_setting_names_the_nearest(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = run("ask", "x", "--set", "retrieval.kk=3")
    assert said.complaint == (
        "Error: --set retrieval.kk=3: unknown setting 'retrieval.kk'; did you mean 'retrieval.k'?"
    )
    (tmp_path / "my.yaml").write_text("evaluation:\n  thread: 3\n")
    assert "my.yaml: unknown setting 'evaluation.thread'; did you mean 'evaluation.threads'?" in (
        run("eval", "--config", "my.yaml").complaint
    )
    monkeypatch.setenv("CITEQA_READER__KIN", "lm")
    assert "environment variable CITEQA_READER__KIN: unknown setting" in run("index").complaint


def test_a_name_that_yaml_would_take_for_something_else_is_a_name(run: Run, questions: Path) -> None:
    run("index", "--corpus", "docs")
    for name in ("no", "2024", "[x", "~"):
        assert f"has no split {name!r}" in run("eval", "--dataset", "quiz.jsonl", "--split", name).complaint


def test_a_setting_of_the_wrong_type_is_told_with_its_value(run: Run) -> None:
    complaint = run("ask", "x", "--set", "retrieval.k=many").complaint
    assert "retrieval.k" in complaint
    assert "'many'" in complaint


def test_a_configuration_file_that_is_not_there(run: Run) -> None:
    assert "'none.yaml'" in run("ask", "x", "--config", "none.yaml").complaint


# Ask


def test_an_answer_streams_with_its_sources_and_its_reader(run: Run, corpus: Path) -> None:
    run("index", "--corpus", "docs")
    said = run("ask", "At how many degrees does water boil?")
    assert said.code == 0
    assert said.out.startswith("Water boils at 100 degrees at sea level. [1]\n")
    assert "[1] water — https://d.example/water" in said.out
    assert "Reader: extractive" in said.out


def test_a_japanese_question_is_answered_in_japanese(run: Run, corpus: Path) -> None:
    run("index", "--corpus", "docs")
    assert run("ask", "富士山の高さは？").out.startswith("富士山の高さは3776メートルです。[1]\n")


def test_an_answer_for_a_machine(run: Run, corpus: Path) -> None:
    run("index", "--corpus", "docs")
    answer = json.loads(run("ask", "How hot does water boil?", "--json", "--filter", "title=water").out)
    assert answer["citations"][0]["url"] == "https://d.example/water"
    assert answer["reader"] == "extractive"
    assert {source["title"] for source in answer["sources"]} == {"water"}


def test_asking_without_an_index_says_how_to_make_one(run: Run) -> None:
    assert "citeqa index" in run("ask", "Where is it?").complaint


def test_an_empty_question_is_refused(run: Run, corpus: Path) -> None:
    run("index", "--corpus", "docs")
    assert "empty" in run("ask", "  ").complaint


@pytest.mark.parametrize("condition", ["lang", "=ja", ">=2024", ""])
def test_a_filter_that_is_no_condition_is_refused(run: Run, condition: str) -> None:
    complaint = run("ask", "x", "--filter", condition).complaint
    assert complaint == f"Error: --filter {condition}: write it as key=value, for example lang=ja"


def test_a_filter_with_a_wrong_value_is_refused(run: Run, corpus: Path) -> None:
    run("index", "--corpus", "docs")
    complaint = run("ask", "x", "--filter", "year>=soon").complaint
    assert complaint == "Error: Filter 'year >=': a comparison needs a number, got 'soon'"


@pytest.mark.parametrize(
    ("conditions", "filters"),
    [
        (["lang=ja"], {"lang": "ja"}),
        (["lang = no"], {"lang": "no"}),
        (["year>=2024"], {"year >=": 2024}),
        (["year < 2024.5"], {"year <": 2024.5}),
        (["lang NOT=ja"], {"lang NOT": "ja"}),
        (["draft=false"], {"draft": False}),
        (["version='1.0'"], {"version": "'1.0'"}),
        (['version="1.0"'], {"version": "1.0"}),
        (["lang=ja", "lang=en", "lang=de"], {"lang": ["ja", "en", "de"]}),
        (["doc_uri=https://d.example/?a=b"], {"doc_uri": "https://d.example/?a=b"}),
        (["title="], {"title": ""}),
    ],
)
def test_conditions_become_filters(conditions: list[str], filters: dict[str, object]) -> None:
    assert parse_filters(tuple(conditions)) == filters


def test_only_documents_that_meet_all_filters_are_read(run: Run, corpus: Path) -> None:
    run("index", "--corpus", "docs")
    said = run("ask", "100 3776", "--json", "--filter", "lang=ja", "--filter", "title NOT=water")
    assert [source["title"] for source in json.loads(said.out)["sources"]] == ["fuji"]


def test_an_index_of_another_version_says_what_to_do(run: Run, corpus: Path) -> None:
    run("index", "--corpus", "docs")
    manifest = corpus.parent / "build/index/manifest.json"
    body = json.loads(manifest.read_text())
    body["format_version"] = 99
    manifest.write_text(json.dumps(body))
    complaint = run("ask", "x").complaint
    assert "The index at 'build/index' was built by a newer citeqa (format version 99" in complaint
    assert "rebuild" in complaint


def test_a_language_model_reader_without_a_model_says_how_to_name_one(run: Run, corpus: Path) -> None:
    run("index", "--corpus", "docs")
    assert "language_model.model" in run("ask", "x", "--set", "reader.kind=lm").complaint


# When something else goes wrong


def test_debug_shows_the_trace_of_a_mistake(run: Run) -> None:
    with pytest.raises(IndexMissingError, match="No index"):
        run("ask", "x", "--debug")


def test_a_programming_error_shows_its_trace(run: Run, monkeypatch: pytest.MonkeyPatch, corpus: Path) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(LocalIndex, "sync", broken)
    with pytest.raises(ZeroDivisionError):
        run("index", "--corpus", "docs")


def test_a_trace_ends_the_process_otherwise_than_a_mistake(tmp_path: Path) -> None:
    mistake = citeqa(tmp_path, "index", "--corpus", "nowhere", "--debug")
    assert "Traceback" in mistake.communicate(timeout=60)[1]
    assert mistake.returncode == 1
    plain = citeqa(tmp_path, "index", "--corpus", "nowhere")
    assert plain.communicate(timeout=60) == ("", "Error: There is no corpus at 'nowhere'. Check the path.\n")
    assert plain.returncode == 2


# Eval


@pytest.fixture
def questions(corpus: Path) -> Path:
    """Six questions about the two documents, one of them unanswerable."""
    asked = [
        ("How hot does water boil?", "water"),
        ("At which level does water boil at 100?", "water"),
        ("What boils at 100 degrees?", "water"),
        ("富士山の高さは？", "fuji"),
        ("富士山は何メートルですか？", "fuji"),
        ("Who is the king of Atlantis?", None),
    ]
    file = corpus.parent / "quiz.jsonl"
    rows = [
        {
            "id": f"q{number}",
            "inputs": {"question": question},
            "expectations": {
                "expected_retrieved_context": [{"doc_uri": f"https://d.example/{gold}"}] if gold else []
            },
            "tags": {"split": "dev", "type": "lookup" if gold else "unanswerable"},
        }
        for number, (question, gold) in enumerate(asked)
    ]
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return file


def citeqa(directory: Path, *arguments: str) -> subprocess.Popen[str]:
    """`citeqa` as a process of its own."""
    probe = "import sys; from program.cli import main; sys.argv[0] = 'citeqa'; main()"
    return subprocess.Popen(
        [sys.executable, "-c", probe, *arguments],
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )


def test_an_evaluation_prints_intervals_slices_and_where_everything_is(run: Run, questions: Path) -> None:
    run("index", "--corpus", "docs")
    process = citeqa(questions.parent, "eval", "--dataset", "quiz.jsonl", "-k", "2")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "INFO" not in err
    assert "6 questions, 5 answerable; reader extractive, k = 2; 6 answered now" in out
    assert "recall@2" in out
    assert "95 % interval" in out
    assert "unanswerable" in out
    assert "mlflow ui --backend-store-uri sqlite:///build/mlflow.db" in out
    assert not (questions.parent / "mlruns").exists()

    limited = run("eval", "--dataset", "quiz.jsonl", "-k", "2", "--limit", "5", "--json")
    assert limited.err == ""
    body = json.loads(limited.out)
    assert body["summary"]["overall"]["intervals"]["hit@2"]["mean"] == 1.0
    assert body["summary"]["overall"]["scored"] == 5
    assert body["failed"] == {}


def test_what_is_answered_is_scored_anew_without_asking(run: Run, questions: Path) -> None:
    run("index", "--corpus", "docs")
    command = ["eval", "--dataset", "quiz.jsonl"]
    assert "Run without --rescore." in run(*command, "--rescore").complaint
    run(*command)
    said = run(*command, "--rescore", "--set", "evaluation.ks=[2]")
    assert "0 answered now" in said.out
    assert "recall@2" in said.out


def test_a_broken_line_of_the_ground_truth_is_told_with_its_number(run: Run, questions: Path) -> None:
    run("index", "--corpus", "docs")
    lines = questions.read_text(encoding="utf-8").splitlines()
    questions.write_text("\n".join([*lines[:2], lines[2][:-1], *lines[3:]]), encoding="utf-8")
    assert run("eval", "--dataset", "quiz.jsonl").complaint.startswith("Error: quiz.jsonl:3: not valid JSON")


def test_a_disk_that_fills_during_an_evaluation_costs_nothing_that_is_done(
    run: Run, questions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("index", "--corpus", "docs")
    command = ["eval", "--dataset", "quiz.jsonl", "--set", "evaluation.threads=1"]
    really_open, opened = Path.open, 0

    def open_(path: Path, mode: str = "r", *args: object, **kwargs: object) -> object:
        nonlocal opened
        opened += path.name == "answers.jsonl"
        if opened > 3:
            raise OSError(28, "No space left on device")
        return really_open(path, mode, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", open_)
        complaint = run(*command).complaint
    assert "answers.jsonl' cannot be written: No space left on device." in complaint
    (answers,) = (questions.parent / "build/runs").glob("*/answers.jsonl")
    kept = answers.read_bytes().count(b"\n")
    assert kept == 3
    assert "3 answered now" in run(*command).out


def test_a_store_that_cannot_be_used_is_told_before_anything_is_asked(run: Run, questions: Path) -> None:
    run("index", "--corpus", "docs")
    complaint = run("eval", "--dataset", "quiz.jsonl", "--set", "tracking.uri=sqlite:///docs").complaint
    assert "The tracking store at 'sqlite:///docs' cannot be used: unable to open database file" in complaint
    assert not list((questions.parent / "build/runs").glob("*/answers.jsonl"))


def test_gold_that_names_an_unknown_document_is_refused_before_anything_is_asked(
    run: Run, questions: Path
) -> None:
    run("index", "--corpus", "docs")
    rows = questions.read_text(encoding="utf-8").replace("d.example/fuji", "d.example/kita")
    questions.write_text(rows, encoding="utf-8")
    complaint = run("eval", "--dataset", "quiz.jsonl").complaint
    assert "https://d.example/kita" in complaint
    assert not (questions.parent / "build/runs").exists()


def test_an_unknown_split_names_those_there_are(run: Run, questions: Path) -> None:
    run("index", "--corpus", "docs")
    assert "dev" in run("eval", "--dataset", "quiz.jsonl", "--split", "prod").complaint


def test_ctrl_c_keeps_what_is_answered_and_the_same_command_goes_on(run: Run, questions: Path) -> None:
    run("index", "--corpus", "docs")
    directory = questions.parent
    slow = directory / "slow.py"
    slow.write_text(
        "import sys, time\n"
        "from retrieval.local_index import LocalIndex\n"
        "search = LocalIndex.search\n"
        "def slowly(self, *args):\n"
        "    time.sleep(0.4)\n"
        "    return search(self, *args)\n"
        "LocalIndex.search = slowly\n"
        "from program.cli import main\n"
        "sys.argv[0] = 'citeqa'\n"
        "main()\n"
    )
    command = ["eval", "--dataset", "quiz.jsonl", "-k", "2", "--set", "evaluation.threads=1"]
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", str(slow), *command],
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    answers = wait_for_answers(directory / "build/runs", 2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2, err
    assert out == ""
    assert "Traceback" not in err
    assert "of 6 questions are answered and kept. The same command goes on from there." in err
    kept = answers.read_text(encoding="utf-8").splitlines()
    assert 2 <= len(kept) < 6

    resumed = run(*command)
    assert resumed.code == 0, resumed.err
    assert f"{6 - len(kept)} answered now" in resumed.out
    lines = answers.read_text(encoding="utf-8").splitlines()
    assert lines[: len(kept)] == kept
    assert len({json.loads(line)["id"] for line in lines}) == len(lines) == 6


def wait_for_answers(runs: Path, count: int) -> Path:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        for file in runs.glob("*/answers.jsonl"):
            if file.read_bytes().count(b"\n") >= count:
                return file
        time.sleep(0.05)
    raise AssertionError("no answers came")


# The sample


@pytest.fixture(scope="session")
def sample_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample documents, indexed."""
    from retrieval.corpus import read_documents

    path = tmp_path_factory.mktemp("sample") / "index"
    LocalIndex.build(path, read_documents(ROOT / "datasets/agent_docs/docs"))
    return path


@pytest.mark.parametrize(
    ("question", "doc_uri"),
    [
        ("Are API keys written when I save a DSPy program?", "https://dspy.ai/tutorials/saving/"),
        ("Direct Access インデックスで行を消すには？", "https://docs.databricks.com/aws/ja/"),
    ],
)
def test_the_sample_answers_in_both_languages(
    run: Run, sample_index: Path, question: str, doc_uri: str
) -> None:
    answer = json.loads(run("ask", question, "--json", "--set", f"retrieval.index={sample_index}").out)
    assert any(citation["url"].startswith(doc_uri) for citation in answer["citations"])


def test_an_index_of_documents_without_text_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    write(tmp_path / "docs/empty.md", "https://d.example/empty", "")
    assert "text to index" in run("index", "--corpus", "docs").complaint
