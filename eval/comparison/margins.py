"""What a user of the gate writes, and where its reports go."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from retrieval.errors import ConfigurationError, StorageError


def parse_margins(drops: Iterable[str]) -> dict[str, float]:
    """`recall@5=0.02` and the like as metric to margin.

    Raises:
        ConfigurationError: if one is not of that form, or a metric is named twice.
    """
    margins: dict[str, float] = {}
    for drop in drops:
        metric, equals, text = (part.strip() for part in drop.rpartition("="))
        if not metric or not equals:
            raise ConfigurationError(
                f"--max-drop {drop}: write it as metric=margin, for example recall@5=0.02"
            )
        if metric in margins:
            raise ConfigurationError(f"--max-drop {drop}: {metric} has a margin already. Name it once.")
        try:
            margins[metric] = float(text)
        except ValueError:
            raise ConfigurationError(f"--max-drop {drop}: {text!r} is no number") from None
    return margins


def write_report(path: str, text: str) -> None:
    """Write a report, with the folders that it needs.

    Raises:
        StorageError: if the disk refuses.
    """
    file = Path(path)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"'{path}' cannot be written: {error.strerror or error}") from error
