"""What the runs on FrugalML come to: savings, intervals, and the rows of the table."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass

import lightgbm
import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from scipy import stats

from benchmarks.frugalml_events import Events

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one seed gave: per budget (accuracy, spend), the same along the curve, and the form that was chosen."""

    budgets: Floats
    curve: Floats
    best_single: float
    form: str


def find_saving(runs: Sequence[Run], price: float) -> float:
    """Return the share of ``price`` saved where the mean curve first equals the best single provider; 0 if it never does."""
    accuracy, spend = np.mean([each.curve for each in runs], axis=0).T
    target = float(np.mean([each.best_single for each in runs]))
    reached = np.flatnonzero(accuracy >= target)
    if not reached.size:
        return 0.0
    at = int(reached[0])
    around = slice(max(at - 1, 0), at + 1)
    spent = float(np.interp(target, accuracy[around], spend[around]))
    return 1.0 - spent / price


def interval(ours: Floats, theirs: Floats) -> tuple[float, float]:
    """Return the 95 % interval of the difference of means, by Welch: the peer's splits are other ones, so none pair up."""
    found = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    return float(found.low), float(found.high)


def summarise(runs: Sequence[Run], budgets: Sequence[float], price: float) -> dict[str, object]:
    """Return the part of the final object that belongs to one set in one setting."""
    accuracy, spend = np.mean([each.budgets for each in runs], axis=0).T
    return {
        "budgets": {
            f"{usd:g}": {"accuracy": round(float(right), 5), "spend": round(float(spent), 5)}
            for usd, right, spent in zip(budgets, accuracy, spend, strict=True)
        },
        "saving_at_best_single": round(find_saving(runs, price), 4),
    }


def add_rows(
    table: Table,
    name: str,
    events: Events,
    runs: dict[str, list[Run]],
    theirs: dict[float, Floats],
    price: float,
    seconds: float,
) -> None:
    """Add a set's rows to ``table``, one per budget."""
    n_test = len(events.confidence) - len(events.confidence) // 2
    full, bandit = (np.array([each.budgets for each in runs[setting]]) for setting in ("sets", "bandit"))
    forms = " / ".join(sorted({each.form for each in runs["sets"]}))
    for at, usd in enumerate(sorted(theirs)):
        low, high = interval(full[:, at, 0], theirs[usd])
        means = (full[:, at, 0].mean(), theirs[usd].mean())
        cells = [name, str(n_test), f"{usd:g}", f"{full[:, at, 1].mean():.3f}", *(f"{mean:.4f}" for mean in means)]
        cells += [f"{means[0] - means[1]:+.4f} [{low:+.4f}, {high:+.4f}]", f"{bandit[:, at, 0].mean():.4f}"]
        table.add_row(*cells, f"{find_saving(runs['sets'], price):.1%}", forms, f"{seconds:.0f}")


def versions() -> str:
    """Return the versions that the figures belong to."""
    return f"Python {platform.python_version()}, numpy {np.__version__}, LightGBM {lightgbm.__version__}"
