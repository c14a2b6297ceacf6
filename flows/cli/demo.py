"""``turnout demo``: the whole loop on a year of real flights."""

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter


def demo(
    *,
    home: Path = Path(".turnout/demo"),
    fast: bool = False,
    wait: bool = False,
    approver: str = "demo reviewer",
    json_path: Annotated[Path | None, Parameter(name="--json")] = None,
    keep: bool = False,
    broker: Literal["http", "nats"] = "http",
    dry_run: bool = False,
) -> int:
    """Replay September to December through the running system, closing the loop, and end with a table.

    Parameters
    ----------
    home
        The folder to play in; what an earlier demo left there is removed.
    fast
        Play a short season.
    wait
        Wait for a person to approve the candidate in MLflow.
    approver
        The name under which the candidate is approved otherwise.
    json_path
        Also write the figures to this file.
    keep
        Let the servers run until interrupted.
    broker
        How the replay asks and reports: over HTTP, or over a NATS server that is started for it.
    dry_run
        Say what would be removed, and do nothing.
    """
    whole = home.absolute()
    if dry_run:
        sys.stdout.write(f"would empty {whole}, and play there\n")
        return 0
    if whole.exists() and any(whole.iterdir()) and not (whole / "turnout.toml").exists():
        sys.stderr.write(f"turnout: {whole} is no folder of an earlier demo: it is not emptied\n")
        return 1
    from scenarios.flights.demo import Options, main

    main(Options(home=whole, fast=fast, wait=wait, approver=approver, json_path=json_path, keep=keep, broker=broker))
    return 0
