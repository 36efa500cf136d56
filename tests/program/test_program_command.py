"""`citeqa program` as a person, or a reviewer of a pull request, meets it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import pytest
from mlflow.tracking import fluent
from mlflow.tracking._tracking_service import utils as tracking_service

from program.assembly import program_as_written
from program.cli import main
from program.program_diff import diff_programs, render_markdown
from program.program_file import PredictorState, ProgramFile, SignatureState
from program.program_sources import forget_located
from program.state import save_state
from program.text_layout import columns, paragraphs, visible, wrap

Call = Callable[..., "Said"]

PROVENANCE = {
    "name": "tutorial",
    "created": "2026-11-25T10:00:00Z",
    "optimizer": {"name": "MIPROv2", "settings": {"auto": "light"}, "seed": 7},
    "models": {"task": "openai/small", "prompt": "openai/large"},
    "dataset": {"digest": "ab12", "splits": {"train": 40, "dev": 30, "test": 60}},
    "metric": {"recall@5": 0.5, "usd": -0.1},
    "scores": {
        "test": {
            "seed": {"recall@5": [0.70, 0.62, 0.78, 60]},
            "this": {"recall@5": [0.79, 0.70, 0.87, 60]},
            "difference": {"recall@5": [0.09, 0.02, 0.15, 60]},
            "p": {"recall@5": 0.012},
        }
    },
}
PASSAGES = "[1] 富士山 (https://d.example/fuji)\n" + "富士山の高さは3776メートルです。" * 20


class Said:
    """What one call of the command said, and how it ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """Calls `citeqa program` in this process, in a terminal of 80 columns; MLflow is then as it was found."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_ID")
    monkeypatch.setattr(tracking_service, "_tracking_uri", None)
    monkeypatch.setattr(fluent, "_active_experiment_id", None)
    forget_located()

    def call(*arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["citeqa", "program", *arguments])
        capfd.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        return Said(code, *capfd.readouterr())

    return call


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """The program as it is written, without what settings add, and one that was compiled."""
    program = program_as_written()
    program.rewrite = None
    del program.decide
    save_state(program, tmp_path / "seed.json")
    answer = program.reader.answer  # type: ignore[attr-defined]
    said = answer.signature.instructions.replace("briefly and\ndirectly", "in two sentences")
    answer.signature = answer.signature.with_instructions(f"{said}\n\n- 必ず出典を示してください。")
    answer.demos = [
        dspy.Example(passages=PASSAGES, question="富士山の高さは？", answerable=True, answer="3776 | m [1]。")
    ]
    save_state(program, tmp_path / "compiled.json", PROVENANCE)
    return "seed.json", "compiled.json"


def test_show_tells_where_it_is_from_its_scores_and_its_prompts(call: Call, files: tuple[str, str]) -> None:
    said = call("show", files[1])
    assert (said.code, said.err) == (0, "")
    for line in (
        "optimizer  MIPROv2",
        "models     task openai/small, prompt openai/large",
        "questions  train 40, dev 30, test 60",
        "metric     0.5 recall@5 − 0.1 usd",
        "test                      seed          this program            difference      p   n",
        "recall@5  0.700 [0.620, 0.780]  0.790 [0.700, 0.870]  0.090 [0.020, 0.150]  0.012  60",
        "── reader.answer",
        "  - 必ず出典を示してください。",
        "  1 demonstration:",
        "     question: 富士山の高さは？",
        "  No demonstrations.",
    ):
        assert line in said.out.splitlines(), line
    prompts = said.out[said.out.index("──") :]
    assert max(columns(line) for line in prompts.splitlines() if "passages" not in line) <= 80
    assert PASSAGES not in said.out.replace("\n", "")


def test_show_full_shows_demonstrations_whole(call: Call, files: tuple[str, str]) -> None:
    text = call("show", files[1], "--full").out
    assert "".join(PASSAGES.split()) in "".join(text.split())
    assert max(columns(line) for line in text[text.index("──") :].splitlines()) <= 80


def test_show_for_a_machine_is_the_file(call: Call, files: tuple[str, str], tmp_path: Path) -> None:
    said = call("show", files[1], "--json")
    assert json.loads(said.out) == json.loads((tmp_path / files[1]).read_text(encoding="utf-8"))


def test_diff_shows_sentences_and_demonstrations_that_changed(call: Call, files: tuple[str, str]) -> None:
    said = call("diff", *files)
    assert (said.code, said.err) == (1, "")
    lines = said.out.splitlines()
    assert "── reader.answer: other instructions and demonstrations (0 → 1)" in lines
    assert "  -Answer in the language of the question, briefly and directly." in lines
    assert "  +Answer in the language of the question, in two sentences." in lines
    assert "  +- 必ず出典を示してください。" in lines
    assert "  + 富士山の高さは？ → 3776 | m [1]。" in lines
    assert "── condense: the same" in lines
    assert sum(line.startswith(("  +", "  -")) for line in lines) == 4


def test_diff_from_the_seed_has_the_scores_that_were_noted_of_it(call: Call, files: tuple[str, str]) -> None:
    said = call("diff", "seed", files[1])
    assert said.code == 1
    scores = "0.790 [0.700, 0.870]; against its seed +0.090 [+0.020, +0.150], p 0.012"
    assert f"recall@5 (test)  0.700 [0.620, 0.780]  {scores}" in said.out.splitlines()
    assert "rewrite" not in said.out


def test_programs_that_ask_the_same_are_the_same_whatever_is_noted_of_them(
    call: Call, files: tuple[str, str], tmp_path: Path
) -> None:
    assert call("diff", "seed", files[0]).code == 0
    body = json.loads((tmp_path / files[1]).read_text())
    body["provenance"] = {"name": "other"}
    (tmp_path / "other.json").write_text(json.dumps(body))
    said = call("diff", files[1], "other.json")
    assert said.code == 0
    assert said.out.endswith("Both ask a language model the same.\n")
    assert "name        tutorial" in said.out


def test_diff_for_a_pull_request_is_markdown_that_nothing_inside_can_leave(
    call: Call, files: tuple[str, str]
) -> None:
    said = call("diff", "seed", files[1], "--markdown")
    assert said.code == 1
    assert said.out.startswith("### Program: seed → compiled.json\n")
    assert "| recall\\@5 (test) | 0.700 \\[0.620, 0.780\\] |" in said.out
    assert "```diff\n " in said.out
    assert "<details><summary>Demonstrations: 0 → 1</summary>\n\n```diff\n+ 富士山" in said.out

    hostile = "Answer.\n```\n# Approved by @owner <img src=x> \u202e\x1b[2J"
    evil = ProgramFile(predictors={"a|b <b>": PredictorState(signature=SignatureState(instructions=hostile))})
    text = render_markdown(diff_programs(ProgramFile(predictors={}), evil, "`x`", "<!--"))
    assert "\n````diff\n" in text
    assert text.count("\n````") == 2
    assert "**a\\|b \\<b\\>**" in text
    assert text.startswith("### Program: \\`x\\` → \\<!--\n")
    assert "\\u202e\\u001b[2J" in text
    assert not {"\u202e", "\x1b"} & set(text)


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        ("Answer.", "Answer.\n", ["(They differ in spaces and line breaks alone.)"]),
        (
            "One. Two. Three. Four.",
            "One. Two. Three. Five.",
            [" Two.", " Three.", "-Four.", "+Five."],
        ),
        (
            "答えます。引用します。",
            "答えます。引用しません。",
            [" 答えます。", "-引用します。", "+引用しません。"],
        ),
    ],
)
def test_instructions_are_compared_by_the_sentence(before: str, after: str, shown: list[str]) -> None:
    a, b = (
        ProgramFile(predictors={"answer": PredictorState(signature=SignatureState(instructions=text))})
        for text in (before, after)
    )
    (difference,) = diff_programs(a, b).predictors
    assert list(difference.instructions) == shown


def test_demonstrations_in_another_order_are_another_prompt() -> None:
    demos: list[dict[str, Any]] = [{"question": "a"}, {"question": "b"}]
    a, b = (
        ProgramFile(
            predictors={
                "answer": PredictorState(signature=SignatureState(instructions="x"), demos=tuple(order))
            }
        )
        for order in (demos, demos[::-1])
    )
    difference = diff_programs(a, b)
    assert not difference.same
    assert list(difference.predictors[0].demos) == [
        "(The same demonstrations in another order, or another number of times.)"
    ]


def test_a_program_is_registered_and_named_from_then_on_by_its_alias(
    call: Call, files: tuple[str, str], trace_store: str
) -> None:
    store = f"tracking.uri={trace_store}"
    said = call("register", files[1], "told", "--alias", "champion", "--set", store)
    assert said.code == 0, said.err
    assert said.out.splitlines() == [
        "reader.answer: prompts:/told_reader_answer/1",
        "condense: prompts:/told_condense/1",
        "program: prompts:/told/1",
        "Use it: --set program.states.default=prompts:/told@champion",
    ]
    assert call("diff", files[1], "prompts:/told@champion", "--set", store).code == 0
    assert (
        json.loads(call("show", "prompts:/told/1", "--json", "--set", store).out)["provenance"] == PROVENANCE
    )


def test_what_cannot_be_told_ends_with_2_and_one_line(call: Call, files: tuple[str, str]) -> None:
    for arguments in (
        ("show", "nowhere.json"),
        ("diff", files[0], "nowhere.json"),
        ("diff", "seed", "prompts:/qa@champion"),
        ("register", "nowhere.json", "qa"),
    ):
        said = call(*arguments)
        assert (said.code, said.out) == (2, ""), arguments
        assert said.err.count("\n") == 1


def test_a_program_is_shown_without_the_libraries_that_are_slow_to_import(
    files: tuple[str, str], tmp_path: Path
) -> None:
    probe = (
        "import sys; sys.argv = ['citeqa', 'program', 'diff', 'seed.json', 'compiled.json']\n"
        "from program.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(sorted({'mlflow', 'dspy', 'pandas', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.endswith("[]\n")


def test_lines_broken_at_a_width_are_whole_again_and_lists_stay_lists() -> None:
    long = "a" * 30 + " " + "b" * 40
    text = f"{long}\ngoes on.\n\n- one\n- two\nnext\n{'あ' * 40}\nいう"
    assert list(paragraphs(text)) == [f"{long} goes on.", "", "- one", "- two", "next", f"{'あ' * 40}いう"]
    wrapped = wrap("富士山の高さは3776メートルです。", 12, "  ")
    assert wrapped == "  富士山の高\n  さは3776\n  メートルで\n  す。"
    assert visible("a\x1b[2Jb\r\nc\u200b") == "a\\u001b[2Jb\nc\\u200b"
