"""What a shim owes outlives its process, stays small, and never stands in the way of a decision."""

from pathlib import Path

import numpy as np
import pytest

from serving import debts
from serving.debts import Debts


def test_debts_outlive_the_process(tmp_path: Path) -> None:
    owed = Debts(tmp_path / "shim" / "debts.json")
    owed.set("orders", "c0ffee", np.array([1.5, -0.25]))
    owed.save()
    again = Debts(tmp_path / "shim" / "debts.json")
    assert again.of("orders")["c0ffee"].tolist() == [1.5, -0.25]
    assert again.of("returns") == {}


def test_debts_are_written_in_use_too_once_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owed = Debts(tmp_path / "debts.json")
    owed.set("orders", "c0ffee", np.array([1.0]))
    assert not (tmp_path / "debts.json").exists()
    monkeypatch.setattr(debts, "SAVE_SECONDS", 0.0)
    owed.set("orders", "c0ffee", np.array([2.0]))
    assert Debts(tmp_path / "debts.json").of("orders")["c0ffee"].tolist() == [2.0]


def test_what_was_not_decided_after_all_is_not_owed() -> None:
    owed = Debts()
    owed.set("orders", "c0ffee", np.array([1.0]))
    before = owed.snapshot()
    owed.set("orders", "c0ffee", np.array([2.0]))
    owed.set("orders", "other", np.array([3.0]))
    owed.restore(before)
    assert {digest: debt.tolist() for digest, debt in owed.of("orders").items()} == {"c0ffee": [1.0], "other": [0.0]}


def test_a_debt_lies_where_it_lay_whatever_changes_it(tmp_path: Path) -> None:
    owed = Debts(tmp_path / "debts.json")
    owed.set("orders", "c0ffee", np.array([1.0, 2.0]))
    held, before = owed.held("orders", "c0ffee", 2), owed.snapshot()
    owed.set("orders", "c0ffee", np.array([3.0, 4.0]))
    assert held.tolist() == [3.0, 4.0]
    owed.restore(before)
    assert held.tolist() == [1.0, 2.0]
    held[0] = 5.0
    owed.note()
    owed.save()
    again = Debts(tmp_path / "debts.json")
    assert again.held("orders", "c0ffee", 2).tolist() == [5.0, 2.0]
    assert again.held("orders", "c0ffee", 3).tolist() == [0.0, 0.0, 0.0]


def test_only_the_routers_that_decided_last_are_remembered() -> None:
    owed = Debts()
    for number in range(20):
        owed.set("orders", str(number), np.zeros(1))
        owed.set("orders", "champion", np.zeros(1))
    assert list(owed.of("orders")) == [*map(str, range(13, 20)), "champion"]


def test_a_file_that_is_none_owes_nothing_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "debts.json").write_text('{"debts": {"orders": {"c0ffee": ["much"]}}}')
    owed = Debts(tmp_path / "debts.json")
    assert owed.of("orders") == {}
    assert owed.failure is not None
    assert "debts.json cannot be read, so nothing is owed" in owed.failure


def test_a_disk_that_refuses_leaves_the_debts_in_force(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    owed = Debts(tmp_path / "file" / "debts.json")
    owed.set("orders", "c0ffee", np.array([1.0]))
    owed.save()
    assert owed.failure is not None
    assert owed.of("orders")["c0ffee"].tolist() == [1.0]
