"""Demote: a champion that is stale or fails too often loses its stream to the static routes, without a person."""

from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow.compute as pc
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from features import history
from flows import watch
from flows.publishing import publish
from flows.wiring import Wiring, wire
from models.card import read_card
from models.releases import transitions
from validation import champion


def find_faults(wired: Wiring, stream: str) -> tuple[str, ...]:
    """Say why the live champion of ``stream`` should lose it; nothing where it may go on, or nobody leads. Changes nothing."""
    live, configured = wired.live(stream), wired.configuration.streams[stream]
    if live.champion is None or live.mode not in ("on", "canary"):
        return ()
    _, fitted_until = watch.trained_window(read_card(wired.store.path(live.champion)))
    rewards = history.rewards(
        wired.warehouse,
        stream,
        objective=configured.objective,
        as_of=wired.now,
        since=wired.now - timedelta(hours=configured.demotion.window_hours),
        names=("decided_at", "decision_id", "champion", "arm", "status", "success", "latency_ms", "cost_usd"),
    )
    mine = pc.and_(pc.equal(rewards["champion"], live.champion), pc.equal(rewards["arm"], "champion"))
    closed = rewards.filter(pc.and_(mine, pc.not_equal(rewards["status"], "open")))
    succeeded = pc.fill_null(closed["success"].cast("float64"), 0.0).to_numpy()  # what never came failed
    return champion.find_faults(
        np.asarray(1.0 - succeeded), fitted_until=fitted_until, now=wired.now, demotion=configured.demotion
    )


def act(wired: Wiring, stream: str, faults: tuple[str, ...], *, dry_run: bool) -> dict[str, Any]:
    """Give ``stream`` back to its static routes where there are ``faults``; a canary on its way ends."""
    report: dict[str, Any] = {"state": "demoted" if faults else "sound", "stream": stream, "reasons": faults}
    if dry_run or not faults:
        return {**report, "generation": wired.generation}
    step = transitions.rollback
    return {**report, "generation": wired.append(step, stream=stream, to=None, reason="; ".join(faults), evidence={})}


_find = task(cache_policy=NO_CACHE)(find_faults)
_act = task(cache_policy=NO_CACHE)(act)


@flow(name="demote")
def demote(stream: str, as_of: str | None = None, *, dry_run: bool = False) -> dict[str, Any]:
    """Look whether the champion of ``stream`` may go on; returns a report, whose ``state`` is ``sound`` or ``demoted``."""
    wired = wire(as_of)
    return publish("demote", _act(wired, stream, _find(wired, stream), dry_run=dry_run))
