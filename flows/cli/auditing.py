"""``turnout audit``: which version decided an event, who approved it, on what evidence, and what else would have been done."""

import sys
from typing import Annotated, Any

from cyclopts import Parameter

from flows.cli import telling

_SHORT = 12


def audit(
    event_id: str | None = None,
    *,
    decision_id: str | None = None,
    source: str | None = None,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Show every decision about an event: by which version, approved by whom, on what evidence, and the alternatives.

    Parameters
    ----------
    event_id
        The event's id.
    decision_id
        A decision's id, instead of an event's.
    source
        The event's source, where several give the same ids.
    as_json
        Print JSON.
    """
    if (event_id is None) == (decision_id is None):
        raise telling.UsageError("give an event's id, or --decision-id")
    telling.attach()
    from flows import audit as auditing
    from flows.wiring import wire

    told = auditing.audit(wire(), event_id=event_id, decision_id=decision_id, event_source=source)
    if as_json:
        return telling.report({"decisions": told}, as_json=True)
    for decision in told:
        telling.table(("what", "said"), _rows(decision))
        sys.stdout.write("\n")
    return 0


def _rows(told: dict[str, Any]) -> list[tuple[str, object]]:
    by = told["authority"]
    rows: list[tuple[str, object]] = [
        ("event", f"{told['event']} of {told['source']}, stream {told['stream']}"),
        ("decision", f"{told['decision']} at {told['at']}"),
        ("assigned", f"{told['assigned']}, propensity {told['propensity']:.4g}: {told['reason']}"),
        ("decided by", f"{by['arm']} {by['digest'][:_SHORT]}, generation {by['generation']}"),
        ("version", by["version"] or "none: static routes are configured, not approved"),
        ("approved by", by["approver"] or "-"),
        ("on evidence", by["report"] or "-"),
        ("began", by["began"] or "-"),
        ("promoted", by["promoted"] or "-"),
    ]
    rows += [
        ("would have", f"{a['policy']}: {a['destination']} with {a['probability']:.1%} ({a['known_from']})")
        for a in told["would_have"]
    ]
    rows += [("outcome", _outcome(outcome)) for outcome in told["outcomes"]] or [("outcome", "none yet")]
    return [*rows, ("read from", f"{told['read_from']}, and the ledger")]


def _outcome(outcome: dict[str, Any]) -> str:
    parts = [
        outcome["served"],
        *(f"{n} {outcome[n]}" for n in ("status", "success", "latency_ms", "cost_usd") if n in outcome),
    ]
    return ", ".join(parts)
