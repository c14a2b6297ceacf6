"""Makes the next generation from the history: pure functions, one per thing that a person or a flow may want done.

What they return is a proposal. ``Ledger.append`` judges it by the rules and records it, if nothing else came first.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import msgspec
from msgspec import UNSET, UnsetType

from features import clock
from features.records import Mode
from models.releases.entry import Action, Entry, Gap, StreamRelease
from models.releases.history import History, fallback

PREVIOUS = "previous"  # no digest: what stood before the present champion
_UNLED_MODES: tuple[Mode, ...] = ("off", "observe")  # the static routes decide, whatever is released


class TransitionError(ValueError):
    """A step that the present release does not allow: names the stream and what stands in the way."""


@dataclass(frozen=True, kw_only=True)
class Attribution:
    """Who asks for a generation, why, at what instant, and on what evidence."""

    actor: str
    reason: str
    at: datetime
    evidence: Mapping[str, str] = field(default_factory=dict)


def genesis(*, streams: Mapping[str, Mode], by: Attribution) -> Entry:
    """Return the first generation, which releases nothing: a stream that shall be on is observed until it has a champion."""
    releases = {name: StreamRelease(mode="off" if mode == "off" else "observe") for name, mode in streams.items()}
    return _next(History(), "genesis", by, streams=releases)


def start_canary(history: History, *, stream: str, digest: str, share: float, by: Attribution) -> Entry:
    """Let ``digest`` decide a share of a stream's units; a shadow of that digest becomes the canary.

    Raises
    ------
    TransitionError
        If a canary is on its way, or the stream has a champion that is not on: a canary would put it back in force.
    """
    before = history.stream(stream)
    if before.canary is not None:
        raise TransitionError(f"stream {stream!r} has the canary {before.canary}: promote or withdraw it first")
    if before.champion is not None and before.mode in _UNLED_MODES:
        raise TransitionError(f"stream {stream!r} is in mode {before.mode!r} with a champion: set it on first")
    _check_unpaused(history, stream)
    if (rejection := history.rejected.get(digest)) is not None:
        raise TransitionError(f"{digest} was rejected by {rejection.actor}: {rejection.reason}")
    shadow = None if before.shadow == digest else before.shadow
    after = StreamRelease(mode="canary", champion=before.champion, canary=digest, canary_share=share, shadow=shadow)
    return _with_stream(history, "canary", by, stream, after)


def advance_canary(history: History, *, stream: str, share: float, by: Attribution) -> Entry:
    """Give the canary of a stream another share; 0 pauses it."""
    before = _with_canary(history, stream)
    _check_unpaused(history, stream)
    return _with_stream(history, "canary", by, stream, msgspec.structs.replace(before, canary_share=share))


def promote(history: History, *, stream: str, by: Attribution) -> Entry:
    """Make the canary of a stream its champion."""
    before = _with_canary(history, stream)
    _check_unpaused(history, stream)
    after = StreamRelease(mode="on", champion=before.canary, shadow=before.shadow)
    return _with_stream(history, "promote", by, stream, after)


def withdraw(history: History, *, stream: str, by: Attribution) -> Entry:
    """End the canary of a stream; the champion decides alone, or the static routes where there is none."""
    before = _with_canary(history, stream)
    return _with_stream(history, "withdraw", by, stream, _led_by(before, before.champion))


def rollback(history: History, *, stream: str, by: Attribution, to: str | None = PREVIOUS) -> Entry:
    """Put an earlier champion of a stream back: by default the one it followed, or ``to`` a digest; None is the static routes.

    A canary on its way ends: what it was compared with is gone. A stream that is off or observed stays so.
    """
    before = history.stream(stream)
    target = fallback(history.lines.get(stream, ()), history.revoked) if to == PREVIOUS else to
    if target == before.champion:
        raise TransitionError(f"stream {stream!r} is already led by {target or 'the static routes'}")
    return _with_stream(history, "rollback", by, stream, _led_by(before, target))


def set_mode(history: History, *, stream: str, mode: Mode, by: Attribution) -> Entry:
    """Set a stream off, observed or on. A canary on its way ends."""
    if mode == "canary":
        raise TransitionError(f"stream {stream!r} gets the mode 'canary' by starting one")
    after = msgspec.structs.replace(history.stream(stream), mode=mode, canary=None, canary_share=0.0)
    return _with_stream(history, "mode", by, stream, after)


def release_model(history: History, *, name: str, digest: str, by: Attribution) -> Entry:
    """Release a model that is no router (forecaster, classifier, ...)."""
    return _next(history, "release", by, models={**history.models, name: digest})


def release_shadow(history: History, *, stream: str, digest: str | None, by: Attribution) -> Entry:
    """Let a router score a stream's events without deciding any; None ends it. A stream that was unknown is observed."""
    known = history.streams.get(stream, StreamRelease(mode="observe"))
    return _with_stream(history, "release", by, stream, msgspec.structs.replace(known, shadow=digest))


def revoke(history: History, *, digest: str, by: Attribution) -> Entry:
    """Forbid a digest for good, and take it out of force everywhere.

    A champion falls back on the one it followed that is not revoked, or on the static routes, and its canary ends with
    it; a canary or shadow ends; another model falls back on the one it followed, or is no longer released.
    """
    revoked = (*history.revoked, digest)
    streams = {
        name: _without(release, digest, history.lines.get(name, ()), revoked)
        for name, release in history.streams.items()
    }
    models = {
        name: fallback(history.model_lines[name], revoked) if held == digest else held
        for name, held in history.models.items()
    }
    kept = {name: held for name, held in models.items() if held is not None}
    return _next(history, "revoke", by, streams=streams, models=kept, revoked=revoked)


def pause(history: History, *, stream: str, by: Attribution) -> Entry:
    """Let no canary of a stream begin, climb or win until `resume`; what harms is still withdrawn, and rolled back."""
    if stream not in history.streams:
        raise TransitionError(f"the ledger knows no stream {stream!r}")
    _check_unpaused(history, stream)
    return _next(history, "pause", by, subject=stream)


def resume(history: History, *, stream: str, by: Attribution) -> Entry:
    """End the pause of a stream."""
    if stream not in history.paused:
        raise TransitionError(f"stream {stream!r} is not paused")
    return _next(history, "resume", by, subject=stream)


def reject(history: History, *, digest: str, by: Attribution) -> Entry:
    """Record that ``digest`` shall not be released, whoever approves it; what is in force must be rolled back or revoked."""
    if (earlier := history.rejected.get(digest)) is not None:
        raise TransitionError(f"{digest} was rejected already, by {earlier.actor}: {earlier.reason}")
    if any(digest in release.digests() for release in history.streams.values()) or digest in history.models.values():
        raise TransitionError(f"{digest} is in force: roll it back, or revoke it")
    return _next(history, "reject", by, subject=digest)


def readmit(history: History, *, digest: str, by: Attribution) -> Entry:
    """Take the rejection of ``digest`` back."""
    if digest not in history.rejected:
        raise TransitionError(f"{digest} was not rejected")
    return _next(history, "readmit", by, subject=digest)


def restore(history: History, *, above: tuple[int, str], by: Attribution, lost: Entry | None = None) -> Entry:
    """Continue a ledger that lost its newest generations, above the highest (generation, hash) that a shim served.

    ``lost`` is the entry of that generation, if the shim kept it: its champions and models are then in force again.
    Without it, those of the present head are. Canaries and shadows end, revocations of both stay.
    """
    source = lost or (history.head.entry if history.head else None)
    streams = {**history.streams, **(source.streams if source else {})}
    generation, digest = above
    return _next(
        history,
        "restore",
        by,
        streams={
            name: msgspec.structs.replace(_led_by(release, release.champion), shadow=None)
            for name, release in streams.items()
        },
        models=dict(source.models) if source else {},
        revoked=tuple(dict.fromkeys((*history.revoked, *(lost.revoked if lost else ())))),
        gap=Gap(generation=generation, hash=digest, entry=lost),
    )


def _check_unpaused(history: History, stream: str) -> None:
    if (held := history.paused.get(stream)) is not None:
        raise TransitionError(f"stream {stream!r} was paused by {held.actor}: {held.reason}")


def _with_canary(history: History, stream: str) -> StreamRelease:
    before = history.stream(stream)
    if before.canary is None:
        raise TransitionError(f"stream {stream!r} has no canary")
    return before


def _led_by(release: StreamRelease, champion: str | None) -> StreamRelease:
    """Return ``release`` without a canary, led by ``champion``; modes in which the static routes decide stay."""
    decided: Mode = "off" if champion is None else "on"
    mode = release.mode if release.mode in _UNLED_MODES else decided
    return StreamRelease(mode=mode, champion=champion, shadow=release.shadow)


def _without(release: StreamRelease, digest: str, line: tuple[str, ...], revoked: tuple[str, ...]) -> StreamRelease:
    if digest not in release.digests():
        return release
    if release.champion == digest:
        release = _led_by(release, fallback(line, revoked))
    if release.canary == digest:
        release = _led_by(release, release.champion)
    return msgspec.structs.replace(release, shadow=None) if release.shadow == digest else release


def _with_stream(history: History, action: Action, by: Attribution, name: str, after: StreamRelease) -> Entry:
    return _next(history, action, by, streams={**history.streams, name: after})


def _next(
    history: History,
    action: Action,
    by: Attribution,
    *,
    streams: Mapping[str, StreamRelease] | None = None,
    models: Mapping[str, str] | None = None,
    revoked: tuple[str, ...] | None = None,
    gap: Gap | None = None,
    subject: str | UnsetType = UNSET,
) -> Entry:
    """Return the next entry; what is not given stays as it is."""
    return Entry(
        generation=(gap.generation if gap else history.generation) + 1,
        previous=history.hash,
        at=clock.utc(by.at),
        action=action,
        streams=dict(history.streams if streams is None else streams),
        models=dict(history.models if models is None else models),
        revoked=history.revoked if revoked is None else revoked,
        actor=by.actor,
        reason=by.reason,
        evidence=dict(by.evidence),
        gap=gap,
        subject=subject,
    )
