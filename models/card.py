"""The card of a router: how its files are read, and what it is; one JSON file beside LightGBM's text."""

from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from features.objective import Objective
from features.records import Probability
from models.calibration import Scaling

HeadName = Literal["success_probability", "latency_ms", "cost_usd", "log_latency"]

T = TypeVar("T")

CARD_FILE = "card.json"


class ContractMismatchError(ValueError):
    """A router that does not fit: another feature set, another stream, a head without its file."""


class Head(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One predicted quantity: the mean over ``files`` of their boosters, plus the offset column where one is named, within [low, high].

    ``own`` holds the boosters of single destinations, which take ``own_share`` of the prediction for theirs; every other
    destination, a new one above all, is predicted by ``files`` alone, from its features. ``offset`` names a number
    feature that carries the promised latency in minutes: the boosters then predict what comes on top of the promise,
    which is the part worth learning. ``scaling`` calibrates a probability.
    """

    files: tuple[str, ...]
    low: float
    high: float
    own: dict[str, tuple[str, ...]] = {}
    own_share: Probability = 0.0
    offset: str | None = None
    scaling: Scaling | None = None


class Quantile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A quantile of the latency that is predicted: its level, and the name under which it is logged."""

    level: Probability
    name: str


class Contestant(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a form of the router was found to be worth on decisions it had not seen, in units of the reward."""

    value: float
    low: float
    high: float


class Contest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the form was chosen: what each was worth over ``n_decisions``, or why nothing could be compared."""

    chosen: str
    n_decisions: int
    forms: dict[str, Contestant] = {}
    refusal: str = ""


class Card(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a router is: feature order, category orders, heads with bounds, objective, and where it was learned.

    ``residuals`` are the quantiles, at `models.durations.LEVELS`, of what the ``log_latency`` head leaves unexplained;
    ``quantiles`` those of the latency that follow from them and are predicted. ``destination_column`` is the category
    that says which destination a row is. ``value_low`` and ``value_high`` are all but the outermost of the values that it predicted in training. As a reward
    model it is clipped to them: that biases nothing, and the canary's bets may be larger.
    """

    stream: str
    feature_set: str
    numbers: tuple[str, ...]
    categories: dict[str, tuple[str, ...]]
    heads: dict[HeadName, Head]
    objective: Objective
    destinations: tuple[str, ...]
    value_low: float
    value_high: float
    trained: dict[str, str | float | int]
    destination_column: str | None = None
    residuals: tuple[float, ...] = ()
    quantiles: tuple[Quantile, ...] = ()
    contest: Contest | None = None
    schema: Annotated[int, Meta(ge=1, le=1)] = 1
    kind: Literal["router"] = "router"

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names under which a router answers beside its ``value``."""
        over_sla = ("over_sla",) if "log_latency" in self.heads and self.objective.sla_latency_ms is not None else ()
        heads = (str(name) for name in self.heads if name != "log_latency")
        return (*heads, *(quantile.name for quantile in self.quantiles), *over_sla)


def read_card(folder: Path) -> Card:
    """Read the card alone.

    Raises
    ------
    ContractMismatchError
        If it is not there, or is none.
    """
    return read_card_of(folder, Card)


def read_card_of(folder: Path, kind: type[T]) -> T:
    """Read the card of whatever kind of model; raises as `read_card`."""
    try:
        return msgspec.json.decode((folder / CARD_FILE).read_bytes(), type=kind)
    except (OSError, msgspec.MsgspecError) as error:
        raise ContractMismatchError(f"{CARD_FILE} cannot be read: {error}") from None
