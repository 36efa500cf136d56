"""Programs as prompts in a real registry: they come back as they went, and a person can edit them there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient

from program.program_file import (
    FieldState,
    PredictorState,
    ProgramFile,
    SignatureState,
    read_program_file,
    write_program_file,
)
from program.program_sources import forget_located, locate_state
from program.prompt_registry import MAX_CHARACTERS, fetch_program, register_program
from program.prompt_template import parse_prompt, parse_yaml, render_prompt
from program.provenance import Provenance
from retrieval.errors import ProgramStateError, StorageError

FIELDS = (
    FieldState(name="passages", prefix="Passages:", description="numbered"),
    FieldState(name="answer", prefix="Answer:", description="${answer}"),
)
DEMO = {
    "augmented": True,
    "passages": "[1] 富士山 (https://d.example/fuji)\n高さは3776メートルです。\n\n[2] Mars: {{ not_a_variable }}",
    "question": "富士山の高さは？",
    "answerable": True,
    "answer": "3776メートルです [1]。",
}


def program(instructions: str = "Answer, and cite.", **provenance: Any) -> ProgramFile:
    signature = SignatureState(instructions=instructions, fields=FIELDS)
    condense = SignatureState(instructions="Make it stand alone.\n")
    return ProgramFile(
        predictors={
            "condense": PredictorState(signature=condense),
            "reader.answer": PredictorState(signature=signature, demos=(DEMO,)),
        },
        provenance=Provenance.model_validate(provenance),
    )


Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def save(saved: ProgramFile) -> Path:
        write_program_file(tmp_path / "p.json", saved)
        return tmp_path / "p.json"

    return save


@pytest.fixture(autouse=True)
def registry(trace_store: str) -> Iterator[str]:
    """The session's store, with what URIs mean in it asked anew."""
    forget_located()
    yield trace_store
    forget_located()


# Templates

odd = st.sampled_from(
    [
        "1e5",
        "true",
        "~",
        "2026-11-25",
        "0x1f",
        "1_000",
        "=",
        "<<",
        "\n\n",
        "\r\n",
        "- a: b",
        "\x85 ",
        "\u2028",
    ]
)
texts = st.text(st.characters(codec="utf-8"), max_size=30) | st.lists(odd, max_size=4).map("".join)
separators = st.just("Answer.\n\n---- Fields and demonstrations, as YAML ----\nfields: []\n")
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
predictors = st.builds(
    PredictorState,
    signature=st.builds(
        SignatureState,
        instructions=texts | separators,
        fields=st.none()
        | st.just(())
        | st.tuples(st.builds(FieldState, name=st.none() | texts, prefix=texts, description=texts)),
    ),
    demos=st.lists(
        st.dictionaries(texts.filter(lambda key: not key.startswith("__")), values, max_size=2), max_size=2
    ).map(tuple),
)


@given(predictors)
def test_a_template_gives_back_what_it_was_made_of(predictor: PredictorState) -> None:
    assert parse_prompt(render_prompt(predictor), "x") == predictor


def test_instructions_alone_are_the_template_and_a_template_by_hand_is_instructions() -> None:
    plain = PredictorState(signature=SignatureState(instructions="Answer in {{language}}.\n\n- Cite."))
    assert render_prompt(plain) == plain.signature.instructions
    assert parse_prompt("Typed\r\nin a browser.", "x").signature.instructions == "Typed\nin a browser."


def test_a_template_reads_as_text_with_whole_lines() -> None:
    template = render_prompt(program("Answer.\n\nRules:\n- Cite.").predictors["reader.answer"])
    assert template.startswith("Answer.\n\nRules:\n- Cite.\n\n---- Fields and demonstrations")
    assert "\n    高さは3776メートルです。\n\n    [2] Mars: {{ not_a_variable }}\n" in template


@pytest.mark.parametrize(
    ("below", "reason"),
    [
        ("demos: [", "its YAML cannot be read"),
        ("- a", "must be a mapping, not list"),
        ("demo: []", "'demo' is none of fields and demos"),
        ("demos: 7", "demos: input should be"),
        ("demos:\n- __class__: os.system", "'__class__' is no name of a field"),
        ("demos: !!python/object/apply:os.system ['touch ran']", "could not determine a constructor"),
        ("fields: &a [*a]", "aliases are not allowed"),
        ("demos: " + "[" * 50_000, "nested deeper than 64 levels"),
        ("demos: " + "[" * 100 + "]" * 100, "nested deeper than 64 levels"),
        ("demos:\n- score: .inf", "not finite"),
    ],
)
def test_what_somebody_wrote_below_the_line_is_data_or_refused(below: str, reason: str) -> None:
    separator = "\n\n---- Fields and demonstrations, as YAML ----\n"
    with pytest.raises(ProgramStateError, match=reason) as caught:
        parse_prompt(f"Answer.{separator}{below}", "The prompt at 'prompts:/x/1'")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("The prompt at 'prompts:/x/1': ")


def test_dates_and_yes_are_the_text_that_they_look_like() -> None:
    assert parse_yaml("day: 2026-11-25", "x") == {"day": "2026-11-25"}


# The registry


def test_a_program_comes_back_from_the_registry_as_it_went(save: Save, registry: str) -> None:
    saved = program(
        name="tutorial",
        optimizer={"name": "GEPA", "settings": {"auto": "light"}, "seed": 7},
        scores={"test": {"this": {"recall@5": [0.8, 0.7, 0.9, 60]}, "p": {"recall@5": 0.01}}},
    )
    registered = register_program(save(saved), "whole", alias="champion")
    assert registered.uri == "prompts:/whole/1"
    assert registered.prompts == {
        "condense": "prompts:/whole_condense/1",
        "reader.answer": "prompts:/whole_reader_answer/1",
    }
    for uri in ("prompts:/whole@champion", "prompts:/whole/1"):
        assert read_program_file(locate_state(uri, registry)) == saved
    assert fetch_program(MlflowClient(), "prompts:/whole/1") == saved


def test_others_find_the_prompts_by_the_same_alias_in_mlflow(save: Save) -> None:
    register_program(save(program("Answer in {{language}}.")), "shared", alias="champion")
    prompt = mlflow.genai.load_prompt("prompts:/shared_condense@champion")
    assert prompt.template == "Make it stand alone.\n"
    assert prompt.tags == {"citeqa_program": "shared"}
    overview = mlflow.genai.load_prompt("prompts:/shared@champion")
    assert "reader.answer: prompts:/shared_reader_answer/1" in overview.template


def test_registered_once_more_what_did_not_change_keeps_its_version(save: Save, registry: str) -> None:
    first = register_program(save(program()), "again", alias="champion")
    assert register_program(save(program()), "again") == first
    second = register_program(save(program("Answer in verse.")), "again", alias="challenger")
    assert second.uri == "prompts:/again/2"
    assert second.prompts == {
        "condense": "prompts:/again_condense/1",
        "reader.answer": "prompts:/again_reader_answer/2",
    }
    old, new = (
        read_program_file(locate_state(f"prompts:/again@{a}", registry)) for a in ("champion", "challenger")
    )
    assert old == program()
    assert new == program("Answer in verse.")


def test_an_alias_that_moves_is_seen_when_it_is_moved_here(save: Save, registry: str) -> None:
    register_program(save(program()), "moves", alias="champion")
    before = locate_state("prompts:/moves@champion", registry)
    register_program(save(program("Answer in verse.")), "moves", alias="champion")
    after = locate_state("prompts:/moves@champion", registry)
    assert before != after
    assert read_program_file(before) == program()
    assert read_program_file(after) == program("Answer in verse.")


def test_a_person_edits_a_prompt_in_mlflow_and_names_the_new_version(save: Save, registry: str) -> None:
    register_program(save(program()), "edited", alias="champion")
    old = mlflow.genai.load_prompt("prompts:/edited_reader_answer/1").template
    mlflow.genai.register_prompt("edited_reader_answer", old.replace("Answer, and cite.", "Answer in prose."))
    overview = mlflow.genai.load_prompt("prompts:/edited/1").template
    changed = overview.replace("edited_reader_answer/1", "edited_reader_answer/2")
    mlflow.genai.register_prompt("edited", changed)
    assert read_program_file(locate_state("prompts:/edited/2", registry)) == program("Answer in prose.")
    assert read_program_file(locate_state("prompts:/edited/1", registry)) == program()


@pytest.fixture(scope="module")
def lost(trace_store: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A program, a prompt that is a chat, and a program of which a prompt is missing."""
    file = tmp_path_factory.mktemp("lost") / "p.json"
    write_program_file(file, program())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", trace_store)
        register_program(file, "lost", alias="champion")
        mlflow.genai.register_prompt("chat", [{"role": "system", "content": "Answer."}])
        mlflow.genai.register_prompt("torn", "predictors:\n  answer: prompts:/torn_answer/1\n")


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("prompts:/lost@champoin", "'lost' has no alias 'champoin'; did you mean 'champion'?"),
        ("prompts:/lost@other", "'lost' has no alias 'other'; it has champion."),
        ("prompts:/losst@champion", "there is no prompt 'losst'; did you mean 'lost'?"),
        ("prompts:/lost/7", "'lost' has no version 7; its latest is 1."),
        (
            "prompts:/lost_condense/1",
            "is no program of citeqa: .* Did you mean the program it is of, prompts:/lost?",
        ),
        ("prompts:/chat/1", "is no program of citeqa: The prompt at 'prompts:/chat/1' is a chat"),
        ("prompts:/torn/1", "No prompt at 'prompts:/torn_answer/1': there is no prompt 'torn_answer'"),
        ("prompts:/lost", "'prompts:/lost' names no program. Write it as prompts:/<name>/<version> or"),
    ],
)
def test_what_is_not_in_the_registry_is_told_with_the_nearest_that_is(
    lost: None, registry: str, uri: str, reason: str
) -> None:
    pattern = reason.replace("?", r"\?").replace("(", r"\(")
    with pytest.raises(ProgramStateError, match=pattern) as caught:
        locate_state(uri, registry)
    assert "\n" not in str(caught.value)


def test_a_program_that_the_registry_cannot_take_is_refused_and_nothing_is_registered(save: Save) -> None:
    with pytest.raises(
        ProgramStateError, match=f"'big_reader_answer' would have .* takes {MAX_CHARACTERS:,}"
    ):
        register_program(save(program("x" * MAX_CHARACTERS)), "big")
    MlflowClient().create_registered_model("taken")
    with pytest.raises(ProgramStateError, match=r"'taken' is a registered model.*such as taken_prompts"):
        register_program(save(program()), "taken")
    with pytest.raises(StorageError, match="Prompt name can only contain"):
        register_program(save(program()), "no such name")
    with pytest.raises(StorageError, match="Invalid alias name"):
        register_program(save(program()), "fine", alias="not an alias")
    names = {prompt.name for prompt in MlflowClient().search_prompts()}
    assert not names & {"big", "big_condense", "big_reader_answer", "taken_condense", "no such name"}
