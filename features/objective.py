"""The objective of a stream: what an outcome is worth, and what a predicted one would be."""

import hashlib
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from features.records import Outcome

Floats = NDArray[np.float64]
MS_PER_MINUTE = 60_000.0


class Objective(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Weights of one stream's reward, its declared bounds, and how long an outcome is waited for.

    The reward of an outcome is ``success * [success] - latency_minute * minutes - cost_usd * USD
    - sla * [latency over sla_latency_ms]``, clipped to [``low``, ``high``]. ``default`` is the reward of a decision
    whose outcome never came within ``window_minutes``.
    """

    success: float = 1.0
    latency_minute: Annotated[float, Meta(ge=0.0)] = 0.0
    cost_usd: Annotated[float, Meta(ge=0.0)] = 0.0
    sla: Annotated[float, Meta(ge=0.0)] = 0.0
    sla_latency_ms: Annotated[float, Meta(gt=0.0)] | None = None
    low: float = 0.0
    high: float = 1.0
    default: float | None = None
    window_minutes: Annotated[float, Meta(gt=0.0)] = 60.0

    def __post_init__(self) -> None:
        """Refuse bounds that bound nothing and weights that weigh nothing."""
        if not self.low < self.high:
            raise ValueError(f"low must be below high, got low={self.low}, high={self.high}")
        if not any((self.success, self.latency_minute, self.cost_usd, self.sla)):
            raise ValueError("at least one weight must differ from 0")
        if self.sla and self.sla_latency_ms is None:
            raise ValueError("sla needs sla_latency_ms")
        if self.default is not None and not self.low <= self.default <= self.high:
            raise ValueError(f"default must lie in [{self.low}, {self.high}], got {self.default}")

    @property
    def version(self) -> str:
        """A name for exactly these weights: a reward derived under others is another reward."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()[:12]

    @property
    def lost_reward(self) -> float:
        """The reward of a lost outcome: the declared default, else the worst."""
        return self.low if self.default is None else self.default

    def uses_latency(self) -> bool:
        """Tell whether an outcome without a latency has no reward."""
        return bool(self.latency_minute or self.sla)

    def reward(self, outcome: Outcome) -> float:
        """Return the reward of one outcome, in [low, high]."""
        nan = float("nan")
        value = self.value(
            success=np.array([nan if outcome.success is None else float(outcome.success)]),
            latency_ms=np.array([nan if outcome.latency_ms is None else outcome.latency_ms]),
            cost_usd=np.array([0.0 if outcome.cost_usd is None else outcome.cost_usd]),
        )
        return float(self.clip(value)[0])

    def clip(self, value: Floats) -> Floats:
        """Return ``value`` clipped to the declared bounds; NaN, an outcome without the parts it needs, becomes the lost reward."""
        return np.clip(np.where(np.isnan(value), self.lost_reward, value), self.low, self.high)

    def value(self, *, success: Floats, latency_ms: Floats, cost_usd: Floats, over_sla: Floats | None = None) -> Floats:
        """Return the unclipped value of observed or expected outcomes, shape [n].

        ``success`` may be 0/1 or a probability, the rest observed or expected; ``over_sla`` is the probability of
        exceeding ``sla_latency_ms`` where the caller predicts it (observed latencies give it themselves).
        """
        value = np.zeros(success.shape)
        if self.success:
            value += self.success * success
        if self.latency_minute:
            value -= self.latency_minute * latency_ms / MS_PER_MINUTE
        if self.cost_usd:
            value -= self.cost_usd * cost_usd
        if self.sla and self.sla_latency_ms is not None:
            value -= self.sla * (self._over_sla(latency_ms) if over_sla is None else over_sla)
        return value

    def _over_sla(self, latency_ms: Floats) -> Floats:
        """Return 1 where the latency is over its limit, 0 where it is not, NaN where it is not known."""
        return np.where(np.isnan(latency_ms), np.nan, latency_ms > (self.sla_latency_ms or np.inf))
