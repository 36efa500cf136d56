"""Feedback names what went wrong with this one answer, in English, whatever language it quotes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.compiling.feedback import MOST_CHARACTERS, explain
from eval.compiling.remembering_retriever import RememberingRetriever
from eval.compiling.retrieval_notes import DEPTH, SearchScope
from eval.questions import GoldItem, Question
from program.citations import cite
from program.types import CitedAnswer
from retrieval.errors import RetrievalError
from retrieval.local_index import LocalIndex
from retrieval.types import Document, Passage

SITE = "https://library.example/"
BOIL = "Water boils at 100 degrees at sea level. Ice melts at 0 degrees."
EVEREST = "On Everest water boils at 71 degrees, because the air is thin up there."
IRON = "Iron melts at 1538 degrees. Steel is iron with a little carbon."
FUJI = "富士山の高さは3776メートルです。日本で一番高い山です。"


def passage(name: str, text: str) -> Passage:
    return Passage(f"{name}#0", SITE + name, text, name.title())


SHELF = [passage("water", BOIL), passage("mountains", EVEREST), passage("iron", IRON)]


def ask(question: str, *gold: str, **more: Any) -> Question:
    return Question("q", question, tuple((GoldItem(SITE + name),) for name in gold), **more)


def answer(text: str, passages: list[Passage] = SHELF, query: str = "?", **more: Any) -> CitedAnswer:
    return cite(text, passages, reader="openai/test", query=query, **more)


def feedback(
    question: Question,
    cited: CitedAnswer,
    scope: SearchScope | None = None,
    predictor: str = "",
    **row: float,
) -> str:
    return explain(question, cited, row, 0.5, str, scope=scope, predictor=predictor)


@pytest.fixture
def crowded(tmp_path: Path) -> LocalIndex:
    """An index in which many documents speak of boiling water, and the one that is wanted says it otherwise."""
    others = [
        Document(
            f"{SITE}kettle{n}", f"Water boils in kettle number {n}, and the water boils over." * 2, "Kettles"
        )
        for n in range(8)
    ]
    wanted = Document(
        f"{SITE}physics", "The boiling point of a liquid: water needs 100 degrees.", "Physics", "en"
    )
    far = Document(f"{SITE}far", "Ebullition commences at a temperature of one hundred.", "Ebullition", "en")
    LocalIndex.build(
        tmp_path / "index", [*others, wanted, far, Document(f"{SITE}fuji", FUJI, "富士山", "ja")]
    )
    return LocalIndex.open(tmp_path / "index")


def search(index: Any, query: str, k: int = 5) -> tuple[SearchScope, CitedAnswer]:
    remembering = RememberingRetriever(index)
    cited = answer("I do not know.", remembering.search(query, k), query, abstained=True)
    return SearchScope(remembering, k), cited


def test_gold_that_lies_deeper_than_k_is_named_with_its_rank(crowded: LocalIndex) -> None:
    scope, cited = search(crowded, "when water boils")
    said = feedback(ask("When does water boil?", "physics"), cited, scope)
    assert f"Gold document '{SITE}physics' was at rank 9 and k was 5." in said


def test_gold_that_the_query_shares_nothing_with_is_said_not_to_be_there_and_shown(
    crowded: LocalIndex,
) -> None:
    scope, cited = search(crowded, "when water boils")
    said = feedback(
        ask("When does water boil?", "far", expected_facts=("ebullition commences",)), cited, scope
    )
    assert f"Gold document '{SITE}far' was not among the first 9 passages, and k was 5." in said
    assert "Of its words the gold passage has none and lacks “water”, “boils”." in said
    assert "“Ebullition commences at a temperature of one hundred.”" in said


def test_a_search_that_finds_nothing_is_shown_the_words_that_would_have(crowded: LocalIndex) -> None:
    scope, cited = search(crowded, "seething")
    question = ask("seething", "far", expected_facts=("a temperature of one hundred",))
    said = feedback(question, cited, scope, "rewrite")
    assert f"Gold document '{SITE}far' was not found: the search found nothing at all." in said
    assert "Of its words the gold passage has none and lacks “seething”." in said
    assert "says: “Ebullition commences" in said


def test_a_rewritten_query_is_compared_with_the_question_word_by_word(crowded: LocalIndex) -> None:
    scope, cited = search(crowded, "kettle boils over")
    question = ask("What is the boiling point of a liquid?", "physics", expected_facts=("100 degrees",))
    said = feedback(question, cited, scope, "rewrite")
    assert (
        "The search query was “kettle boils over” (made from “What is the boiling point of a liquid?”)."
        in said
    )
    assert "The question as it was asked finds it at rank 1." in said
    assert "Of its words the gold passage has “boils” and lacks “kettle”" in said
    assert (
        "Words of the question that the gold passage has and the query lacks: “boiling”, “point”, “liquid”."
        in said
    )


def test_japanese_queries_are_compared_by_their_words(crowded: LocalIndex) -> None:
    scope, cited = search(crowded, "標高 メートル", 1)
    said = feedback(
        ask("富士山の標高は何メートルか", "physics", expected_facts=("3776",)), cited, scope, "rewrite"
    )
    assert "“標高 メートル”" in said
    scope, cited = search(crowded, "boils 山", 5)
    said = feedback(ask("富士山の標高は？", "fuji"), cited, scope, "rewrite")
    assert "“富士山”" in said
    assert "富士山の高さは3776メートルです。" in said


def test_looking_deeper_is_done_once_for_each_query(crowded: LocalIndex) -> None:
    scope, cited = search(crowded, "when water boils")
    question = ask("When does water boil?", "physics")
    first = feedback(question, cited, scope)
    made = scope.retriever.searches_made  # type: ignore[attr-defined]
    assert feedback(question, cited, scope) == first
    assert scope.retriever.searches_made == made <= 4  # type: ignore[attr-defined]


def test_an_index_that_cannot_look_deeper_costs_no_answer() -> None:
    class Shallow:
        def search(self, query: str, k: int, filters: Any = None) -> list[Passage]:
            if k >= DEPTH:
                raise RetrievalError("at most 10")
            return SHELF[:k]

    said = feedback(ask("?", "elsewhere"), answer("No [1].", query="?"), SearchScope(Shallow(), 3))
    assert f"'{SITE}elsewhere' was not among the 3 passages that were found" in said


def test_a_gold_passage_is_told_from_another_passage_of_its_document() -> None:
    question = Question("q", "What melts?", ((GoldItem(SITE + "iron", chunk_id="iron#7"),),))
    assert f"Gold passage of document '{SITE}iron' was not among the 3 passages" in feedback(
        question, answer("?")
    )
    question = Question("q", "What melts?", ((GoldItem(SITE + "iron", chunk_id="iron#0"),),))
    assert f"Gold passage of document '{SITE}iron' was found, as [3]." in feedback(question, answer("?"))


def test_a_sentence_that_cites_the_wrong_passage_is_told_the_right_one() -> None:
    said = feedback(
        ask("When does water boil?", "water"),
        answer("It is warm [1]. Water boils at 100 degrees at sea level [3]."),
    )
    assert "Sentence 2, “Water boils at 100 degrees at sea level.”, cites [3], which does not say it" in said
    assert "while [1] does: “Water boils at 100 degrees at sea level.”" in said


def test_a_marker_after_the_full_stop_belongs_to_the_sentence_before_it() -> None:
    right = answer("Water boils at 100 degrees. [1] Iron melts at 1538 degrees. [3]")
    said = feedback(ask("?", "water", "iron"), right)
    assert "Wrong" not in said
    assert "The passages that it cites say what its sentences say." in said
    swapped = answer("Water boils at 100 degrees. [3] Iron melts at 1538 degrees. [1]")
    assert feedback(ask("?", "water", "iron"), swapped).count("does not say it, while") == 2


def test_a_statement_that_no_passage_makes_is_called_so() -> None:
    said = feedback(ask("?", "water"), answer("Kangaroos invented porcelain teacups yesterday [1]."))
    assert "cites [1], which does not say it, and no other passage does." in said


def test_a_sentence_without_a_citation_is_told_where_it_stands() -> None:
    said = feedback(
        ask("?", "water"), answer("Ice melts at 0 degrees [1]. Steel is iron with a little carbon.")
    )
    assert (
        "Sentence 2, “Steel is iron with a little carbon.”, cites nothing, though passage [3] says it."
        in said
    )


def test_an_answer_without_citations_is_told_which_passage_holds_it() -> None:
    said = feedback(ask("?", "mountains"), answer("At 71 degrees."))
    assert "It cites nothing, though passage [2] holds the answer" in said


def test_what_is_in_another_script_is_not_called_wrong() -> None:
    passages = [passage("fuji", FUJI), passage("iron", IRON)]
    said = feedback(
        ask("How high is Mount Fuji?", "fuji"), answer("Mount Fuji is 3776 meters high [1].", passages)
    )
    assert "does not say it" not in said
    assert "cites nothing" not in said


def test_japanese_answers_are_judged_and_quoted_as_they_are() -> None:
    passages = [passage("iron", IRON), passage("fuji", FUJI), passage("tea", "緑茶は発酵させない茶です。")]
    said = feedback(
        ask("富士山の高さは", "fuji", expected_facts=("3776メートル",)),
        answer("富士山は日本で一番高い山です[3]。", passages),
    )
    assert (
        "Sentence 1, “富士山は日本で一番高い山です。”, cites [3], which does not say it, while [2] does"
        in said
    )
    assert "Expected fact “3776メートル” is missing, though it stands in passage [2]: “富士山の高さは" in said


def test_citations_of_other_than_gold_documents_are_named() -> None:
    said = feedback(ask("?", "mountains"), answer("Water boils at 100 degrees at sea level [1]."))
    assert f"It does not cite [2], of gold document '{SITE}mountains'." in said
    assert "It cites [1], which is of no gold document." in said


def test_dropped_markers_are_counted() -> None:
    said = feedback(ask("?", "water"), answer("Ice melts at 0 degrees [1][7][8]."))
    assert "2 markers pointed at no passage, and there are only [1] to [3]" in said
    said = feedback(ask("?", "water"), answer("Ice melts at 0 degrees [1].", []))
    assert "1 marker pointed at no passage, and there are none" in said


def test_a_missing_fact_is_told_where_it_stands_or_that_it_stands_nowhere() -> None:
    question = ask("?", "iron", expected_facts=("1538 degrees", "a little carbon", "forged by hand"))
    said = feedback(question, answer("Steel is iron with a little carbon [3]."))
    assert "“1538 degrees” is missing, though it stands in passage [3]: “Iron melts at 1538 degrees.”" in said
    assert "Expected fact “forged by hand” is missing; it was found in no passage." in said
    assert "“a little carbon” is missing" not in said


def test_any_accepted_answer_will_do() -> None:
    question = ask("?", "iron", accepted_answers=("carbon", "coal dust"))
    assert "It states the expected fact." in feedback(question, answer("Carbon, a little [3]."))
    assert "is missing, though it stands in passage [3]" in feedback(question, answer("Some of it [3]."))


def test_answering_an_unanswerable_question_and_abstaining_from_one_are_told_apart() -> None:
    question = ask("Who is the king of Atlantis?", expected_response="The documents do not say.")
    said = feedback(question, answer("Poseidon rules there [1]."))
    assert "It answered an unanswerable question" in said
    assert "“Poseidon rules there [1].”" in said
    said = feedback(question, answer("They do not say.", abstained=True))
    assert "Wrong" not in said
    assert "It abstained, rightly" in said


def test_abstaining_from_what_a_passage_holds_is_told_where() -> None:
    silent = answer("I cannot tell.", abstained=True)
    said = feedback(ask("?", "mountains", expected_facts=("71 degrees",)), silent)
    assert f"It abstained although passage [2] holds the answer: “{EVEREST}”" in said
    assert "It abstained although [2] is of the gold documents." in feedback(ask("?", "mountains"), silent)
    said = feedback(ask("?", "elsewhere"), silent, predictor="reader.answer")
    assert "Wrong" not in said
    assert "none of the passages that it was given is of a gold document" in said


def test_a_long_answer_is_called_long_where_length_is_part_of_the_score() -> None:
    question = ask("?", "water", expected_response="At 100 degrees.")
    long = answer(" ".join(["Water boils at 100 degrees at sea level [1]."] * 6))
    assert "It is too long: 245 characters, where the expected answer has 15." in feedback(
        question, long, token_f1=0.2
    )
    assert "too long" not in feedback(question, long, fact_recall=1.0)
    assert "too long" not in feedback(question, answer("Water boils at 100 degrees [1]."), token_f1=0.9)


def test_each_predictor_hears_of_its_own_part(crowded: LocalIndex) -> None:
    scope, _ = search(crowded, "when water boils")
    found = scope.retriever.search("when water boils", 5)
    cited = answer("Water boils [9].", found, "when water boils")
    question = ask("When does water boil?", "physics", expected_facts=("100 degrees",))
    for name in ("rewrite", "condense"):
        said = feedback(question, cited, scope, name)
        assert "at rank 9 and k was 5" in said
        assert "marker" not in said
        assert "Expected fact" not in said
    said = feedback(question, cited, scope, "reader.answer")
    assert "rank" not in said
    assert "1 marker pointed at no passage" in said
    assert "No passage of a gold document was among those that it was given." not in said.split("To know:")[0]
    both = feedback(question, cited, scope)
    assert "at rank 9 and k was 5" in both
    assert "1 marker" in both


def test_nothing_was_to_be_found_for_an_unanswerable_question() -> None:
    said = feedback(ask("Who?"), answer("He [1]."), None, "rewrite")
    assert "Wrong" not in said
    assert "No document answers this question" in said


def test_the_score_and_what_it_is_made_of_come_first() -> None:
    said = feedback(ask("?", "water"), answer("?"), None, "", fact_recall=0.25, tokens=1234.0)
    assert said.splitlines()[0] == "Score 0.5, where 1 is the best (fact_recall 0.25, tokens 1.23e+03)."


@given(
    st.text(max_size=300),
    st.lists(st.text(min_size=1, max_size=2_000), min_size=1, max_size=4),
    st.booleans(),
)
def test_any_text_gives_feedback_of_a_reasonable_length(text: str, texts: list[str], abstained: bool) -> None:
    passages = [Passage(f"c{n}", f"{SITE}{n}", said) for n, said in enumerate(texts)]
    question = Question(
        "q",
        "Why?",
        ((GoldItem(f"{SITE}0"),), (GoldItem("gone"),)),
        tuple(t for t in texts if t.strip()) * 5,
        text,
    )
    said = feedback(question, answer(text * 5 + " [1] [2]", passages, text, abstained=abstained))
    assert 0 < len(said) <= MOST_CHARACTERS
