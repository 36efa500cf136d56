import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.ground_truth import GoldItem, GroundTruth, Question, check_gold_exists, read_ground_truth
from retrieval.errors import ConfigurationError, GroundTruthError

OURS: dict[str, Any] = {
    "id": "q1",
    "inputs": {"question": "Where?"},
    "expectations": {
        "expected_retrieved_context": [{"doc_uri": "a", "grade": 2}, ["b", {"doc_uri": "c"}]],
        "expected_facts": ["here"],
        "expected_response": "Here.",
    },
    "tags": {"type": "fact", "split": "dev", "lang": "en"},
}


def row(question: str, *uris: object, **tags: str) -> dict[str, Any]:
    return {
        "inputs": {"question": question},
        "expectations": {"expected_retrieved_context": list(uris)},
        "tags": tags,
    }


def write(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")
    return path


def write_beir(path: Path, queries: Sequence[Any], **splits: str) -> Path:
    (path / "qrels").mkdir(parents=True)
    write(path / "queries.jsonl", queries)
    for name, lines in splits.items():
        text = "query-id\tcorpus-id\tscore\n" + lines.replace(" ", "\t")
        (path / "qrels" / f"{name}.tsv").write_text(text, encoding="utf-8")
    return path


def read_one(tmp_path: Path, *rows: Any) -> Question:
    return read_ground_truth(write(tmp_path / "q.jsonl", rows)).questions[0]


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(GroundTruthError) as caught:
        read_ground_truth(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


# The agent-evaluation set


def test_our_shape_is_read_whole(tmp_path: Path) -> None:
    assert read_one(tmp_path, OURS) == Question(
        id="q1",
        question="Where?",
        gold=((GoldItem("a", 2),), (GoldItem("b"), GoldItem("c"))),
        expected_facts=("here",),
        expected_response="Here.",
        tags={"type": "fact", "split": "dev", "lang": "en"},
    )


@pytest.mark.parametrize(
    "inputs",
    [
        {"request": "Where?"},
        {"inputs": "Where?"},
        {"question": "Where?"},
        {"inputs": {"query": "Where?"}},
        {"inputs": {"messages": [{"role": "user", "content": "Where?"}]}},
        {"request": {"messages": [{"role": "user", "content": "Where?"}]}},
        {"inputs": {"input": [{"role": "user", "content": [{"type": "input_text", "text": "Where?"}]}]}},
    ],
)
def test_databricks_spellings_ask_the_same_question(tmp_path: Path, inputs: dict[str, Any]) -> None:
    flat = {"request_id": 7, "expected_retrieved_context": [{"doc_uri": "a", "content": "…"}, "b"]}
    question = read_one(tmp_path, {**inputs, **flat, "expected_facts": None, "guidelines": ["be kind"]})
    assert (question.id, question.question, question.history) == ("7", "Where?", ())
    assert question.gold == ((GoldItem("a"),), (GoldItem("b"),))


def test_the_last_user_message_is_the_question_and_the_earlier_ones_its_history(tmp_path: Path) -> None:
    turns = [{"role": role, "content": text} for role, text in (("user", "A?"), ("assistant", "B."))]
    asked = {"messages": [*turns, {"role": "user", "content": "And C?"}]}
    question = read_one(tmp_path, {**OURS, "inputs": asked})
    assert (question.question, list(question.history)) == ("And C?", turns)


def test_a_history_can_stand_beside_the_question(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "A?"}, {"role": "assistant", "content": "B."}]
    question = read_one(tmp_path, {**OURS, "inputs": {"question": "And C?", "history": turns}})
    assert list(question.history) == turns


def test_gold_can_name_passages_and_tags_become_text(tmp_path: Path) -> None:
    question = read_one(
        tmp_path, row("Where?", {"doc_uri": "a", "chunk_id": 3}) | {"tags": {"hops": 2, "x": None}}
    )
    assert question.gold == ((GoldItem("a", 1, "3"),),)
    assert question.tags == {"hops": "2"}


def test_an_empty_gold_is_unanswerable_and_so_is_one_of_grade_zero(tmp_path: Path) -> None:
    rows = [row("Who?"), row("Why?", {"doc_uri": "a", "grade": 0}), row("Where?", "a")]
    questions = read_ground_truth(write(tmp_path / "q.jsonl", rows)).questions
    assert [question.answerable for question in questions] == [False, False, True]


def test_a_missing_id_is_a_hash_of_the_question_that_stays_the_same(tmp_path: Path) -> None:
    one, other = read_one(tmp_path, row("Where?", "a")), read_one(tmp_path, row("Where?", "b"))
    assert one.id == other.id == "fb59de59b613ba5c"
    assert read_one(tmp_path, row("Why?", "a")).id != one.id


def test_gzip_a_byte_order_mark_and_blank_lines_are_no_trouble(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl.gz"
    path.write_bytes(gzip.compress(("\ufeff" + json.dumps(OURS) + "\n\n").encode()))
    truth = read_ground_truth(path)
    assert (truth.name, len(truth.questions), truth.path) == ("set", 1, path)


# What is wrong with a set, where, and what to do


def test_a_broken_line_is_named_by_file_and_number(tmp_path: Path) -> None:
    path = write(tmp_path / "q.jsonl", [OURS])
    path.write_text(path.read_text() + '\n{"id": "q2", oops\n')
    assert f"{path}:3: not valid JSON" in refusal(path)
    assert '{"id": "q2", oops' in refusal(path)


def test_a_line_that_is_no_object_is_refused(tmp_path: Path) -> None:
    assert ":2: expected an object" in refusal(write(tmp_path / "q.jsonl", [OURS, ["q"]]))


def test_a_wrong_encoding_is_named_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_bytes(json.dumps(OURS).encode() + b"\n" + "質問".encode("shift_jis"))
    assert f"{path}:2: not UTF-8" in refusal(path)


def test_a_broken_gzip_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(OURS).encode())[:-12])
    assert f"Cannot read {path}" in refusal(path)


@pytest.mark.parametrize(
    ("changed", "field", "value"),
    [
        ({"inputs": {"question": 7}}, "inputs.question", "7"),
        ({"inputs": {}}, "inputs holds no question", "inputs.messages"),
        (
            {"inputs": {"messages": [{"role": "assistant", "content": "x"}]}},
            "inputs holds no",
            "user message",
        ),
        ({"inputs": {"question": "  "}}, "the question is empty", "remove the row"),
        ({"expectations": {}}, "expected_retrieved_context is missing", "[] if none"),
        ({"expectations": {"expected_retrieved_context": "a"}}, "expected_retrieved_context", "'a'"),
        (
            {"expectations": {"expected_retrieved_context": [{"uri": "a"}]}},
            "doc_uri is missing",
            "context.0.0",
        ),
        ({"expectations": {"expected_retrieved_context": [{"doc_uri": ""}]}}, "without doc_uri", "q1"),
        ({"expectations": {"expected_retrieved_context": [{"doc_uri": "a", "grade": "x"}]}}, "grade", "'x'"),
        ({"expectations": {"expected_retrieved_context": [{"doc_uri": "a", "grade": -1}]}}, "-1", "Use 0"),
        ({"expectations": {"expected_retrieved_context": [[]]}}, "empty list of alternatives", "q1"),
        (
            {"expectations": {"expected_retrieved_context": [["a", "b"], ["b"]]}},
            "'b' stands in two",
            "disjoint",
        ),
        (
            {"expectations": {"expected_retrieved_context": [["a", {"doc_uri": "b", "grade": 2}]]}},
            "different grades",
            "'b' (2)",
        ),
        ({"tags": {"type": ["x"]}}, "tags.type", "['x']"),
    ],
)
def test_an_unusable_field_is_named_with_its_line_and_value(
    tmp_path: Path, changed: dict[str, Any], field: str, value: str
) -> None:
    message = refusal(write(tmp_path / "q.jsonl", [row("First?", "a"), {**OURS, **changed}]))
    assert f"{tmp_path / 'q.jsonl'}:2: " in message
    assert field in message
    assert value in message


def test_a_repeated_list_of_alternatives_is_the_same_list(tmp_path: Path) -> None:
    gold = [["a", "b"], ["b", "a"], [{"doc_uri": "c", "chunk_id": "1"}], [{"doc_uri": "c", "chunk_id": "2"}]]
    assert read_one(tmp_path, row("Where?", *gold)).answerable


def test_a_document_in_two_lists_of_alternatives_is_refused_even_by_different_passages(
    tmp_path: Path,
) -> None:
    a1, a2, b1 = ({"doc_uri": uri, "chunk_id": chunk} for uri, chunk in ("a1", "a2", "b1"))
    assert "'a' stands in two" in refusal(write(tmp_path / "q.jsonl", [row("Where?", [a1, b1], [a2])]))


def test_a_duplicate_id_names_both_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "q.jsonl", [OURS, {**row("Why?", "a"), "id": "q1"}])
    assert f"{path}:2: id 'q1' was used before, at {path}:1" in refusal(path)


def test_a_duplicate_question_names_both_lines_even_across_splits(tmp_path: Path) -> None:
    rows = [row("Where  is it?", "a", split="train"), row("where is it?", "b", split="test")]
    path = write(tmp_path / "q.jsonl", rows)
    assert f"{path}:2: question 'where is it?' was asked before, at {path}:1" in refusal(path, split="test")


def test_the_same_words_after_another_history_are_another_question(tmp_path: Path) -> None:
    rows = [row("And then?", "a"), row("And then?", "a")]
    rows[1]["inputs"]["history"] = [{"role": "user", "content": "First?"}]
    assert len(read_ground_truth(write(tmp_path / "q.jsonl", rows)).questions) == 2


def test_an_empty_file_a_missing_one_and_an_unknown_format_are_refused(tmp_path: Path) -> None:
    assert "holds no question" in refusal(write(tmp_path / "empty.jsonl", []))
    assert f"No ground truth at '{tmp_path / 'nothing.jsonl'}'" in refusal(tmp_path / "nothing.jsonl")
    assert "unknown format" in refusal(write(tmp_path / "set.xml", []))
    assert "no BEIR directory" in refusal(tmp_path)


# Selection and identity


def test_a_split_and_a_limit_select_in_the_order_of_the_file(tmp_path: Path) -> None:
    splits = ["dev", "test", "dev", "dev"]
    path = write(tmp_path / "q.jsonl", [row(f"Q{i}?", "a", split=s) for i, s in enumerate(splits)])
    assert len(read_ground_truth(path).questions) == 4
    assert [q.question for q in read_ground_truth(path, split="dev", limit=2).questions] == ["Q0?", "Q2?"]


def test_an_unknown_split_names_those_there_are(tmp_path: Path) -> None:
    path = write(tmp_path / "q.jsonl", [row("A?", "a", split="dev"), row("B?", "a", split="train")])
    assert "no split 'trian'. Did you mean 'train'? Splits there: dev, train" in refusal(path, split="trian")


def test_a_limit_below_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="limit = 0"):
        read_ground_truth(write(tmp_path / "q.jsonl", [OURS]), limit=0)


QUESTIONS = st.lists(
    st.builds(
        Question, st.uuids().map(str), st.just("Q?"), st.just(((GoldItem("a"),),)), st.tuples(st.text())
    ),
    min_size=1,
    max_size=5,
)


@given(QUESTIONS, st.randoms())
def test_the_digest_knows_the_content_but_not_the_order(questions: list[Question], random: Any) -> None:
    shuffled = random.sample(questions, len(questions))
    digest = GroundTruth("set", Path("set"), tuple(questions)).digest
    assert GroundTruth("other", Path("other"), tuple(shuffled)).digest == digest
    assert GroundTruth("set", Path("set"), tuple(questions[1:])).digest != digest
    # MLflow allows 36 characters.
    assert len(digest) == 32


def test_the_digest_is_the_same_for_the_same_questions_in_another_format(tmp_path: Path) -> None:
    path = tmp_path / "q.csv"
    path.write_text("id,question,doc_uri\n1,Where?,a|b\n")
    as_rows = write(tmp_path / "q.jsonl", [row("Where?", "a", "b") | {"id": "1"}])
    assert read_ground_truth(path).digest == read_ground_truth(as_rows).digest


# BEIR


def test_a_beir_directory_keeps_grades_and_answers(tmp_path: Path) -> None:
    queries = [
        {"_id": "q1", "text": "Where?", "answers": ["in it", "it", "it"], "metadata": {"lang": "en", "n": 1}},
        {"_id": "q2", "text": "Who?", "metadata": {"answer": "me"}},
        {"_id": "q3", "text": "Not judged here."},
    ]
    path = write_beir(tmp_path / "set", queries, test="q1 d1 2\nq1 d2 0\nq2 d1 -1\n")
    truth = read_ground_truth(path)
    first, second = truth.questions
    assert (truth.name, first.id, first.question) == ("set", "q1", "Where?")
    assert first.gold == ((GoldItem("d1", 2),), (GoldItem("d2", 0),))
    assert (first.expected_response, first.accepted_answers) == ("in it", ("in it", "it"))
    assert first.tags == {"split": "test", "lang": "en"}
    assert (second.gold, second.answerable, second.accepted_answers) == (
        ((GoldItem("d1", 0),),),
        False,
        ("me",),
    )


def test_beir_queries_may_be_gzipped_and_may_repeat_a_text(tmp_path: Path) -> None:
    queries = [{"_id": i, "text": "Same?"} for i in "ab"]
    path = write_beir(tmp_path, queries, dev="a d1 1\nb d2 1\n")
    plain = path / "queries.jsonl"
    (path / "queries.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    assert [question.id for question in read_ground_truth(path).questions] == ["a", "b"]


def test_of_several_beir_splits_test_is_read_unless_another_is_named(tmp_path: Path) -> None:
    queries = [{"_id": i, "text": f"{i}?"} for i in "ab"]
    path = write_beir(tmp_path / "one", queries, dev="a d1 1\n", test="b d1 1\n")
    assert [q.id for q in read_ground_truth(path).questions] == ["b"]
    assert [q.id for q in read_ground_truth(path, split="dev").questions] == ["a"]
    assert "no split 'tets'. Did you mean 'test'? Splits there: dev, test" in refusal(path, split="tets")
    without_test = write_beir(tmp_path / "two", queries, dev="a d1 1\n", train="b d1 1\n")
    assert "no split 'test'. Splits there: dev, train" in refusal(without_test)


def test_a_broken_judgement_and_an_unknown_or_repeated_query_are_refused(tmp_path: Path) -> None:
    queries = [{"_id": "a", "text": "A?"}]
    assert "test.tsv:3: expected query-id" in refusal(
        write_beir(tmp_path / "1", queries, test="a d 1\na d x\n")
    )
    assert "test.tsv:2: expected query-id" in refusal(write_beir(tmp_path / "2", queries, test="a d\n"))
    assert "lacks, first 'z'" in refusal(write_beir(tmp_path / "3", queries, test="a d 1\nz d 1\n"))
    assert "id 'a' was used before" in refusal(write_beir(tmp_path / "4", queries * 2, test="a d 1\n"))
    assert "queries.jsonl:1: _id" in refusal(write_beir(tmp_path / "5", [{"text": "A?"}], test="a d 1\n"))
    assert "queries.jsonl:1: the question is empty" in refusal(
        write_beir(tmp_path / "6", [{"_id": "a", "text": ""}], test="a d 1\n")
    )


def test_a_column_mapping_has_no_meaning_for_beir(tmp_path: Path) -> None:
    path = write_beir(tmp_path, [{"_id": "a", "text": "A?"}], test="a d 1\n")
    with pytest.raises(ConfigurationError, match="columns has no meaning"):
        read_ground_truth(path, columns={"question": "q"})


# Tables

COLUMNS = {"question": "q", "doc_uri": "url", "lang": "language", "tags.team": "team"}


def test_csv_parquet_and_jsonl_with_mapped_columns_are_the_same_table(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('q,url,language,team\n"Where, then?","a\nb",en,x\nWho?,,ja,\n')
    rows = [
        {"q": "Where, then?", "url": ["a", "b"], "language": "en", "team": "x"},
        {"q": "Who?", "url": [], "language": "ja", "team": None},
    ]
    write(tmp_path / "t.jsonl", rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    read = [read_ground_truth(tmp_path / f"t.{e}", columns=COLUMNS) for e in ("csv", "jsonl", "parquet")]
    assert read[0].questions == read[1].questions == read[2].questions
    first, second = read[0].questions
    assert (first.question, first.gold) == ("Where, then?", ((GoldItem("a"),), (GoldItem("b"),)))
    assert (first.tags, second.tags) == ({"lang": "en", "team": "x"}, {"lang": "ja"})
    assert not second.answerable


@pytest.mark.parametrize(
    ("uris", "grade", "chunk_id", "gold"),
    [
        ("a|b", "", "", ((GoldItem("a"),), (GoldItem("b"),))),
        ("a|b", "2", "", ((GoldItem("a", 2),), (GoldItem("b", 2),))),
        ("a|b", "2|1", "7|8", ((GoldItem("a", 2, "7"),), (GoldItem("b", 1, "8"),))),
        ('[["a", "b"], "c|d"]', "", "", ((GoldItem("a"), GoldItem("b")), (GoldItem("c|d"),))),
        ('[["a", "b"], "c"]', "1|3", "", ((GoldItem("a"), GoldItem("b")), (GoldItem("c", 3),))),
        ('[{"doc_uri": "a", "grade": 2}]', "", "", ((GoldItem("a", 2),),)),
    ],
)
def test_one_cell_holds_several_documents(
    tmp_path: Path, uris: str, grade: str, chunk_id: str, gold: object
) -> None:
    cells = [cell.replace('"', '""') for cell in (uris, grade, chunk_id)]
    path = tmp_path / "t.csv"
    path.write_text("question,doc_uri,grade,chunk_id\n" + ",".join(["Where?", *(f'"{c}"' for c in cells)]))
    assert read_ground_truth(path).questions[0].gold == gold


def test_facts_stand_on_lines_of_their_own_and_may_hold_a_bar(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('question,doc_uri,expected_facts\nWhere?,a,"int | str\nhere"\n')
    assert read_ground_truth(tmp_path / "t.csv").questions[0].expected_facts == ("int | str", "here")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("questoin,doc_uri\nA?,a\n", "no column 'question' for question. Did you mean 'questoin'?"),
        ("question,url\nA?,a\n", "no column 'doc_uri' for doc_uri. The columns are: question, url"),
        ("question,doc_uri\nA?,a\n,b\n", "t.csv:3: the question is empty"),
        ('question,doc_uri\n"A\nB?",a\nC?,b,c\n', "t.csv:4: more cells than the header"),
        ('question,doc_uri\nA?,"a" b\n', "t.csv:2: not CSV"),
        ('question,doc_uri\nA?,"[a"\n', "t.csv:2: doc_uri starts like a JSON list"),
        ("question,doc_uri,grade\nA?,a|b,1|2|3\n", "t.csv:2: grade has 3 values for 2"),
        ("question,doc_uri,grade\nA?,a,high\n", "t.csv:2: expectations.expected_retrieved_context.0.0.grade"),
        ("question,doc_uri\n", "holds no question"),
    ],
)
def test_an_unusable_table_is_refused_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    assert message in refusal(tmp_path / "t.csv")


def test_a_mapped_column_that_is_not_there_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("q,url\nA?,a\n")
    message = refusal(tmp_path / "t.csv", columns={"question": "q", "doc_uri": "urls"})
    assert "no column 'urls' for doc_uri. Did you mean 'url'? The columns are: q, url" in message


def test_a_json_row_without_its_gold_column_does_not_pass_for_unanswerable(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", [{"q": "A?", "url": "a"}, {"q": "B?"}])
    assert f"{path}:2: there is no column 'url'" in refusal(path, columns={"question": "q", "doc_uri": "url"})


def test_a_field_that_cannot_be_mapped_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("q,url\nA?,a\n")
    with pytest.raises(ConfigurationError, match=r"no field 'doc_url' to map. Did you mean 'doc_uri'"):
        read_ground_truth(tmp_path / "t.csv", columns={"doc_url": "url"})


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_text("no")
    assert "as Parquet" in refusal(tmp_path / "t.parquet")


# Gold and corpus


def truth_of(*golds: Sequence[str]) -> GroundTruth:
    questions = [Question(f"q{i}", "?", tuple((GoldItem(u),) for u in uris)) for i, uris in enumerate(golds)]
    return GroundTruth("set", Path("set.jsonl"), tuple(questions))


def test_gold_that_is_known_under_normalized_uris_passes() -> None:
    check_gold_exists(truth_of(["A"], ["b"], []), {"a", "B"}, str.lower)


def test_gold_that_is_judged_irrelevant_need_not_be_known() -> None:
    question = Question("q", "?", ((GoldItem("known"),), (GoldItem("unknown", 0),)))
    check_gold_exists(GroundTruth("set", Path("s"), (question,)), {"known"}, str)


def test_gold_that_names_unknown_documents_is_refused_with_documents_and_questions() -> None:
    truth = truth_of(["https://docs/pages", "a"], ["https://docs/pages"], *([f"x{i}"] for i in range(9)))
    with pytest.raises(GroundTruthError) as caught:
        check_gold_exists(truth, {"a", "https://docs/page"}, str)
    message = str(caught.value)
    assert "set.jsonl: the gold names 10 documents that are not in the index" in message
    assert "'https://docs/pages' (question 'q0', 'q1'), 'x0' (question 'q2')" in message
    assert "'x3'" in message
    assert "'x4'" not in message
    assert "Nearest to the first: 'https://docs/page'" in message
