"""FrugalML's events: what is known before paying, and what every provider answered."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.vector import CategoryColumn
from models import fit

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]

LOCAL = "local"


@dataclass(frozen=True, kw_only=True)
class Events:
    """n events and k destinations, one of them the free local model, whose answer is known of every event.

    ``label`` int64[n, k] holds codes into ``labels``, ``confidence`` float64[n, k] lies in [0, 1]; ``correct`` is 0/1,
    float64[n, k], NaN where it was not revealed; ``price`` float64[k] in USD per 10,000 calls. Every event pays
    ``base``, the local model's own price, whichever destination answers.
    """

    destinations: tuple[str, ...]
    price: Floats
    base: float
    labels: tuple[str, ...]
    label: Integers
    confidence: Floats
    speaker: CategoryColumn | None
    correct: Floats

    @property
    def local(self) -> int:
        """The number of the local model."""
        return self.destinations.index(LOCAL)

    @property
    def paid(self) -> tuple[int, ...]:
        """The numbers of the others."""
        return tuple(number for number in range(len(self.destinations)) if number != self.local)

    def best_single(self) -> int:
        """Return the paid destination that is right most often."""
        return max(self.paid, key=lambda number: float(self.correct[:, number].mean()))

    def unasked(self, held: Sequence[int]) -> list[int]:
        """Return the paid destinations beside those that have answered."""
        return [number for number in self.paid if number not in held]

    def take(self, rows: Mask | Integers) -> "Events":
        """Return the events of these rows (indices or mask)."""
        return Events(
            destinations=self.destinations,
            price=self.price,
            base=self.base,
            labels=self.labels,
            label=self.label[rows],
            confidence=self.confidence[rows],
            speaker=None if self.speaker is None else self.speaker.take(rows),
            correct=self.correct[rows],
        )

    def examples(
        self,
        number: Integers,
        row: Integers,
        *,
        answered: Sequence[int] = (),
        success: Floats | None = None,
        cost: Floats | None = None,
    ) -> fit.Examples:
        """Return the pairs of event ``row`` and destination ``number`` as the router's examples, with the outcomes given.

        The features are the local model's label and confidence, the speaker, the destination and its price, and of
        every destination in ``answered`` its label, its confidence and whether it agrees with those before it.
        """
        nothing = np.full(len(row), np.nan)
        held, names = (self.local, *answered), self.destinations
        pairs = list(combinations(held, 2))
        numbers = [self.confidence[row, each] for each in held]
        numbers += [(self.label[row, one] == self.label[row, other]).astype(np.float64) for one, other in pairs]
        categories = {"destination": CategoryColumn(number, names)}
        categories |= {f"{names[each]}_label": CategoryColumn(self.label[row, each], self.labels) for each in held}
        if self.speaker is not None:
            categories["speaker"] = self.speaker.take(row)
        return fit.Examples(
            number_names=(
                *(f"{names[each]}_confidence" for each in held),
                *(f"{names[one]}_agrees_{names[other]}" for one, other in pairs),
                "price_usd",
            ),
            category_names=tuple(categories),
            numbers=np.column_stack([*numbers, self.price[number]]),
            categories=list(categories.values()),
            success=nothing if success is None else success,
            latency_ms=nothing,
            cost_usd=nothing if cost is None else cost,
            propensity=np.ones(len(row)),
        )


def find_sets(data: Path) -> list[str]:
    """Return the names of the sets in a folder: those of a file whose prices are listed, the local model's among them."""
    prices = data / "destinations.csv"
    if not prices.exists():
        return []
    priced = pd.read_csv(prices)
    listed = set(priced["dataset"][priced["destination"] == LOCAL])
    return sorted(path.stem for path in data.glob("*.parquet") if path.stem in listed)


def read_events(data: Path, name: str) -> Events:
    """Return the events of a set that `find_sets` names."""
    rows, priced = pd.read_parquet(data / f"{name}.parquet"), pd.read_csv(data / "destinations.csv")
    priced = priced[priced["dataset"] == name]
    destinations = tuple(priced["destination"])
    listed = priced["cost_usd_per_10k"].to_numpy(np.float64)
    is_local = np.array(destinations) == LOCAL
    said = rows[[f"{destination}_label" for destination in destinations]].to_numpy()
    label, labels = pd.factorize(said.ravel(), sort=True)
    speaker = None
    if "speaker" in rows:
        codes, values = pd.factorize(rows["speaker"].astype(str), sort=True)
        speaker = CategoryColumn(codes.astype(np.int64), tuple(values))
    return Events(
        destinations=destinations,
        price=np.where(is_local, 0.0, listed),
        base=float(listed[is_local].sum()),
        labels=tuple(str(each) for each in labels),
        label=label.astype(np.int64).reshape(said.shape),
        confidence=rows[[f"{destination}_confidence" for destination in destinations]].to_numpy(np.float64),
        speaker=speaker,
        correct=rows[[f"{destination}_correct" for destination in destinations]].to_numpy(np.float64),
    )
