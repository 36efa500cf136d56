"""Write a ground truth with its new splits, and say what was done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from eval.curation.conversion import Copy, check_free, copy_ground_truth
from eval.curation.splitting import Division
from eval.formats.agent_evaluation_set import to_question
from eval.formats.choice import Format, target_format
from eval.formats.writing import write_lines
from eval.ground_truth import GroundTruth
from eval.text_table import table
from program.files import to_json
from retrieval.errors import GroundTruthError
from retrieval.tables import read_json_lines


def write_division(
    division: Division,
    ground_truth: GroundTruth,
    source: str,
    target: str,
    *,
    source_format: Format,
    to_format: Format | None = None,
    columns: Mapping[str, str] | None = None,
    store: str | None = None,
    overwrite: bool = False,
) -> Copy:
    """Write the divided questions to `target`. Rows of an agent-evaluation set keep what citeqa does not read.

    Raises:
        ConfigurationError: if there is something at `target` and `overwrite` is not set.
        GroundTruthError, StorageError: as `write_ground_truth`.
    """
    to_format = to_format or target_format(target)
    if source_format == to_format == "jsonl":
        check_free(target, to_format, overwrite)
        splits = {question.id: question.tags["split"] for question in division.questions}
        write_lines(Path(target), _retagged(Path(source), splits))
        return Copy(to_format, len(division.questions), (), (), {})
    divided = GroundTruth(ground_truth.name, ground_truth.path, division.questions)
    return copy_ground_truth(
        divided,
        source,
        target,
        source_format=source_format,
        to_format=to_format,
        columns=columns,
        store=store,
        overwrite=overwrite,
    )


def render_division(division: Division, target: str) -> str:
    """What was divided: how many questions each split has of every stratum."""
    splits = list(dict.fromkeys(question.tags["split"] for question in division.questions))
    splits.sort(key=lambda split: next(n for n, (_, name) in enumerate(division.strata) if name == split))
    strata = list(dict.fromkeys(stratum for stratum, _ in division.strata))
    rows = [
        [stratum, *(str(division.strata.get((stratum, split), 0)) for split in splits)] for stratum in strata
    ]
    totals = Counter(question.tags["split"] for question in division.questions)
    rows.append(["all", *(str(totals[split]) for split in splits)])
    kept = (
        f"{division.groups} groups of near duplicates or with the same gold were kept together, the largest of "
        f"{division.largest} questions"
        if division.groups
        else "no two questions had to be kept together"
    )
    return "\n".join(
        [
            table(["questions", *splits], rows),
            "",
            f"{target}: {len(division.questions)} questions; {kept}; {division.moved} had another split before.",
        ]
    )


def _retagged(path: Path, splits: Mapping[str, str]) -> Iterator[bytes]:
    for place, row in read_json_lines(path, GroundTruthError):
        split = splits[to_question(row, place).id]
        yield to_json({**row, "tags": {**(row.get("tags") or {}), "split": split}})
