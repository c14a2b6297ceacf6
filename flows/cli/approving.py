"""``turnout approve`` and ``reject``: what a reviewer does in MLflow's pages, from the command line."""

import getpass
import sys

from flows.cli import releasing, telling
from models import registered
from models.registered import RegistryError, Version
from models.registry import Registry
from models.releases import transitions


def approve(number: int, *, reason: str, model: str = "router", actor: str | None = None, dry_run: bool = False) -> int:
    """Approve a version of ``<model>-candidate``: it becomes a version of the model, and the next promotion takes it up.

    Parameters
    ----------
    number
        The number of the candidate's version.
    reason
        Why; it stands on the approved version.
    model
        The model to approve it as.
    actor
        Who; default is who runs this. Recorded as unverified, unless MLflow knows its users.
    dry_run
        Show the candidate, and approve nothing.
    """
    registry, candidate, who = _find(number, model, actor)
    if dry_run:
        return _show(candidate, f"would be approved by {who} as {model}")
    approved = registry.approve(candidate, target=model, actor=who, reason=reason)
    sys.stdout.write(f"{candidate.name} {number} is approved as {model} {approved.number}\n")
    return 0


def reject(
    number: int,
    *,
    reason: str,
    model: str = "router",
    lift: bool = False,
    actor: str | None = None,
    dry_run: bool = False,
) -> int:
    """Record that a version of ``<model>-candidate`` is not to be released, by whom and why: no approval overrides it.

    The record is the ledger's; a tag says it on the version's page too.

    Parameters
    ----------
    number
        The number of the candidate's version.
    reason
        Why.
    model
        The model that it was a candidate for.
    lift
        Take the rejection back.
    actor
        Who; default is who runs this.
    dry_run
        Show the candidate, and reject nothing.
    """
    registry, candidate, who = _find(number, model, actor)
    if dry_run:
        return _show(candidate, f"would be {'readmitted' if lift else 'rejected'} by {who}")
    digest = candidate.tags[registered.DIGEST_TAG]
    said = {"state": "readmitted" if lift else "rejected", "version": f"{candidate.name} {number}", "digest": digest}
    ended = releasing.record(
        transitions.readmit if lift else transitions.reject,
        said,
        actor=who,
        reason=reason,
        dry_run=False,
        choices={"digest": digest},
        evidence={"candidate": f"{candidate.name}/{number}"},
    )
    if not lift:
        try:
            registry.reject(candidate, actor=who, reason=reason)
        except RegistryError as error:  # the ledger holds it: what the page says is a hint to people
            sys.stderr.write(f"turnout: the rejection holds, but its page does not say so: {error}\n")
    return ended


def _find(number: int, model: str, actor: str | None) -> tuple[Registry, Version, str]:
    registry = Registry(telling.attach().tracking_uri)
    candidate = registry.version(f"{model}-candidate", number)
    if registered.DIGEST_TAG not in candidate.tags:
        raise RegistryError(
            f"{candidate.name} {number} has no {registered.DIGEST_TAG}: no flow of Turnout registered it"
        )
    return registry, candidate, actor or getpass.getuser()


def _show(candidate: Version, intent: str) -> int:
    telling.table(("tag", "value"), sorted(candidate.tags.items()))
    sys.stdout.write(f"\n{candidate.description}\n\n{candidate.name} {candidate.number} {intent}\n")
    return 0
