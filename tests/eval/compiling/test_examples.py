"""Examples: what DSPy sees of a question, what it never sees, and demonstrations that are honest."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import dspy
import pytest
from dspy.propose.dataset_summary_generator import order_input_keys_in_string
from dspy.teleprompt import LabeledFewShot

from eval.compiling.examples import gold_question, is_demonstration, to_examples
from eval.ground_truth import GroundTruth
from eval.questions import GoldItem, Question
from program.citations import cite
from program.qa import CitedQA
from program.readers import LMReader, format_passages
from program.state import load_state, save_state
from program.types import Message
from retrieval.local_index import LocalIndex
from retrieval.types import Filters, Passage

SITE = "https://library.example/"
SECRET = "the expected fact that nobody may see"


@pytest.fixture
def index(library: Path) -> LocalIndex:
    return LocalIndex.open(library)


@pytest.fixture
def program(index: LocalIndex) -> CitedQA:
    return CitedQA(index, LMReader(), k=3)


def ask(question: str, *gold: str, **more: Any) -> Question:
    return Question("q", question, tuple((GoldItem(SITE + name),) for name in gold), **more)


def place(program: CitedQA, question: Question, name: str) -> int:
    """The number of the passage of this document among those that the program retrieves."""
    passages = program.retriever.search(question.question, program.k)
    return [passage.doc_uri for passage in passages].index(SITE + name) + 1


def label(program: CitedQA, question: Question) -> dspy.Example:
    (example,) = to_examples([question], program, demonstrate=True)
    return example


def test_inputs_are_those_of_the_program(program: CitedQA) -> None:
    history = ({"role": "user", "content": "What melts?"}, {"role": "assistant", "content": "Iron [1]."})
    skipped = {"role": "tool", "content": "42"}
    (example,) = to_examples(
        [ask("At how many degrees?", "iron", history=(*history, skipped))], program, demonstrate=False
    )
    assert example.inputs().toDict() == {
        "question": "At how many degrees?",
        "history": [{"role": "user", "text": "What melts?"}, {"role": "assistant", "text": "Iron [1]."}],
    }
    assert example.history == (Message("user", "What melts?"), Message("assistant", "Iron [1]."))
    assert not is_demonstration(example)


def test_every_copy_knows_its_question(program: CitedQA) -> None:
    question = ask("What is steel made of?", "iron", expected_facts=(SECRET,))
    example = label(program, question)
    copies = [
        example,
        deepcopy(example),
        example.copy(augmented=True),
        example.without("history"),
        example.with_inputs("question"),
        deepcopy([example])[0],
    ]
    assert all(gold_question(copy) == question for copy in copies)


def test_what_the_ground_truth_expects_is_in_nothing_that_dspy_writes_or_shows(program: CitedQA) -> None:
    example = label(program, ask("What is steel made of?", "iron", expected_facts=(SECRET,)))
    shown = [
        order_input_keys_in_string([example].__repr__()),
        str(example),
        json.dumps(example.toDict()),
        json.dumps(dict(example.items()), default=str),
        json.dumps({**example.labels()}, default=str),
        json.dumps({**example.inputs()}, default=str),
    ]
    assert not [text for text in shown if "nobody may see" in text or "GoldItem" in text]


def test_a_foreign_example_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(TypeError, match="without its question"):
        gold_question(dspy.Example(question="?"))


def test_questions_that_the_metric_does_not_apply_to_are_left_out(
    program: CitedQA, quiz: GroundTruth
) -> None:
    examples = to_examples(
        quiz.questions, program, demonstrate=False, applies=lambda question: question.answerable
    )
    assert [gold_question(example).id for example in examples] == [
        question.id for question in quiz.questions if question.answerable
    ]


def test_a_demonstration_shows_what_the_program_retrieves_and_cites_the_gold_passage_by_its_number(
    program: CitedQA, index: LocalIndex
) -> None:
    question = ask(
        "At how many degrees does water boil on Everest?", "mountains", accepted_answers=("71 degrees", "71")
    )
    example = label(program, question)
    assert example.passages == format_passages(index.search(question.question, 3))
    assert example.answerable is True
    assert example.answer == f"71 degrees [{place(program, question, 'mountains')}]."


def test_each_sentence_cites_the_gold_passage_that_says_it(program: CitedQA) -> None:
    question = ask(
        "Do iron and ice melt at the same degrees?",
        "iron",
        "water",
        expected_response="Iron melts at 1538 degrees. Ice melts at 0 degrees.",
    )
    example = label(program, question)
    passages = program.retriever.search(question.question, program.k)
    cited = cite(example.answer, passages, reader="", query="")
    assert [citation.passage.doc_uri for citation in cited.citations] == [SITE + "iron", SITE + "water"]
    assert [citation.quote for citation in cited.citations] == [
        "Iron melts at 1538 degrees.",
        "Ice melts at 0 degrees.",
    ]


def test_one_sentence_about_two_documents_cites_both(program: CitedQA) -> None:
    response = "No: iron melts at 1538 degrees and ice melts at 0 degrees."
    question = ask("Do iron and ice melt at the same degrees?", "iron", "water", expected_response=response)
    first, second = sorted(place(program, question, name) for name in ("iron", "water"))
    assert label(program, question).answer == f"{response[:-1]} [{first}][{second}]."


def test_a_japanese_answer_is_cited_as_japanese_is_written(program: CitedQA) -> None:
    question = ask("富士山の高さは何メートルですか", "fuji", expected_facts=("高さは3776メートル",))
    assert label(program, question).answer == "高さは3776メートル[1]。"
    question = replace(
        question, expected_facts=(), expected_response="3776メートルです。日本で一番高い山です。"
    )
    assert label(program, question).answer == "3776メートルです[1]。日本で一番高い山です[1]。"


@pytest.mark.parametrize(
    ("question", "abstention"),
    [
        (ask("Who is the king of Atlantis?"), "The passages do not say."),
        (ask("月の裏側には何がありますか"), "渡された文書には書かれていません。"),
        (ask("Wer regiert das Meer?", tags={"lang": "de"}, expected_response="Unbekannt."), "Unbekannt."),
    ],
)
def test_an_unanswerable_question_is_abstained_from_in_its_language(
    question: Question, abstention: str
) -> None:
    sea = [of_sea("The moon pulls the sea."), of_sea("月は海を引きます。")]
    program = CitedQA(Fixed(sea), LMReader(), k=2)
    example = label(program, question)
    assert (example.answerable, example.answer) == (False, abstention)


@pytest.mark.parametrize(
    "question",
    [
        ask("What is steel made of?", "bees", expected_response="A bee dances."),
        ask("What is steel made of?", "iron"),
        ask("What is steel made of?", "iron", expected_response="Copper and tin, since the bronze age."),
        ask(
            "What is steel made of?", "iron", "bees", expected_response="Steel is iron with a little carbon."
        ),
        ask("What is steel made of?", "iron", expected_facts=("鋼は鉄と炭素からできています",)),
        ask("富士山の高さは何メートルですか", "fuji", expected_facts=("it is very high for a mountain",)),
        ask("What is steel made of?", "iron", expected_response="Steel is iron with a little carbon [7]."),
        ask("Qui règne sur l'océan?", tags={"lang": "fr"}),
        ask("And steel?", "iron", expected_response="Iron.", history=({"role": "user", "content": "Hi"},)),
        ask("zzz qqq xxx", "iron", expected_response="Steel is iron with a little carbon."),
    ],
    ids=[
        "the gold was not found",
        "nothing is expected",
        "what was found of the gold does not hold it",
        "only half of the gold was found",
        "the facts are in another language",
        "the facts are in another language, too",
        "the answer cites a passage that is not there",
        "nobody knows how to abstain in its language",
        "the reader never sees a follow-up as it was asked",
        "nothing was found",
    ],
)
def test_where_no_demonstration_would_be_honest_none_is_made(program: CitedQA, question: Question) -> None:
    example = label(program, question)
    assert not is_demonstration(example)
    assert "answer" not in example


def test_gold_that_names_its_passage_needs_no_shared_words(program: CitedQA, index: LocalIndex) -> None:
    (passage,) = index.passages_of(SITE + "iron")
    gold = ((GoldItem(passage.doc_uri, chunk_id=passage.chunk_id),),)
    question = Question("q", "What is steel made of?", gold, expected_response="An alloy.")
    assert label(program, question).answer == f"An alloy [{place(program, question, 'iron')}]."


def test_demonstrations_can_be_saved_with_a_program_and_are_shown_to_the_reader(
    program: CitedQA, tmp_path: Path, quiz: GroundTruth
) -> None:
    questions = [
        replace(question, expected_response="Steel is iron with a little carbon.")
        for question in quiz.questions
        if question.id == "q03"
    ]
    examples = to_examples(questions, program, demonstrate=True)
    compiled = LabeledFewShot(k=1).compile(program, trainset=examples)
    save_state(compiled, tmp_path / "program.json")
    load_state(program, tmp_path / "program.json")
    assert isinstance(program.reader, LMReader)
    (demo,) = program.reader.answer.demos
    assert demo["answer"] == examples[0].answer
    assert set(demo) == {"question", "passages", "answerable", "answer"}
    shown = dspy.ChatAdapter().format(
        program.reader.answer.signature, [demo], {"passages": "", "question": "?"}
    )
    assert any(examples[0].answer in str(message["content"]) for message in shown)


class Fixed:
    """Finds the same for every query."""

    def __init__(self, passages: list[Passage]) -> None:
        self._passages = passages

    def search(self, query: str, k: int, filters: Filters | None = None) -> list[Passage]:
        return self._passages[:k]


def of_sea(text: str) -> Passage:
    return Passage(text[:5], SITE + text[:5], text)
