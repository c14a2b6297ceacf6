"""The prices that travel with a router: what its stream limits, at which price, fitted on what; numpy only.

``prices.json`` lies beside the card and is sealed with it: who approves the router approves its prices.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from features.choices import Exploration
from features.limits import LimitDefinition
from models import policy
from models.budget import Limit, Prices
from models.card import Card, ContractMismatchError
from models.meter import Meter
from models.policy import Distribution

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
NotNegative = Annotated[float, Meta(ge=0.0)]

PRICES_FILE = "prices.json"


class PricedLimit(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A limit and its ``price`` per unit, in units of the reward; ``step`` as in `models.budget.Prices`, ``most`` as in `Meter`."""

    limit: LimitDefinition
    price: NotNegative
    step: NotNegative
    most: NotNegative


class PriceList(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``prices.json`` says. ``fitted`` names the decisions that the prices were fitted on."""

    limits: Annotated[tuple[PricedLimit, ...], Meta(min_length=1)]
    temperature: Annotated[float, Meta(gt=0.0)]
    fitted: dict[str, str | float | int]
    schema: Annotated[int, Meta(ge=1, le=1)] = 1
    kind: Literal["prices"] = "prices"


@dataclass(frozen=True)
class Tariff:
    """A price list, ready to price the candidates of a router whose number features are ``numbers``."""

    listed: PriceList
    numbers: tuple[str, ...]

    @cached_property
    def meter(self) -> Meter:
        """What tells the use of a candidate."""
        return Meter(tuple(priced.limit for priced in self.listed.limits), self.numbers, self.most)

    @cached_property
    def prices(self) -> Prices:
        """The prices as fitted, with no debt to pay back."""
        limits = self.listed.limits
        return Prices(
            limits=tuple(Limit(resource=each.limit.name, per_event=each.limit.at_most) for each in limits),
            prices=np.array([each.price for each in limits]),
            temperature=self.listed.temperature,
            steps=np.array([each.step for each in limits]),
        )

    @cached_property
    def at_most(self) -> Floats:
        """The limits per event, float64[n_resources]."""
        return np.array([each.limit.at_most for each in self.listed.limits])

    @cached_property
    def most(self) -> Floats:
        """The most that was seen of each resource when the limits were priced, float64[n_resources]."""
        return np.array([priced.most for priced in self.listed.limits])

    @cached_property
    def pace_events(self) -> Floats:
        """Of how many events' limits a debt multiplies each price by e, float64[n_resources]."""
        return np.array([float(each.limit.pace_events) for each in self.listed.limits])

    def paced(self, debt: Floats | None) -> Prices:
        """Return the prices that pay back ``debt``, float64[n_resources]: what was used beyond the limits so far."""
        return self.prices if debt is None else self.prices.paced(self._sound(debt), self.pace_events)

    def settle(self, debt: Floats | None, use: Floats) -> Floats:
        """Return the debt after one more event that used ``use``, float64[n_resources], within what moves a price."""
        return self.prices.bounded(self._sound(debt) + use - self.at_most, self.pace_events)

    def _sound(self, debt: Floats | None) -> Floats:
        """Return ``debt``, or nothing owed where it is not one number per limit: it comes from a file."""
        return np.zeros(len(self.at_most)) if debt is None or debt.shape != self.at_most.shape else debt


def write(folder: Path, listed: PriceList) -> None:
    """Write ``prices.json`` to the folder of a router that is not sealed yet."""
    (folder / PRICES_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(listed)))


def load(folder: Path, card: Card) -> Tariff | None:
    """Return the tariff in the *verified* folder of the router of ``card``; None where it has no limits.

    Raises
    ------
    ContractMismatchError
        If it cannot be read, or reads what the router has not.
    """
    path = folder / PRICES_FILE
    if not path.exists():
        return None
    try:
        tariff = Tariff(msgspec.json.decode(path.read_bytes(), type=PriceList), card.numbers)
    except (OSError, msgspec.MsgspecError) as error:
        raise ContractMismatchError(f"{PRICES_FILE} cannot be read: {error}") from None
    for limit in tariff.meter.limits:
        if limit.head is not None and limit.head not in card.heads:
            raise ContractMismatchError(
                f"{PRICES_FILE}: {limit.name} has no price feature, and the router does not predict it"
            )
    return tariff


def distribution(
    values: Sequence[float],
    use: Floats,
    eligible: Sequence[bool],
    prices: Prices,
    exploration: Exploration,
    value_range: float,
) -> tuple[Distribution, tuple[float, ...]]:
    """Return one decision's distribution under ``prices`` and its net values, one of each per candidate.

    ``use`` float64[n_resources, n_candidates]. The greedy choice is the priced one, which draws between candidates that
    tie within the limits; exploration spreads from there, by the net values.

    Raises
    ------
    PolicyError
        If nothing is eligible, or an eligible value is no number.
    """
    policy.check(values, eligible)
    rows, net, greedy = np.array(eligible), prices.net(np.array(values), use), np.zeros(len(values))
    greedy[rows] = prices.soften(net[rows], np.array([0, np.count_nonzero(rows)]))
    net_values = tuple(net.tolist())
    return policy.explore(net_values, eligible, exploration, value_range, greedy.tolist()), net_values


def distribution_log(
    values: Floats, use: Floats, offsets: Integers, prices: Prices, exploration: Exploration, value_range: float
) -> Floats:
    """Return `distribution` of every decision of a log, float64[n_rows]."""
    net = prices.net(values, use)
    return policy.explore_log(net, offsets, exploration, value_range, prices.soften(net, offsets))
