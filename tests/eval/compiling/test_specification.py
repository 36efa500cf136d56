"""What a compile file may say, and what is said of one that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval.compiling.specification import model_settings, parse_specification, read_specification
from program.settings import LanguageModelSettings
from retrieval.errors import ConfigurationError

ROOT = Path(__file__).parents[3]
LEAST = {"optimizer": "LabeledFewShot"}


def test_the_example_is_valid() -> None:
    specification = read_specification(ROOT / "configs/compile.yaml")
    assert (specification.train, specification.dev, specification.test) == ("train", "dev", "test")
    assert set(specification.mix.weights) == {"fact_recall", "citation_precision", "abstention_accuracy"}


def test_the_better_program_goes_where_its_name_says_unless_told_otherwise() -> None:
    assert parse_specification({**LEAST, "name": "docs"}, "c.yaml").output_file == Path(
        "build/programs/docs.json"
    )
    assert parse_specification({**LEAST, "output": "x/y.json"}, "c.yaml").output_file == Path("x/y.json")


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({}, "c.yaml: optimizer is missing."),
        ({**LEAST, "optimiser": "x"}, "c.yaml: unknown key 'optimiser'. Did you mean 'optimizer'?"),
        ({**LEAST, "limits": {"dollars": 3}}, "unknown key 'limits.dollars'"),
        ({**LEAST, "limits": {"usd": -1}}, "limits.usd: "),
        ({**LEAST, "metric": {"fact_recal": 1}}, "Did you mean 'fact_recall'"),
        ({**LEAST, "metric": {"latency_ms": 1}}, "less is better"),
        ({**LEAST, "name": "a/b"}, "name: "),
    ],
)
def test_a_mistake_is_named_with_its_key(raw: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        parse_specification(raw, "c.yaml")
    assert said in str(error.value)


def test_a_file_that_is_not_there_or_no_yaml_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"No compile file at .*none\.yaml"):
        read_specification(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("optimizer: [")
    with pytest.raises(ConfigurationError, match=r"bad\.yaml, line \d+: not valid YAML"):
        read_specification(tmp_path / "bad.yaml")


def test_another_model_is_as_the_answering_one_but_for_what_is_said() -> None:
    base = LanguageModelSettings(model="openai/small", api_base="http://127.0.0.1:1/v1", num_retries=0)
    other = model_settings(base, {"model": "openai/large"}, "prompt_model")
    assert (other.model, other.api_base, other.num_retries) == ("openai/large", base.api_base, 0)
    assert model_settings(base, None, "prompt_model") is base
    with pytest.raises(
        ConfigurationError, match=r"prompt_model: unknown key 'temprature'\. Did you mean 'temperature'"
    ):
        model_settings(base, {"temprature": 1}, "prompt_model")
