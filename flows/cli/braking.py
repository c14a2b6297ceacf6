"""``turnout stop`` and ``resume``: the operator's hand, on every configured shim at once, with everything else down."""

import getpass
import sys
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

from flows import shims
from flows.cli import telling
from flows.shims import Answer


def stop(
    *,
    reason: str,
    stream: str | None = None,
    actor: str | None = None,
    minutes: float | None = None,
    dry_run: bool = False,
) -> int:
    """Let the static routes decide, on every configured shim; returns 1, naming them, if some were not reached.

    Parameters
    ----------
    reason
        Why; it stands in every decision made under the stop.
    stream
        The stream to stop; every stream without.
    actor
        Who; default is who runs this.
    minutes
        When the stop ends by itself; without, it stays until ``turnout resume``.
    dry_run
        Only ask which shims can be reached.
    """
    wish = {"kind": "stop", "actor": actor or getpass.getuser(), "reason": reason, "stream": stream}
    if minutes is not None:
        wish["expires_at"] = (datetime.now(UTC) + timedelta(minutes=minutes)).isoformat()
    chosen = telling.attach()
    if dry_run:
        return _tell(shims.ask_all(chosen, "GET", "/v1/overrides"), "would be stopped")
    return _tell(shims.ask_all(chosen, "POST", "/v1/overrides", body=wish), "stopped")


def resume(*, reason: str = "", stream: str | None = None, actor: str | None = None, dry_run: bool = False) -> int:
    """Take a stop back, on every configured shim; returns 1, naming them, if some were not reached.

    Parameters
    ----------
    reason
        Why; it is kept in the shims' journals.
    stream
        The stream that was stopped; without, the stop of every stream.
    actor
        Who; default is who runs this.
    dry_run
        Only ask which shims can be reached.
    """
    wish = {
        "kind": "stop",
        "actor": actor or getpass.getuser(),
        "reason": reason,
        **({"stream": stream} if stream else {}),
    }
    chosen = telling.attach()
    if dry_run:
        return _tell(shims.ask_all(chosen, "GET", "/v1/overrides"), "would be resumed")
    return _tell(shims.ask_all(chosen, "DELETE", f"/v1/overrides?{urlencode(wish)}"), "resumed")


def _tell(answers: list[Answer], done: str) -> int:
    for answer in answers:
        unsaved = isinstance(answer.document, dict) and answer.document.get("saved") is False
        note = ", but its journal cannot be written: a restart forgets it" if unsaved else ""
        sys.stdout.write(f"{answer.url}: {done + note if answer.ok else answer.failure}\n")
    missed = [answer.url for answer in answers if not answer.ok]
    if missed or not answers:
        sys.stderr.write(f"turnout: not every shim was reached: {', '.join(missed) or 'none is configured'}\n")
        return 1
    return 0
