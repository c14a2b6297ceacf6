"""From the decisions of a live canary, as the warehouse has them, to what the judge reads."""

from collections.abc import Mapping

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features import log_table
from features.config import Stream
from features.decision_log import DecisionLog
from features.log_table import category_column
from models import evaluation, logged
from models.logged import LoggedDecisions
from validation.canary_gate import max_rises
from validation.canary_log import LATE, CanaryLog
from validation.redraw import redraw

Floats = NDArray[np.float64]

_PREDICTIONS = msgspec.json.Decoder(dict[str, dict[str, list[float]]])


def closed_prefix(rewards: pa.Table, challenger: str) -> pa.Table:
    """Return the decisions that ``challenger`` took part in, in order of time, up to the first whose window is open.

    Later ones that happen to be closed already would be the fast ones: counting them would favour whoever is fast.
    """
    took_part = rewards.filter(pc.and_(pc.equal(rewards["challenger"], challenger), rewards["explored"]))
    took_part = took_part.sort_by([("decided_at", "ascending"), ("decision_id", "ascending")])
    is_open = pc.equal(took_part["status"], "open")
    first_open = pc.index(is_open, pa.scalar(value=True)).as_py()
    return took_part if first_open < 0 else took_part.slice(0, first_open)


def canary_log(closed: pa.Table, configured: Stream, value_bounds: tuple[float, float]) -> CanaryLog:
    """Return the canary's log; the challenger's logged values are the reward model.

    They were frozen with its bytes, before the canary began, and so were ``value_bounds``, to which they are clipped.
    """
    if not closed.num_rows:
        nothing = np.empty(0)
        return CanaryLog(
            decided_at=nothing.astype("datetime64[us]"),
            unit=nothing.astype(np.int64),
            share=nothing,
            is_challenger=nothing.astype(np.bool_),
            increment=nothing,
            disagrees=nothing.astype(np.bool_),
            harms=dict.fromkeys([*max_rises(configured.gate, configured.objective), LATE], nothing),
        )
    is_challenger = pc.equal(closed["arm"], "challenger").to_numpy()
    probability = closed["arm_probability"].to_numpy()
    rung_share = np.where(is_challenger, probability, 1.0 - probability)
    drawn = redraw(category_column(closed["arm_unit"].combine_chunks()).codes, rung_share, is_challenger)
    closed, is_challenger = closed.filter(pa.array(drawn.counts)), is_challenger[drawn.counts]
    share, rung_share = drawn.share[drawn.counts], rung_share[drawn.counts]
    log = log_table.from_table(closed, configured.features, cluster_by="decision")
    champion = log.policies.get("champion", log.policies["static"])
    challenger = log.policies["challenger"]
    mixed = (1.0 - share) * champion[log.chosen] + share * challenger[log.chosen]
    decisions = LoggedDecisions(
        offsets=log.offsets,
        chosen=log.chosen,
        propensity=np.where(share == rung_share, log.propensity, mixed),
        reward=configured.objective.clip(log.reward),
    )
    return CanaryLog(
        decided_at=log.decided_at,
        unit=drawn.unit[drawn.counts],
        share=share,
        rung_share=rung_share,
        is_challenger=is_challenger,
        increment=evaluation.increments(decisions, challenger, champion, values(closed, log, value_bounds)),
        disagrees=logged.find_disagreements(decisions, challenger, champion),
        harms=_harms(log, closed, configured),
    )


def count_arm(rewards: pa.Table, challenger: str) -> int:
    """Return how many decisions ``challenger`` made, open ones among them."""
    mine = pc.and_(pc.equal(rewards["challenger"], challenger), pc.equal(rewards["arm"], "challenger"))
    return int(pc.sum(mine).as_py() or 0)


def _harms(log: DecisionLog, closed: pa.Table, configured: Stream) -> dict[str, Floats]:
    """Return what the guardrails watch; an outcome that never came failed, was slow and late, and cost nothing."""
    lost = pc.equal(closed["status"], "lost").to_numpy()
    observed_at = closed["observed_at"].cast(pa.timestamp("us")).to_numpy()
    half_window = np.timedelta64(int(configured.objective.window_minutes * 30e6), "us")
    harms = {
        "failure": np.nan_to_num(1.0 - log.success, nan=1.0),
        "unanswered": lost.astype(np.float64),
        LATE: (~(observed_at - log.decided_at <= half_window)).astype(np.float64),  # NaT is late
    }
    if (limit_ms := configured.objective.sla_latency_ms) is not None:
        harms["slow"] = (~(log.latency_ms <= limit_ms)).astype(np.float64)
    if (limit_usd := configured.gate.cost_limit_usd) is not None:
        harms["cost"] = np.clip(np.nan_to_num(log.cost_usd) / limit_usd, 0.0, 1.0)
    return harms


def values(closed: pa.Table, log: DecisionLog, bounds: tuple[float, float], role: str = "challenger") -> Floats:
    """Return what a model valued every eligible row at, clipped to ``bounds``; the worst where it failed to say.

    ``role`` is the part it took: ``challenger``, ``shadow`` or ``champion``.
    """
    valued = np.full(int(log.offsets[-1]), bounds[0])
    eligible = closed["eligible"].to_pylist()
    predictions: list[Mapping[str, Mapping[str, list[float]]]] = [
        _PREDICTIONS.decode(p) for p in closed["predictions"].to_pylist()
    ]
    for row, (mask, predicted) in enumerate(zip(eligible, predictions, strict=True)):
        if said := predicted.get(role):
            valued[log.offsets[row] : log.offsets[row + 1]] = np.array(said["value"])[mask]
    clipped: Floats = np.clip(valued, *bounds)
    return clipped
