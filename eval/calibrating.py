"""Fit how likely an answer is to labelled questions, and measure that on questions it was not fitted to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval.ground_truth import read_ground_truth
from eval.questions import Question
from program.assembly import extractive_reader
from program.calibration import Calibration
from program.retrievers import open_retriever
from program.settings import Settings
from retrieval.errors import GroundTruthError

_FOLDS = 5
_FEWEST = 5


@dataclass(frozen=True, slots=True)
class CalibrationReport:
    """What was fitted, and how well it tells questions that are answered from those that are not.

    `auc` is the chance that an answerable question gets a higher probability than an unanswerable one, and
    `abstention_area` the mean share of answerable questions among the most probable n, over all n: both of
    probabilities by models that were not fitted to the question (cross-validation). `share_auc` and
    `share_area` are those of the share of the question that is held, which needs no fitting.
    """

    calibration: Calibration
    answerable: int
    unanswerable: int
    auc: float
    abstention_area: float
    share_auc: float
    share_area: float

    def render(self) -> str:
        """Lines for a person."""
        return "\n".join(
            (
                f"{self.answerable} answerable and {self.unanswerable} unanswerable questions, {_FOLDS} folds",
                "                     AUC    area under the abstention curve",
                f"calibrated           {self.auc:.3f}  {self.abstention_area:.3f}",
                f"share of terms held  {self.share_auc:.3f}  {self.share_area:.3f}",
            )
        )


def calibrate(settings: Settings) -> CalibrationReport:
    """Fit to the questions of the configured dataset and split, as the configured retriever and reader see them.

    Raises:
        GroundTruthError: if there are fewer than five answerable or unanswerable ones.
        CiteqaError: whatever else a person must mend.
    """
    evaluation = settings.evaluation
    truth = read_ground_truth(evaluation.dataset, split=evaluation.split, columns=evaluation.columns or None)
    labels = np.array([bool(question.gold) for question in truth.questions])
    if min(labels.sum(), (~labels).sum()) < _FEWEST:
        raise GroundTruthError(
            f"{evaluation.dataset}, split {evaluation.split}: {labels.sum()} answerable and {(~labels).sum()} "
            f"unanswerable questions. To calibrate takes at least {_FEWEST} of each."
        )
    rows = _features(settings, truth.questions)
    names = sorted({name for row in rows for name in row})
    features = np.array([[row.get(name, 0.0) for name in names] for row in rows])
    told = _cross_validated(features, labels)
    weights, bias = _fit(features, labels)
    share = features[:, names.index("held")]
    auc, area = area_under_roc(told, labels), abstention_area(told, labels)
    return CalibrationReport(
        calibration=Calibration(
            {name: round(float(weight), 6) for name, weight in zip(names, weights, strict=True)},
            round(bias, 6),
            {"dataset": str(evaluation.dataset), "split": str(evaluation.split), "auc": round(auc, 4)},
        ),
        answerable=int(labels.sum()),
        unanswerable=int((~labels).sum()),
        auc=auc,
        abstention_area=area,
        share_auc=area_under_roc(share, labels),
        share_area=abstention_area(share, labels),
    )


def calibrate_to(settings: Settings, out: Path) -> CalibrationReport:
    """As `calibrate`, and the calibration in the file `out`."""
    report = calibrate(settings)
    report.calibration.save(out)
    return report


def area_under_roc(scores: NDArray[np.float64], labels: NDArray[np.bool_]) -> float:
    """The share of pairs in which the one that is true has the higher score; equal ones count half."""
    differences = scores[labels][:, None] - scores[~labels][None, :]
    return float(((differences > 0) + 0.5 * (differences == 0)).mean())


def abstention_area(scores: NDArray[np.float64], labels: NDArray[np.bool_]) -> float:
    """The mean, over n, of the share of true ones among the n of the highest scores; of equal ones, on average."""
    kept = np.empty(len(labels))
    for score in np.unique(scores):
        kept[scores == score] = labels[scores == score].mean()
    ordered = kept[np.argsort(-scores, kind="stable")]
    return float((np.cumsum(ordered) / np.arange(1, len(labels) + 1)).mean())


def _features(settings: Settings, questions: Sequence[Question]) -> list[dict[str, float]]:
    retriever = open_retriever(settings)
    reader = extractive_reader(settings, retriever.idf)
    retrieval = settings.retrieval
    return [
        reader.features(
            question.question, retriever.search(question.question, retrieval.k, retrieval.filters or None)
        )
        for question in questions
    ]


def _cross_validated(features: NDArray[np.float64], labels: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Of each question, what a model says that was fitted to the other folds."""
    told = np.empty(len(labels))
    fold = np.empty(len(labels), dtype=int)
    draw = np.random.default_rng(0)
    for label in (True, False):
        places = draw.permutation(np.flatnonzero(labels == label))
        fold[places] = np.arange(len(places)) % _FOLDS
    for number in range(_FOLDS):
        weights, bias = _fit(features[fold != number], labels[fold != number])
        told[fold == number] = 0.5 * (1 + np.tanh((features[fold == number] @ weights + bias) / 2))
    return told


def _fit(features: NDArray[np.float64], labels: NDArray[np.bool_]) -> tuple[NDArray[np.float64], float]:
    """A logistic regression of standardized features, its weights those of the features as they are.

    Strongly regularized: labelled unanswerable questions are few.
    """
    from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]

    mean, spread = features.mean(axis=0), features.std(axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    model = LogisticRegression(C=0.1, max_iter=1000).fit((features - mean) / scale, labels)
    weights = model.coef_[0] / scale
    return weights, float(model.intercept_[0] - weights @ mean)
