"""One configuration from many sources; what is wrong is told with its source, key and value."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from program.settings import Settings, chunking_settings, load_settings, validate_settings
from retrieval.errors import ConfigurationError


def load(tmp_path: Path, text: str = "", overrides: tuple[str, ...] = (), **environment: str) -> Settings:
    (tmp_path / "a.yaml").write_text(text, encoding="utf-8")
    return load_settings(tmp_path / "a.yaml", overrides, environment)


def refusal(tmp_path: Path, text: str = "", overrides: tuple[str, ...] = (), **environment: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, text, overrides, **environment)
    return str(caught.value)


def test_with_nothing_said_a_laptop_answers_without_a_model() -> None:
    settings = load_settings(environment={})
    assert settings == Settings()
    assert settings.retrieval.k == 5
    assert not settings.answers_with_lm


def test_the_configuration_of_the_working_directory_is_read_unasked(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/agent.yaml").write_text("retrieval: {k: 9}")
    assert load_settings(environment={}).retrieval.k == 9


def test_what_is_said_later_wins_key_by_key(tmp_path: Path) -> None:
    text = "retrieval: {k: 2, index: from-file}\nreader: {max_sentences: 4}"
    settings = load(
        tmp_path, text, ("retrieval.k=4",), CITEQA_RETRIEVAL__K="3", CITEQA_RETRIEVAL__INDEX="env"
    )
    assert (settings.retrieval.k, settings.retrieval.index, settings.reader.max_sentences) == (4, "env", 4)
    assert load(tmp_path, text, CITEQA_RETRIEVAL__K="3").retrieval.k == 3
    assert load(tmp_path, text, ("retrieval.k=6", "retrieval.k=7")).retrieval.k == 7


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("retrieval.filters.lang=ja", "retrieval", "filters", {"lang": "ja"}),
        ("evaluation.ks=[1, 20]", "evaluation", "ks", (1, 20)),
        ("language_model.cache=false", "language_model", "cache", False),
        ("language_model.model=openai/gpt:x=y", "language_model", "model", "openai/gpt:x=y"),
        ("evaluation.split=null", "evaluation", "split", None),
        (" reader.kind = extractive", "reader", "kind", "extractive"),
        ("corpus.path='a: b'", "corpus", "path", "a: b"),
        ("corpus.path=a: b: [", "corpus", "path", "a: b: ["),
    ],
)
def test_overrides_are_yaml_values(
    tmp_path: Path, override: str, section: str, key: str, value: object
) -> None:
    assert getattr(getattr(load(tmp_path, overrides=(override,)), section), key) == value


@pytest.mark.parametrize("variable", ["CITEQA_HOME", "CITEQA", "OTHER_RETRIEVAL__K"])
def test_other_environment_variables_are_not_ours(tmp_path: Path, variable: str) -> None:
    assert load(tmp_path, **{variable: "7"}) == Settings()


@pytest.mark.parametrize("text", ["", "\n# nothing said\n", "retrieval:\n"])
def test_a_file_may_say_nothing(tmp_path: Path, text: str) -> None:
    assert load(tmp_path, text) == Settings()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("retrieval: {top_k: 3}", "unknown setting 'retrieval.top_k'; retrieval has: index, k, filters"),
        ("retrieval: {idnex: x}", "unknown setting 'retrieval.idnex'; did you mean 'retrieval.index'?"),
        ("retreival: {k: 3}", "unknown setting 'retreival'; did you mean 'retrieval'?"),
        ("evaluation: {uris: {strip_fragments: true}}", "did you mean 'evaluation.uris.strip_fragment'?"),
        ("x: 1", "unknown setting 'x'; there has: corpus, chunking"),
        ("retrieval: {k: many}", "retrieval.k = 'many': input should be a valid integer"),
        ("retrieval: {k: 0}", "retrieval.k = 0: input should be greater than or equal to 1"),
        ("retrieval: 5", "retrieval = 5: "),
        ("reader: {kind: llm}", "reader.kind = 'llm': input should be 'auto', 'lm' or 'extractive'"),
        ("evaluation: {ks: [1, two]}", "evaluation.ks.1 = 'two': "),
    ],
)
def test_a_wrong_setting_is_named_with_its_file_key_and_value(tmp_path: Path, text: str, told: str) -> None:
    message = refusal(tmp_path, text)
    assert message.startswith(f"{tmp_path}/a.yaml: ")
    assert told in message
    assert "\n" not in message


def test_the_source_of_a_wrong_setting_is_the_one_that_said_it_last(tmp_path: Path) -> None:
    assert refusal(tmp_path, "retrieval: {k: 1}", ("retrieval.k=no",)).startswith("--set retrieval.k=no: ")
    assert refusal(tmp_path, CITEQA_RETRIEVAL__K="many").startswith(
        "environment variable CITEQA_RETRIEVAL__K: "
    )
    assert refusal(tmp_path, CITEQA_RETRIEVAL__KK="1").startswith(
        "environment variable CITEQA_RETRIEVAL__KK: unknown"
    )


def test_every_wrong_setting_is_told_on_a_line_of_its_own(tmp_path: Path) -> None:
    assert len(refusal(tmp_path, "retrieval: {k: 0, kk: 1}\nreader: {kind: x}").splitlines()) == 3


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: 1\nb: [1\nc: 2", "a.yaml, line 3: not valid YAML"),
        ("a:\n\t- 1", "a.yaml, line 2: not valid YAML"),
        ("- 1", "a.yaml: must hold sections"),
        ("just text", "a.yaml: must hold sections"),
        ("a: \x00", "not valid YAML"),
    ],
)
def test_broken_yaml_is_told_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    message = refusal(tmp_path, text)
    assert told in message
    assert "\n" not in message


def test_a_file_that_is_missing_or_no_text_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"No configuration file at '.*b.yaml'"):
        load_settings(tmp_path / "b.yaml", environment={})
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_settings(tmp_path / "a.yaml", environment={})


@pytest.mark.parametrize("override", ["retrieval.k", "=3", "k"])
def test_a_malformed_override_shows_how_it_is_written(tmp_path: Path, override: str) -> None:
    assert "write it as section.key=value" in refusal(tmp_path, overrides=(override,))


def test_an_environment_variable_that_is_no_yaml_is_a_text(tmp_path: Path) -> None:
    assert load(tmp_path, CITEQA_CORPUS__PATH="a: [b").corpus.path == "a: [b"
    assert load(tmp_path, CITEQA_CORPUS__PATH="x").corpus.path == "x"


def test_an_overlap_that_does_not_fit_is_told_where_it_is_used(tmp_path: Path) -> None:
    settings = load(tmp_path, "chunking: {max_tokens: 20, overlap_tokens: 20}")
    with pytest.raises(ConfigurationError, match=r"^chunking: overlap_tokens"):
        chunking_settings(settings)


@pytest.mark.parametrize(
    ("kind", "model", "with_lm"),
    [
        ("auto", None, False),
        ("auto", "openai/x", True),
        ("lm", None, True),
        ("extractive", "openai/x", False),
    ],
)
def test_a_named_model_answers_unless_told_otherwise(kind: str, model: str | None, with_lm: bool) -> None:
    values = {"reader": {"kind": kind}, "language_model": {"model": model}}
    assert validate_settings([("t", values)]).answers_with_lm == with_lm


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().retrieval.k = 3  # type: ignore[misc]


def test_settings_are_the_same_by_default_and_when_they_are_written_and_read_again() -> None:
    settings = Settings()
    again = Settings.model_validate_json(settings.model_dump_json())
    assert json.dumps(settings.model_dump(mode="json")) == json.dumps(again.model_dump(mode="json"))
    assert repr(settings) == repr(again)
