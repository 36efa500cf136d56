"""What configurations share is done once: an index for each chunking, whoever needs it and whenever."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from eval.sweep import stages as module
from eval.sweep.stages import Stages
from program.settings import Settings
from retrieval.errors import CorpusError, IndexMissingError, StorageError
from retrieval.generations import read_manifest


@pytest.fixture
def settings(corpus: Path, tmp_path: Path) -> Any:
    def make(max_tokens: int = 100, **chunking: Any) -> Settings:
        return Settings.model_validate(
            {
                "corpus": {"path": str(corpus)},
                "chunking": {"max_tokens": max_tokens, "overlap_tokens": 10, **chunking},
                "retrieval": {"index": str(tmp_path / "configured")},
            }
        )

    return make


@pytest.fixture
def stages(tmp_path: Path) -> Any:
    with Stages(tmp_path / "stages", own_indexes=True) as opened:
        yield opened


class Built:
    count = 0

    def __call__(self) -> None:
        self.count += 1


def test_each_chunking_has_an_index_of_its_own_made_once(
    stages: Stages, settings: Any, tmp_path: Path
) -> None:
    built = Built()
    paths = [stages.with_index(settings(n), built).retrieval.index for n in (100, 50, 100)]
    assert built.count == 2
    assert paths[0] == paths[2] != paths[1]
    with Stages(tmp_path / "stages", own_indexes=True) as later:
        assert later.with_index(settings(50), built).retrieval.index == paths[1]
    assert built.count == 2
    assert read_manifest(Path(paths[0])).passages < read_manifest(Path(paths[1])).passages


def test_a_setting_of_a_later_stage_needs_no_other_index(stages: Stages, settings: Any) -> None:
    built = Built()
    one = settings(100)
    other = one.model_copy(update={"retrieval": one.retrieval.model_copy(update={"k": 9})})
    assert stages.with_index(one, built).retrieval.index == stages.with_index(other, built).retrieval.index
    assert built.count == 1
    assert stages.with_index(other).retrieval.k == 9


def test_a_document_that_changes_makes_another_index(settings: Any, corpus: Path, tmp_path: Path) -> None:
    identities = []
    for text in (None, "---\ndoc_uri: https://library.example/iron\n---\nIron melts when it is hot.\n", None):
        if text:
            (corpus / "iron.md").write_text(text, encoding="utf-8")
        with Stages(tmp_path / "stages", own_indexes=True) as stages:
            identities.append(stages.identity(stages.with_index(settings())))
    assert identities[0] != identities[1] == identities[2]


def test_without_factors_of_an_index_the_configured_one_serves(
    settings: Any, tmp_path: Path, library: Path
) -> None:
    with Stages(tmp_path / "stages", own_indexes=False) as stages:
        asked = settings()
        assert stages.with_index(asked) is asked
        with pytest.raises(IndexMissingError, match=r"No index at '.*configured'"):
            stages.identity(asked)
        there = asked.model_copy(
            update={"retrieval": asked.retrieval.model_copy(update={"index": str(library)})}
        )
        assert stages.identity(there)["index"] == read_manifest(library).content_hash


def test_an_identity_changes_with_what_an_answer_depends_on_alone(stages: Stages, settings: Any) -> None:
    def identity(**sections: Any) -> Any:
        asked = settings()
        for name, values in sections.items():
            asked = asked.model_copy(update={name: getattr(asked, name).model_copy(update=values)})
        return stages.identity(stages.with_index(asked))

    same = identity()
    assert identity(serving={"port": 1}, evaluation={"threads": 9}, tracking={"experiment": "x"}) == same
    assert identity(language_model={"num_retries": 9, "timeout_s": 1.0}) == same
    for differs in (
        {"retrieval": {"k": 9}},
        {"retrieval": {"filters": {"lang": "en"}}},
        {"reader": {"max_sentences": 1}},
        {"reader": {"abstain_below": 0.1}},
        {"language_model": {"model": "openai/test"}},
        {"chunking": {"max_tokens": 60}},
    ):
        assert identity(**differs) != same, differs


@pytest.mark.parametrize("harm", ["truncate", "remove", "manifest"])
def test_a_damaged_index_of_the_cache_is_made_again(stages: Stages, settings: Any, harm: str) -> None:
    built = Built()
    path = Path(stages.with_index(settings(), built).retrieval.index)
    before = read_manifest(path)
    if harm == "manifest":
        (path / "manifest.json").write_text("{", encoding="utf-8")
    else:
        file = path / before.generation / max(before.files, key=before.files.__getitem__)
        file.unlink() if harm == "remove" else file.write_bytes(file.read_bytes()[:-1])
    stages.with_index(settings(), built)
    assert built.count == 2
    assert read_manifest(path).content_hash == before.content_hash


def test_threads_that_need_the_same_index_make_one(stages: Stages, settings: Any) -> None:
    built, paths = Built(), []
    threads = [
        threading.Thread(target=lambda: paths.append(stages.with_index(settings(), built).retrieval.index))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(paths) == 3
    assert built.count == 1


BUILD = """
import sys
from pathlib import Path
from eval.sweep.stages import Stages
from program.settings import Settings

settings = Settings.model_validate_json(sys.argv[1])
sys.stdin.readline()
with Stages(Path(sys.argv[2]), own_indexes=True) as stages:
    print(stages.with_index(settings, lambda: print("built")).retrieval.index)
"""


def test_processes_that_need_the_same_index_make_one(settings: Any, tmp_path: Path) -> None:
    command = [sys.executable, "-c", BUILD, settings().model_dump_json(), str(tmp_path / "stages")]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = [process.communicate("go\n", timeout=60)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert said[0][-1] == said[1][-1]
    assert sum(len(lines) for lines in said) == 3, "one of them built it"


def test_a_corpus_that_is_not_there_is_named(stages: Stages, settings: Any, tmp_path: Path) -> None:
    asked = settings()
    away = asked.model_copy(
        update={"corpus": asked.corpus.model_copy(update={"path": str(tmp_path / "away")})}
    )
    with pytest.raises(CorpusError, match="away"):
        stages.with_index(away)


def test_a_disk_that_refuses_an_index_is_told(
    stages: Stages, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_build_index", full)
    with pytest.raises(StorageError, match="No space left on device"):
        stages.with_index(settings())
