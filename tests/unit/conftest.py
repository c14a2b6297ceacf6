"""Fixtures that several files of unit tests share."""

from pathlib import Path

import pytest

from models.releases.ledger import Ledger
from tests.unit.ledger_steps import append, canary, forecaster, genesis, promote


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Return a ledger of four generations: a champion and a forecaster are released."""
    ledger = Ledger(tmp_path / "ledger")
    for step in (genesis, canary, promote, forecaster):
        append(ledger, step)
    return ledger


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of such a ledger, for tests that copy it."""
    root = tmp_path_factory.mktemp("golden") / "ledger"
    for step in (genesis, canary, promote, forecaster):
        append(Ledger(root), step)
    return root
