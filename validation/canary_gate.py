"""How a canary is judged: levels, margins, the ladder, and the bounds that make the bets safe."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.choices import Gate, Rung
from features.objective import Objective

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class CanaryGate:
    """How a canary is judged. Margins and bounds are in units of the reward.

    Promotion needs the lower confidence limit above ``-margin``, rollback the upper one below it, each at ``alpha``.
    ``value_low`` and ``value_high`` bound what the frozen reward model says (without them: the reward's own bounds); the
    tighter, the larger the bets that are safe. ``max_rises`` are the guardrails: by how much the mean of each of the
    log's harms may be higher in the challenger's arm. Of a unit, ``max_unit_size`` decisions count.

    Raises
    ------
    ValueError
        If a bound bounds nothing, or the ladder has a rung without one of the arms.
    """

    reward_low: float
    reward_high: float
    ladder: tuple[Rung, ...]
    alpha: float = 0.05
    margin: float = 0.0
    min_decisions: int = 200
    max_decisions: int = 50_000
    max_rises: Mapping[str, float]
    value_low: float | None = None
    value_high: float | None = None
    ratio_alpha: float = 0.001
    max_unit_size: int = 1

    def __post_init__(self) -> None:
        """Refuse a gate that cannot judge."""
        low, high = self.value_bounds
        if not self.reward_low <= low < high <= self.reward_high:
            raise ValueError(
                f"bounds must nest, reward_low <= value_low < value_high <= reward_high, "
                f"got {self.reward_low}, {low}, {high}, {self.reward_high}"
            )
        if not self.ladder or not all(0.0 < rung.share < 1.0 for rung in self.ladder):
            raise ValueError(f"a rung's share must lie in (0, 1), got {[rung.share for rung in self.ladder]}")
        for name, level in {"alpha": self.alpha, "ratio_alpha": self.ratio_alpha}.items():
            if not 0.0 < level < 1.0:
                raise ValueError(f"{name} must lie in (0, 1), got {level}")
        if not 0.0 <= self.margin < self.reward_high - self.reward_low:
            raise ValueError(f"margin must lie in [0, {self.reward_high - self.reward_low:g}), got {self.margin}")
        if not 1 <= self.min_decisions <= self.max_decisions:
            raise ValueError(f"min_decisions must lie in [1, {self.max_decisions}], got {self.min_decisions}")
        if self.max_unit_size < 1:
            raise ValueError(f"max_unit_size must be at least 1, got {self.max_unit_size}")
        for name, max_rise in self.max_rises.items():
            if not 0.0 <= max_rise <= 1.0:
                raise ValueError(f"max_rises[{name}] must lie in [0, 1], got {max_rise}")

    @property
    def value_bounds(self) -> tuple[float, float]:
        """Between what the reward model's predictions lie."""
        return (
            self.reward_low if self.value_low is None else self.value_low,
            self.reward_high if self.value_high is None else self.value_high,
        )


def build_gate(
    gate: Gate,
    objective: Objective,
    *,
    value_low: float | None = None,
    value_high: float | None = None,
    max_unit_size: int = 1,
) -> CanaryGate:
    """Return the gate of a stream's canary, with its guardrails; the further choices are as in `CanaryGate`."""
    return CanaryGate(
        reward_low=objective.low,
        reward_high=objective.high,
        ladder=gate.ladder,
        alpha=gate.alpha,
        margin=gate.margin,
        min_decisions=gate.min_decisions,
        max_decisions=gate.max_decisions,
        max_rises=max_rises(gate, objective),
        value_low=value_low,
        value_high=value_high,
        max_unit_size=max_unit_size,
    )


def max_rises(gate: Gate, objective: Objective) -> dict[str, float]:
    """Return by how much each harm that is guarded may rise in the challenger's arm."""
    rises = {"failure": gate.max_failure_rise, "unanswered": gate.max_unanswered_rise}
    if objective.sla_latency_ms is not None:
        rises["slow"] = gate.max_slow_rise
    if gate.cost_limit_usd is not None:
        rises["cost"] = gate.max_cost_rise_share
    return rises


def bound_increments(share: Floats, gate: CanaryGate) -> tuple[Floats, Floats]:
    """Return the bounds of a DR increment, each float64[n], that hold for any two policies mixed with ``share``.

    With ``p = (1 - s) * pi0 + s * pi_c`` the ratio ``(pi_c - pi0) / p`` lies in [-1 / (1 - s), 1 / s], and what the reward
    model says of the difference within its range. The least comes of a challenger's choice that earns nothing where the
    most was expected, or of a champion's that earns everything where the least was.
    """
    low, high = gate.value_bounds
    shortfall, surplus, explained = high - gate.reward_low, gate.reward_high - low, high - low
    least = np.maximum(shortfall / share, surplus / (1.0 - share)) + explained
    most = np.maximum(surplus / share, shortfall / (1.0 - share)) + explained
    return -least, most
