"""Drafted questions: what is sampled, what is refused, and that nothing is asked or lost twice."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from eval.drafting.checks import AskedBefore, question_flaw, quote_flaw
from eval.drafting.drafting import DraftPlan, DraftReport, draft_questions, render_report
from eval.drafting.sampling import SHORTEST, plan_attempts
from eval.evaluate import evaluate
from eval.ground_truth import read_ground_truth
from eval.report import render_evaluation, render_json
from program.commands.dataset_generate import generate
from program.settings import Settings
from retrieval.analysis import analyze, content_terms
from retrieval.chunking import ChunkingSettings
from retrieval.errors import ConfigurationError, DataError, RunStoppedError, StorageError
from retrieval.local_index import LocalIndex
from retrieval.types import Document

MakeSettings = Callable[..., Settings]
SITE = "https://handbook.example/"
FOOTER = (
    "Copyright Example Company. All rights reserved worldwide. Terms, privacy, imprint, accessibility, sitemap, "
    "contact, careers, press, investors, partners, newsletter, cookies, status page, changelog, community, forum."
)


def section(subject: str, number: int) -> str:
    return (
        f"The {subject} of type {number} weighs {number + 3} kilograms and stands in hall {number}. "
        f"Before the {subject} is moved, loosen its bolts with key {number}, drain the oil, lock the wheels and "
        f"ask the foreman for a signature on form {number}. Repairs take {number + 1} days in the workshop."
    )


def section_ja(subject: str, number: int) -> str:
    return (
        f"{subject}{number}号機の重さは{number + 3}キロで、第{number}倉庫に置かれています。"
        "移動する前に固定ねじを緩め、油を抜き、車輪を固定して、"
        f"責任者の署名を書類{number}にもらってください。修理には作業場で{number + 1}日かかります。"
    )


@pytest.fixture(scope="module")
def handbook(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of a long document, short ones, some in Japanese, a menu, and a footer that two documents share."""
    path = tmp_path_factory.mktemp("handbook") / "index"
    documents = [
        Document(SITE + "cranes", "\n\n".join(section("crane", n) for n in range(10, 20)), "Cranes", "en"),
        Document(SITE + "lathes", section("lathe", 30), "Lathes", "en"),
        Document(SITE + "pumps", section("pump", 40), "Pumps", "en"),
        Document(SITE + "saws", section("saw", 50), "Saws", "en"),
        Document(SITE + "menu", "Home. Products. Contact.", "Menu", "en"),
        Document(SITE + "imprint", FOOTER, "Imprint", "en"),
        Document(SITE + "terms", FOOTER, "Terms", "en"),
        Document(SITE + "ja/cranes", section_ja("起重機", 60), "起重機", "ja"),
        Document(SITE + "ja/pumps", section_ja("揚水機", 70), "揚水機", "ja"),
    ]
    LocalIndex.build(path, documents, chunking=ChunkingSettings(80, 0))
    return path


@pytest.fixture
def settings(make_settings: MakeSettings, handbook: Path, language_model: Any) -> Settings:
    return make_settings(
        retrieval={"index": str(handbook)},
        language_model={"model": "openai/gpt-4o-mini", "api_base": language_model.url, "num_retries": 0},
        evaluation={"threads": 2},
    )


def prompt_of(body: dict[str, Any]) -> str:
    return str(body["messages"][-1]["content"])


def shown(body: dict[str, Any], name: str) -> str:
    found = re.search(rf"\[\[ ## {name} ## \]\]\n(.*?)(?=\n\n\[\[ ## |\n\nRespond)", prompt_of(body), re.S)
    return found.group(1) if found else ""


def layout(**fields: Any) -> str:
    sections = [f"[[ ## {name} ## ]]\n{value}" for name, value in fields.items()]
    return "\n\n".join([*sections, "[[ ## completed ## ]]"])


def own_words(passage: str, letters: str = "bdfgklmnprstvzou") -> str:
    """Some letters that no other passage has."""
    return "".join(letters[int(digit, 16)] for digit in hashlib.sha256(passage.encode()).hexdigest()[:14])


def good_draft(body: dict[str, Any], **changes: Any) -> str:
    """What a good model would say to a drafting prompt: a question of its own words and a true quote."""
    passage, kind = shown(body, "passage"), shown(body, "kind")
    if shown(body, "language") == "Japanese":
        word = own_words(passage, "春夏秋冬東西南北山川海空雨雪風花")
        question = f"{word}はどれくらい重いのですか" if kind == "lookup" else f"{word}を運ぶには何をするの"
    else:
        word = own_words(passage)
        question = f"How heavy is our {word}?" if kind == "lookup" else f"How can I get {word} home?"
    quote = re.split(r"(?<=[.。])", passage)[0]
    fields = {"usable": "True", "question": question, "answer": f"It is {len(quote)}.", "quote": quote}
    return layout(**{**fields, **changes})


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def test_documents_take_turns_and_short_or_repeated_passages_are_left_out(handbook: Path) -> None:
    index = LocalIndex.open(handbook)
    attempts = list(plan_attempts(index))
    passages = [attempt.passage for attempt in attempts]
    assert len({(p.doc_uri, p.chunk_id) for p in passages}) == len(passages), "each passage once"
    first = [passage.doc_uri for passage in passages[:7]]
    assert len(set(first)) == 7, "each document before any a second time"
    assert {passage.doc_uri for passage in passages[7:]} == {SITE + "cranes"}
    assert sum(passage.text == FOOTER for passage in passages) == 1
    assert SITE + "menu" not in {passage.doc_uri for passage in passages}
    assert all(len(content_terms(analyze(passage.text))) >= SHORTEST for passage in passages)
    assert Counter(a.kind for a in attempts)["lookup"] - Counter(a.kind for a in attempts)["how_to"] in (0, 1)


def test_the_seed_decides_the_order_and_a_language_what_is_there(handbook: Path) -> None:
    index = LocalIndex.open(handbook)
    orders = [[attempt.id for attempt in plan_attempts(index, seed=seed)] for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    japanese = list(plan_attempts(index, lang="ja"))
    assert {attempt.passage.lang for attempt in japanese} == {"ja"}


def test_unanswerable_attempts_are_spread_over_the_others(handbook: Path) -> None:
    kinds = [a.kind for a in islice(plan_attempts(LocalIndex.open(handbook), unanswerable=0.25), 12)]
    assert [number for number, kind in enumerate(kinds) if kind == "unanswerable"] == [3, 7, 11]


def test_drafts_are_a_ground_truth_with_gold_passages_marked_for_review(
    settings: Settings, language_model: Any, tmp_path: Path
) -> None:
    language_model.computes(good_draft)
    out = tmp_path / "drafts.jsonl"
    report = draft_questions(settings, DraftPlan(out, 6))
    assert (report.kept, report.in_file) == (6, 6)
    questions = read_ground_truth(out).questions
    index = LocalIndex.open(settings.retrieval.index)
    for question, row in zip(questions, rows(out), strict=True):
        ((gold,),) = question.gold
        (passage,) = [p for p in index.passages_of(gold.doc_uri) if p.chunk_id == gold.chunk_id]
        quote = row["expectations"]["expected_retrieved_context"][0]["content"]
        assert quote in passage.text
        assert question.expected_facts
        assert question.tags["review"] == "pending"
        assert question.tags["origin"] == "drafted"
        assert question.tags["model"] == "openai/gpt-4o-mini"
        assert question.tags["lang"] == passage.lang
        assert (passage.lang == "ja") == any("\u3040" < c < "\u9fff" for c in question.question)
    assert {question.tags["type"] for question in questions} == {"lookup", "how_to"}
    assert {question.tags["lang"] for question in questions} == {"en", "ja"}
    assert report.usage == {
        "input_tokens": 11 * len(language_model.requests),
        "output_tokens": 7 * len(language_model.requests),
    }
    assert report.usd is not None
    assert report.usd > 0


def test_no_more_calls_are_made_than_drafts_are_wanted(
    settings: Settings, language_model: Any, tmp_path: Path
) -> None:
    language_model.computes(good_draft)
    draft_questions(settings, DraftPlan(tmp_path / "d.jsonl", 3))
    assert len(language_model.requests) == 3


def test_each_flaw_is_dropped_and_counted(settings: Settings, language_model: Any, tmp_path: Path) -> None:
    flawed = {
        "lathe": {"quote": "The lathe is purple and sings."},
        "pump": {"question": "What does this passage say about pumps?"},
        "saw": {"question": "The saw of type 50 weighs 53 kilograms and stands in hall 50"},
        "起重機": {"question": "How heavy is the crane over there?"},
        "揚水機": {"answer": " "},
        "Copyright": {"usable": "False"},
    }

    def answer(body: dict[str, Any]) -> str:
        passage = shown(body, "passage")
        changes = next((change for word, change in flawed.items() if word in passage), {})
        return good_draft(body, **changes)

    language_model.computes(answer)
    report = draft_questions(settings, DraftPlan(tmp_path / "d.jsonl", 50))
    assert report.dropped == {
        "the quote is not in the passage": 1,
        "the question speaks of the passage, which nobody who asks has seen": 1,
        "the question copies the passage": 1,
        "the question is not in the passage's language": 1,
        "the answer is empty": 1,
        "the model found nothing worth asking": 1,
    }
    assert report.exhausted
    assert report.kept == len(rows(tmp_path / "d.jsonl")) > 0
    text = render_report(DraftPlan(tmp_path / "d.jsonl", 50), report)
    assert "Dropped: 1 × the quote is not in the passage" in text
    assert "Every fitting passage was asked about" in text


def test_a_question_that_is_nearly_one_of_the_dataset_or_the_file_is_dropped(
    settings: Settings, language_model: Any, tmp_path: Path
) -> None:
    language_model.computes(lambda body: good_draft(body, question="What makes the bread rise?"))
    report = draft_questions(settings, DraftPlan(tmp_path / "d.jsonl", 1, lang="en"))
    assert report.kept == 0
    assert set(report.dropped) == {"the question is nearly one that is there"}
    language_model.computes(lambda body: good_draft(body, question="Where do all the cranes sleep at night?"))
    anew = settings.language_model.model_copy(update={"cache": False})
    report = draft_questions(
        settings.model_copy(update={"language_model": anew}), DraftPlan(tmp_path / "e.jsonl", 2, lang="en")
    )
    assert report.kept == 1


def test_an_unanswerable_question_is_kept_only_if_the_corpus_does_not_answer_it(
    settings: Settings, language_model: Any, tmp_path: Path
) -> None:
    def answer(body: dict[str, Any]) -> str:
        if passage := shown(body, "passage"):
            about = "lathe" if "lathe" in passage else own_words(passage)
            return layout(usable="True", question=f"Who invented {about}?")
        return layout(answerable=str("lathe" in shown(body, "question")), answer="No.")

    language_model.computes(answer)
    report = draft_questions(settings, DraftPlan(tmp_path / "d.jsonl", 50, lang="en", unanswerable=1.0))
    assert report.dropped == {"the corpus answers what should be unanswerable": 1}
    assert report.kept > 5
    for question in read_ground_truth(tmp_path / "d.jsonl").questions:
        assert question.gold == ()
        assert not question.answerable
        assert question.tags["type"] == "unanswerable"
        assert "lathe" not in question.question


def test_a_call_that_fails_is_counted_and_made_again_the_next_time(
    settings: Settings, language_model: Any, tmp_path: Path
) -> None:
    alone = settings.model_copy(update={"evaluation": settings.evaluation.model_copy(update={"threads": 1})})
    plan = DraftPlan(tmp_path / "d.jsonl", 2, lang="en")
    tried = list(plan_attempts(LocalIndex.open(settings.retrieval.index), lang="en"))[:3]
    language_model.says("overlong prompt", status=400)
    for attempt in tried[1:]:
        kind = {"kind": attempt.kind, "language": "English", "passage": attempt.passage.text}
        prompt = "\n\n".join(f"[[ ## {name} ## ]]\n{value}" for name, value in kind.items())
        language_model.says(good_draft({"messages": [{"content": f"{prompt}\n\nRespond"}]}))
    first = draft_questions(alone, plan)
    assert (first.failed.total(), first.kept) == (1, 2)
    assert "Failed: 1 × The language model 'openai/gpt-4o-mini' failed: overlong prompt." in render_report(
        plan, first
    )
    assert [row["id"] for row in rows(plan.out)] == [attempt.id for attempt in tried[1:]]
    language_model.computes(good_draft)
    draft_questions(alone, DraftPlan(plan.out, 3, lang="en"))
    assert [row["id"] for row in rows(plan.out)] == [attempt.id for attempt in (*tried[1:], tried[0])]


def test_a_reply_that_cannot_be_read_costs_nothing_again(
    settings: Settings, language_model: Any, tmp_path: Path
) -> None:
    language_model.computes(lambda body: "gibberish" if "lathe" in prompt_of(body) else good_draft(body))
    plan = DraftPlan(tmp_path / "d.jsonl", 50, lang="en")
    assert draft_questions(settings, plan).failed.total() == 1
    asked = len(language_model.requests)
    assert draft_questions(settings, plan).failed.total() == 1
    assert len(language_model.requests) == asked


def test_a_model_that_always_fails_stops_the_drafting(
    settings: Settings, language_model: Any, tmp_path: Path
) -> None:
    language_model.says("no such deployment", status=404)
    with pytest.raises(RunStoppedError, match="Stopped drafting: 5 of 5 calls failed"):
        draft_questions(settings, DraftPlan(tmp_path / "d.jsonl", 50))
    assert not (tmp_path / "d.jsonl").exists()


def test_the_same_command_again_asks_nothing_and_a_larger_number_adds(
    settings: Settings, language_model: Any, tmp_path: Path
) -> None:
    language_model.computes(good_draft)
    out, all_at_once = tmp_path / "d.jsonl", tmp_path / "e.jsonl"
    draft_questions(settings, DraftPlan(out, 3))
    before = out.read_bytes()
    assert draft_questions(settings, DraftPlan(out, 3)) == DraftReport(in_file=3)
    assert len(language_model.requests) == 3
    draft_questions(settings, DraftPlan(out, 6))
    assert out.read_bytes().startswith(before)
    assert len(language_model.requests) == 6
    draft_questions(settings, DraftPlan(all_at_once, 6))
    assert all_at_once.read_bytes() == out.read_bytes()
    assert len(language_model.requests) == 6, "what was asked for one file is not asked for another"


def test_a_draft_that_a_person_deleted_or_changed_stays_so(
    settings: Settings, language_model: Any, tmp_path: Path
) -> None:
    language_model.computes(good_draft)
    out = tmp_path / "d.jsonl"
    draft_questions(settings, DraftPlan(out, 3))
    kept, deleted, changed = rows(out)
    changed["inputs"]["question"] = "A person's own words, altogether different?"
    changed["tags"]["review"] = "done"
    out.write_text("\n".join(json.dumps(row) for row in (kept, changed)) + "\n", encoding="utf-8")
    draft_questions(settings, DraftPlan(out, 3))
    ids = [row["id"] for row in rows(out)]
    assert len(ids) == 3
    assert deleted["id"] not in ids
    assert rows(out)[1] == changed


@pytest.mark.slow
def test_a_killed_process_loses_no_draft_and_ends_with_the_same_file(
    settings: Settings, language_model: Any, tmp_path: Path
) -> None:
    out, undisturbed = tmp_path / "d.jsonl", tmp_path / "e.jsonl"
    program = (
        "import sys; from pathlib import Path; from program.settings import Settings;"
        "from eval.drafting.drafting import DraftPlan, draft_questions;"
        f"draft_questions(Settings.model_validate_json(sys.stdin.read()), DraftPlan(Path({str(out)!r}), 6))"
    )
    language_model.computes(good_draft, delay_s=0.3)
    process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, cwd=tmp_path)
    assert process.stdin is not None
    process.stdin.write(settings.model_dump_json().encode())
    process.stdin.close()
    deadline = time.monotonic() + 60
    while len(language_model.requests) < 4 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    asked = len(language_model.requests)
    with out.open("ab") as cut:
        cut.write(b'{"id": "draft-cut sho')
    language_model.computes(good_draft)
    draft_questions(settings, DraftPlan(out, 6))
    assert len(language_model.requests) <= 6 + settings.evaluation.threads
    assert asked < len(language_model.requests)
    draft_questions(settings, DraftPlan(undisturbed, 6))
    assert out.read_bytes() == undisturbed.read_bytes()


def test_a_draft_that_a_crash_kept_out_of_the_journal_is_not_drafted_again(
    settings: Settings, language_model: Any, tmp_path: Path
) -> None:
    language_model.computes(good_draft)
    out = tmp_path / "d.jsonl"
    draft_questions(settings, DraftPlan(out, 2))
    journal = tmp_path / "d.jsonl.attempts"
    journal.write_bytes(journal.read_bytes().splitlines(keepends=True)[0])
    draft_questions(settings, DraftPlan(out, 3))
    assert len({row["id"] for row in rows(out)}) == 3
    journal.write_bytes(b"scribble\n")
    with pytest.raises(DataError, match="line 1: not an attempt"):
        draft_questions(settings, DraftPlan(out, 4))


def test_two_processes_do_not_draft_into_one_file(settings: Settings, tmp_path: Path) -> None:
    from eval.drafting.draft_file import DraftFile

    with DraftFile(tmp_path / "d.jsonl"), pytest.raises(StorageError, match="Another process is drafting"):
        draft_questions(settings, DraftPlan(tmp_path / "d.jsonl", 1))


def test_what_cannot_work_is_said_before_anything_is_asked(
    settings: Settings, make_settings: MakeSettings, handbook: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=r"--lang fr: no document.*Languages there: en, ja"):
        draft_questions(settings, DraftPlan(tmp_path / "d.jsonl", 1, lang="fr"))
    without = make_settings(retrieval={"index": str(handbook)})
    with pytest.raises(ConfigurationError, match="No language model is configured"):
        draft_questions(without, DraftPlan(tmp_path / "d.jsonl", 1))


def test_an_evaluation_says_how_many_questions_nobody_has_reviewed(
    settings: Settings, make_settings: MakeSettings, language_model: Any, handbook: Path, tmp_path: Path
) -> None:
    language_model.computes(good_draft)
    out = tmp_path / "drafts.jsonl"
    draft_questions(settings, DraftPlan(out, 4))
    reviewed = rows(out)
    reviewed[0]["tags"]["review"] = "done"
    out.write_text("\n".join(map(json.dumps, reviewed)) + "\n", encoding="utf-8")
    evaluation = evaluate(
        make_settings(retrieval={"index": str(handbook)}, evaluation={"dataset": str(out), "split": None})
    )
    assert "NOT REVIEWED: 3 of 4 questions" in render_evaluation(evaluation)
    assert json.loads(render_json(evaluation))["unreviewed"] == 3
    assert evaluation.result.summary.overall.intervals["passage_recall@3"].n == 4


def test_the_command_drafts_and_says_what_it_did(
    settings: Settings, language_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    language_model.computes(good_draft)
    model = settings.language_model
    options = [
        f"--set=language_model.model={model.model}",
        f"--set=language_model.api_base={model.api_base}",
        f"--set=evaluation.results={settings.evaluation.results}",
        f"--index={settings.retrieval.index}",
    ]
    done = CliRunner().invoke(generate, ["--out", "d.jsonl", "-n", "2", "--lang", "ja", *options])
    assert done.exit_code == 0, done.output
    assert "d.jsonl: 2 drafts (2 now), each with review = pending" in done.output
    assert all(row["tags"]["lang"] == "ja" for row in rows(tmp_path / "d.jsonl"))


PASSAGE = (
    "To rotate an API key, open Settings and choose Rotate. The old key works for one more hour.\n"
    "それから保存します。"
)


@pytest.mark.parametrize(
    ("question", "lang", "flaw"),
    [
        ("How long does a replaced key stay valid?", "en", ""),
        ("鍵を交換するにはどうすればいいですか", "ja", ""),
        ("How do I update the document in my index?", "en", ""),
        ("この文書の鍵はどこで作りますか？教えてください", "ja", "speaks of the passage"),
        ("According to the document, how long does it work?", "en", "speaks of the passage"),
        ("To rotate an API key, open Settings and choose what?", "en", "copies the passage"),
        ("How long is it valid?", "ja", "language"),
        ("鍵はいつまで有効ですか", "en", "language"),
        ("Why?", "en", "too short"),
        ("How long does a replaced key stay valid?", "", ""),
    ],
)
def test_questions_are_held_against_the_passage(question: str, lang: str, flaw: str) -> None:
    found = question_flaw(question, PASSAGE, lang)
    assert flaw in found
    assert bool(flaw) == bool(found)


def test_a_quote_is_verbatim_but_for_white_space() -> None:
    assert quote_flaw("The old key works  for one\nmore hour.", PASSAGE) == ""
    assert quote_flaw("それから保存します。", PASSAGE) == ""
    assert "not in the passage" in quote_flaw("The old key works for two more hours.", PASSAGE)
    assert "too short" in quote_flaw("  Rotate ", PASSAGE)


def test_nearly_the_same_question_was_asked_before() -> None:
    asked = AskedBefore(["How do I rotate an API key?", "富士山の高さは何メートルですか"])
    assert "how do i rotate an API-key" in asked
    assert "富士山の高さは何メートルですか？" in asked
    assert "How do I delete an API key?" not in asked
    assert "富士山はどこにありますか" not in asked
