"""``turnout promote``, ``rollback``, ``history`` and ``verify``: the ledger, and what moves it."""

import json
import sys
from itertools import islice
from typing import Annotated

import msgspec
from cyclopts import Parameter

from flows.cli import telling

Json = Annotated[bool, Parameter(name="--json")]


def promote(stream: str, *, as_of: str | None = None, dry_run: bool = False, as_json: Json = False) -> int:
    """Admit the newest approval as a canary, or look at the live one: promote it, withdraw it, climb a rung, or wait.

    Parameters
    ----------
    stream
        The stream whose router to promote.
    as_of
        The instant to run at (RFC 3339); default is now.
    dry_run
        Say what would be done, and change nothing.
    as_json
        Print JSON.
    """
    telling.attach()
    from flows import promote as flow

    return telling.report(flow.promote(stream, as_of, dry_run=dry_run), as_json=as_json)


def rollback(stream: str, *, reason: str, to: str = "previous", dry_run: bool = False) -> int:
    """Put an earlier champion of a stream back in force, as a new generation.

    Parameters
    ----------
    stream
        The stream to roll back.
    reason
        Why; it stands in the ledger.
    to
        The digest of the champion to put back; ``previous`` is the one before, ``static`` the static routes.
    dry_run
        Show the generation that would be written, and write none.
    """
    telling.attach()
    from flows import wiring
    from models.releases import transitions
    from models.releases.transitions import Attribution

    wired = wiring.wire()
    target = None if to == "static" else to
    if dry_run:
        by = Attribution(actor=wiring.actor(), reason=reason, at=wired.now)
        entry = transitions.rollback(wired.ledger.history(), stream=stream, to=target, by=by)
        sys.stdout.write(json.dumps(msgspec.to_builtins(entry), indent=2) + "\n")
        return 0
    generation = wired.append(transitions.rollback, reason=reason, evidence={}, stream=stream, to=target)
    return telling.report({"state": "rolled back", "stream": stream, "generation": generation})


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
        ("generation", "at", "action", "actor", "reason"),
        ((e.generation, e.at.isoformat(timespec="seconds"), e.action, e.actor, e.reason) for e in entries),
    )
    return 0


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
