"""Fits the heads of a router: each head's target, the boosters for all destinations, and those of single ones."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from features.config import Training
from features.objective import MS_PER_MINUTE, Objective
from features.vector import CategoryColumn
from models import boosting, durations, examples
from models.boosting import Fitted, Trainer
from models.encoding import Encoder
from models.examples import Examples
from models.router import HeadName

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MAX_CATEGORIES = 1_000  # per column: the most frequent are kept, the rest read as missing, so that memory stays bounded
_IMPUTATIONS = 3  # of timeouts: each starts from a better guess of how long they would have taken


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """How many rounds the boosters for all destinations, and those of single ones, are given."""

    pooled: int
    own: int


@dataclass(frozen=True, kw_only=True)
class FittedHead:
    """The boosters of one head; ``own`` by the code of the destination. ``low`` and ``high`` bound what was seen."""

    pooled: Fitted
    own: Mapping[int, Fitted]
    low: float
    high: float

    def predict(self, matrix: Floats, destination: Integers, rounds: int, threads: int) -> tuple[Floats, Floats]:
        """Return what the boosters for all, and where there are any the destination's own, predict, float64[n] each."""
        pooled = boosting.predict(self.pooled, matrix, rounds=rounds, threads=threads)
        mine = pooled.copy()
        for code, fitted in self.own.items():
            rows = destination == code
            if rows.any():
                mine[rows] = boosting.predict(fitted, matrix[rows], rounds=rounds, threads=threads)
        return pooled, mine


@dataclass(frozen=True, kw_only=True)
class Material:
    """Examples made ready: encoded, binned once, weighed, with the labels of every head.

    ``matrix`` float64[n, n_features]; ``orders`` are the categories in the order of their codes; ``destination`` int64[n] is the code of each example's
    destination, -1 where the vectors do not say it; ``promised`` float64[n] the offset in ms, 0 without one.
    """

    matrix: Floats
    orders: dict[str, tuple[str, ...]]
    destination_column: str | None
    trainer: Trainer
    weight: Floats
    destination: Integers
    promised: Floats
    censored: NDArray[np.bool_]
    labels: dict[HeadName, Floats]
    settings: Training

    @classmethod
    def of(cls, given: Examples, objective: Objective, settings: Training, limited: Collection[str] = ()) -> Self:
        """Check ``given`` and make it ready; raises TrainingRefusedError as `models.examples` does."""
        examples.check(given, settings)
        labels = examples.labels(given, objective, settings, limited)
        columns = zip(given.category_names, given.categories, strict=True)
        orders = {name: category_order(column) for name, column in columns}
        matrix = Encoder(orders).columns(given.numbers, given.categories)
        return cls(
            matrix=matrix,
            orders=orders,
            destination_column=given.destination_column,
            trainer=Trainer(matrix, given.number_names, given.category_names, settings),
            weight=given.weights(settings.max_weight),
            destination=destination_codes(matrix, given.number_names, orders, given.destination_column),
            promised=promised_ms(matrix, given.number_names, settings.latency_offset),
            censored=given.censored,
            labels=labels,
            settings=settings,
        )

    def fit(self, name: HeadName, rows: Integers, rounds: Rounds, *, own: bool) -> FittedHead:
        """Fit a head on ``rows``, for single destinations too where ``own`` says so."""
        labels, settings = self.labels[name], self.settings
        known = rows[~np.isnan(labels[rows])]
        target = self._target(name, known, rounds.pooled)
        of_one = {}
        if own:
            seen = boosting.own_rows(self.destination, known, settings.min_own_outcomes)
            of_one = {
                code: self.trainer.fit_all(name, target, self.weight, rows=mine, rounds=rounds.own)
                for code, mine in seen.items()
                if labels[mine].min() < labels[mine].max()  # what never varies there is left to the boosters for all
            }
        return FittedHead(
            pooled=self.trainer.fit_all(name, target, self.weight, rows=known, rounds=rounds.pooled),
            own=of_one,
            low=float(labels[known].min()),
            high=float(target[known].max() if name == "log_latency" else labels[known].max()),
        )

    def _target(self, name: HeadName, known: Integers, rounds: int) -> Floats:
        """Return what is fitted: the labels, less what was promised, and with timeouts moved to what is expected of them."""
        if name == "latency_ms":
            return self.labels[name] - self.promised
        if name == "log_latency" and self.censored[known].any():
            return self._imputed(self.labels[name], known, rounds)
        return self.labels[name]

    def _imputed(self, bounds: Floats, known: Integers, rounds: int) -> Floats:
        """Return the logarithms with timeouts imputed from predictions of the half that was not fitted on."""
        target, halves = bounds.copy(), (known[::2], known[1::2])
        for _ in range(_IMPUTATIONS):
            predicted = np.empty(len(bounds))
            for mine, other in (halves, halves[::-1]):
                booster = self.trainer.fit("log_latency", target, self.weight, rows=other, rounds=rounds)
                predicted[mine] = boosting.predict(
                    [booster], self.matrix[mine], rounds=rounds, threads=self.settings.threads
                )
            residual = (bounds - predicted)[known]
            target[known] = durations.impute(bounds[known], predicted[known], residual, self.censored[known])
        return target


def category_order(column: CategoryColumn) -> tuple[str, ...]:
    """Return the values of a column in a fixed order: alphabetical among the most frequent."""
    counts = np.bincount(column.codes[column.codes >= 0], minlength=len(column.values))
    frequent = sorted(range(len(column.values)), key=lambda code: (-counts[code], column.values[code]))[:MAX_CATEGORIES]
    return tuple(sorted(column.values[code] for code in frequent if counts[code]))


def destination_codes(
    matrix: Floats, numbers: Sequence[str], orders: Mapping[str, object], column: str | None
) -> Integers:
    """Return the destination of each encoded row as its code, int64[n]; -1 where it is not known."""
    if column is None:
        return np.full(len(matrix), -1, np.int64)
    codes: Integers = np.nan_to_num(matrix[:, len(numbers) + list(orders).index(column)], nan=-1.0).astype(np.int64)
    return codes


def promised_ms(matrix: Floats, numbers: Sequence[str], offset: str | None) -> Floats:
    """Return the promised latency of each encoded row in ms, float64[n]; 0 where nothing is promised."""
    if offset is None:
        return np.zeros(len(matrix))
    return np.nan_to_num(matrix[:, list(numbers).index(offset)]) * MS_PER_MINUTE
