"""What the tests of ledgers begin with: four generations, and how each is appended."""

from collections.abc import Callable
from datetime import UTC, datetime

from models.releases import transitions
from models.releases.entry import Entry
from models.releases.history import History
from models.releases.ledger import Ledger
from models.releases.transitions import Attribution

A, B, C = (letter * 64 for letter in "abc")
AT = datetime(2026, 1, 1, tzinfo=UTC)
BY = Attribution(actor="ada", reason="because", at=AT)


def append(ledger: Ledger, step: Callable[[History], Entry]) -> str:
    history = ledger.history()
    return ledger.append(step(history), expected_head=history.hash)


def genesis(_: History) -> Entry:
    return transitions.genesis(streams={"flights": "observe"}, by=BY)


def canary(history: History, digest: str = A) -> Entry:
    return transitions.start_canary(history, stream="flights", digest=digest, share=0.05, by=BY)


def promote(history: History) -> Entry:
    return transitions.promote(history, stream="flights", by=BY)


def forecaster(history: History, digest: str = C, actor: str = "ada") -> Entry:
    by = Attribution(actor=actor, reason="fresher", at=AT)
    return transitions.release_model(history, name="forecaster", digest=digest, by=by)
