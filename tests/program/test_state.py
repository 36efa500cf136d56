"""Compiled programs on disk: JSON that comes back as it went, and nothing else is let in."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import dspy
import pytest
from hypothesis import given
from hypothesis import strategies as st

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


def body(**changes: Any) -> bytes:
    entire = {"format": FORMAT, "version": VERSION, "provenance": {}, "predictors": {}, **changes}
    return json.dumps(entire).encode()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "not readable JSON"),
        (b"\xff\xfe", "not readable JSON"),
        (pickle.dumps({"format": FORMAT}), "not readable JSON"),
        (b"[1]", "not a citeqa program file"),
        (b'{"metadata": {}, "answer": {}}', "not a citeqa program file"),
        (body(format="other"), "not a citeqa program file"),
        (body(predictors=[]), "predictors: input should be a valid dictionary"),
        (body(extra=1), "extra: extra inputs"),
        (body(version=VERSION + 1), f"version {VERSION + 1}; this citeqa reads version {VERSION}"),
        (body(version=None), "version None"),
        (body(predictors={"condense": 1}), "predictors.condense: input should be"),
        (body(predictors={"condense": {"signature": [], "demos": []}}), "predictors.condense.signature: "),
        (
            body(predictors={"generate": {"signature": {"instructions": "", "fields": []}, "demos": []}}),
            r"predictors \['generate'\], this program has \['condense', 'reader.answer'\]",
        ),
    ],
)
def test_a_file_that_is_no_state_of_this_program_is_refused_with_what_differs(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    (tmp_path / "p.json").write_bytes(content)
    with pytest.raises(ProgramStateError, match=reason) as caught:
        load_state(program(), tmp_path / "p.json")
    assert str(tmp_path / "p.json") in str(caught.value)


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
    with pytest.raises(ProgramStateError, match=r"'reader.answer' has 2 fields, this program's 4"):
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
