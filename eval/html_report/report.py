"""One HTML file that shows a sweep: it fetches nothing, follows the reader's light or dark, and can be printed."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.html_report.depth import DepthCurve
from eval.html_report.exhibits import Exhibit
from eval.html_report.formatting import language, number, shorten
from eval.html_report.leaderboard import leaderboard
from eval.html_report.question_evidence import read_question_evidence
from eval.html_report.slices import heat_map
from eval.html_report.verdict import reach_verdict
from eval.sweep.results import SweepResult
from program.well_formed import well_formed
from retrieval.errors import StorageError

_HERE = Path(__file__).parent
_NO_MORE = "base-uri 'none'; form-action 'none'"


def render_report(result: SweepResult) -> str:
    """The whole page. The same result, with the same run directories, gives the same text, byte for byte.

    Questions, answers, URIs and parameter values are text of others: they are shown, and never run.

    Raises:
        DataError: if a trial's `scores.jsonl` is damaged; one that is gone is said to be so on the page.
        StorageError: if the disk refuses to be read.
    """
    evidence = read_question_evidence(result)
    style, script = _read("report.css"), _read("report.js")
    page = _template().render(
        result=result,
        verdict=reach_verdict(result),
        board=leaderboard(result),
        exhibits=_exhibits(result, evidence.curves),
        heat=heat_map(result),
        evidence=evidence,
        settings=_flat(result.settings),
        provenance=_flat(result.provenance),
        style=style,
        script=script,
        policy=f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; {_NO_MORE}",
    )
    return well_formed(page)


def write_report(result: SweepResult, path: Path) -> None:
    """`render_report` as a file, all or nothing.

    Raises:
        StorageError: if the disk refuses.
    """
    content = render_report(result).encode()
    draft = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(content)
        draft.replace(path)
    except OSError as error:
        raise StorageError(f"The report '{path}' cannot be written: {error.strerror or error}.") from error


def _exhibits(result: SweepResult, curves: Sequence[DepthCurve]) -> Mapping[str, Exhibit | None]:
    from eval.html_report.depth_chart import depth_exhibit
    from eval.html_report.drawing import drawing_style
    from eval.html_report.effects import effects_exhibit
    from eval.html_report.forest import forest_exhibit
    from eval.html_report.pareto import pareto_exhibit

    with drawing_style():
        return {
            "forest": forest_exhibit(result),
            "pareto": pareto_exhibit(result),
            "effects": effects_exhibit(result),
            "depth": depth_exhibit(result, curves),
        }


def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": lambda value, name: number(name, value), "shorten": shorten}
    environment.globals["language"] = language
    return environment.get_template("report.html")


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Every setting by its dotted key, as text."""
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
            flat[f"{prefix}{name}"] = text
    return flat


def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
