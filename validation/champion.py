"""Whether a champion may go on: its age, and what became of its latest decisions."""

from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from features.choices import Demotion
from models import betting
from models.betting import Units


def find_faults(
    failed: NDArray[np.float64], *, fitted_until: datetime, now: datetime, demotion: Demotion
) -> tuple[str, ...]:
    """Say why the champion should lose its stream, if it should.

    ``failed`` (float64[n], 0 or 1) are the outcomes of its decisions in the window, in order of time: that the mean is at
    most ``max_failure_rate`` is refuted by the betting sequence of `models.betting`, at level ``alpha`` per look.
    """
    faults = []
    age = now - fitted_until
    if demotion.max_age_hours is not None and age > timedelta(hours=demotion.max_age_hours):
        hours = age / timedelta(hours=1)
        faults.append(f"stale: what it was fitted on ended {hours:,.0f} hours ago, at most {demotion.max_age_hours:g}")
    if demotion.max_failure_rate is not None and failed.size:
        each = np.ones(failed.size)
        wealth = betting.log_wealth(
            Units(total=failed, size=each, low=0.0 * each, high=each), demotion.max_failure_rate
        )
        if betting.first_crossing(wealth, demotion.alpha) is not None:
            faults.append(
                f"fails too often: {failed.mean():.2%} of {failed.size:,} decisions within {demotion.window_hours:g} hours, "
                f"certainly above {demotion.max_failure_rate:.2%}"
            )
    return tuple(faults)
