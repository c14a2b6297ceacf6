"""What each policy's choices really brought, since every candidate really flew: means, and paired differences by day."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from scenarios.flights.world import World

Floats = NDArray[np.float64]
Choice = NDArray[np.int64]  # per event, the pair chosen


@dataclass(frozen=True, kw_only=True)
class Tally:
    """One policy on the live events. ``gap_closed`` is its share of the way from the static table to the oracle."""

    mean_minutes: float
    failure_rate: float
    gap_closed: float


def tally(world: World, choices: dict[str, Choice]) -> dict[str, Tally]:
    """Return the tally of each policy; ``choices`` must hold ``static`` and ``oracle``, which span the gap."""
    minutes = {name: float(world.minutes[choice].mean()) for name, choice in choices.items()}
    gap = minutes["static"] - minutes["oracle"]
    return {
        name: Tally(
            mean_minutes=minutes[name],
            failure_rate=float(1.0 - world.success[choice].mean()),
            gap_closed=(minutes["static"] - minutes[name]) / gap,
        )
        for name, choice in choices.items()
    }


def paired_difference(values: Floats, others: Floats, cluster: NDArray[np.int64]) -> tuple[float, float, float]:
    """Return mean(values - others) with its 95 % interval, robust to events of one cluster sharing fate.

    The variance is that of the cluster sums of the centred differences, with the t quantile of G - 1 degrees of freedom
    (Cameron and Miller, "A practitioner's guide to cluster-robust inference", 2015).
    """
    difference = values - others
    mean = float(difference.mean())
    sums = np.bincount(np.unique(cluster, return_inverse=True)[1], weights=difference - mean)
    n_clusters = len(sums)
    error = np.sqrt(n_clusters / (n_clusters - 1) * (sums**2).sum()) / len(difference)
    reach = float(stats.t.ppf(0.975, n_clusters - 1) * error)
    return mean, mean - reach, mean + reach


def difference(world: World, choice: Choice, other: Choice) -> dict[str, tuple[float, float, float]]:
    """Return ``choice`` minus ``other`` in mean minutes and in failure rate, each with its interval clustered by day."""
    failures = (~world.success).astype(np.float64)
    return {
        "mean_minutes": paired_difference(world.minutes[choice], world.minutes[other], world.day),
        "failure_rate": paired_difference(failures[choice], failures[other], world.day),
    }
