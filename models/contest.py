"""Chooses the form of a router on decisions it has not seen: how many rounds, whose boosters, and how its words are scaled.

The log is cut into folds of whole clusters; every fold is predicted by heads fitted on the others. Rounds are those of
the least loss on the revealed outcomes. Forms are compared by what their greedy choice would have earned:

    value = mean over decisions of  sum over a of pi(a) q(a) + sum over revealed a of pi(a) / p(a) * (r(a) - q(a))

pi is the form's choice, q one reward model for all forms (the mean of both parts, out of fold), p(a) the probability
with which a's outcome was to be revealed: doubly robust (Dudik, Langford and Li, 2011) where one is revealed, and exact
where all are. Probes of unlogged probability are fitted on and not counted here. When it misleads: forms are few and
close, so the value of the chosen one is a little too good; the offline gate judges the bytes on a later slice.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from features.choices import FormName, Training
from features.decision_log import DecisionLog
from features.definitions import FeatureDefinitions
from features.objective import Objective
from models import boosting, calibration, durations, evaluation, examples, intervals, logged, partition, policy
from models.calibration import Scaling
from models.card import Contest, Contestant, HeadName
from models.encoding import Encoder
from models.examples import Examples, TrainingRefusedError
from models.heads import HeadFit, Material, Rounds, column_place, destination_codes, promised_ms

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

PartName = Literal["own", "shared"]
# What a destination's own boosters are, and their share of the prediction beside the pooled ones.
FORMS: dict[FormName, tuple[PartName, float]] = {
    "pooled": ("own", 0.0),
    "own": ("own", 1.0),
    "blend": ("own", 0.5),
    "shared": ("shared", 1.0),
}
ROUND_SHARES = (0.25, 0.5, 1.0)  # of the configured rounds: fitted once, tried at each
CONFIDENCE = 0.95
MIN_EFFECTIVE_SIZE = 50.0  # below, a log says nothing of a form's choices


@dataclass(frozen=True, kw_only=True)
class Choice:
    """How a router is to be fitted; ``rounds`` by head, ``residuals`` those of the log-latency, from rows not fitted on."""

    form: FormName = "pooled"
    rounds: dict[HeadName, Rounds] = field(default_factory=dict)
    scaling: Scaling | None = None
    residuals: tuple[float, ...] = ()
    contest: Contest | None = None

    @property
    def part(self) -> PartName:
        """What a destination's own boosters are."""
        return FORMS[self.form][0]

    @property
    def own_share(self) -> float:
        """Their share of the prediction."""
        return FORMS[self.form][1]


@dataclass(frozen=True, kw_only=True)
class Crossed:
    """What heads that had not seen a decision predict of its rows: per head, float64[n_rounds, n_rows].

    ``parts`` are the word of each row's own boosters, or that of the pooled ones where its destination has none.
    """

    pooled: dict[HeadName, Floats]
    parts: dict[PartName, dict[HeadName, Floats]]


def hold(
    log: DecisionLog,
    features: FeatureDefinitions,
    objective: Objective,
    settings: Training,
    limited: Collection[str] = (),
) -> Choice:
    """Let the forms of ``settings`` compete on ``log``, and return how to fit.

    A log that cannot tell (too small, no propensities, no overlap) chooses the first form, and the reason is kept.
    """
    try:
        crossed = cross_fit(log, features, objective, settings, limited)
    except (TrainingRefusedError, ValueError) as error:
        return Choice(
            form=settings.forms[0],
            contest=Contest(chosen=settings.forms[0], n_decisions=log.n_decisions, refusal=str(error)),
        )
    return choose(crossed, log, objective, settings)


def tried_rounds(settings: Training) -> list[int]:
    """Return the numbers of rounds that are tried, rising."""
    return sorted({max(1, round(share * settings.rounds)) for share in ROUND_SHARES})


def cross_fit(
    log: DecisionLog,
    features: FeatureDefinitions,
    objective: Objective,
    settings: Training,
    limited: Collection[str] = (),
) -> Crossed:
    """Predict every row of ``log`` by heads fitted on the other folds; raises as fitting and `logged.folds` do."""
    revealed = log.revealed()
    material = Material.of(Examples.of(log, features), objective, settings, limited)
    fold = logged.folds(log.cluster, settings.contest_folds, settings.seed)
    rows = Encoder(material.orders).columns(log.numbers, log.categories)
    crossed = _nothing_yet(list(material.labels), settings, len(rows))
    for number in range(settings.contest_folds):
        learn = np.flatnonzero(fold[log.decision_of(revealed.row)] != number)
        held_out = np.flatnonzero(fold[log.decision] == number)
        for name in material.labels:
            _fill(crossed, material.head(name, learn), rows[held_out], held_out, tuple(features.numbers))
    return crossed


def _nothing_yet(heads: Sequence[HeadName], settings: Training, n_rows: int) -> Crossed:
    n_tried = {"own": len(tried_rounds(settings)), "shared": 1}
    wanted = {part for part, share in (FORMS[form] for form in settings.forms) if share}
    return Crossed(
        pooled={name: np.empty((n_tried["own"], n_rows)) for name in heads},
        parts={part: {name: np.empty((n_tried[part], n_rows)) for name in heads} for part in sorted(wanted)},
    )


def _fill(crossed: Crossed, head: HeadFit, matrix: Floats, at: Integers, numbers: Sequence[str]) -> None:
    """Fit a head's parts and write what they say of the rows ``at``, whose encoded ``matrix`` is float64[n_at, n_features]."""
    material, settings = head.material, head.material.settings
    promise = column_place(numbers, material.orders, settings.latency_offset if head.name == "latency_ms" else None)
    promised = 0.0 if promise is None else promised_ms(matrix[:, promise])
    place = column_place(numbers, material.orders, material.destination_column)
    destination = np.full(len(matrix), -1) if place is None else destination_codes(matrix[:, place])
    tried, pooled = tried_rounds(settings), head.pooled(settings.rounds)
    for place, rounds in enumerate(tried):
        said = boosting.predict(pooled, matrix, rounds=rounds, threads=settings.threads)
        crossed.pooled[head.name][place, at] = np.clip(said + promised, *head.bounds)
    for part, told in crossed.parts.items():
        own = head.own(settings.rounds) if part == "own" else head.shared()
        for place, rounds in enumerate(tried if part == "own" else [partition.N_TREES]):
            said = crossed.pooled[head.name][place if part == "own" else -1, at] - promised
            for code, fitted in own.items():
                mine = destination == code
                if mine.any():
                    said[mine] = boosting.predict(fitted, matrix[mine], rounds=rounds, threads=settings.threads)
            told[head.name][place, at] = np.clip(said + promised, *head.bounds)


def choose(crossed: Crossed, log: DecisionLog, objective: Objective, settings: Training) -> Choice:
    """Return the best rounds of every head, and the form whose choices earn most."""
    tried, rounds = tried_rounds(settings), {}
    best = Crossed(pooled={}, parts={part: {} for part in crossed.parts})
    for name, pooled in crossed.pooled.items():
        place = {"pooled": _least_loss(name, pooled, log)}
        best.pooled[name] = pooled[place["pooled"]]
        for part, told in crossed.parts.items():
            place[part] = _least_loss(name, told[name], log)
            best.parts[part][name] = told[name][place[part]]
        rounds[name] = Rounds(pooled=tried[place["pooled"]], own=tried[place.get("own", -1)])
    scaled = {form: _scale(best, form, log, objective) for form in settings.forms}
    q = objective.clip(np.mean([each.value for each in scaled.values()], axis=0))
    earned, refusal = _earnings({form: each.value for form, each in scaled.items()}, q, log, objective)
    chosen = _simplest_best(earned, log) if earned else settings.forms[0]
    return Choice(
        form=chosen,
        rounds=rounds,
        scaling=scaled[chosen].scaling,
        residuals=scaled[chosen].residuals,
        contest=Contest(chosen=chosen, n_decisions=log.n_decisions, forms=_tell(earned, log), refusal=refusal),
    )


def _least_loss(name: HeadName, predicted: Floats, log: DecisionLog) -> int:
    """Return which of the tried rounds has the least loss on the revealed outcomes."""
    losses = [_loss(name, each, log) for each in predicted]
    return int(np.argmin(losses))


def _loss(name: HeadName, predicted: Floats, log: DecisionLog) -> float:
    revealed = log.revealed()
    said = predicted[revealed.row]
    if name == "success_probability":
        known = ~np.isnan(revealed.success)
        return calibration.log_loss(said[known], revealed.success[known])
    if name == "log_latency":
        residual = _residual(said, revealed.latency_ms)
        short = revealed.timed_out & (residual < 0.0)  # a timeout that was expected to last longer is no error
        return float(np.nanmean(np.square(np.where(short, 0.0, residual))))
    observed = revealed.latency_ms if name == "latency_ms" else revealed.cost_usd
    return float(np.nanmean(np.square(observed - said)))


@dataclass(frozen=True, kw_only=True)
class _Scaled:
    """A form's value of every row, float64[n_rows], and the calibration that it was made with."""

    value: Floats
    scaling: Scaling | None
    residuals: tuple[float, ...]


def _scale(best: Crossed, form: FormName, log: DecisionLog, objective: Objective) -> _Scaled:
    """Return a form's value; ``best`` holds one prediction per row, float64[n_rows], of each head."""
    part, share = FORMS[form]
    heads = {
        name: (1.0 - share) * pooled + share * best.parts[part][name] if share else pooled
        for name, pooled in best.pooled.items()
    }
    n_rows = int(log.offsets[-1])
    success, scaling, over_sla = heads.get("success_probability", np.zeros(n_rows)), None, None
    residuals: tuple[float, ...] = ()
    if "success_probability" in heads:
        scaling = fit_scaling(success, log)
        success = success if scaling is None else scaling.apply(success)
    if "log_latency" in heads:
        residuals = fit_residuals(heads["log_latency"], log)
        if objective.sla_latency_ms is not None:
            limit = float(np.log(objective.sla_latency_ms))
            over_sla = durations.exceedance(limit, heads["log_latency"], np.array(residuals))
    value = objective.value(
        success=success,
        latency_ms=heads.get("latency_ms", np.zeros(n_rows)),
        cost_usd=heads.get("cost_usd", np.zeros(n_rows)),
        over_sla=over_sla,
    )
    return _Scaled(value=value, scaling=scaling, residuals=residuals)


def fit_scaling(predicted: Floats, log: DecisionLog) -> Scaling | None:
    """Return the scaling of success probabilities, float64[n_rows], that the revealed outcomes of ``log`` ask for."""
    revealed = log.revealed()
    known = ~np.isnan(revealed.success)
    return calibration.fit(predicted[revealed.row][known], revealed.success[known])


def fit_residuals(log_latency: Floats, log: DecisionLog) -> tuple[float, ...]:
    """Return the quantiles, at `durations.LEVELS`, of what predicted logarithms (float64[n_rows]) leave unexplained."""
    revealed = log.revealed()
    residual = _residual(log_latency[revealed.row], revealed.latency_ms)
    known = ~np.isnan(residual)
    return tuple(durations.quantiles(residual[known], revealed.timed_out[known]).tolist())


def _residual(log_latency: Floats, latency_ms: Floats) -> Floats:
    return np.asarray(np.log(np.maximum(latency_ms, examples.SHORTEST_MS)) - log_latency)


def _earnings(
    values: dict[FormName, Floats], q: Floats, log: DecisionLog, objective: Objective
) -> tuple[dict[FormName, Floats], str]:
    """Return what each form's greedy choice would have earned of every decision, float64[n], or why ``log`` cannot tell."""
    revealed = log.revealed()
    revealed = revealed.take(~np.isnan(revealed.probability))
    reward = objective.clip(
        objective.value(
            success=revealed.success,
            latency_ms=revealed.latency_ms,
            cost_usd=np.nan_to_num(revealed.cost_usd),
        )
    )
    decision, earned = log.decision, {}
    for form, value in values.items():
        share = policy.greedy_log(value, log.offsets)
        weight = share[revealed.row] / revealed.probability
        if (size := evaluation.effective_size(weight)) < MIN_EFFECTIVE_SIZE:
            return {}, f"the log speaks of form {form!r} with the weight of {size:.1f} decisions"
        explained = np.bincount(decision, weights=share * q, minlength=log.n_decisions)
        surprise = np.bincount(
            decision[revealed.row], weights=weight * (reward - q[revealed.row]), minlength=log.n_decisions
        )
        earned[form] = np.asarray(explained + surprise)
    return earned, ""


def _simplest_best(earned: dict[FormName, Floats], log: DecisionLog) -> FormName:
    """Return the form that earns most; a later one must beat the one before it by a standard error of the difference."""
    chosen, *others = earned
    for form in others:
        gain = intervals.mean_interval(earned[form] - earned[chosen], log.cluster, CONFIDENCE)
        if gain.value > gain.standard_error:
            chosen = form
    return chosen


def _tell(earned: dict[FormName, Floats], log: DecisionLog) -> dict[str, Contestant]:
    told = {form: intervals.mean_interval(each, log.cluster, CONFIDENCE) for form, each in earned.items()}
    return {form: Contestant(value=each.value, low=each.low, high=each.high) for form, each in told.items()}
