"""What a sweep may spend. What it has spent is on disk, so that being interrupted buys nothing."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path

from eval.records import write_json
from eval.sweep.results import NOTHING, Spending, add
from eval.sweep.specification import Budget
from retrieval.errors import RunStoppedError


class BudgetSpentError(Exception):
    """The budget is spent; says which one. Not for people: the sweep ends cleanly and says it."""


class BudgetKeeper:
    """Counts what answers cost that were asked for now, over all calls of one sweep; minutes of this call only."""

    def __init__(self, budget: Budget, directory: Path) -> None:
        self._budget = budget
        self._file = directory / "spent.json"
        self._begun = time.monotonic()
        self.spent = self._read()

    def add(self, spent: Spending) -> None:
        """An answer was asked for, and has cost so much.

        Raises:
            StorageError: if the disk refuses.
        """
        if spent != NOTHING:
            self.spent = add(self.spent, spent)
            write_json(self._file, asdict(self.spent))

    def check(self) -> None:
        """Called before a question is asked.

        Raises:
            BudgetSpentError: if something is spent.
            RunStoppedError: if what is limited cannot be counted, and so would never be spent.
        """
        tokens = self.spent.input_tokens + self.spent.output_tokens
        if self._budget.usd is not None and self.spent.usd is None:
            raise RunStoppedError(
                f"Stopped: what the answers cost is not known, so budget.usd = {self._budget.usd} cannot be kept. "
                "State language_model.price in the settings, or limit tokens or minutes instead."
            )
        if self._budget.tokens is not None and self.spent.calls and not tokens:
            raise RunStoppedError(
                f"Stopped: the language model counts no tokens, so budget.tokens = {self._budget.tokens} cannot be "
                "kept. Limit minutes instead."
            )
        minutes = (time.monotonic() - self._begun) / 60
        if self._budget.usd is not None and (self.spent.usd or 0) >= self._budget.usd:
            raise BudgetSpentError(f"the budget of {self._budget.usd} USD is spent")
        if self._budget.tokens is not None and tokens >= self._budget.tokens:
            raise BudgetSpentError(f"the budget of {self._budget.tokens:,} tokens is spent")
        if self._budget.minutes is not None and minutes >= self._budget.minutes:
            raise BudgetSpentError(f"the budget of {self._budget.minutes:g} minutes is spent")

    def _read(self) -> Spending:
        try:
            return Spending(**json.loads(self._file.read_bytes()))
        except (OSError, ValueError, TypeError):
            return NOTHING
