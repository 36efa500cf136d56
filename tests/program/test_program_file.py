"""The program file on disk: what strangers put there is read as data, or refused."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from program.program_file import (
    FORMAT,
    MAX_BYTES,
    VERSION,
    is_program_file,
    read_program_file,
    write_program_file,
)
from program.strict_json import MAX_DEPTH
from retrieval.errors import ProgramStateError

PREDICTOR = {"signature": {"instructions": "Answer.", "fields": []}, "demos": []}


def body(**changes: Any) -> bytes:
    entire = {"format": FORMAT, "version": VERSION, "provenance": {}, "predictors": {}, **changes}
    return json.dumps(entire).encode()


def demo(**fields: Any) -> bytes:
    return body(predictors={"answer": {**PREDICTOR, "demos": [fields]}})


class Opens:
    """What a pickle would run."""

    def __reduce__(self) -> Any:
        return (os.mkdir, ("ran",))


def nested(depth: int) -> bytes:
    return body(provenance={"deep": "?"}).replace(b'"?"', b"[" * depth + b"]" * depth)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not readable JSON"),
        (b"{", "not readable JSON"),
        (b"\xff\xfe", "not readable JSON: it is not UTF-8"),
        (pickle.dumps(Opens()), "it is a pickle, which could run code"),
        (pickle.dumps(Opens(), protocol=0), "not readable JSON"),
        (b"[1]", "not a citeqa program file"),
        (b'{"metadata": {}, "answer": {}}', "not a citeqa program file"),
        (b'{"__class__": "os.system", "args": ["touch ran"]}', "not a citeqa program file"),
        (body(format="other"), "not a citeqa program file"),
        (body(predictors=[]), r"predictors: input should be an object"),
        (body(extra=1), "extra: extra inputs"),
        (
            body(version=VERSION + 1),
            f"version {VERSION + 1}; this citeqa reads version 1 to {VERSION}. Install a newer",
        ),
        (body(version=None), "version None"),
        (body(version=True), "version True"),
        (body(version=1.0), "version 1.0"),
        (body(version="9" * 5000), f"version {'9' * 20};"),
        (body(predictors={"answer": 1}), "predictors.answer: input should be"),
        (body(predictors={"answer": {"signature": [], "demos": []}}), "predictors.answer.signature: "),
        (
            body(predictors={"answer": {**PREDICTOR, "lm": {"api_base": "http://evil"}}}),
            "answer.lm: extra inputs",
        ),
        (body(predictors={"answer": {**PREDICTOR, "__class__": "os.system"}}), "__class__: extra inputs"),
        (
            body(predictors={"answer": {"signature": {"instructions": 7}}}),
            "instructions: input should be a valid str",
        ),
        (demo(__reduce__=["os.system"]), r"answer.demos.0: '__reduce__' is no name of a field"),
        (
            body(provenance={"scores": {"dev": {"this": {"recall": [1, 2]}}}}),
            r"scores.dev.this.recall.2: field required",
        ),
        (
            body(provenance={"metric": {"recall": "much"}}),
            "provenance.metric.recall: input should be a valid number",
        ),
        (nested(MAX_DEPTH), f"nested deeper than {MAX_DEPTH} levels"),
        (nested(900), f"nested deeper than {MAX_DEPTH} levels"),
        (nested(1_000_000), f"nested deeper than {MAX_DEPTH} levels"),
        (body(a=float("nan")), "it holds NaN, which is no JSON"),
        (body(provenance={"a": "?"}).replace(b'"?"', b"-Infinity"), "it holds -Infinity"),
        (body(provenance={"a": "?"}).replace(b'"?"', b"1e999"), "number that is not finite"),
        (body(provenance={"a": "?"}).replace(b'"?"', b"9" * 5000), "not readable JSON: Exceeds the limit"),
        (b'{"format": "citeqa-program", "format": "x"}', "the key 'format' is given twice"),
    ],
)
def test_what_is_no_program_file_is_refused_with_the_reason(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    file = tmp_path / "p.json"
    file.write_bytes(content)
    with pytest.raises(ProgramStateError, match=reason) as caught:
        read_program_file(file)
    message = str(caught.value)
    assert str(file) in message
    assert "\n" not in message
    assert len(message) < 600
    assert list(tmp_path.iterdir()) == [file]


def test_what_is_odd_but_harmless_is_read(tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    file.write_bytes(
        b"\xef\xbb\xbf" + demo(question="half \ud83d", number=10**4000, **{"class": "os.system"})
    )
    (found,) = read_program_file(file).predictors["answer"].demos
    assert found == {"question": "half \ufffd", "number": 10**4000, "class": "os.system"}


def test_brackets_in_text_are_no_depth_and_text_that_does_not_end_takes_no_time(tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    file.write_bytes(demo(question="[{" * 1000 + '"\\'))
    assert read_program_file(file).predictors["answer"].demos[0]["question"] == "[{" * 1000 + '"\\'
    for content in (b'"' + b'\\"' * 5_000_000, b'"\\' * 5_000_000, b'["' * 5_000_000):
        file.write_bytes(content)
        with pytest.raises(ProgramStateError, match="not readable JSON"):
            read_program_file(file)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "p.json").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(
        ProgramStateError, match=r"has 20\.0 MB; 20 MB is the most\. Keep fewer demonstrations"
    ):
        read_program_file(tmp_path / "p.json")


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    for place in (tmp_path, tmp_path / "pipe.json", Path("/dev/zero")):
        with pytest.raises(ProgramStateError, match="is no file"):
            read_program_file(place)
    with pytest.raises(ProgramStateError, match="cannot be read"):
        read_program_file("a\0b")


def test_a_missing_file_and_a_place_that_cannot_be_written_are_told(tmp_path: Path) -> None:
    with pytest.raises(ProgramStateError, match=r"No program file at .*Check its name"):
        read_program_file(tmp_path / "p.json")
    (tmp_path / "p.json").write_bytes(demo(question="q"))
    program = read_program_file(tmp_path / "p.json")
    with pytest.raises(ProgramStateError, match="cannot be written: No such file"):
        write_program_file(tmp_path / "nowhere" / "p.json", program)


def test_a_disk_that_fills_leaves_the_file_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "p.json"
    file.write_bytes(demo(question="q"))
    program = read_program_file(file)

    def full(path: Path, content: bytes) -> int:
        with path.open("wb") as opened:
            opened.write(content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ProgramStateError, match="No space left on device"):
        write_program_file(file, program)
    assert file.read_bytes() == demo(question="q")
    assert list(tmp_path.iterdir()) == [file]


def test_provenance_keeps_what_is_not_ours_and_adds_nothing(tmp_path: Path) -> None:
    provenance = {
        "name": "tutorial",
        "optimizer": {"name": "GEPA", "settings": {"auto": "light"}, "seed": 7, "hours": 2},
        "dataset": {"splits": {"train": 40}},
        "metric": {"recall@5": 0.5, "usd": -0.1},
        "scores": {"test": {"this": {"recall@5": [0.8, 0.7, 0.9, 60]}, "p": {"recall@5": 0.01}}},
        "reviewed by": ["Ada"],
    }
    file = tmp_path / "p.json"
    file.write_bytes(body(provenance=provenance))
    program = read_program_file(file)
    assert program.provenance.scores is not None
    assert program.provenance.scores.test is not None
    assert program.provenance.scores.test.this is not None
    assert program.provenance.scores.test.this["recall@5"].high == 0.9
    write_program_file(file, program)
    assert json.loads(file.read_text())["provenance"] == provenance


def test_a_program_file_is_told_from_other_json(tmp_path: Path) -> None:
    for name, content in (("a.json", body()), ("b.json", b'{"x": 1}'), ("c.jsonl", body())):
        (tmp_path / name).write_bytes(content)
    there = [is_program_file(tmp_path / name) for name in ("a.json", "b.json", "c.jsonl", "d.json", ".")]
    assert there == [True, False, False, False, False]
