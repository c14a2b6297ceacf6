"""``turnout ledger``: a ledger that lost its newest generations goes on above what the shims served."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from cyclopts import App

from flows.cli import telling

if TYPE_CHECKING:
    from flows.settings import Settings

app = App(name="ledger")


@app.command
def restore(*, reason: str, state_file: Path | None = None, actor: str | None = None, dry_run: bool = False) -> int:
    """Continue above the highest generation that a shim served, after the ledger's folder came back from a backup.

    Every configured shim is asked what it served. With the state file of one that served the highest, its champions and
    models are in force again; without, those of the ledger's own head. Canaries and shadows end.

    Parameters
    ----------
    reason
        Why; it stands in the ledger.
    state_file
        The file in which a shim keeps what it served (``served.json``).
    actor
        Who; default is who runs this.
    dry_run
        Show the generation that would be written, and write none.
    """
    settings = telling.attach()
    from flows import wiring
    from models.releases import transitions
    from models.releases.transitions import Attribution
    from serving import served

    wired = wiring.wire(actor=actor)
    kept = served.read(state_file) if state_file else served.Served()
    above = max([*_served(settings), (kept.generation, kept.head)])
    if not above[0]:
        raise telling.UsageError("no shim was reached that served a generation: give --state-file")
    by = Attribution(actor=wired.actor, reason=reason, at=wired.now)
    lost = kept.entry if (kept.generation, kept.head) == above else None
    entry = transitions.restore(wired.ledger.history(), above=above, by=by, lost=lost)
    if dry_run:
        sys.stdout.write(json.dumps(msgspec.to_builtins(entry), indent=2) + "\n")
        return 0
    wired.ledger.restore(entry, above=above)
    return telling.report({"state": "restored", "above": above[0], "generation": entry.generation})


def _served(settings: "Settings") -> list[tuple[int, str]]:
    from flows import shims

    answers = [answer.document for answer in shims.ask_all(settings, "GET", "/status") if answer.ok]
    return [(told["generation"], told["head"]) for told in answers]
