"""What a sweep may spend, and that what it has spent is known whatever ended it."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval.sweep import budget
from eval.sweep.budget import BudgetKeeper, BudgetSpentError
from eval.sweep.results import NOTHING, Spending
from eval.sweep.specification import Budget
from retrieval.errors import RunStoppedError

ANSWER = Spending(0.01, 11, 7, 1)


def test_without_a_budget_nothing_is_ever_spent(tmp_path: Path) -> None:
    keeper = BudgetKeeper(Budget(), tmp_path)
    for spent in (ANSWER, Spending(None, 5, 5, 1), Spending(1e9, 10**12, 0, 1)):
        keeper.add(spent)
        keeper.check()


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        (Budget(usd=0.02), "the budget of 0.02 USD is spent"),
        (Budget(tokens=36), "the budget of 36 tokens is spent"),
    ],
)
def test_it_is_spent_when_it_is_reached_and_not_before(tmp_path: Path, limits: Budget, says: str) -> None:
    keeper = BudgetKeeper(limits, tmp_path)
    keeper.check()
    keeper.add(ANSWER)
    keeper.check()
    keeper.add(ANSWER)
    with pytest.raises(BudgetSpentError, match=says):
        keeper.check()


def test_minutes_are_those_of_this_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(budget.time, "monotonic", lambda: now)
    keeper = BudgetKeeper(Budget(minutes=2), tmp_path)
    now += 119
    keeper.check()
    now += 1
    with pytest.raises(BudgetSpentError, match="the budget of 2 minutes is spent"):
        keeper.check()
    BudgetKeeper(Budget(minutes=2), tmp_path).check()


def test_what_was_spent_before_counts_and_a_larger_budget_goes_on(tmp_path: Path) -> None:
    BudgetKeeper(Budget(), tmp_path).add(ANSWER)
    BudgetKeeper(Budget(), tmp_path).add(ANSWER)
    assert BudgetKeeper(Budget(), tmp_path).spent == Spending(0.02, 22, 14, 2)
    with pytest.raises(BudgetSpentError):
        BudgetKeeper(Budget(usd=0.02), tmp_path).check()
    BudgetKeeper(Budget(usd=0.03), tmp_path).check()


def test_answers_that_cost_nothing_leave_no_file(tmp_path: Path) -> None:
    BudgetKeeper(Budget(usd=1), tmp_path).add(NOTHING)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"usd": 1, "pounds": 2}'])
def test_a_damaged_file_begins_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "spent.json").write_bytes(content)
    assert BudgetKeeper(Budget(), tmp_path).spent == NOTHING


def test_dollars_that_cannot_be_counted_stop_the_sweep_rather_than_never(tmp_path: Path) -> None:
    keeper = BudgetKeeper(Budget(usd=5), tmp_path)
    keeper.add(Spending(None, 11, 7, 1))
    with pytest.raises(
        RunStoppedError, match=r"budget\.usd = 5\.0 cannot be kept\. State language_model\.price"
    ):
        keeper.check()
    BudgetKeeper(Budget(tokens=100), tmp_path).check()


def test_tokens_that_nobody_counts_stop_the_sweep_rather_than_never(tmp_path: Path) -> None:
    keeper = BudgetKeeper(Budget(tokens=100), tmp_path)
    keeper.add(Spending(None, 0, 0, 1))
    with pytest.raises(RunStoppedError, match=r"budget\.tokens = 100 cannot be kept"):
        keeper.check()
