"""``turnout promote``, ``rollback``, ``pause``, ``history`` and ``verify``: the ledger, and what moves it."""

import json
import sys
from collections.abc import Callable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter

from flows.cli import telling

if TYPE_CHECKING:
    from models.releases.entry import Entry

Json = Annotated[bool, Parameter(name="--json")]


def promote(
    stream: str,
    *,
    as_of: str | None = None,
    actor: str | None = None,
    reason: str | None = None,
    dry_run: bool = False,
    as_json: Json = False,
) -> int:
    """Admit the newest approval as a canary, or look at the live one: promote it, withdraw it, climb a rung, or wait.

    Parameters
    ----------
    stream
        The stream whose router to promote.
    as_of
        The instant to run at (RFC 3339); default is now.
    actor
        Who asks for the step; default is who runs this.
    reason
        Why now; it stands in the ledger beside what the step itself says.
    dry_run
        Say what would be done, and change nothing.
    as_json
        Print JSON.
    """
    telling.attach()
    from flows import promote as flow

    return telling.report(flow.promote(stream, as_of, dry_run=dry_run, actor=actor, reason=reason), as_json=as_json)


def rollback(stream: str, *, reason: str, to: str = "previous", actor: str | None = None, dry_run: bool = False) -> int:
    """Put an earlier champion of a stream back in force, as a new generation.

    Parameters
    ----------
    stream
        The stream to roll back.
    reason
        Why; it stands in the ledger.
    to
        The digest of the champion to put back; ``previous`` is the one before, ``static`` the static routes.
    actor
        Who; default is who runs this.
    dry_run
        Show the generation that would be written, and write none.
    """
    from models.releases import transitions

    target = None if to == "static" else to
    said = {"state": "rolled back", "stream": stream}
    return record(
        transitions.rollback,
        said,
        actor=actor,
        reason=reason,
        dry_run=dry_run,
        choices={"stream": stream, "to": target},
    )


def pause(stream: str, *, reason: str, lift: bool = False, actor: str | None = None, dry_run: bool = False) -> int:
    """Let no canary of a stream begin, climb or win; its share stays, and what harms is still withdrawn.

    Parameters
    ----------
    stream
        The stream to pause.
    reason
        Why; it stands in the ledger.
    lift
        End the pause.
    actor
        Who; default is who runs this.
    dry_run
        Show the generation that would be written, and write none.
    """
    from models.releases import transitions

    propose = transitions.resume if lift else transitions.pause
    said = {"state": "resumed" if lift else "paused", "stream": stream}
    return record(propose, said, actor=actor, reason=reason, dry_run=dry_run, choices={"stream": stream})


def revoke(digest: str, *, reason: str, actor: str | None = None, dry_run: bool = False) -> int:
    """Forbid a release for good, and take it out of force everywhere: what it followed decides.

    Parameters
    ----------
    digest
        The digest of the bundle.
    reason
        Why; it stands in the ledger.
    actor
        Who; default is who runs this.
    dry_run
        Show the generation that would be written, and write none.
    """
    from models.releases import transitions

    said = {"state": "revoked", "digest": digest}
    return record(transitions.revoke, said, actor=actor, reason=reason, dry_run=dry_run, choices={"digest": digest})


def record(
    propose: Callable[..., Any],
    said: Mapping[str, Any],
    *,
    actor: str | None,
    reason: str,
    dry_run: bool,
    choices: Mapping[str, Any],
    evidence: Mapping[str, str] | None = None,
) -> int:
    """Append what ``propose`` makes of the ledger and report what was ``said``; under ``dry_run`` print the generation."""
    telling.attach()
    from flows import wiring

    wired = wiring.wire(actor=actor)
    if dry_run:
        entry = wired.propose(propose, reason=reason, evidence=evidence or {}, **choices)
        sys.stdout.write(json.dumps(msgspec.to_builtins(entry), indent=2) + "\n")
        return 0
    generation = wired.append(propose, reason=reason, evidence=evidence or {}, **choices)
    return telling.report({**said, "generation": generation})


def history(*, limit: int = 20, as_json: Json = False) -> int:
    """List the generations of the ledger, newest first: what changed, by whom, and why.

    Parameters
    ----------
    limit
        How many.
    as_json
        Print JSON.
    """
    from models.releases.ledger import Ledger

    ledger = Ledger(telling.attach().ledger_path)
    entries = [ledger.read(generation).entry for generation in islice(reversed(ledger.generations()), limit)]
    if as_json:
        sys.stdout.write(json.dumps(msgspec.to_builtins(entries), indent=2) + "\n")
        return 0
    telling.table(
        ("generation", "at", "action", "actor", "reason", "of"),
        ((e.generation, e.at.isoformat(timespec="seconds"), e.action, e.actor, e.reason, _subject(e)) for e in entries),
    )
    return 0


def _subject(entry: "Entry") -> str:
    """Return what an entry is about: its subject, or the approved version that it released."""
    return (
        str(entry.subject or "")
        or entry.evidence.get("version", "").partition(" ")[0]
        or entry.evidence.get("stream", "")
    )


def verify() -> int:
    """Check every generation, that no shim has served one which the ledger lost, and every released bundle's bytes."""
    from flows import shims
    from models.releases.ledger import Ledger
    from models.releases.store import Store

    settings = telling.attach()
    answers = [answer for answer in shims.ask_all(settings, "GET", "/status") if answer.ok]
    served = [(told["generation"], told["head"]) for told in (a.document for a in answers) if told["generation"]]
    verified = Ledger(settings.ledger_path).verify(served=served)
    digests = {digest for release in verified.streams.values() for digest in release.digests()}
    store = Store(settings.store_path)
    for digest in sorted(digests | set(verified.models.values())):
        store.verify(digest)
    sound = {"generations": verified.generation, "bundles": len(digests | set(verified.models.values()))}
    return telling.report({"state": "sound", **sound, "shims asked": len(answers)})
