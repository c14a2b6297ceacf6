"""What the whole load would do to each destination: a small canary never shows it, since routes share capacity."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_SUM_TOLERANCE = 1e-6  # distributions may have travelled as text


@dataclass(frozen=True, kw_only=True)
class LoadShift:
    """One destination under the champion today and under the challenger at 100 %.

    Shares are of the stream's events. ``ratio`` is the load at 100 % in units of today's, ``capacity_ratio`` the capacity
    in the same units; None where there is no load today, or no capacity is known.
    """

    destination: str
    today_share: float
    full_share: float
    ratio: float | None
    capacity_ratio: float | None
    verdict: Literal["within", "beyond", "unknown"]

    def __str__(self) -> str:
        """Say it in a sentence."""
        load = "a load that it does not have today" if self.ratio is None else f"{self.ratio:.1f} times today's load"
        if self.verdict == "unknown":
            capacity = "its capacity is not known"
        elif self.capacity_ratio is None:
            capacity = f"that is {self.verdict} its capacity"
        else:
            capacity = f"its capacity is {self.capacity_ratio:.1f} times"
        shares = f"{self.today_share:.1%} to {self.full_share:.1%}"
        return f"at 100 % destination {self.destination} gets {load} ({shares}); {capacity}"


def shift_load(
    champion: Floats,
    challenger: Floats,
    destination: Integers,
    names: Sequence[str],
    *,
    n_decisions: int,
    events_per_hour: float | None = None,
    capacities: Mapping[str, float] | None = None,
) -> tuple[LoadShift, ...]:
    """Return what the challenger at 100 % would send where, the most loaded destination in units of today's first.

    Parameters
    ----------
    champion, challenger
        Each one's distribution over the eligible candidates of the logged decisions, float64[n_rows].
    destination
        Which of ``names`` each row is, int64[n_rows].
    events_per_hour
        The stream's traffic; without it no capacity can be compared.
    capacities
        What each destination can take of this stream, in events per hour, where that is configured or forecast.

    Raises
    ------
    ValueError
        If the distributions do not sum to ``n_decisions``, a row has no destination, or a capacity is not positive.
    """
    capacities = capacities or {}
    for name, policy in (("champion", champion), ("challenger", challenger)):
        if abs(float(policy.sum()) - n_decisions) > _SUM_TOLERANCE * max(1, n_decisions):
            raise ValueError(f"{name} must sum to the {n_decisions} decisions, got {policy.sum():g}")
    if destination.size and (destination.min() < 0 or destination.max() >= len(names)):
        raise ValueError(
            f"every row must be one of the {len(names)} destinations, got {destination.min()} to {destination.max()}"
        )
    for name, capacity in capacities.items():
        if not capacity > 0.0:
            raise ValueError(f"the capacity of {name} must be positive, got {capacity!r}")
    today, full = (
        np.bincount(destination, policy, len(names)) / max(1, n_decisions) for policy in (champion, challenger)
    )
    shifts = [
        _shift(name, float(today[i]), float(full[i]), events_per_hour, capacities.get(name))
        for i, name in enumerate(names)
        if today[i] > 0.0 or full[i] > 0.0
    ]
    return tuple(
        sorted(shifts, key=lambda shift: (-(np.inf if shift.ratio is None else shift.ratio), shift.destination))
    )


def _shift(name: str, today: float, full: float, events_per_hour: float | None, capacity: float | None) -> LoadShift:
    known = capacity is not None and events_per_hour is not None
    load = 0.0 if events_per_hour is None else events_per_hour
    beyond = known and full * load > (capacity or 0.0)
    return LoadShift(
        destination=name,
        today_share=today,
        full_share=full,
        ratio=full / today if today > 0.0 else None,
        capacity_ratio=(capacity or 0.0) / (today * load) if known and today * load > 0.0 else None,
        verdict="unknown" if not known else "beyond" if beyond else "within",
    )
