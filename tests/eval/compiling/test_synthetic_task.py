"""The collection and its questions: honest splits, and a task on which a program can gain and lose."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from eval.curation.leaks import leaks_between_splits, shared_gold
from eval.ground_truth import read_every_split
from eval.metrics import parse_metrics, score_questions
from eval.observations import Observation, RetrievedDocument
from program.qa import CitedQA
from retrieval.local_index import LocalIndex

CITE = "Always cite: every sentence must end with the number of the passage that says it, such as [2]."
LOOK = "Always compare all passages first, and use the sentence that best answers the question."
BRIEF = "The answer must be one sentence."
ABSTAIN = "If no passage holds the answer, you must set answerable to False and say so."
WORDS = "The query must use the vocabulary of the documents in place of the asker's everyday words."


def test_the_questions_are_240_in_three_splits_that_share_nothing(
    collection_questions: Path, collection: Path, synthetic_task: ModuleType
) -> None:
    questions = read_every_split(collection_questions).questions
    splits = [question.tags["split"] for question in questions]
    assert {split: splits.count(split) for split in ("train", "dev", "test")} == dict.fromkeys(splits, 80)
    for split in ("train", "dev", "test"):
        mine = [question for question in questions if question.tags["split"] == split]
        assert sum(not question.answerable for question in mine) == 16
        assert sum(question.tags["lang"] == "ja" for question in mine) >= 10
        assert sum(question.tags["type"] == "everyday" for question in mine) >= 12
    across, _ = leaks_between_splits(questions)
    assert across == []
    assert set(shared_gold(questions).values()) == {0}
    assert synthetic_task.questions(seed=0) == synthetic_task.questions()
    assert synthetic_task.questions(seed=1) != synthetic_task.questions()
    assert LocalIndex.open(collection).manifest.documents == 60


def test_the_program_is_mediocre_as_it_is_good_when_taught_and_bad_when_taught_wrongly(
    untraced_program: CitedQA, collection_questions: Path
) -> None:
    questions = read_every_split(collection_questions).questions[:60]

    def score(*rules: str, search_rule: str = "") -> float:
        program = untraced_program.deepcopy()
        add_rules(program.reader.answer, *rules)
        add_rules(program.rewrite, search_rule)
        return mean_mix(program, questions)

    seed = score()
    taught = score(CITE, LOOK, BRIEF, ABSTAIN, search_rule=WORDS)
    harmed = score("The answer must be one word.", search_rule="The query must be a single keyword.")
    assert 0.35 <= seed <= 0.55
    assert taught >= 0.85
    assert harmed < seed - 0.05


def add_rules(predict: Any, *rules: str) -> None:
    predict.signature = predict.signature.with_instructions(
        "\n".join([predict.signature.instructions, *rules])
    )


def mean_mix(program: CitedQA, questions: Any) -> float:
    """The mean over questions of the mean of fact recall, citation precision and abstention accuracy."""
    metrics = parse_metrics(["fact_recall", "citation_precision", "abstention_accuracy"])
    observed = {}
    for question in questions:
        cited = program(question=question.question).cited
        retrieved = [RetrievedDocument(passage.doc_uri) for passage in cited.passages]
        observed[question.id] = Observation(retrieved, cited.cited_uris, cited.text, cited.abstained)
    rows = score_questions(questions, observed, metrics).values()
    applying = [[value for value in row.values() if value is not None] for row in rows]
    return sum(sum(row) / len(row) for row in applying) / len(applying)
