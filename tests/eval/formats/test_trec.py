"""TREC's files as others write them, and what is wrong with some."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
import pytest

from eval.formats.trec_runs import read_trec_run, write_trec_run
from eval.ground_truth import GoldItem, Question, read_every_split, read_ground_truth
from eval.scored_runs import ScoredRun
from retrieval.errors import DataError, GroundTruthError

# The layout of TREC-8's topics: labels, text on several lines, blank lines, entities.
CLASSIC = """
<top>

<num> Number: 401
<title> foreign minorities,
 Germany &amp; Japan

<desc> Description:
What language and cultural differences impede integration?

<narr> Narrative:
A relevant document will name <b>one</b>.

</top>
<top>
<num> Number: 402 </num>
<desc> Description:
富士山の高さは？
</desc>
</top>
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def refusal(topics: Path, qrels: Path) -> str:
    with pytest.raises(GroundTruthError) as caught:
        read_ground_truth(f"trec:{topics},{qrels}")
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_classic_topics_are_read_by_title_and_else_by_description(tmp_path: Path) -> None:
    topics = write(tmp_path / "topics.txt", CLASSIC)
    qrels = write(tmp_path / "qrels.txt", "401 0 FBIS3-1 1\n401 0 FT-2 -2\n402 Q0 文書/1 2\n\n")
    assert read_ground_truth(tmp_path).questions == (
        Question(
            "401", "foreign minorities, Germany & Japan", ((GoldItem("FBIS3-1"),), (GoldItem("FT-2", 0),))
        ),
        Question("402", "富士山の高さは？", ((GoldItem("文書/1", 2),),)),
    )
    assert read_ground_truth(f"trec:{topics},{qrels}").questions == read_ground_truth(tmp_path).questions


def test_topics_of_lines_may_hold_further_tabs_and_unjudged_topics_are_left_out(tmp_path: Path) -> None:
    write(tmp_path / "topics.tsv", "1\tWhere\tis it?\n2\tNot judged\n")
    write(tmp_path / "qrels.txt", "1\t0\td1\t1\n")
    assert [(q.id, q.question) for q in read_ground_truth(tmp_path).questions] == [("1", "Where\tis it?")]


def test_splits_are_told_by_the_names_of_the_files(tmp_path: Path) -> None:
    for split in ("dev", "test"):
        write(tmp_path / f"topics.{split}.tsv", f"{split}1\tWhere is {split}?\n")
        write(tmp_path / f"qrels.{split}.txt", f"{split}1 0 d 1\n")
    assert [q.id for q in read_ground_truth(tmp_path).questions] == ["test1"]
    assert read_ground_truth(tmp_path, split="dev").questions[0].tags == {"split": "dev"}
    assert [q.id for q in read_every_split(tmp_path).questions] == ["dev1", "test1"]
    with pytest.raises(
        GroundTruthError, match=r"no split 'dve'. Did you mean 'dev'\? Splits there: dev, test"
    ):
        read_ground_truth(tmp_path, split="dve")


@pytest.mark.parametrize(
    ("topics", "qrels", "message"),
    [
        ("1\tA?\n", "1 0 d\n", "qrels.txt:1: expected topic, iteration, document and a whole number"),
        ("1\tA?\n", "1 0 d 1\n1 0 d high\n", "qrels.txt:2: expected topic"),
        ("1\tA?\n", "1 0 d 1\n9 0 d 1\n", "judges 1 topics that topics.txt lacks, first '9'"),
        ("1 A?\n", "1 0 d 1\n", "topics.txt:1: expected an id, a tab and the question, not '1 A?'"),
        ("1\t \n", "1 0 d 1\n", "topics.txt:1: the question is empty"),
        ("1\tA?\n1\tB?\n", "1 0 d 1\n", "topics.txt:2: id '1' was used before"),
        ("<top>\n<title> A?\n</top>\n", "1 0 d 1\n", "topics.txt:1: the topic has no <num>"),
        ("\n<top>\n<num> 1\n<title> A?\n", "1 0 d 1\n", "topics.txt:2: the topic has no </top>"),
        ("<top>\n<num> 1\n<top>\n", "1 0 d 1\n", "topics.txt:3: <top> within the topic of line 1"),
        ("", "1 0 d 1\n", "judges 1 topics"),
        ("1\tA?\n", "", "holds no question"),
    ],
)
def test_an_unusable_line_is_named(tmp_path: Path, topics: str, qrels: str, message: str) -> None:
    assert message in refusal(write(tmp_path / "topics.txt", topics), write(tmp_path / "qrels.txt", qrels))


def test_an_address_names_two_files(tmp_path: Path) -> None:
    with pytest.raises(GroundTruthError, match="name two files: trec:TOPICS,QRELS"):
        read_ground_truth("trec:topics.txt")
    assert "Cannot read" in refusal(tmp_path / "no.txt", tmp_path / "none.txt")


# Run files


def test_a_run_is_read_by_its_scores_and_not_by_its_ranks(tmp_path: Path) -> None:
    run = write(
        tmp_path / "bm25.run",
        "1 Q0 a 3 0.5 x\n1 Q0 b 1 2.5e0 x\n1 Q0 c 2 0.5 x\n1\tQ0\tb\t9\t0.1\tx\n\n2 Q0 文書 1 -1 x\n",
    )
    assert read_trec_run(run) == {"1": ["b", "a", "c"], "2": ["文書"]}


@pytest.mark.parametrize("line", ["1 Q0 a 1 0.5", "1 Q0 a 1 high x", "1 Q0 a 1 nan x", "1 Q0 a 1 inf x"])
def test_an_unusable_line_of_a_run_is_named(tmp_path: Path, line: str) -> None:
    run = write(tmp_path / "bad.run", f"1 Q0 a 1 0.5 x\n{line}\n")
    with pytest.raises(DataError, match=r"bad.run:2: expected topic, Q0, document, rank, score and tag"):
        read_trec_run(run)


def scored_run(rows: dict[str, dict[str, Any]]) -> ScoredRun:
    return ScoredRun(
        name="my run",
        source="x",
        questions=dict.fromkeys(rows, "?"),
        values={"mrr": np.zeros(len(rows))},
        row=lambda id_: rows[id_],
    )


def passages(*uris: str) -> list[dict[str, Any]]:
    return [{"doc_uri": uri, "chunk_id": f"{uri}#{i}", "score": 1.0} for i, uri in enumerate(uris)]


def test_a_run_of_ours_rolls_up_to_documents_in_the_spelling_of_the_gold(tmp_path: Path) -> None:
    rows = {
        "q1": {"retrieved": passages("A", "b", "a", "c"), "gold": [["a"]]},
        "q2": {"retrieved": [], "gold": [["b"]]},
        "q3": {"error": "failed"},
    }
    written = write_trec_run(scored_run(rows), tmp_path / "run.trec", str.lower)
    assert (written.questions, written.without_lines) == (1, ["q2", "q3"])
    assert (tmp_path / "run.trec").read_text() == (
        "q1 Q0 a 1 3 my-run\nq1 Q0 b 2 2 my-run\nq1 Q0 c 3 1 my-run\n"
    )
    assert read_trec_run(tmp_path / "run.trec") == {"q1": ["a", "b", "c"]}


def test_trec_eval_scores_a_written_run_as_we_rank_it(tmp_path: Path) -> None:
    rows = {"q1": {"retrieved": passages("z", "a", "m"), "gold": [["a"]]}}
    write_trec_run(scored_run(rows), tmp_path / "run.trec")
    write(tmp_path / "qrels.txt", "q1 0 a 1\n")
    measured = ir_measures.calc_aggregate(
        [ir_measures.RR],
        list(ir_measures.read_trec_qrels(str(tmp_path / "qrels.txt"))),
        list(ir_measures.read_trec_run(str(tmp_path / "run.trec"))),
    )
    assert measured == {ir_measures.RR: 0.5}


def test_a_doc_uri_with_white_space_cannot_be_in_a_run(tmp_path: Path) -> None:
    rows = {"q1": {"retrieved": passages("a b"), "gold": []}}
    with pytest.raises(GroundTruthError, match="'a b' cannot stand in a run file"):
        write_trec_run(scored_run(rows), tmp_path / "run.trec")
    assert not (tmp_path / "run.trec").exists()
