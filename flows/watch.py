"""Watch: has the world moved away from what the champion learned? Then a router is fitted anew; approving it stays a person's."""

import math
import os
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from features import clock, history, log_table, predictions
from features.decision_log import DecisionLog
from flows.publishing import publish
from flows.retrain import CANDIDATE_MODEL, retrain
from flows.wiring import Wiring, wire
from models.card import Card, read_card
from validation import drift
from validation.drift import DriftVerdict
from validation.trust import Approval

_INSTANT = timedelta(microseconds=1)  # the finest the warehouse keeps: windows end before their ``until``


class Retrained(Struct, frozen=True, kw_only=True):
    """When drift last led to a retraining of a stream, and why."""

    at: datetime
    reasons: tuple[str, ...]


def look(wired: Wiring, stream: str) -> DriftVerdict:
    """Compare what was decided lately with the window that the live champion was fitted on. Changes nothing."""
    configured, digest = wired.configuration.streams[stream], wired.live(stream).champion
    if digest is None:
        return drift.too_few("there is no champion, hence no training window to compare with")
    card = read_card(wired.store.path(digest))
    if card.feature_set != configured.features.version:
        return drift.too_few(
            f"the champion reads other features ({card.feature_set}, not {configured.features.version})"
        )
    begun, ended = trained_window(card)
    latest = wired.now - timedelta(hours=configured.drift.window_hours)
    reference = _read(wired, stream, begun, ended + _INSTANT)
    recent = _read(wired, stream, max(ended + _INSTANT, latest), wired.now + _INSTANT)
    return drift.judge(
        _log(wired, stream, reference),
        _log(wired, stream, recent),
        predictions.assigned_predictions(recent, digest, "success_probability"),
        configured.features,
        configured.drift,
    )


def trained_window(card: Card) -> tuple[datetime, datetime]:
    """Return the first and the last instant of what a router was fitted on.

    Raises
    ------
    ValueError
        If its card does not say.
    """
    said = [card.trained.get(name) for name in ("since", "until")]
    try:
        begun, ended = (datetime.fromisoformat(str(instant)).replace(tzinfo=UTC) for instant in said)
    except ValueError:
        raise ValueError(f"trained.since and trained.until of a card must be instants, got {said}") from None
    return begun, ended


def find_hold(wired: Wiring, stream: str) -> str | None:
    """Return why drift leads to no retraining now, or None if it does."""
    if wired.live(stream).canary is not None:
        return "a canary is on its way"
    cooldown = timedelta(hours=wired.configuration.streams[stream].drift.cooldown_hours)
    last = max(filter(None, (_noted_at(wired, stream), _registered_at(wired, stream))), default=None)
    if last is not None and wired.now - last < cooldown:
        return f"retrained at {last.isoformat()}, not again before {(last + cooldown).isoformat()}"
    return None


def note_retrained(wired: Wiring, stream: str, reasons: tuple[str, ...]) -> None:
    """Keep that drift led to a retraining: one that registered nothing leaves no other trace."""
    folder = wired.settings.watch_path
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{stream}.{os.getpid()}"
    partial.write_bytes(msgspec.json.encode(Retrained(at=wired.now, reasons=reasons)))
    partial.replace(folder / f"{stream}.json")


def _noted_at(wired: Wiring, stream: str) -> datetime | None:
    path = wired.settings.watch_path / f"{stream}.json"
    return msgspec.json.decode(path.read_bytes(), type=Retrained).at if path.is_file() else None


def _registered_at(wired: Wiring, stream: str) -> datetime | None:
    """Return when the newest candidate of ``stream`` was judged, whoever asked for it."""
    approvals = (Approval.from_tags(version.tags) for version in wired.registry.versions(CANDIDATE_MODEL))
    judged = (
        clock.utc(datetime.fromisoformat(a.evidence_at)) for a in approvals if a.stream == stream and a.evidence_at
    )
    return max(judged, default=None)


def _read(wired: Wiring, stream: str, since: datetime, until: datetime) -> pa.Table:
    """Return at most about ``max_decisions`` of a window that carry the stream's features, closed or not."""
    configured = wired.configuration.streams[stream]
    n_decisions = history.count_decisions(wired.warehouse, stream, since=since, until=until)
    table = history.rewards(
        wired.warehouse,
        stream,
        objective=configured.objective,
        as_of=wired.now,
        since=since,
        until=until,
        one_in=max(1, math.ceil(n_decisions / configured.drift.max_decisions)),
    )
    return table.filter(pc.equal(table["feature_set"], configured.features.version))


def _log(wired: Wiring, stream: str, table: pa.Table) -> DecisionLog | None:
    configured = wired.configuration.streams[stream]
    if not table.num_rows:
        return None
    return log_table.from_table(table, configured.features, cluster_by=configured.cluster)


_look = task(cache_policy=NO_CACHE)(look)
_hold = task(retries=3, retry_delay_seconds=10, cache_policy=NO_CACHE)(find_hold)
_note = task(cache_policy=NO_CACHE)(note_retrained)


@flow(name="watch")
def watch(stream: str, as_of: str | None = None) -> dict[str, Any]:
    """Look for drift of ``stream``, and retrain its router where there is some and none was fitted within the cool-down.

    Returns a report: ``state`` is ``off``, ``stable``, ``drifted`` or ``too_few``, with the reasons; ``retraining`` says
    what became of it, or why there was none. One that was killed is made up for by the next round.
    """
    wired = wire(as_of)
    if not wired.configuration.streams[stream].drift.enabled:
        return publish("watch", {"state": "off", "stream": stream})
    verdict = _look(wired, stream)
    report = {"state": verdict.state, "stream": stream, "reasons": verdict.reasons}
    if verdict.state != "drifted":
        return publish("watch", report)
    if held := _hold(wired, stream):
        return publish("watch", {**report, "retraining": held})
    fitted = retrain(stream, as_of)
    _note(wired, stream, verdict.reasons)
    return publish("watch", {**report, "retraining": fitted["state"], "version": fitted.get("version")})
