"""What `citeqa compile` does besides compiling: MLflow, and the registry of prompts."""

from __future__ import annotations

from eval.compiling.results import CompileResult
from eval.compiling.run import CompileOptions, compile_program
from eval.compiling.specification import CompileSpecification, base_settings
from eval.sweep.mlflow_sweep import log_sweep
from program.settings import TrackingSettings


def compile_file(
    specification: CompileSpecification,
    place: str,
    options: CompileOptions,
    *,
    log_to_mlflow: bool = True,
    register_as: str | None = None,
) -> CompileResult:
    """The result of compiling; in MLflow, too: a parent run, a child for each candidate, the installed program.

    With `register_as`, the installed program's prompts become versions in MLflow's Prompt Registry.

    Raises:
        CiteqaError: whatever a person must mend; what was asked before is kept.
        KeyboardInterrupt: when interrupted; likewise.
    """
    result = compile_program(specification, place, options)
    tracking = base_settings(specification).tracking
    if log_to_mlflow:
        _log(result, tracking)
    if register_as is not None and result.installed is not None:
        from program.prompt_registry import register_program
        from program.tracking import connect

        connect(tracking)
        register_program(result.installed, register_as)
    return result


def _log(result: CompileResult, tracking: TrackingSettings) -> None:
    import mlflow

    from program.tracking import tracking_errors

    run = log_sweep(result.selection, tracking)
    with tracking_errors(tracking.uri):
        client = mlflow.MlflowClient()
        client.set_tag(run, "citeqa.optimizer", result.optimizer)
        client.set_tag(run, "citeqa.is_better", str(result.is_better))
        for candidate in result.candidates:
            client.log_artifact(run, str(candidate.path), "candidates")
        if result.installed is not None:
            client.log_artifact(run, str(result.installed), "program")
