"""FrugalML's events: what is known before paying, and what every provider answered."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.vector import CategoryColumn
from models import fit

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

LOCAL = "local"


@dataclass(frozen=True, kw_only=True)
class Events:
    """n events: what is known before paying, whether each of k destinations was right, and what it would have cost.

    ``correct`` is 0/1, float64[n, k], NaN where it was not revealed; ``price`` float64[k] in USD per 10,000 calls.
    Every event pays ``base``, the local model's own price, whichever destination answers.
    """

    destinations: tuple[str, ...]
    price: Floats
    base: float
    confidence: Floats
    categories: dict[str, CategoryColumn]
    correct: Floats

    def take(self, rows: Mask | NDArray[np.int64]) -> "Events":
        """Return the events of these rows (indices or mask)."""
        return Events(
            destinations=self.destinations,
            price=self.price,
            base=self.base,
            confidence=self.confidence[rows],
            categories={name: column.take(rows) for name, column in self.categories.items()},
            correct=self.correct[rows],
        )

    def examples(self, number: NDArray[np.int64], row: NDArray[np.int64]) -> fit.Examples:
        """Return the pairs of event ``row`` and destination ``number`` as the router's examples."""
        nothing = np.full(len(row), np.nan)
        return fit.Examples(
            number_names=("local_confidence", "price_usd"),
            category_names=("destination", *self.categories),
            numbers=np.column_stack([self.confidence[row], self.price[number]]),
            categories=[
                CategoryColumn(number, self.destinations),
                *(column.take(row) for column in self.categories.values()),
            ],
            success=self.correct[row, number],
            latency_ms=nothing,
            cost_usd=nothing,
            propensity=np.ones(len(row)),
        )


def read_events(data: Path, name: str) -> Events | None:
    """Return the events of a set, or None if its file is absent."""
    path = data / f"{name}.parquet"
    if not path.exists():
        return None
    rows, priced = pd.read_parquet(path), pd.read_csv(data / "destinations.csv")
    priced = priced[priced["dataset"] == name]
    destinations = tuple(priced["destination"])
    listed = priced["cost_usd_per_10k"].to_numpy(np.float64)
    is_local = np.array(destinations) == LOCAL
    categories = {}
    for column in ("local_label", "speaker"):
        if column in rows:
            codes, values = pd.factorize(rows[column].astype(str), sort=True)
            categories[column] = CategoryColumn(codes.astype(np.int64), tuple(values))
    return Events(
        destinations=destinations,
        price=np.where(is_local, 0.0, listed),
        base=float(listed[is_local].sum()),
        confidence=rows["local_confidence"].to_numpy(np.float64),
        categories=categories,
        correct=rows[[f"{destination}_correct" for destination in destinations]].to_numpy(np.float64),
    )
