"""What would have happened, had the candidate decided? The candidate beside the champion on a slice of the log neither has seen."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from features.choices import Exploration
from features.decision_log import DecisionLog
from features.objective import MS_PER_MINUTE
from models import evaluation, policy, pricing
from models.evaluation import Estimate, Refusal
from models.logged import LoggedDecisions
from models.pricing import LimitUse
from models.router import Router, Scores
from models.tariff import Tariff

Floats = NDArray[np.float64]
Judgement = Estimate | Refusal

NOT_EXPLORING = Exploration(kind="none")
AS_LOGGED: Literal["as_logged"] = "as_logged"
Champion = Router | Literal["as_logged"] | None  # None: the logged static routes
QUANTITIES = ("reward", "failure_rate", "latency_minutes")


@dataclass(frozen=True, kw_only=True)
class OfflineVerdict:
    """What the offline gate says of a comparison, and why."""

    state: Literal["passed", "failed", "inconclusive"]
    reasons: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The candidate against the champion, both greedy (at their own prices where they have any), on one slice of the log.

    ``difference`` holds, per quantity, the doubly robust estimate of candidate minus champion (or why there is none),
    ``candidate`` and ``champion`` each one's own. ``load_shares`` is the share of events each destination would get
    from (champion, candidate). ``calibration`` are (predicted, observed, n) bins of the success head. ``use`` is what
    each would use of what the candidate's prices limit, exploring included and no debt paid back.
    """

    difference: dict[str, Judgement]
    candidate: dict[str, Judgement]
    champion: dict[str, Judgement]
    disagreement_rate: float
    load_shares: dict[str, tuple[float, float]]
    calibration: list[tuple[float, float, int]]
    n_decisions: int
    n_clusters: int
    since: np.datetime64
    until: np.datetime64
    use: dict[str, LimitUse] = field(default_factory=dict)


def compare(
    log: DecisionLog,
    candidate: Router,
    champion: Champion,
    *,
    tariff: Tariff | None = None,
    champion_tariff: Tariff | None = None,
    exploration: Exploration = NOT_EXPLORING,
) -> Comparison:
    """Evaluate ``candidate`` against ``champion`` on ``log``; `AS_LOGGED` is the one that took part in all of it, as it chose.

    The candidate's own predictions are the reward model: they were frozen before this slice began, so the estimate is
    unbiased whatever they are worth; good ones make it narrow. A router with a ``tariff`` chooses at its prices.
    ``exploration`` is the stream's, for `Comparison.use`.
    """
    scores = candidate.score_log(log.numbers, log.categories)
    target = pricing.greedy(log, scores, tariff)
    baseline = champion_distribution(log, champion, champion_tariff)
    difference, candidate_own, champion_own = {}, {}, {}
    for name, (observed, predicted) in _quantities(log, scores, candidate).items():
        known = ~np.isnan(observed)
        logged, rows = _logged(log, observed, known)
        arguments = target[rows], baseline[rows], predicted[rows]
        difference[name] = evaluation.estimate_difference(logged, *arguments)
        candidate_own[name] = evaluation.estimate_dr(logged, arguments[0], arguments[2])
        champion_own[name] = evaluation.estimate_dr(logged, arguments[1], arguments[2])
    return Comparison(
        difference=difference,
        candidate=candidate_own,
        champion=champion_own,
        disagreement_rate=float(np.add.reduceat(np.abs(target - baseline), log.offsets[:-1]).mean() / 2),
        load_shares=_load_shares(log, baseline, target),
        calibration=_calibration(log, scores),
        n_decisions=log.n_decisions,
        n_clusters=len(np.unique(log.cluster)),
        since=log.decided_at.min(),
        until=log.decided_at.max(),
        use={} if tariff is None else _use(log, scores, candidate, tariff, champion, champion_tariff, exploration),
    )


def champion_distribution(log: DecisionLog, champion: Champion, tariff: Tariff | None = None) -> Floats:
    """Return the champion's greedy distribution over the log's rows; without a champion, that of the static routes.

    A logged distribution is greatest at the greedy choice, whatever spread it.
    """
    if champion is None:
        return policy.greedy_log(log.policies["static"], log.offsets)
    if champion == AS_LOGGED:
        return policy.greedy_log(log.policies["champion"], log.offsets)
    return pricing.greedy(log, champion.score_log(log.numbers, log.categories), tariff)


def _use(
    log: DecisionLog,
    scores: Scores,
    candidate: Router,
    tariff: Tariff,
    champion: Champion,
    champion_tariff: Tariff | None,
    exploration: Exploration,
) -> dict[str, LimitUse]:
    """Meter both by the candidate's predictions: they are one measure, and a champion may predict no cost."""
    value_range = candidate.card.objective.high - candidate.card.objective.low
    served = pricing.as_served(log, scores, tariff, exploration, value_range)
    if champion is None:
        led = policy.greedy_log(log.policies["static"], log.offsets)
    elif champion == AS_LOGGED:
        led = log.policies["champion"]
    else:
        of_champion = champion.score_log(log.numbers, log.categories)
        led = pricing.as_served(log, of_champion, champion_tariff, exploration, value_range)
    return pricing.limit_use(log, scores, tariff, served, led)


def _quantities(log: DecisionLog, scores: Scores, candidate: Router) -> dict[str, tuple[Floats, Floats]]:
    """Return, per quantity, what was observed ([n]) and what the candidate predicts ([n_rows])."""
    objective = candidate.card.objective
    quantities = {"reward": (log.reward, objective.clip(scores.value))}
    if "success_probability" in scores.heads:
        quantities["failure_rate"] = (1.0 - log.success, 1.0 - scores.heads["success_probability"])
    if "latency_ms" in scores.heads:
        quantities["latency_minutes"] = (log.latency_ms / MS_PER_MINUTE, scores.heads["latency_ms"] / MS_PER_MINUTE)
    return quantities


def _logged(log: DecisionLog, observed: Floats, known: NDArray[np.bool_]) -> tuple[LoggedDecisions, NDArray[np.bool_]]:
    """Return the decisions whose outcome says the quantity, and the mask of their rows."""
    n_candidates = np.diff(log.offsets)
    offsets = np.concatenate(([0], np.cumsum(n_candidates[known])))
    logged = LoggedDecisions(
        offsets=offsets,
        chosen=offsets[:-1] + (log.chosen - log.offsets[:-1])[known],
        propensity=log.propensity[known],
        reward=observed[known],
        cluster=log.cluster[known],
    )
    return logged, np.repeat(known, n_candidates)


def _load_shares(log: DecisionLog, baseline: Floats, target: Floats) -> dict[str, tuple[float, float]]:
    n_values = len(log.destination.values)
    loads = [
        np.bincount(log.destination.codes, weights=w, minlength=n_values) / log.n_decisions for w in (baseline, target)
    ]
    return {name: (float(loads[0][i]), float(loads[1][i])) for i, name in enumerate(log.destination.values)}


def _calibration(log: DecisionLog, scores: Scores, *, n_bins: int = 10) -> list[tuple[float, float, int]]:
    if "success_probability" not in scores.heads:
        return []
    predicted = scores.heads["success_probability"][log.chosen]
    known = ~np.isnan(log.success)
    order = np.argsort(predicted[known], kind="stable")
    bins = zip(
        np.array_split(predicted[known][order], n_bins), np.array_split(log.success[known][order], n_bins), strict=True
    )
    return [(float(p.mean()), float(s.mean()), len(p)) for p, s in bins if len(p)]
