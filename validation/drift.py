"""Is the world still the one that the champion learned? Features against its training window, predictions against outcomes.

A feature drifts where its PSI is above the configured limit and above what chance gives at the configured level, shared
out over the features (see `models.divergence`): large enough to matter, and no accident. It is looked at over all
eligible candidates, not the assigned ones: a new champion assigns otherwise, and that is no drift.

Calibration drifts where the observed success rate is certainly further from the predicted one than ``calibration_gap``,
in the large (the mean) or in the expected calibration error over equally filled bins (Naeini, Cooper and Hauskrecht,
AAAI, 2015). What is certain: the nearer ends of cluster-robust intervals, over which the level is shared out. A greedy
policy picks what is predicted too well, so a small gap is there from the first day: the limit is what it may be.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from features import sources
from features.choices import Drift
from features.decision_log import DecisionLog
from features.definitions import FeatureDefinitions
from models import divergence, intervals
from models.divergence import Binned

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
DriftState = Literal["stable", "drifted", "too_few"]

N_CALIBRATION_BINS = 10
_CONFIDENCE = 0.95  # of the interval that is shown; what rings is at the configured level


@dataclass(frozen=True, kw_only=True)
class FeatureDrift:
    """How far one column moved: PSI beside its limit, its mean and its quantile by chance; the distance is in [0, 1]."""

    column: str
    psi: float
    js_distance: float
    expected_psi: float
    critical_psi: float
    drifted: bool


@dataclass(frozen=True, kw_only=True)
class CalibrationDrift:
    """Predicted against observed success: ``gap`` is observed minus predicted with its 95 % interval.

    ``certain_gap`` and ``certain_ece`` are what remains of the absolute gap and of the expected calibration error at the
    configured level.
    """

    n_decisions: int
    n_clusters: int
    predicted_rate: float
    observed_rate: float
    gap: float
    low: float
    high: float
    certain_gap: float
    ece: float
    certain_ece: float
    drifted: bool


@dataclass(frozen=True, kw_only=True)
class DriftVerdict:
    """What is said of a stream's world, why, and the figures; ``features`` has the most moved first.

    ``calibration`` is None where too few outcomes came with a prediction of success.
    """

    state: DriftState
    reasons: tuple[str, ...]
    features: tuple[FeatureDrift, ...] = ()
    calibration: CalibrationDrift | None = None
    n_reference: int
    n_recent: int


def judge(
    reference: DecisionLog | None,
    recent: DecisionLog | None,
    predicted: Floats,
    definitions: FeatureDefinitions,
    limits: Drift,
) -> DriftVerdict:
    """Compare the ``recent`` log with the ``reference``; None stands for a window without decisions.

    ``predicted`` is the success probability that the champion predicted of each recent assignment (float64[n], NaN
    where it said none).
    """
    if reference is None or recent is None:
        return too_few(f"the {'training' if reference is None else 'recent'} window holds no decision")
    if short := _shortage(reference, recent, limits):
        return too_few(short, n_reference=reference.n_decisions, n_recent=recent.n_decisions)
    features = sorted(_compare(reference, recent, definitions, limits), key=lambda feature: -feature.psi)
    calibration = _calibrate(recent, predicted, limits)
    reasons = (*_feature_reasons(features, limits), *_calibration_reasons(calibration, limits))
    drifted = any(feature.drifted for feature in features) or (calibration is not None and calibration.drifted)
    return DriftVerdict(
        state="drifted" if drifted else "stable",
        reasons=reasons,
        features=tuple(features),
        calibration=calibration,
        n_reference=reference.n_decisions,
        n_recent=recent.n_decisions,
    )


def too_few(reason: str, *, n_reference: int = 0, n_recent: int = 0) -> DriftVerdict:
    """Return the verdict where nothing can be said, and why."""
    return DriftVerdict(state="too_few", reasons=(reason,), n_reference=n_reference, n_recent=n_recent)


def _shortage(reference: DecisionLog, recent: DecisionLog, limits: Drift) -> str:
    """Say which window is too small to say anything; nothing if none is."""
    for name, log in (("training window", reference), ("recent window", recent)):
        n_clusters = len(np.unique(log.cluster))
        if log.n_decisions < limits.min_decisions or n_clusters < limits.min_clusters:
            found = f"the {name} has {log.n_decisions:,} decisions in {n_clusters:,} clusters"
            return f"{found}, drift needs {limits.min_decisions:,} in {limits.min_clusters:,}"
    return ""


def _compare(
    reference: DecisionLog, recent: DecisionLog, definitions: FeatureDefinitions, limits: Drift
) -> Iterator[FeatureDrift]:
    """Compare column by column, but for the clock's own (they differ between any two windows) and the ignored ones."""
    clusters = [np.repeat(log.cluster, np.diff(log.offsets)) for log in (reference, recent)]
    n_clusters = min(len(np.unique(cluster)) for cluster in clusters)
    skipped = sources.clock_columns(definitions) | set(limits.ignored)
    names = [*definitions.numbers, *definitions.categories]
    alpha = limits.alpha / max(len(set(names) - skipped), 1)
    for place, column in enumerate(names):
        if column in skipped:
            continue
        if place < len(definitions.numbers):
            bins = divergence.bin_numbers(reference.numbers[:, place], recent.numbers[:, place])
        else:
            category = place - len(definitions.numbers)
            bins = divergence.bin_categories(reference.categories[category], recent.categories[category])
        before, after, n_bins = divergence.drop_empty(*bins)
        p, q = Binned.of(before, n_bins, clusters[0]), Binned.of(after, n_bins, clusters[1])
        moved, critical = divergence.psi(p.shares, q.shares), divergence.critical_psi(p, q, alpha, n_clusters)
        yield FeatureDrift(
            column=column,
            psi=moved,
            js_distance=divergence.js_distance(p.shares, q.shares),
            expected_psi=divergence.expected_psi(p, q),
            critical_psi=critical,
            drifted=moved > max(limits.psi, critical),
        )


def _calibrate(log: DecisionLog, predicted: Floats, limits: Drift) -> CalibrationDrift | None:
    known = ~np.isnan(predicted) & ~np.isnan(log.success)
    cluster = log.cluster[known]
    n_known, n_clusters = int(known.sum()), len(np.unique(cluster))
    if n_known < limits.min_decisions or n_clusters < limits.min_clusters:
        return None
    told, observed = predicted[known], log.success[known]
    shown = intervals.mean_interval(observed - told, cluster, _CONFIDENCE)
    certain = _certain(observed - told, cluster, limits.alpha / 2)
    bins = np.argsort(np.argsort(told, kind="stable"), kind="stable") * N_CALIBRATION_BINS // n_known
    ece, certain_ece = 0.0, 0.0
    for place in range(N_CALIBRATION_BINS):
        rows = bins == place
        gaps, share = (observed - told)[rows], float(rows.mean())
        ece += share * abs(float(gaps.mean()))
        certain_ece += share * _certain(gaps, cluster[rows], limits.alpha / 2 / N_CALIBRATION_BINS)
    return CalibrationDrift(
        n_decisions=n_known,
        n_clusters=n_clusters,
        predicted_rate=float(told.mean()),
        observed_rate=float(observed.mean()),
        gap=shown.value,
        low=shown.low,
        high=shown.high,
        certain_gap=certain,
        ece=ece,
        certain_ece=certain_ece,
        drifted=max(certain, certain_ece) > limits.calibration_gap,
    )


def _certain(gaps: Floats, cluster: Integers, alpha: float) -> float:
    """Return the least absolute mean gap that the data allow at level ``alpha``; 0 of a single cluster."""
    if intervals.count_clusters(cluster, len(gaps)) < 2:  # noqa: PLR2004  # a variance needs two
        return 0.0
    interval = intervals.mean_interval(gaps, cluster, 1.0 - alpha)
    return max(interval.low, -interval.high, 0.0)


def _feature_reasons(features: list[FeatureDrift], limits: Drift) -> Iterator[str]:
    moved = [feature for feature in features if feature.drifted]
    for feature in moved:
        by_chance = f"by chance {feature.expected_psi:.3f}, at most {feature.critical_psi:.3f}"
        distance = f"Jensen-Shannon distance {feature.js_distance:.3f}"
        yield f"{feature.column}: PSI {feature.psi:.3f} is above {limits.psi:g} ({by_chance}; {distance})"
    if features and not moved:
        yield f"the most moved feature is {features[0].column}, PSI {features[0].psi:.3f}"


def _calibration_reasons(calibration: CalibrationDrift | None, limits: Drift) -> Iterator[str]:
    if calibration is None:
        yield "calibration: too few outcomes with a prediction of success"
        return
    rates = f"predicted success {calibration.predicted_rate:.3f}, observed {calibration.observed_rate:.3f}"
    interval = f"gap {calibration.gap:+.3f} in [{calibration.low:+.3f}, {calibration.high:+.3f}]"
    error = f"expected calibration error {calibration.ece:.3f}"
    certain = (
        f"certain are {max(calibration.certain_gap, calibration.certain_ece):.3f}, allowed {limits.calibration_gap:g}"
    )
    yield f"calibration: {rates}, {interval}, {error}; {certain}"
