"""Fits the heads of a router: each head's target, the boosters for all destinations, and those of single ones."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from features.choices import Training
from features.objective import MS_PER_MINUTE, Objective
from features.vector import CategoryColumn
from models import boosting, durations, examples, partition
from models.boosting import Fitted, Trainer
from models.card import HeadName
from models.encoding import EncodedRows, Encoder
from models.examples import Examples

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MAX_CATEGORIES = 1_000  # per column: the most frequent are kept, the rest read as missing, so that memory stays bounded
AMOUNTS: tuple[HeadName, ...] = ("latency_ms", "cost_usd")  # of which a difference says which destination did better
_IMPUTATIONS = 3  # of timeouts: each starts from a better guess of how long they would have taken


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """How many rounds the boosters for all destinations, and those of single ones, are given."""

    pooled: int
    own: int


@dataclass(frozen=True, kw_only=True)
class Material:
    """Examples made ready: encoded, binned once, weighed, with the labels of every head.

    ``matrix`` is encoded where it is asked for; ``orders`` are the categories in the order of their codes; ``destination`` int64[n] is the code of each example's
    destination, -1 where the vectors do not say it; ``promised`` float64[n] the offset in ms, 0 without one.
    """

    matrix: EncodedRows
    orders: dict[str, tuple[str, ...]]
    destination_column: str | None
    trainer: Trainer
    weight: Floats
    destination: Integers
    promised: Floats
    censored: NDArray[np.bool_]
    labels: dict[HeadName, Floats]
    settings: Training
    event: Integers | None = None

    @classmethod
    def of(cls, given: Examples, objective: Objective, settings: Training, limited: Collection[str] = ()) -> Self:
        """Check ``given`` and make it ready; raises TrainingRefusedError as `models.examples` does."""
        examples.check(given, settings)
        labels = examples.labels(given, objective, settings, limited)
        columns = zip(given.category_names, given.categories, strict=True)
        orders = {name: category_order(column, given.rows) for name, column in columns}
        matrix = Encoder(orders).over(given.numbers, given.categories, given.rows)
        place = column_place(given.number_names, orders, given.destination_column)
        promise = column_place(given.number_names, orders, settings.latency_offset)
        return cls(
            matrix=matrix,
            orders=orders,
            destination_column=given.destination_column,
            trainer=Trainer(matrix, given.number_names, given.category_names, settings),
            weight=given.weights(settings.max_weight),
            destination=np.full(len(given), -1) if place is None else destination_codes(matrix.column(place)),
            promised=np.zeros(len(given)) if promise is None else promised_ms(matrix.column(promise)),
            censored=given.censored,
            labels=labels,
            settings=settings,
            event=given.event,
        )

    @property
    def destination_place(self) -> int:
        """Which column of the matrix is the destination, -1 if none is."""
        column, n_numbers = self.destination_column, self.matrix.n_features - len(self.orders)
        return -1 if column is None else n_numbers + list(self.orders).index(column)

    def head(self, name: HeadName, rows: Integers) -> "HeadFit":
        """Return the fit of a head on those of ``rows`` whose outcome tells of it, with timeouts imputed from them alone."""
        labels = self.labels[name]
        known = rows[~np.isnan(labels[rows])]
        target = labels - self.promised if name == "latency_ms" else labels
        if name == "log_latency" and self.censored[known].any():
            target = self._imputed(labels, known)
        return HeadFit(material=self, name=name, known=known, target=target)

    def _imputed(self, bounds: Floats, known: Integers) -> Floats:
        """Return the logarithms with timeouts imputed from predictions of the half that was not fitted on."""
        target, halves, rounds = bounds.copy(), (known[::2], known[1::2]), self.settings.rounds
        for _ in range(_IMPUTATIONS):
            predicted = np.empty(len(bounds))
            for mine, other in (halves, halves[::-1]):
                booster = self.trainer.fit("log_latency", target, self.weight, rows=other, rounds=rounds)
                predicted[mine] = boosting.predict_rows(
                    booster, self.matrix, mine, rounds=rounds, threads=self.settings.threads
                )
            residual = (bounds - predicted)[known]
            target[known] = durations.impute(bounds[known], predicted[known], residual, self.censored[known])
        return target


@dataclass(frozen=True, kw_only=True)
class HeadFit:
    """One head about to be fitted: the rows that tell of it, int64[n_known], and what each says, float64[n]."""

    material: Material
    name: HeadName
    known: Integers
    target: Floats

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the most that was seen of the head, imputed timeouts among it."""
        seen = self.target if self.name == "log_latency" else self.material.labels[self.name]
        return float(seen[self.known].min()), float(seen[self.known].max())

    def pooled(self, rounds: int) -> Fitted:
        """Fit the boosters for all destinations."""
        return self.material.trainer.fit_all(
            self.name, self.target, self.material.weight, rows=self.known, rounds=rounds
        )

    def own(self, rounds: int) -> Mapping[int, Fitted]:
        """Fit the boosters of single destinations, by code; what never varies at one is left to the boosters for all."""
        material = self.material
        seen = boosting.rows_by_destination(material.destination, self.known, material.settings.min_own_outcomes)
        return {
            code: material.trainer.fit_all(self.name, self.target, material.weight, rows=rows, rounds=rounds)
            for code, rows in seen.items()
            if self.target[rows].min() < self.target[rows].max()
        }

    def shared(self) -> Mapping[int, Fitted]:
        """Grow trees that all destinations share, and give each destination its own leaves, by code."""
        material, settings = self.material, self.material.settings
        seen = boosting.rows_by_destination(material.destination, self.known, settings.min_own_outcomes)
        if len(seen) < 2:  # noqa: PLR2004 - there is nothing to share
            return {}
        event = material.event if self.name in AMOUNTS else None
        return partition.grow(
            self.target, material.weight, seen, material.matrix, material.trainer, material.destination_place, event
        )


def category_order(column: CategoryColumn, rows: Integers | None = None) -> tuple[str, ...]:
    """Return the values of a column, or of these rows of it, in a fixed order: alphabetical among the most frequent."""
    codes = column.codes if rows is None else column.codes[rows]
    counts = np.bincount(codes[codes >= 0], minlength=len(column.values))
    frequent = sorted(range(len(column.values)), key=lambda code: (-counts[code], column.values[code]))[:MAX_CATEGORIES]
    return tuple(sorted(column.values[code] for code in frequent if counts[code]))


def column_place(numbers: Sequence[str], categories: Mapping[str, object], column: str | None) -> int | None:
    """Return where ``column`` stands in the matrix: numbers come first; None if none is asked for."""
    return None if column is None else [*numbers, *categories].index(column)


def destination_codes(column: Floats) -> Integers:
    """Return the destination of each row, as encoded in its ``column``, as its code, int64[n]; -1 where it is not known."""
    return np.nan_to_num(column, nan=-1.0).astype(np.int64)


def promised_ms(column: Floats) -> Floats:
    """Return the promised latency of each row in ms, float64[n], of its ``column`` in minutes; 0 where it is missing."""
    return np.nan_to_num(column) * MS_PER_MINUTE
