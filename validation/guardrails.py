"""What rings while a canary runs: a harm that rises in the challenger's arm, and arms that do not hold their share."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from models import betting
from models.betting import Units
from validation.canary_log import LATE, CanaryLog, Grouping

Floats = NDArray[np.float64]

_SILENCES = {"unanswered": "go missing", LATE: "come late"}


def find_breaches(
    log: CanaryLog, grouping: Grouping, max_rises: Mapping[str, float], alpha: float, max_unit_size: int
) -> tuple[str, ...]:
    """Say of each harm whose mean is proven, at level ``alpha``, to rise by more than its limit: which, by how much, since when."""
    breaches = []
    for name, max_rise in max_rises.items():
        rise = measure_rise(grouping, grouping.sum_by_unit(log.harms[name]), max_unit_size)
        at = betting.first_crossing(betting.log_wealth(rise, max_rise), alpha)
        if at is not None:
            seen = float(rise.total.sum() / rise.size.sum())
            breaches.append(f"{name} rises by more than {max_rise:g} (by about {seen:.3g}), proven at unit {at + 1:,}")
    return tuple(breaches)


def find_skew(grouping: Grouping, alpha: float) -> tuple[str, ...]:
    """Say, once it is proven at level ``alpha``, that the challenger's arm has other than its share of the units."""
    wealth = betting.sample_ratio_log_wealth(grouping.is_challenger, grouping.share)
    at = betting.first_crossing(wealth, alpha)
    if at is None:
        return ()
    n_seen, n_expected = int(grouping.is_challenger.sum()), float(grouping.share.sum())
    return (
        f"sample ratio: {n_seen:,} units in the challenger's arm, about {n_expected:,.0f} expected (unit {at + 1:,})",
    )


def find_silence(log: CanaryLog, grouping: Grouping, alpha: float, max_unit_size: int) -> tuple[str, ...]:
    """Say, once it is proven at level ``alpha``, that outcomes of one arm go missing, or come late, more often than the other's.

    What is missing takes the objective's default, and what is late is about to: the comparison would be of who reports, not
    of who does better.
    """
    said = []
    for column, verb in _SILENCES.items():
        if column not in log.harms:
            continue
        rise = measure_rise(grouping, grouping.sum_by_unit(log.harms[column]), max_unit_size)
        for arm, units in (("challenger", rise), ("champion", rise.mirrored())):
            at = betting.first_crossing(betting.log_wealth(units, 0.0), alpha / (2 * len(_SILENCES)))
            if at is not None:
                said.append(f"outcomes {verb} in the {arm}'s arm more often than in the other (unit {at + 1:,})")
    return tuple(said)


def measure_rise(grouping: Grouping, harm: Floats, max_size: int) -> Units:
    """Return by how much each unit shows ``harm`` (its sum over the unit) to be higher in the challenger's arm.

    Harm is measured from its mean in all earlier units: that is known before the unit, leaves the expectation of the
    difference as it is, and makes the bounds of a rare harm narrow.
    """
    n_earlier = np.cumsum(grouping.size) - grouping.size
    usual = (0.5 + np.cumsum(harm) - harm) / (1.0 + n_earlier)
    share = grouping.share
    weight = np.where(grouping.is_challenger, 1.0 / share, -1.0 / (1.0 - share))
    low = -np.maximum(usual / share, (1.0 - usual) / (1.0 - share))
    high = np.maximum((1.0 - usual) / share, usual / (1.0 - share))
    total = weight * (harm - usual * grouping.size)
    return Units(total=total, size=grouping.size, low=low, high=high, max_size=max_size)
