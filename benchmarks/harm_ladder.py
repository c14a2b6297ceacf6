"""A harmful challenger on the ladder, judged look by look by the product's own judge, for `benchmarks.gate`."""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from benchmarks.canaries import Cell, Played, freeze
from features.choices import Gate, Rung
from features.objective import Objective
from validation import canary, canary_gate
from validation.canary_log import CanaryLog

N_DECISIONS = 100_000
LOOK_EVERY = 500  # decisions; the least that a rung lasts by default
LADDER = (Rung(share=0.01), Rung(share=0.05), Rung(share=0.25))
_GATE = canary_gate.build_gate(Gate(ladder=LADDER, max_decisions=N_DECISIONS), Objective())
_BEGINS_AT = np.datetime64("2026-01-01T00:00:00", "s")


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a ladder ended: whether harm or a guardrail stopped it, after how many decisions, how many the challenger had."""

    is_stopped: bool
    n_decisions: int
    n_exposed: int

    @property
    def exposure_share(self) -> float:
        """Which share of all `N_DECISIONS` went to the challenger."""
        return self.n_exposed / N_DECISIONS


def climb(success: float, lift: float, rng: np.random.Generator) -> Ended:
    """Let a challenger climb that chooses differently on every event and succeeds by ``lift`` more often than ``success``.

    Running out of decisions withdraws it, too, but is not counted as stopped.
    """
    cell = Cell(canary=LADDER[0].share, disagreement=1.0, success=success, lift=lift)
    q, rung, log = freeze(cell, rng), 0, None
    while log is None or log.n_decisions < N_DECISIONS:
        batch = _decide(cell, LADDER[rung].share, q, 0 if log is None else log.n_decisions, rng)
        log = batch if log is None else _join(log, batch)
        verdict = canary.judge(log, _GATE)
        if verdict.state in ("rollback", "promote"):
            is_stopped = verdict.state == "rollback" and not verdict.reasons[0].startswith("withdrawn")
            return Ended(is_stopped=is_stopped, n_decisions=log.n_decisions, n_exposed=int(log.is_challenger.sum()))
        rung = canary.next_rung(verdict, log, _GATE, rung)
    return Ended(is_stopped=False, n_decisions=log.n_decisions, n_exposed=int(log.is_challenger.sum()))


def _decide(cell: Cell, share: float, q: NDArray[np.float64], n_before: int, rng: np.random.Generator) -> CanaryLog:
    arm = rng.uniform(size=LOOK_EVERY) < share
    reward = (rng.uniform(size=LOOK_EVERY) < cell.success + cell.lift * arm).astype(np.float64)
    at = np.arange(n_before, n_before + LOOK_EVERY)
    played = Played(at=at + 1, is_challenger=arm, reward=reward, q=q, share=share)
    return CanaryLog(
        decided_at=_BEGINS_AT + at.astype("timedelta64[s]"),
        unit=at,
        share=np.full(LOOK_EVERY, share),
        is_challenger=arm,
        increment=played.increments(q),
        disagrees=np.ones(LOOK_EVERY, np.bool_),
        harms={"failure": 1.0 - reward, "unanswered": np.zeros(LOOK_EVERY)},
    )


def _join(log: CanaryLog, batch: CanaryLog) -> CanaryLog:
    columns = {
        field.name: np.concatenate([getattr(log, field.name), getattr(batch, field.name)])
        for field in fields(CanaryLog)
        if field.name not in ("harms", "rung_share")  # a unit here is one event: its share is its rung's
    }
    harms = {name: np.concatenate([harm, batch.harms[name]]) for name, harm in log.harms.items()}
    return CanaryLog(**columns, harms=harms)
