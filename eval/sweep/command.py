"""What `citeqa sweep` does: run it, write what it found, draw the report, log it."""

from __future__ import annotations

from eval.records import replace_file
from eval.run_identity import scoring_hash
from eval.sweep.files import REPORT, to_json_object, write_result
from eval.sweep.mlflow_sweep import log_sweep
from eval.sweep.results import SweepResult
from eval.sweep.run import SweepOptions, run_sweep
from eval.sweep.space import build_space
from eval.sweep.specification import read_specification
from program.content_store import content_key


def sweep_file(path: str, options: SweepOptions, *, log_to_mlflow: bool = True) -> SweepResult:
    """The result of the sweep that a file specifies; on disk and in MLflow, too.

    Raises:
        CiteqaError: whatever a person must mend; what was answered before is kept.
        KeyboardInterrupt: when interrupted; likewise.
    """
    specification = read_specification(path)
    space = build_space(specification, path)
    result = run_sweep(specification, path, options)
    write_result(result, space)
    write_report_once(result)
    if log_to_mlflow:
        log_sweep(result, space.base.tracking)
    return result


def write_report_once(result: SweepResult) -> None:
    """Draw the report, unless the one that is there shows the same: drawing takes seconds."""
    report, drawn_from = result.path / REPORT, result.path / "report.key"
    key = content_key(to_json_object(result), scoring_hash())
    if report.exists() and drawn_from.exists() and drawn_from.read_text(encoding="utf-8") == key:
        return
    from eval.html_report.report import write_report

    write_report(result, report)
    replace_file(drawn_from, key.encode())
