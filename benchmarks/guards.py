"""What the guards of learning see in a real incident log: columns from the future, and how the world moved while it was written.

    python -m benchmarks.guards --data DIR

DIR holds ``incidents.parquet`` and ``incident_events.parquet``. Of drift, the reference is March 2016, looked at is April;
predicted success is the rate of each first group in the reference, the plainest router there is.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import incidents
from benchmarks.incidents import Incidents
from features.choices import Drift
from features.decision_log import DecisionLog
from validation import drift, leakage
from validation.drift import DriftVerdict
from validation.leakage import LeakageVerdict

NO_DATA = 2
REFERENCE = ("2016-03-01", "2016-04-01")
RECENT = ("2016-04-01", "2016-05-01")
PRIOR_ROWS = 20.0  # that a group's rate is shrunken by


def judge_drift(log: Incidents, reference: tuple[str, str], recent: tuple[str, str]) -> DriftVerdict:
    """Compare two windows of arrival, with days as clusters."""
    before, after = log.decided(*reference), log.decided(*recent)
    return drift.judge(before, after, predict(before, after), incidents.arrival_features(), Drift())


def predict(before: DecisionLog, after: DecisionLog) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return for each later decision the shrunken success rate of its destination in the earlier log."""
    overall = float(before.success.mean())
    rates = {}
    for code, name in enumerate(before.destination.values):
        seen = before.success[before.destination.codes == code]
        rates[name] = (seen.sum() + PRIOR_ROWS * overall) / (len(seen) + PRIOR_ROWS)
    table = np.array([*(rates.get(name, overall) for name in after.destination.values), overall])
    return np.asarray(table[after.destination.codes], np.float64)  # -1 reads the last: no group


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; return 0, or 2 where the data are absent."""
    parser = argparse.ArgumentParser(prog="benchmarks.guards", description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    folder: Path = parser.parse_args(arguments).data
    try:
        log = incidents.read(folder)
    except FileNotFoundError:
        sys.stderr.write(f"{folder} must hold {incidents.CASES} and {incidents.EVENTS}\n")
        return NO_DATA
    blind = leakage.judge(log.screened())
    told = leakage.judge(log.screened(), known_at=log.known_at())
    moved = judge_drift(log, REFERENCE, RECENT)
    _show(blind, told, moved)
    print(json.dumps(_summary(log, blind, told, moved)))
    return 0


def _show(blind: LeakageVerdict, told: LeakageVerdict, moved: DriftVerdict) -> None:
    console = Console()
    screen = Table("column", "refused without known_at", "refused with known_at", title="Leakage")
    for column in told.columns:
        screen.add_row(
            column, *(", ".join(leak.check for leak in v.leaks if leak.column == column) for v in (blind, told))
        )
    console.print(screen)
    features = Table("feature", "PSI", "by chance", "limit of chance", "JS distance", "drifted", title="April on March")
    for f in moved.features:
        features.add_row(
            f.column,
            *(f"{value:.3f}" for value in (f.psi, f.expected_psi, f.critical_psi, f.js_distance)),
            "yes" if f.drifted else "",
        )
    console.print(features)
    for reason in moved.reasons:
        console.print(f"{moved.state}: {reason}", markup=False)


def _summary(log: Incidents, blind: LeakageVerdict, told: LeakageVerdict, moved: DriftVerdict) -> dict[str, Any]:
    return {
        "benchmark": "guards",
        "n_incidents": len(log.rows),
        "refused_without_known_at": list(blind.columns),
        "refused_with_known_at": list(told.columns),
        "drift": {
            "reference": REFERENCE,
            "recent": RECENT,
            "n_reference": moved.n_reference,
            "n_recent": moved.n_recent,
            "state": moved.state,
            "psi": {feature.column: round(feature.psi, 4) for feature in moved.features},
            "calibration": None if moved.calibration is None else asdict(moved.calibration),
        },
        "seed": leakage.DEFAULT_LIMITS.seed,
        "versions": {name: version(name) for name in ("numpy", "pandas", "turnout")},
    }


if __name__ == "__main__":
    sys.exit(main())
