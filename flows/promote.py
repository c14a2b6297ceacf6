"""Promote: one step of the way from an approval in the registry to what the shims serve; run it as often as you like.

What is approved and true becomes a canary; a live canary is looked at, and climbs, wins, or is withdrawn. Every step is
one generation of the ledger, so a step that was killed half way is simply taken again.
"""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from features.choices import Gate
from flows import canary, pinning, shadow
from flows.canary import Look
from flows.publishing import publish
from flows.wiring import Wiring, wire
from models import evidence
from models.registered import DIGEST_TAG, REFUSED_TAG, Downloaded, RegistryForbiddenError, Version, unverified
from models.releases import bundle, transitions
from models.releases.bundle import BundleError
from validation import canary_plot, trust
from validation.trust import STATIC, Approval, Facts

ROUTER = "router"
CANARY_FOLDER = "canary"  # of a run's artifacts: what its canary showed
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


def pending_versions(wired: Wiring, model: str, stream: str) -> list[Version]:
    """Return the approved versions of ``model`` for ``stream`` that were neither released nor refused, newest first.

    A release uses up every approval of the same bytes that was there: pressed twice is approved once.
    """
    released = [recorded.entry.evidence for recorded in wired.ledger.entries()]
    seen = {said.get("version") for said in released}
    used_up = {
        said["digest"]: datetime.fromisoformat(said["approved_at"]) for said in released if "approved_at" in said
    }
    versions = reversed(wired.registry.versions(model))
    mine = (version for version in versions if Approval.from_tags(version.tags).stream == stream)
    return [
        version
        for version in mine
        if identity(version) not in seen
        and REFUSED_TAG not in version.tags
        and version.created_at > used_up.get(version.tags.get(DIGEST_TAG, ""), _LONG_AGO)
    ]


def identity(version: Version) -> str:
    """Return what names a version for good: MLflow gives the number of a deleted one to the next."""
    return f"{version.name}/{version.number} of {version.created_at.isoformat()}"


def admit(wired: Wiring, version: Version, *, dry_run: bool) -> dict[str, Any]:
    """Hold an approved version against its bytes, its evidence and the ledger; release it, or write on it why not.

    A router begins as a canary; any other model is released at once.
    """
    approval = read_approval(version, vouched=version.name in wired.vouched)
    downloaded = wired.registry.download(version, wired.workspace(f"approved-{version.name}-{version.number}"))
    reasons = trust.refusals(approval, _facts(wired, approval, downloaded))
    reasons += pinning.misfits(wired, approval, downloaded.bundle)
    report = {
        "version": identity(version),
        "digest": approval.digest,
        "approver": approval.approver,
        "reasons": reasons,
    }
    if dry_run:
        return {"state": "would_refuse" if reasons else "would_admit", **report}
    if reasons:
        wired.registry.refuse(version, reasons, at=wired.now)
        return {"state": "refused", **report}
    wired.store.put(downloaded.bundle, digest=approval.digest)
    return {"state": "admitted", "generation": _release(wired, version, approval), **report}


def read_approval(version: Version, *, vouched: bool) -> Approval:
    """Return what an approved version says of itself.

    Who approved it is believed where the registry is ``vouched`` for; elsewhere a name is what the client wrote, and a
    copy that names nobody was made in MLflow's pages, by somebody.
    """
    said = Approval.from_tags(version.tags)
    if vouched:
        return said
    if said.approver:
        return replace(said, approver=unverified(said.approver), registered_by="")
    return replace(said, approver=trust.ANONYMOUS if version.candidate else "", registered_by="")


def show(wired: Wiring, stream: str, seen: Look) -> None:
    """Draw how the canary does, onto the run of the version that it is; a canary without one is drawn nowhere."""
    version = _version_of(wired, wired.canary(stream))
    if version is not None:
        path = wired.workspace(f"canary-{version.name}-{version.number}") / "canary.png"
        canary_plot.draw(seen.log, seen.gate).savefig(path, dpi=120)
        wired.registry.attach(version, path, CANARY_FOLDER)


def mirror_aliases(wired: Wiring, stream: str) -> tuple[str, ...]:
    """Let MLflow's aliases say what the ledger says: ``champion-STREAM`` and ``challenger-STREAM``. Nothing reads them back.

    Returns an alert for each alias that somebody set by hand where the ledger releases nothing; it is taken back, where
    the promoter may.
    """
    live, alerts = wired.live(stream), []
    for role, digest in (("champion", live.champion), ("challenger", live.canary)):
        if digest is not None and (version := _version_of(wired, digest)) is not None:
            wired.registry.set_alias(version, f"{role}-{stream}")
        elif digest is None and (number := wired.registry.aliases(ROUTER).get(f"{role}-{stream}")) is not None:
            alerts.append(f"the alias {role}-{stream} names {ROUTER}/{number}: {_take_back(wired, f'{role}-{stream}')}")
    return tuple(alerts)


def _take_back(wired: Wiring, alias: str) -> str:
    try:
        wired.registry.drop_alias(ROUTER, alias)
    except RegistryForbiddenError:  # MLflow asks for more than an editor's right
        return "the ledger releases none, and only an administrator can take it back"
    return "the ledger releases none, and it was taken back"


def _version_of(wired: Wiring, digest: str) -> Version | None:
    versions = (v for v in wired.registry.versions(ROUTER) if Approval.from_tags(v.tags).digest == digest)
    return next(versions, None)


def _facts(wired: Wiring, approval: Approval, downloaded: Downloaded) -> Facts:
    gate = wired.configuration.streams[approval.stream].gate if approval.stream else Gate()
    live = wired.live(approval.stream).champion if approval.stream else wired.released(approval.kind)
    past = wired.ledger.history()
    rejection = past.rejected.get(approval.digest)
    return Facts(
        digest=_digest(downloaded.bundle),
        evidence=_sha256(downloaded.evidence / evidence.REPORT_FILE),
        baseline=live or STATIC,
        revoked=past.revoked,
        max_age=timedelta(hours=gate.evidence_max_age_hours),
        two_person=gate.two_person,
        now=wired.now,
        rejected=f"it was rejected by {rejection.said_by}" if rejection else "",
    )


def _digest(folder: Path) -> str:
    """Return the digest of a bundle that is whole, else nothing: what cannot be verified equals no approved digest."""
    try:
        digest = bundle.read_digest(folder)
        bundle.verify(folder, digest)
    except BundleError:
        return ""
    return digest


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _release(wired: Wiring, version: Version, approval: Approval) -> int:
    said = {
        "version": identity(version),
        "digest": approval.digest,
        "approved_at": version.created_at.isoformat(),
        "report": approval.evidence,
        "approver": approval.approver,
    }
    why: dict[str, Any] = {"reason": f"approved by {approval.approver}", "evidence": said}
    if approval.kind != ROUTER:
        return wired.append(transitions.release_model, name=approval.kind, digest=approval.digest, **why)
    gate = wired.configuration.streams[approval.stream].gate
    if gate.shadow_decisions:
        return wired.append(transitions.release_shadow, stream=approval.stream, digest=approval.digest, **why)
    share = gate.ladder[0].share
    return wired.append(transitions.start_canary, stream=approval.stream, digest=approval.digest, share=share, **why)


_pending = task(retries=3, retry_delay_seconds=10, cache_policy=NO_CACHE)(pending_versions)
_admit = task(cache_policy=NO_CACHE)(admit)
_look = task(cache_policy=NO_CACHE)(canary.look)
_show = task(retries=3, retry_delay_seconds=10, cache_policy=NO_CACHE)(show)
_act = task(cache_policy=NO_CACHE)(canary.act)
_observe = task(cache_policy=NO_CACHE)(shadow.advance)
_mirror = task(retries=3, retry_delay_seconds=10, cache_policy=NO_CACHE)(mirror_aliases)


@flow(name="promote")
def promote(
    stream: str, as_of: str | None = None, *, dry_run: bool = False, actor: str | None = None, reason: str | None = None
) -> dict[str, Any]:
    """Take one step for the router of ``stream``: look at its live canary, or admit the newest approval.

    ``actor`` and ``reason`` are who asks for the step and why, for the ledger, beside what the step itself says.
    Returns a report: ``state`` is ``idle``, ``cooling_down``, ``admitted``, ``refused``, ``observing``, ``canary_begun``,
    ``advanced``, ``paused`` or the verdict, with reasons and numbers.
    """
    wired = wire(as_of, actor=actor, remark=reason)
    if wired.live(stream).canary is not None:
        seen = _look(wired, stream)
        if not dry_run:
            _show(wired, stream, seen)
        report = _act(wired, stream, seen, dry_run=dry_run)
    elif (held := wired.ledger.history().paused.get(stream)) is not None:
        return publish("promote", {"state": "paused", "stream": stream, "paused": held.said_by})
    elif (until := canary.cools_until(wired, stream)) is not None:
        return publish("promote", {"state": "cooling_down", "stream": stream, "until": until.isoformat()})
    elif (since := shadow.approved(wired, stream)) is not None:
        report = _observe(wired, stream, since, dry_run=dry_run)
    elif versions := _pending(wired, ROUTER, stream):
        report = _admit(wired, versions[0], dry_run=dry_run)
    else:
        return publish("promote", {"state": "idle", "stream": stream})
    if not dry_run:
        alerts = _mirror(wired, stream)
        report |= {"alerts": alerts} if alerts else {}
    return publish("promote", report)


@flow(name="release")
def release(model: str, as_of: str | None = None, *, dry_run: bool = False) -> dict[str, Any]:
    """Release the newest approval of a ``model`` that is no router (``forecaster``, ``classifier``); returns a report as `promote` does."""
    wired = wire(as_of)
    versions = _pending(wired, model, "")
    if not versions:
        return publish("release", {"state": "idle", "model": model})
    return publish("release", _admit(wired, versions[0], dry_run=dry_run))
