"""What a stack that was down for hours left behind: runs that are due, of which one of each kind is enough to catch up."""

from datetime import datetime
from typing import Any

from flows.calling import call

_SCHEDULED_TAG = "auto-scheduled"  # Prefect's own, on every run that a schedule made
_PAGE_SIZE = 200


def thin(api: str, *, now: datetime) -> int:
    """Delete all runs of a schedule that were due before ``now`` but the latest of each deployment; return how many.

    Each step of a round may be repeated and takes in all that is there, so that one run makes up for all. Runs that a person
    asked for stay.

    Raises
    ------
    UnreachableError
        If Prefect does not answer.
    """
    kept: set[str] = set()
    n_deleted = 0
    for run in _due(api, now):
        if run["deployment_id"] in kept:
            n_deleted += call("DELETE", f"{api}/flow_runs/{run['id']}", timeout_seconds=30).ok
        kept.add(run["deployment_id"])
    return n_deleted


def _due(api: str, now: datetime) -> list[dict[str, Any]]:
    """Return the runs that wait and are due, the latest first."""
    wanted = {
        "state": {"type": {"any_": ["SCHEDULED"]}},
        "expected_start_time": {"before_": now.isoformat()},
        "tags": {"all_": [_SCHEDULED_TAG]},
    }
    found: list[dict[str, Any]] = []
    while True:
        asked = {"flow_runs": wanted, "sort": "EXPECTED_START_TIME_DESC", "limit": _PAGE_SIZE, "offset": len(found)}
        page: list[dict[str, Any]] = call("POST", f"{api}/flow_runs/filter", body=asked, timeout_seconds=30).document
        found += page
        if len(page) < _PAGE_SIZE:
            return found
