"""The router: what every (event, candidate) pair would be worth, from LightGBM heads and the stream's objective.

A router on disk is a folder of LightGBM's native text, one file per head, and ``card.json``, which says how to read them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from features.objective import MS_PER_MINUTE, Objective
from features.vector import CategoryColumn
from models.booster import Booster
from models.encoding import Encoder

Floats = NDArray[np.float64]
HeadName = Literal["success_probability", "latency_ms", "cost_usd"]

CARD_FILE = "card.json"
GOLDEN_FILE = "golden.json"
_GOLDEN_TOLERANCE = 1e-9  # the same library and bytes give the same bits; another build may differ in the last ones


class ContractMismatchError(ValueError):
    """A router that does not fit: another feature set, another stream, a head without its file."""


class ProbeError(ValueError):
    """A router that does not answer its golden rows as it did when it was made."""


class Head(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One predicted quantity: the mean over ``files`` of their boosters, plus the offset column where one is named, within [low, high].

    ``offset`` names a number feature that carries the promised latency in minutes: the boosters then predict what
    comes on top of the promise, which is the part worth learning.
    """

    files: tuple[str, ...]
    low: float
    high: float
    offset: str | None = None


class Card(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a router is: feature order, category orders, heads with bounds, objective, and where it was learned.

    ``value_low`` and ``value_high`` are all but the outermost of the values that it predicted in training. As a reward
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
    schema: Annotated[int, Meta(ge=1, le=1)] = 1
    kind: Literal["router"] = "router"


class GoldenRows(Struct, frozen=True, kw_only=True):
    """A few encoded rows and what the router said of them when it was made; None stands for missing."""

    matrix: tuple[tuple[float | None, ...], ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Scores:
    """Predictions for n pairs: ``value`` float64[n] in units of the reward, and each head's float64[n]."""

    value: Floats
    heads: Mapping[HeadName, Floats]


class Router:
    """A loaded router."""

    def __init__(self, card: Card, boosters: Mapping[HeadName, Sequence[Booster]]) -> None:
        """Take a card and, for each of its heads, the boosters in the order of its files."""
        self.card = card
        self.feature_set = card.feature_set
        self._encoder = Encoder(card.categories)
        self._boosters = boosters
        self._offsets = {name: _offset_column(card, head) for name, head in card.heads.items()}

    def score(self, numbers: Floats, categories: Sequence[Sequence[str | None]]) -> Scores:
        """Score the candidates of one event: ``numbers`` float64[n, n_numbers], ``categories`` n lists."""
        return self.score_matrix(self._encoder.rows(numbers, categories))

    def score_log(self, numbers: Floats, categories: Sequence[CategoryColumn]) -> Scores:
        """Score all rows of a log, to the same bits as `score` event by event."""
        return self.score_matrix(self._encoder.columns(numbers, categories))

    def score_matrix(self, matrix: Floats) -> Scores:
        """Score encoded rows, float64[n, n_features]."""
        heads = {name: self._predict(name, head, matrix) for name, head in self.card.heads.items()}
        nothing = np.zeros(len(matrix))
        value = self.card.objective.value(
            success=heads.get("success_probability", nothing),
            latency_ms=heads.get("latency_ms", nothing),
            cost_usd=heads.get("cost_usd", nothing),
        )
        return Scores(value, heads)

    def contributions(self, matrix: Floats) -> dict[HeadName, Floats]:
        """Return each head's exact TreeSHAP contributions, float64[n, n_features + 1], in the head's raw units."""
        return {
            name: np.mean([booster.contributions(matrix) for booster in boosters], axis=0)
            for name, boosters in self._boosters.items()
        }

    def _predict(self, name: HeadName, head: Head, matrix: Floats) -> Floats:
        boosters = self._boosters[name]
        total = boosters[0].predict(matrix)
        for booster in boosters[1:]:
            total = total + booster.predict(matrix)
        predicted = total / len(boosters)
        offset = self._offsets[name]
        if offset is not None:
            predicted = predicted + np.nan_to_num(matrix[:, offset]) * MS_PER_MINUTE
        return np.clip(predicted, head.low, head.high)


def _offset_column(card: Card, head: Head) -> int | None:
    return None if head.offset is None else card.numbers.index(head.offset)


def read_card(folder: Path) -> Card:
    """Read the card alone.

    Raises
    ------
    ContractMismatchError
        If it is not there, or is none.
    """
    try:
        return msgspec.json.decode((folder / CARD_FILE).read_bytes(), type=Card)
    except (OSError, msgspec.MsgspecError) as error:
        raise ContractMismatchError(f"{CARD_FILE} cannot be read: {error}") from None


def load(folder: Path) -> Router:
    """Load a router from a *verified* folder: a truncated LightGBM file kills the process that reads it.

    Raises
    ------
    ContractMismatchError
        If the card and the files do not fit together.
    """
    card = read_card(folder)
    n_features = len(card.numbers) + len(card.categories)
    boosters: dict[HeadName, list[Booster]] = {}
    for name, head in card.heads.items():
        boosters[name] = [Booster.load(folder / file) for file in head.files]
        for file, booster in zip(head.files, boosters[name], strict=True):
            if booster.n_features != n_features:
                raise ContractMismatchError(f"{file} reads {booster.n_features} features, the card names {n_features}")
    return Router(card, boosters)


def save_golden(folder: Path, loaded: Router, matrix: Floats) -> None:
    """Keep what ``loaded`` says of ``matrix``, for every later holder of these bytes to check."""
    rows = tuple(tuple(None if np.isnan(cell) else float(cell) for cell in row) for row in matrix)
    values = tuple(float(value) for value in loaded.score_matrix(matrix).value)
    (folder / GOLDEN_FILE).write_bytes(msgspec.json.encode(GoldenRows(matrix=rows, values=values)))


def probe(folder: Path) -> None:
    """Load the router in ``folder`` and check it against its golden rows; run this in a process that may die.

    Raises
    ------
    ProbeError
        Naming the first row that differs.
    """
    golden = msgspec.json.decode((folder / GOLDEN_FILE).read_bytes(), type=GoldenRows)
    matrix = np.array([[np.nan if cell is None else cell for cell in row] for row in golden.matrix], dtype=np.float64)
    said = load(folder).score_matrix(matrix).value
    wrong = np.flatnonzero(~np.isclose(said, golden.values, rtol=_GOLDEN_TOLERANCE, atol=_GOLDEN_TOLERANCE))
    if wrong.size:
        row = int(wrong[0])
        raise ProbeError(f"golden row {row} should be worth {golden.values[row]!r}, the router says {said[row]!r}")
