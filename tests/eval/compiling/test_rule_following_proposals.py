"""Asked by DSPy's own optimizers, the language model of tests proposes rules that fit what it is shown."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

import dspy
import pytest
from dspy.propose import GroundedProposer
from dspy.teleprompt.copro_optimizer import BasicGenerateInstruction, GenerateInstructionGivenAttempts
from dspy.teleprompt.gepa.instruction_proposal import InstructionProposer
from dspy.teleprompt.infer_rules import RulesInductionProgram
from dspy.teleprompt.simba_utils import OfferFeedback, inspect_modules

from program.qa import CitedQA
from program.signatures import AnswerFromPassages

CITE = "Always cite: every sentence must end with the number of the passage that says it, such as [2]."
LOOK = "Always compare all passages first, and use the sentence that best answers the question."
BRIEF = "The answer must be one sentence."
ABSTAIN = "If no passage holds the answer, you must set answerable to False and say so."
WORDS = "The query must use the vocabulary of the documents in place of the asker's everyday words."

PASSAGES = "[1] amber kettle (u)\nThe mass of the amber kettle is 41 kilograms."


def asked_for(ruled_lm: dspy.LM, signature: Any, **inputs: Any) -> Any:
    predict = dspy.Predict(signature)
    predict.set_lm(ruled_lm)
    return predict(**inputs)


def test_copro_is_proposed_the_seed_with_rules(ruled_lm: dspy.LM, rule_following_model: Any) -> None:
    seed = AnswerFromPassages.instructions
    with dspy.context(lm=ruled_lm):
        predict = dspy.Predict(BasicGenerateInstruction, n=6, temperature=1.4)
        proposals = predict(basic_instruction=seed).completions.proposed_instruction
    assert all(proposal.startswith(seed.splitlines()[0]) for proposal in proposals)
    assert len(set(proposals)) > 2
    assert rule_following_model.counts.meta == rule_following_model.counts.by_kind["propose"] == 6


def test_copro_goes_on_from_the_best_attempt(ruled_lm: dspy.LM) -> None:
    attempts = []
    for number, (instruction, score) in enumerate(
        [("Answer\nbadly.", 20.5), ("Answer\nwell.", 61.25)], start=1
    ):
        attempts += [f"Instruction #{number}: {instruction}", f"Prefix #{number}: Answer:"]
        attempts += [f"Resulting Score #{number}: {score}"]
    proposal = asked_for(ruled_lm, GenerateInstructionGivenAttempts, attempted_instructions=attempts)
    assert proposal.proposed_instruction.startswith("Answer\nwell.\n")


def test_mipro_is_described_the_task_and_proposed_instructions_for_each_predictor(
    ruled_lm: dspy.LM, untraced_program: CitedQA, rule_following: ModuleType, rule_following_model: Any
) -> None:
    examples = [
        dspy.Example(question=q).with_inputs("question")
        for q in ("How heavy?", "Who made it?", "Where is it?")
    ]
    proposer = GroundedProposer(ruled_lm, untraced_program, examples, use_instruct_history=False)
    with dspy.context(lm=ruled_lm):
        proposed = proposer.propose_instructions_for_program(examples, untraced_program, None, {}, 4)
    by_name = {name: proposed[number] for number, (name, _) in enumerate(untraced_program.named_predictors())}
    told = [rule_following.skills_told(text) for text in by_name["reader.answer"]]
    assert {"cite", "look", "brief", "abstain"} & set().union(*told)
    assert {skill for text in by_name["rewrite"] for skill in rule_following.skills_told(text)} <= {"words"}
    assert rule_following_model.counts.by_kind.keys() == {"describe", "propose"}


FEEDBACK = {
    "It cites nothing, though passage [1] holds the answer: put the passage's number after each statement.": CITE,
    "Expected fact “41 kilograms” is missing, though it stands in passage [1]: “The mass is 41 kilograms.”": LOOK,
    "It answered an unanswerable question: the documents do not hold the answer, and it said “It is.”": ABSTAIN,
    "It cites [2], [3], which are of no gold document.": BRIEF,
}


@pytest.mark.parametrize("feedback", FEEDBACK)
def test_gepa_is_proposed_the_rule_that_the_feedback_calls_for(feedback: str, ruled_lm: dspy.LM) -> None:
    inputs = {"passages": PASSAGES, "question": "q"}
    outputs = {"answerable": True, "answer": "a"}
    with dspy.context(lm=ruled_lm):
        proposals = [
            InstructionProposer()(
                {"reader.answer": f"Answer the question. Number {number}."},
                {
                    "reader.answer": [
                        {
                            "Inputs": inputs,
                            "Generated Outputs": outputs,
                            "Feedback": f"Score 0.\nWrong:\n- {feedback}\nTo know:\n- It cites [2], which is gold.",
                        }
                    ]
                },
                ["reader.answer"],
            )["reader.answer"]
            for number in range(12)
        ]
    assert sum(FEEDBACK[feedback] in proposal for proposal in proposals) >= 7
    assert all(proposal.startswith("Answer the question.") for proposal in proposals)


def test_gepa_is_proposed_the_corpuss_words_where_the_search_missed_and_harm_is_taken_back(
    ruled_lm: dspy.LM,
) -> None:
    example = {
        "Inputs": {"question": "How heavy is the yellow teapot?"},
        "Generated Outputs": {"search_query": "yellow"},
        "Feedback": "Score 0.\nWrong:\n- Gold document 'a' was at rank 9 and k was 5. The search query was “yellow”.",
    }
    harmful = "Write a query.\nThe query must be a single keyword."
    with dspy.context(lm=ruled_lm):
        proposal = InstructionProposer()({"rewrite": harmful}, {"rewrite": [example]}, ["rewrite"])["rewrite"]
    assert WORDS in proposal
    assert "single keyword" not in proposal


def test_simba_is_advised_by_module_from_the_difference_of_two_trajectories(
    ruled_lm: dspy.LM, untraced_program: CitedQA
) -> None:

    def trajectory(query: str, answer: str) -> str:
        steps = {"rewrite": {"search_query": query}, "reader.answer": {"answerable": True, "answer": answer}}
        return json.dumps(
            [{"module_name": name, "inputs": {}, "outputs": said} for name, said in steps.items()]
        )

    names = [name for name, _ in untraced_program.named_predictors()]
    advised = [
        asked_for(
            ruled_lm,
            OfferFeedback,
            program_code="",
            modules_defn=inspect_modules(untraced_program),
            program_inputs=f"{number}",
            oracle_metadata="{}",
            worse_program_trajectory=trajectory("how heavy", "It is 41 kilograms."),
            worse_program_outputs="{}",
            worse_reward_value=0.1,
            worse_reward_info="{}",
            better_program_trajectory=trajectory("mass", "It is 41 kilograms [1]."),
            better_program_outputs="{}",
            better_reward_value=0.9,
            better_reward_info="{}",
            module_names=names,
        ).module_advice
        for number in range(12)
    ]
    assert all(set(advice) == set(names) for advice in advised)
    assert sum(CITE in advice["reader.answer"] for advice in advised) >= 7
    assert sum(WORDS in advice["rewrite"] for advice in advised) >= 7
    assert not any(CITE in advice["rewrite"] for advice in advised)


def test_rules_are_induced_from_examples(ruled_lm: dspy.LM) -> None:
    shown = f"passages: {PASSAGES}\nquestion: How heavy is it?"
    example = f"Input Fields:\n{shown}\n\n=========\nOutput Fields:\nanswer: It is 41 kilograms [1].\n\n"
    with dspy.context(lm=ruled_lm):
        induce = RulesInductionProgram(10)
        induced = [induce(examples_text=example) for _ in range(6)]
    assert sum(CITE in rules for rules in induced) >= 3
    assert len(set(induced)) > 1
