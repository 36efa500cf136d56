"""Calibration: fitted to labels, measured on questions it was not fitted to, kept as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.calibrating import abstention_area, area_under_roc, calibrate_to
from program.assembly import extractive_reader
from program.calibration import Calibration
from program.settings import Settings, validate_settings
from retrieval.errors import ConfigurationError, GroundTruthError
from retrieval.local_index import LocalIndex
from retrieval.types import Document

KNOWN = [
    "water boils at",
    "iron melts at",
    "tea is made of",
    "salt comes from",
    "paper is made of",
    "glass is made of",
]
UNKNOWN = ["zebras run", "pianos weigh", "comets fly", "violins cost", "lawyers earn", "tigers eat"]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    documents = [Document(f"https://e.org/{n}", f"{text} something known.") for n, text in enumerate(KNOWN)]
    LocalIndex.build(tmp_path / "index", documents)
    rows = [(f"what {text}", [{"doc_uri": f"https://e.org/{n}"}]) for n, text in enumerate(KNOWN)]
    rows += [(f"what {text} something", []) for text in UNKNOWN]
    (tmp_path / "questions.jsonl").write_text(
        "\n".join(
            json.dumps(
                {"inputs": {"question": question}, "expectations": {"expected_retrieved_context": gold}}
            )
            for question, gold in rows
        )
    )
    return validate_settings(
        [
            (
                "test",
                {
                    "retrieval": {"index": str(tmp_path / "index")},
                    "evaluation": {"dataset": str(tmp_path / "questions.jsonl"), "split": None},
                },
            )
        ]
    )


def test_what_was_fitted_tells_answerable_questions_from_others(settings: Settings, tmp_path: Path) -> None:
    out = tmp_path / "new" / "calibration.json"
    report = calibrate_to(settings, out)
    assert (report.answerable, report.unanswerable) == (6, 6)
    assert report.auc > 0.9
    assert "AUC" in report.render()
    assert Calibration.load(out) == report.calibration
    reader = settings.reader.model_copy(update={"calibration": str(out), "abstain_below": 0.5})
    calibrated = extractive_reader(
        settings.model_copy(update={"reader": reader}), lambda terms: [1.0] * len(terms)
    )
    passages = LocalIndex.open(settings.retrieval.index).search("water boils something", 5)
    assert calibrated.confidence("what water boils at", passages) > calibrated.confidence(
        "what zebras", passages
    )


def test_too_few_labels_are_refused(settings: Settings) -> None:
    few = settings.evaluation.model_copy(update={"dataset": settings.evaluation.dataset})
    path = Path(few.dataset)
    path.write_text("\n".join(path.read_text().splitlines()[:8]))
    with pytest.raises(GroundTruthError, match="at least 5 of each"):
        calibrate_to(settings, path.parent / "c.json")


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"kind": "citeqa calibration", "weights": {"a": "x"}, "bias": 0}']
)
def test_what_is_no_calibration_is_refused_with_what_to_do(tmp_path: Path, content: str) -> None:
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(ConfigurationError, match="citeqa calibrate"):
        Calibration.load(tmp_path / "c.json")
    with pytest.raises(ConfigurationError, match="citeqa calibrate"):
        Calibration.load(tmp_path / "missing.json")


@given(
    features=st.dictionaries(st.sampled_from("abc"), st.floats(-1e6, 1e6)),
    weights=st.dictionaries(st.sampled_from("abcd"), st.floats(-1e6, 1e6)),
)
def test_a_probability_is_one(features: dict[str, float], weights: dict[str, float]) -> None:
    assert 0 <= Calibration(weights, 0.5).probability(features) <= 1


@given(labels=st.lists(st.booleans(), min_size=2, max_size=12).filter(lambda labels: len(set(labels)) == 2))
def test_perfect_scores_have_the_greatest_areas_and_equal_scores_those_of_chance(labels: list[bool]) -> None:
    truth = np.array(labels)
    perfect, flat = truth.astype(float), np.zeros(len(truth))
    assert area_under_roc(perfect, truth) == 1.0
    assert area_under_roc(flat, truth) == 0.5
    assert abstention_area(flat, truth) == pytest.approx(truth.mean())
    assert abstention_area(perfect, truth) > abstention_area(flat, truth) > abstention_area(-perfect, truth)
