"""What a router is fitted on: one row per revealed outcome, checked, and each head's labels."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from features import scratch
from features.choices import Training
from features.decision_log import DecisionLog
from features.definitions import FeatureDefinitions
from features.objective import Objective
from features.vector import CategoryColumn
from models.card import HeadName

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]

DESTINATION = "destination.name"  # the category that says which destination a row is
SHORTEST_MS = 1.0  # durations are learned as logarithms, and nothing takes no time at all


class TrainingRefusedError(ValueError):
    """Data that no router should be fitted on: names the column and what is wrong with it."""


@dataclass(frozen=True, kw_only=True)
class Examples:
    """One row per revealed outcome: the candidate's vector and what became of it.

    ``numbers`` float64[n, n_numbers] in the order of ``number_names``, ``categories`` one column per name in
    ``category_names``; with ``rows`` (int64[n]) they are a longer table, of which these rows are meant; ``success`` 0/1, ``latency_ms`` and ``cost_usd`` float64[n], NaN where an outcome does not
    say; ``propensity`` float64[n] of being revealed, NaN where nobody logged it; ``timed_out`` bool[n]: the latency is
    a lower bound. ``destination_column`` names the category that is the destination, if one is. Rows of one ``event``
    (int64[n]) are outcomes of the same event; None where that is not known.
    """

    number_names: tuple[str, ...]
    category_names: tuple[str, ...]
    numbers: Floats
    categories: Sequence[CategoryColumn]
    success: Floats
    latency_ms: Floats
    cost_usd: Floats
    propensity: Floats
    timed_out: Mask | None = None
    destination_column: str | None = None
    rows: Integers | None = None
    event: Integers | None = None

    @classmethod
    def of(cls, log: DecisionLog, features: FeatureDefinitions, kept: Mask | None = None) -> Self:
        """Return a row for every outcome that ``log`` reveals: the assigned candidates', then the probed ones'.

        With ``kept`` (bool[n]) only those of these decisions. The vectors stay the log's own: nothing is copied.
        """
        revealed = log.revealed()
        if kept is not None:
            revealed = revealed.take(kept[log.decision_of(revealed.row)])
        return cls(
            number_names=tuple(features.numbers),
            category_names=tuple(features.categories),
            numbers=log.numbers,
            categories=log.categories,
            rows=revealed.row,
            success=revealed.success,
            latency_ms=revealed.latency_ms,
            cost_usd=revealed.cost_usd,
            propensity=revealed.probability,
            timed_out=revealed.timed_out,
            destination_column=destination_column(features),
            event=log.decision_of(revealed.row),
        )

    def __len__(self) -> int:
        return len(self.success)

    @property
    def n_compared_events(self) -> int:
        """Of how many events several outcomes are known."""
        return 0 if self.event is None else int((np.unique(self.event, return_counts=True)[1] > 1).sum())

    @property
    def censored(self) -> Mask:
        """Which latencies are lower bounds, bool[n]."""
        return np.zeros(len(self), np.bool_) if self.timed_out is None else self.timed_out

    def weights(self, max_weight: float) -> Floats:
        """Return the inverse propensities, clipped at ``max_weight``; 1 where none was logged."""
        return np.minimum(1.0 / np.nan_to_num(self.propensity, nan=1.0), max_weight)

    def with_latency(self, latency_ms: Floats) -> Self:
        """Return the same examples with other latencies."""
        return replace(self, latency_ms=latency_ms)


def destination_column(features: FeatureDefinitions) -> str | None:
    """Return the category column that is the destination itself, None where the vectors do not say it."""
    return next((column for column, text in features.categories.items() if text == DESTINATION), None)


def check(examples: Examples, settings: Training) -> None:
    """Refuse examples that no router should be fitted on.

    Raises
    ------
    TrainingRefusedError
        If there are too few, a number is infinite, a propensity lies outside (0, 1], or the offset is no column.
    """
    if len(examples) < settings.min_decisions:
        raise TrainingRefusedError(
            f"{len(examples)} outcomes are too few, training.min_decisions is {settings.min_decisions}"
        )
    for name, is_infinite in zip(examples.number_names, _infinite_columns(examples.numbers), strict=True):
        if is_infinite:
            raise TrainingRefusedError(f"numbers.{name}: holds infinite values")
    logged = examples.propensity[~np.isnan(examples.propensity)]
    if not ((logged > 0) & (logged <= 1)).all():
        raise TrainingRefusedError("propensity: holds values outside (0, 1]")
    if settings.latency_offset is not None and settings.latency_offset not in examples.number_names:
        raise TrainingRefusedError(f"training.latency_offset: {settings.latency_offset!r} is not a number feature")


def _infinite_columns(numbers: Floats) -> Mask:
    """Return which columns hold an infinite value, bool[n_numbers]."""
    found = np.zeros(numbers.shape[1], np.bool_)
    for _, piece in scratch.pieces(numbers):
        found |= np.isinf(piece).any(axis=0)
    return found


def labels(
    examples: Examples, objective: Objective, settings: Training, limited: Collection[str] = ()
) -> dict[HeadName, Floats]:
    """Return the labels of each head worth fitting, NaN where an outcome does not say.

    Success is worth knowing wherever it varies, latency and cost where the objective weighs them or they are ``limited``;
    the logarithm of the latency, from which its quantiles follow, where they are asked for or the objective has an SLA.

    Raises
    ------
    TrainingRefusedError
        If what the objective weighs or a limit is on was never told, is infinite, or never varies.
    """
    found: dict[HeadName, Floats] = {}
    if _tells_success(examples.success, objective):
        found["success_probability"] = examples.success
    weighed: tuple[tuple[HeadName, Floats, bool], ...] = (
        ("latency_ms", examples.latency_ms, objective.uses_latency()),
        ("cost_usd", examples.cost_usd, bool(objective.cost_usd)),
    )
    for name, values, is_weighed in weighed:
        if is_weighed or name in limited:
            found[name] = _told(name, values, "the objective weighs it" if is_weighed else "a limit is on it")
    known = np.isfinite(examples.latency_ms)
    if known.any() and (objective.sla or settings.latency_quantiles):
        found["log_latency"] = np.log(np.maximum(examples.latency_ms, SHORTEST_MS))
    return found


def _tells_success(success: Floats, objective: Objective) -> bool:
    known = success[~np.isnan(success)]
    if not np.isin(known, (0.0, 1.0)).all():
        raise TrainingRefusedError("success: labels must be 0 or 1")
    varies = bool(known.size) and known.min() < known.max()
    if objective.success and not varies:
        raise TrainingRefusedError(f"success: the objective weighs it, but all {known.size} outcomes are of one class")
    return bool(varies)


def _told(name: HeadName, values: Floats, why: str) -> Floats:
    if np.isnan(values).all():
        raise TrainingRefusedError(f"{name}: {why}, but no outcome says it")
    if np.isinf(values).any():
        raise TrainingRefusedError(f"{name}: holds infinite values")
    return values
