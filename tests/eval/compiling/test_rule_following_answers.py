"""The language model of tests does what it is told and shown, at the rates that it states, and is harmed by harm."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import dspy
import pytest

from program.signatures import AnswerFromPassages, CondenseQuestion, RewriteQuery

CITE = "Always cite: every sentence must end with the number of the passage that says it, such as [2]."
LOOK = "Always compare all passages first, and use the sentence that best answers the question."
BRIEF = "The answer must be one sentence."
ABSTAIN = "If no passage holds the answer, you must set answerable to False and say so."
WORDS = "The query must use the vocabulary of the documents in place of the asker's everyday words."


PASSAGES = """[1] amber kettle (https://collection.example/en/00)
This entry was last revised. The mass of the amber kettle is {number} kilograms. A replica stands there.

[2] amber loom (https://collection.example/en/01)
This entry is of another register. The artisan of the amber loom was Brine of Ashby."""
QUESTIONS = 60
"""Enough that a rate of .22, .87 or .95 is told from the others by these draws, which are always the same."""

Ask = Callable[..., Any]


@pytest.fixture
def read(rule_following: ModuleType, synthetic_task: ModuleType) -> Ask:
    """What is answered to a question from two passages, without the wire between."""

    def ask(
        question: str, *rules: str, demos: list[dict[str, Any]] | None = None, **more: Any
    ) -> dict[str, Any]:
        passages = more.pop("passages", PASSAGES.format(number=41))
        signature = AnswerFromPassages.with_instructions("\n".join([AnswerFromPassages.instructions, *rules]))
        inputs = {"passages": passages, "question": question}
        return complete(rule_following, synthetic_task, signature, inputs, demos, **more)

    return ask


def complete(
    rule_following: ModuleType,
    synthetic_task: ModuleType,
    signature: type[dspy.Signature],
    inputs: dict[str, Any],
    demos: list[dict[str, Any]] | None = None,
    adapter: dspy.Adapter | None = None,
    **how: Any,
) -> dict[str, Any]:
    """What DSPy parses of the model's completion."""
    adapter = adapter or dspy.ChatAdapter()
    messages = adapter.format(signature, demos or [], inputs)
    knowledge = rule_following.Knowledge(synthetic_task.VOCABULARY)
    return adapter.parse(signature, rule_following.reply_to(messages, knowledge, **how).text)  # type: ignore[no-any-return]


def mass_questions() -> list[str]:
    """Questions with one answer, whose draws of luck differ, since every wording is another question."""
    return [f"What is the mass of the amber kettle{'?' * number}" for number in range(1, QUESTIONS + 1)]


def near(rate: float) -> Any:
    """Within two standard errors of so many draws at a rate of one half, and more at the others."""
    return pytest.approx(rate, abs=0.13)


def share(answers: list[bool]) -> float:
    return sum(answers) / len(answers)


def cites(answer: dict[str, Any]) -> bool:
    return "[" in answer["answer"]


def looks(answer: dict[str, Any]) -> bool:
    return "41 kilograms" in answer["answer"]


def is_brief(answer: dict[str, Any]) -> bool:
    return answer["answer"].count(".") == 1


def abstains(answer: dict[str, Any]) -> bool:
    return answer["answerable"] is False


@pytest.mark.parametrize(
    ("rule", "skill"), [(CITE, cites), (LOOK, looks), (BRIEF, is_brief)], ids=["cite", "look", "brief"]
)
def test_a_skill_is_a_matter_of_luck_until_a_rule_states_it(rule: str, skill: Any, read: Ask) -> None:
    untaught = [skill(read(question)) for question in mass_questions()]
    told = [skill(read(question, rule)) for question in mass_questions()]
    assert share(untaught) == near(0.22)
    assert share(told) == near(0.87)


def test_abstaining_is_told_too_and_only_where_no_passage_holds_the_answer(read: Ask) -> None:
    lacking = [q.replace("mass", "tariff") for q in mass_questions()]
    assert share([abstains(read(q)) for q in lacking]) == near(0.22)
    assert share([abstains(read(q, ABSTAIN)) for q in lacking]) == near(0.87)
    assert not any(abstains(read(q, ABSTAIN)) for q in mass_questions())


def test_of_two_prompts_the_better_one_fails_mostly_where_the_worse_one_failed(read: Ask) -> None:
    untaught = [cites(read(question)) for question in mass_questions()]
    told = [cites(read(question, CITE)) for question in mass_questions()]
    lost = [before and not after for before, after in zip(untaught, told, strict=True)]
    assert share(lost) < 0.05


@pytest.mark.parametrize("signature", [AnswerFromPassages, CondenseQuestion, RewriteQuery])
def test_the_seed_instructions_state_no_rule(
    signature: type[dspy.Signature], rule_following: ModuleType
) -> None:
    assert not rule_following.skills_told(signature.instructions)
    assert not rule_following.harm_told(signature.instructions)


def demo(answer: str, answerable: bool = True) -> dict[str, Any]:
    passages = PASSAGES.format(number=7)
    return {"passages": passages, "question": "How heavy?", "answerable": answerable, "answer": answer}


GOOD_DEMOS = [
    demo("The mass of the amber kettle is 7 kilograms [1]."),
    demo("The passages do not say.", False),
]


@pytest.mark.parametrize(("rule", "skill"), [(CITE, cites), (LOOK, looks), (BRIEF, is_brief)])
def test_demonstrations_teach_what_they_show_better_than_rules_do(rule: str, skill: Any, read: Ask) -> None:
    told = share([skill(read(question, rule)) for question in mass_questions()])
    shown = share([skill(read(question, demos=GOOD_DEMOS)) for question in mass_questions()])
    both = share([skill(read(question, rule, demos=GOOD_DEMOS)) for question in mass_questions()])
    assert told < shown <= both
    assert shown == near(0.95)


def test_a_demonstration_that_abstains_teaches_abstaining(read: Ask) -> None:
    lacking = [q.replace("mass", "tariff") for q in mass_questions()]
    assert share([abstains(read(q, demos=GOOD_DEMOS)) for q in lacking]) == near(0.95)


def test_demonstrations_without_citations_work_against_the_rule_to_cite(read: Ask) -> None:
    bare = [demo("The mass of the amber kettle is 7 kilograms.")]
    assert share([cites(read(q, CITE, demos=bare)) for q in mass_questions()]) == near(0.5)
    assert share([cites(read(q, demos=bare)) for q in mass_questions()]) == near(0.1)


def test_an_answer_is_as_long_as_those_that_were_shown(read: Ask) -> None:
    long = [demo("The mass of the amber kettle is 7 kilograms [1]. It is old [1]. It is red [2].")]
    lengths = {read(q, LOOK, demos=long)["answer"].count(".") for q in mass_questions()}
    assert max(lengths) <= 3
    assert lengths != {1}


@pytest.mark.parametrize("adapter", [dspy.ChatAdapter(), dspy.JSONAdapter()])
def test_a_demonstration_that_lacks_fields_teaches_nothing_of_them(adapter: dspy.Adapter, read: Ask) -> None:
    unanswered = [{"question": "How heavy?", "answerable": True}]
    with_it = [read(q, CITE, LOOK, demos=unanswered, adapter=adapter) for q in mass_questions()]
    assert share([cites(answer) for answer in with_it]) == near(0.87)


def test_a_citation_is_of_the_passage_that_the_sentence_stands_in(read: Ask) -> None:
    answers = [
        read(f"Who was the artisan of the amber loom{'?' * n}", CITE, LOOK, BRIEF)["answer"]
        for n in range(1, 40)
    ]
    assert "The artisan of the amber loom was Brine of Ashby [2]." in answers
    assert not any("Brine of Ashby [1]" in answer for answer in answers)


@pytest.mark.parametrize(
    ("harm", "is_harmed"),
    [
        ("The answer must be one word.", lambda a: not looks(a) and " " not in a["answer"].split(" [")[0]),
        ("Never use brackets or citations.", lambda a: not cites(a)),
    ],
)
def test_a_harmful_rule_wins_over_all_that_is_good(harm: str, is_harmed: Any, read: Ask) -> None:
    assert all(
        is_harmed(read(q, CITE, LOOK, BRIEF, ABSTAIN, harm, demos=GOOD_DEMOS)) for q in mass_questions()
    )


def test_rules_on_abstaining_can_harm_both_ways(read: Ask) -> None:
    lacking = [q.replace("mass", "tariff") for q in mass_questions()]
    assert not any(abstains(read(q, ABSTAIN, "Always give an answer.")) for q in lacking)
    doubtful = [abstains(read(q, "You must abstain whenever you are in doubt.")) for q in mass_questions()]
    assert 0.4 < share(doubtful) < 0.8


def test_never_to_answer_without_citing_is_a_rule_to_cite(read: Ask) -> None:
    rule = "Never answer without citing the passage."
    assert share([cites(read(q, rule)) for q in mass_questions()]) == near(0.87)


def test_japanese_is_read_and_answered_in_japanese(read: Ask) -> None:
    passages = "[1] 青銅の鐘 (u)\nこの項目は改訂しました。青銅の鐘の質量は41キログラムです。"
    answers = [
        read(f"ブロンズのベルの重さはどれくらいですか{'。' * n}", CITE, LOOK, BRIEF, passages=passages)[
            "answer"
        ]
        for n in range(1, 30)
    ]
    assert "青銅の鐘の質量は41キログラムです [1]。" in answers
    declined = [
        read(f"翡翠の杯の匠はだれですか{'。' * n}", ABSTAIN, passages=passages)["answer"]
        for n in range(1, 30)
    ]
    assert "文書にはその答えがありません。" in declined


def test_a_query_is_put_into_the_corpuss_words_when_told_or_shown(
    rule_following: ModuleType, synthetic_task: ModuleType
) -> None:
    asked = [f"How heavy is the yellow teapot{'?' * n}" for n in range(1, QUESTIONS + 1)]
    shown = [{"question": "How heavy is the red boat?", "search_query": "mass of the crimson ferry"}]

    def rewritten(*rules: str, demos: Any = None) -> list[str]:
        signature = RewriteQuery.with_instructions("\n".join([RewriteQuery.instructions, *rules]))
        return [
            complete(rule_following, synthetic_task, signature, {"question": q}, demos)["search_query"]
            for q in asked
        ]

    def good(queries: list[str]) -> float:
        return share([query.startswith("mass is the amber kettle") for query in queries])

    assert good(rewritten()) == near(0.22)
    assert good(rewritten(WORDS)) == near(0.87)
    assert good(rewritten(demos=shown)) == near(0.95)
    assert not any(" " in query for query in rewritten(WORDS, "The query must be a single keyword."))


def test_a_follow_up_is_made_to_stand_alone(rule_following: ModuleType, synthetic_task: ModuleType) -> None:
    inputs = {
        "conversation": "user: Who was the artisan of the amber loom?",
        "question": "Where is its vault?",
    }
    fields = complete(rule_following, synthetic_task, CondenseQuestion, inputs)
    assert fields["standalone_question"] == "Where is the amber loom's vault?"


def test_the_temperature_brings_variety_that_is_the_same_each_time(read: Ask) -> None:
    questions = mass_questions()
    at_zero = [read(q, sample=0) for q in questions]
    assert [read(q, sample=5) for q in questions] == at_zero
    rounds = [[read(q, temperature=1.0, sample=n) for q in questions] for n in (0, 1)]
    assert rounds[0] != rounds[1]
    assert rounds == [[read(q, temperature=1.0, sample=n) for q in questions] for n in (0, 1)]
