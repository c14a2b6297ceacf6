"""What each action may change, and nothing else: a promotion is its canary's, a rollback returns to what stood before."""

from collections.abc import Callable

from msgspec import UNSET

from models.releases import canonical
from models.releases.entry import Action, Entry, StreamRelease
from models.releases.history import History
from models.releases.refusal import refuse

_REMARKS: tuple[Action, ...] = ("pause", "resume", "reject", "readmit")


def check(entry: Entry, history: History) -> None:
    """Refuse ``entry`` unless it changes what its action says.

    Raises
    ------
    RuleBrokenError
        ``action``, ``champion`` or ``revoked``.
    """
    if (entry.subject is not UNSET) != (entry.action in _REMARKS):
        refuse("action", entry, f"{', '.join(_REMARKS)} have a subject and nothing else does, got {entry.subject!r}")
    _CHECKS[entry.action](entry, history)


def _check_kept(entry: Entry, history: History) -> None:
    gone = set(history.streams) - set(entry.streams)
    if gone:
        refuse("action", entry, f"streams never disappear, {min(gone)!r} did")


def _changed_streams(entry: Entry, history: History) -> list[str]:
    _check_kept(entry, history)
    return sorted(name for name, after in entry.streams.items() if after != history.stream(name))


def _changed_models(entry: Entry, history: History) -> list[str]:
    names = set(history.models) | set(entry.models)
    return sorted(name for name in names if history.models.get(name) != entry.models.get(name))


def _one_stream(entry: Entry, history: History) -> tuple[str, StreamRelease, StreamRelease]:
    """Return the name of the only thing that changed, a stream, before and after."""
    names, models = _changed_streams(entry, history), _changed_models(entry, history)
    if len(names) != 1 or models:
        refuse("action", entry, f"{entry.action!r} changes one stream and no other model, got {names} and {models}")
    return names[0], history.stream(names[0]), entry.streams[names[0]]


def _expect(entry: Entry, name: str, allowed: bool, rule: str) -> None:  # noqa: FBT001 - a condition, read as one
    if not allowed:
        refuse("action", entry, f"{entry.action!r} of {name!r}: {rule}")


def _check_genesis(entry: Entry, _: History) -> None:
    named = sorted(name for name, release in entry.streams.items() if release.digests()) + sorted(entry.models)
    if named or entry.revoked:
        refuse("action", entry, f"genesis releases and revokes nothing, got {named or list(entry.revoked)}")


def _check_canary(entry: Entry, history: History) -> None:
    name, before, after = _one_stream(entry, history)
    _expect(entry, name, name not in history.paused, "the stream is paused")
    begun = after.canary == before.canary
    _expect(entry, name, begun or after.canary not in history.rejected, f"{after.canary} was rejected")
    _expect(entry, name, after.canary is not None, "there must be a canary")
    _expect(entry, name, before.canary in (None, after.canary), f"the canary {before.canary} is still on its way")
    _expect(entry, name, after.champion == before.champion, "the champion stays")
    _expect(entry, name, after.shadow in (before.shadow, None), "the shadow stays, or has become the canary")


def _check_promote(entry: Entry, history: History) -> None:
    name, before, after = _one_stream(entry, history)
    _expect(entry, name, name not in history.paused, "the stream is paused")
    if before.canary is None or after.champion != before.canary:
        refuse("champion", entry, f"{name!r} can only promote its canary {before.canary}, got {after.champion}")
    _expect(
        entry, name, after == StreamRelease(mode="on", champion=before.canary, shadow=before.shadow), "all else stays"
    )


def _check_withdraw(entry: Entry, history: History) -> None:
    name, before, after = _one_stream(entry, history)
    _expect(entry, name, before.canary is not None and after.canary is None, "a canary must be there, and go")
    _expect(entry, name, (after.champion, after.shadow) == (before.champion, before.shadow), "champion and shadow stay")


def _check_rollback(entry: Entry, history: History) -> None:
    name, before, after = _one_stream(entry, history)
    if after.champion is not None and not history.has_stood(name, after.champion):
        refuse("champion", entry, f"{after.champion} never was the champion of {name!r}")
    _expect(entry, name, after.champion != before.champion, f"{before.champion} is the champion already")
    _expect(entry, name, (after.canary, after.shadow) == (None, before.shadow), "the canary ends, the shadow stays")


def _check_mode(entry: Entry, history: History) -> None:
    name, before, after = _one_stream(entry, history)
    _expect(entry, name, after.mode not in (before.mode, "canary"), "the mode becomes off, observe or on")
    _expect(entry, name, (after.champion, after.shadow) == (before.champion, before.shadow), "champion and shadow stay")


def _check_release(entry: Entry, history: History) -> None:
    if not _changed_streams(entry, history):
        names = _changed_models(entry, history)
        if len(names) != 1 or names[0] not in entry.models:
            refuse("action", entry, f"'release' sets one model or one shadow, got changes of {names}")
        rejected = entry.models[names[0]] in history.rejected
        _expect(entry, names[0], not rejected, f"{entry.models[names[0]]} was rejected")
        return
    name, before, after = _one_stream(entry, history)
    same = (after.champion, after.canary, after.canary_share) == (before.champion, before.canary, before.canary_share)
    _expect(entry, name, same and after.shadow != before.shadow, "only the shadow changes")
    _expect(entry, name, after.mode == before.mode or name not in history.streams, "the mode stays")


def _check_revoke(entry: Entry, history: History) -> None:
    fresh = set(entry.revoked) - set(history.revoked)
    if not fresh:
        refuse("revoked", entry, "nothing new is revoked")
    for name in _changed_streams(entry, history):
        before, after = history.stream(name), entry.streams[name]
        _expect(entry, name, bool(fresh.intersection(before.digests())), "it names nothing that is revoked")
        if after.champion not in (before.champion, None) and not history.has_stood(name, after.champion or ""):
            refuse("champion", entry, f"{after.champion} never was the champion of {name!r}")
        _expect(
            entry, name, after.champion == before.champion or before.champion in fresh, "the champion is not revoked"
        )
        kept = before.canary if after.champion == before.champion else None
        _expect(entry, name, after.canary in (kept, None), "no canary begins, and it ends with its champion")
        _expect(entry, name, after.shadow in (before.shadow, None), "no shadow begins")
    for name in _changed_models(entry, history):
        known = (*history.model_lines.get(name, ()), None)
        _expect(entry, name, history.models.get(name) in fresh, "it is not revoked")
        _expect(entry, name, entry.models.get(name) in known, "it can only fall back on what was released before")


def _check_restore(entry: Entry, history: History) -> None:
    lost = entry.gap.entry if entry.gap else None
    if lost and set(lost.revoked) - set(entry.revoked):
        refuse("revoked", entry, "what the lost entry revoked stays revoked")
    _check_kept(entry, history)
    for name, release in entry.streams.items():
        _expect(entry, name, release.canary is None and release.shadow is None, "canary and shadow begin anew")
        served = lost.streams.get(name, StreamRelease()).champion if lost else None
        if release.champion not in (None, served) and not history.has_stood(name, release.champion or ""):
            refuse("champion", entry, f"{release.champion} never was the champion of {name!r}")
    for name, digest in entry.models.items():
        known = (*history.model_lines.get(name, ()), lost.models.get(name) if lost else None)
        _expect(entry, name, digest in known, f"{digest} was never released")


def _check_remark(entry: Entry, history: History) -> None:
    """Refuse a pause, a rejection or the end of one that releases anything, or says what is said already."""
    changed = [*_changed_streams(entry, history), *_changed_models(entry, history)]
    if changed:
        refuse("action", entry, f"{entry.action!r} releases nothing, got changes of {changed}")
    subject = str(entry.subject)
    held = history.paused if entry.action in ("pause", "resume") else history.rejected
    begins = entry.action in ("pause", "reject")
    _expect(entry, subject, (subject in held) != begins, f"it is {'so' if begins else 'not so'} already")
    known = subject in history.streams if entry.action == "pause" else canonical.is_digest(subject)
    _expect(entry, subject, entry.action not in ("pause", "reject") or known, "there is no such stream or digest")


_CHECKS: dict[Action, Callable[[Entry, History], None]] = {
    "genesis": _check_genesis,
    "canary": _check_canary,
    "promote": _check_promote,
    "withdraw": _check_withdraw,
    "rollback": _check_rollback,
    "mode": _check_mode,
    "release": _check_release,
    "revoke": _check_revoke,
    "restore": _check_restore,
    **dict.fromkeys(_REMARKS, _check_remark),
}
