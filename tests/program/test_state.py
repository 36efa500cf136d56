"""A program and its file: what it asks comes back as it went, and into a program of another shape it does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dspy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from program.extractive import ExtractiveReader
from program.qa import CitedQA
from program.readers import LMReader
from program.state import FORMAT, VERSION, load_state, save_state
from retrieval.errors import ProgramStateError


class Nowhere:
    def search(self, query: str, k: int, filters: Any = None) -> list[Any]:
        return []


def program(lm: dspy.LM | None = None) -> CitedQA:
    return CitedQA(Nowhere(), LMReader(lm), condense_with=lm or dspy.LM("openai/other"))


@pytest.fixture
def lm(make_settings: Any, language_model: Any) -> dspy.LM:
    from program.language_models import build_lm

    built: dspy.LM = build_lm(make_settings(language_model).language_model)
    return built


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("states") / "program.json"


texts = st.text(st.characters(codec="utf-8"), max_size=40)
demos = st.fixed_dictionaries(
    {"passages": texts, "question": texts, "answerable": st.booleans(), "answer": texts}
)


@given(
    texts, st.lists(demos, max_size=3), st.dictionaries(texts, st.none() | st.integers() | texts, max_size=3)
)
def test_prompts_and_demonstrations_come_back_as_they_went(
    file: Path, instructions: str, demonstrations: list[dict[str, Any]], provenance: dict[str, Any]
) -> None:
    saved = program()
    saved.reader.answer.signature = saved.reader.answer.signature.with_instructions(instructions)  # type: ignore[attr-defined]
    saved.reader.answer.demos = [dspy.Example(**demo) for demo in demonstrations]  # type: ignore[attr-defined]
    save_state(saved, file, provenance)

    loaded = program()
    assert load_state(loaded, file) == provenance
    answer = loaded.reader.answer  # type: ignore[attr-defined]
    assert answer.signature.instructions == saved.reader.answer.signature.instructions  # type: ignore[attr-defined]
    assert [dict(demo) for demo in answer.demos] == demonstrations


def test_the_file_holds_no_language_model_and_no_key(lm: dspy.LM, tmp_path: Path) -> None:
    save_state(program(lm), tmp_path / "p.json")
    text = (tmp_path / "p.json").read_text(encoding="utf-8")
    assert not any(secret in text for secret in ("sk-canary", "127.0.0.1", "openai", '"lm"'))
    assert sorted(json.loads(text)["predictors"]) == ["condense", "reader.answer"]


def test_saving_and_loading_leave_the_language_model_where_it_was(lm: dspy.LM, tmp_path: Path) -> None:
    ours = program(lm)
    save_state(ours, tmp_path / "p.json")
    load_state(ours, tmp_path / "p.json")
    assert [predictor.lm is lm for _, predictor in ours.named_predictors()] == [True, True]


def test_a_program_can_be_copied_as_optimizers_do(lm: dspy.LM, caplog: pytest.LogCaptureFixture) -> None:
    original = program(lm)
    copied = original.deepcopy()
    copied.reader.answer.demos = [dspy.Example(question="q")]
    assert original.reader.answer.demos == []  # type: ignore[attr-defined]
    assert copied.reader.answer.lm.model == "openai/test"
    assert original.reset_copy().reader.answer.lm is None
    assert not caplog.records


def save_with(path: Path, change: Any) -> None:
    """A file of the program, its body changed."""
    save_state(program(), path)
    body = json.loads(path.read_text(encoding="utf-8"))
    change(body)
    path.write_text(json.dumps(body), encoding="utf-8")


@pytest.mark.parametrize(
    ("predictors", "settings", "advice"),
    [
        (
            {"generate"},
            {},
            r"predictors \['generate'\], this program has \['condense', 'reader.answer'\]. Use it with",
        ),
        ({"condense", "reader.answer", "rewrite"}, {}, "Set program.rewrite_query to true"),
        ({"condense", "reader.answer"}, {"rewrites": True}, "Set program.rewrite_query to false, or compile"),
        ({"condense", "reader.answer"}, {"reads": False}, "set language_model.model, and reader.kind"),
    ],
)
def test_a_file_of_other_predictors_says_which_setting_makes_it_fit(
    tmp_path: Path, predictors: set[str], settings: dict[str, bool], advice: str
) -> None:
    def only(body: Any) -> None:
        some = body["predictors"]["condense"]
        body["predictors"] = dict.fromkeys(predictors, some)

    save_with(tmp_path / "p.json", only)
    lm = dspy.LM("openai/other")
    ours = (
        CitedQA(
            Nowhere(), LMReader(), condense_with=lm, rewrite_with=lm if settings.get("rewrites") else None
        )
        if settings.get("reads", True)
        else CitedQA(Nowhere(), ExtractiveReader())
    )
    with pytest.raises(ProgramStateError, match=advice):
        load_state(ours, tmp_path / "p.json")


def test_fields_are_told_apart_by_name_and_what_optimizers_change_of_them_is_taken(tmp_path: Path) -> None:
    def reword(body: Any) -> None:
        fields = body["predictors"]["reader.answer"]["signature"]["fields"]
        fields[-1]["prefix"] = "Answer, with citations:"
        fields.reverse()

    save_with(tmp_path / "p.json", reword)
    ours = program()
    load_state(ours, tmp_path / "p.json")
    fields = ours.reader.answer.signature.fields  # type: ignore[attr-defined]
    assert list(fields) == ["passages", "question", "answerable", "answer"]
    assert fields["answer"].json_schema_extra["prefix"] == "Answer, with citations:"
    assert fields["passages"].json_schema_extra["prefix"] == "Passages:"


def test_a_file_by_hand_may_leave_out_fields_demonstrations_and_provenance(tmp_path: Path) -> None:
    body = {
        "format": FORMAT,
        "version": VERSION,
        "predictors": {
            "condense": {"signature": {"instructions": "Make it stand alone."}},
            "reader.answer": {"signature": {"instructions": "Answer in verse."}},
        },
    }
    (tmp_path / "p.json").write_text(json.dumps(body), encoding="utf-8")
    ours = program()
    before = ours.reader.answer.signature.fields  # type: ignore[attr-defined]
    assert load_state(ours, tmp_path / "p.json") == {}
    answer = ours.reader.answer  # type: ignore[attr-defined]
    assert answer.signature.instructions == "Answer in verse."
    assert list(answer.signature.fields) == list(before)
    assert answer.demos == []


def test_a_file_of_version_1_is_read(tmp_path: Path) -> None:
    def older(body: Any) -> None:
        body["version"] = 1
        body["provenance"] = {"scores": "0.9", "by": "hand"}
        for predictor in body["predictors"].values():
            for field in predictor["signature"]["fields"]:
                del field["name"]

    save_with(tmp_path / "p.json", older)
    assert load_state(program(), tmp_path / "p.json") == {"version_1": {"scores": "0.9", "by": "hand"}}


def test_a_file_of_version_1_with_other_fields_is_refused(tmp_path: Path) -> None:
    def older(body: Any) -> None:
        body["version"] = 1
        del body["predictors"]["reader.answer"]["signature"]["fields"][0]
        for field in body["predictors"]["reader.answer"]["signature"]["fields"]:
            del field["name"]

    save_with(tmp_path / "p.json", older)
    with pytest.raises(
        ProgramStateError, match=r"has 3 fields \(Question, Answerable, Answer\), this program's 4"
    ):
        load_state(program(), tmp_path / "p.json")


def test_a_demonstration_that_json_does_not_hold_is_told(tmp_path: Path) -> None:
    ours = program()
    ours.reader.answer.demos = [dspy.Example(question="q", answer=object())]  # type: ignore[attr-defined]
    with pytest.raises(ProgramStateError, match="a demonstration holds what JSON does not"):
        save_state(ours, tmp_path / "p.json")
    ours.reader.answer.demos = [dspy.Example(question="q", answer=float("nan"))]  # type: ignore[attr-defined]
    with pytest.raises(ProgramStateError, match="not finite"):
        save_state(ours, tmp_path / "p.json")
    assert list(tmp_path.iterdir()) == []


def test_half_an_emoji_in_a_demonstration_is_written_as_every_tool_can_read_it(tmp_path: Path) -> None:
    ours = program()
    ours.reader.answer.demos = [dspy.Example(question="half \ud83d", answer="日本語")]  # type: ignore[attr-defined]
    save_state(ours, tmp_path / "p.json")
    assert '"question": "half \ufffd"' in (tmp_path / "p.json").read_text(encoding="utf-8")
    assert "日本語" in (tmp_path / "p.json").read_text(encoding="utf-8")


def test_a_state_with_other_fields_is_refused_and_nothing_is_loaded(tmp_path: Path) -> None:
    class Other(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.condense = dspy.Predict("conversation, question -> standalone_question")
            self.reader = dspy.Module()
            self.reader.answer = dspy.Predict("question -> answer")

    save_state(Other(), tmp_path / "p.json")
    ours = program()
    before = ours.condense.signature  # type: ignore[union-attr]
    with pytest.raises(ProgramStateError, match=r"'reader.answer' lacks the fields 'passages', 'answerable'"):
        load_state(ours, tmp_path / "p.json")
    assert ours.condense.signature is before  # type: ignore[union-attr]


def test_a_state_that_is_broken_inside_is_refused(tmp_path: Path) -> None:
    save_state(program(), tmp_path / "p.json")
    entire = json.loads((tmp_path / "p.json").read_text(encoding="utf-8"))
    del entire["predictors"]["reader.answer"]["signature"]["instructions"]
    (tmp_path / "p.json").write_text(json.dumps(entire), encoding="utf-8")
    with pytest.raises(ProgramStateError, match=r"reader\.answer\.signature\.instructions: field required"):
        load_state(program(), tmp_path / "p.json")


def test_a_missing_file_and_a_place_that_cannot_be_written_are_told(tmp_path: Path) -> None:
    with pytest.raises(ProgramStateError, match="No program file"):
        load_state(program(), tmp_path / "p.json")
    with pytest.raises(ProgramStateError, match="cannot be written: No such file"):
        save_state(program(), tmp_path / "nowhere" / "p.json")
