"""The router: what every (event, candidate) pair would be worth, from LightGBM heads and the stream's objective.

A router on disk is a folder of LightGBM's native text, one file per head, and ``card.json``, which says how to read them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from features.objective import MS_PER_MINUTE
from features.vector import CategoryColumn
from models import compiling, durations, elementary
from models.card import CARD_FILE, Card, ContractMismatchError, Head, HeadName, read_card
from models.encoding import Encoder
from models.engine import FORMS, Engine, Form
from models.leaf_masks import TableError

Floats = NDArray[np.float64]

GOLDEN_FILE = "golden.json"
_GOLDEN_TOLERANCE = 1e-9  # the same library and bytes give the same bits; another build may differ in the last ones


class ProbeError(ValueError):
    """A router that does not answer its golden rows as it did when it was made."""


class GoldenRows(Struct, frozen=True, kw_only=True):
    """A few encoded rows and what the router said of them when it was made; None stands for missing."""

    matrix: tuple[tuple[float | None, ...], ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Scores:
    """Predictions for n pairs: ``value`` float64[n] in units of the reward, and each head's float64[n].

    Beside the heads of the card that is each of its ``quantiles`` in milliseconds, and ``over_sla`` (the probability that
    the latency exceeds the objective's limit) where the objective has one.
    """

    value: Floats
    heads: Mapping[str, Floats]


@dataclass(frozen=True)
class Boosters:
    """The boosters of one head: those for all destinations, and by the code of a destination its own."""

    pooled: Sequence[Engine]
    own: Mapping[int, Sequence[Engine]]


class Router:
    """A loaded router."""

    def __init__(self, card: Card, boosters: Mapping[HeadName, Boosters]) -> None:
        """Take a card and the boosters of each of its heads."""
        self.card = card
        self.feature_set = card.feature_set
        self._encoder = Encoder(card.categories)
        self.boosters = boosters
        self._offsets = {name: _offset_column(card, head) for name, head in card.heads.items()}
        column = card.destination_column
        self.destination = None if column is None else len(card.numbers) + list(card.categories).index(column)
        self._residuals = np.array(card.residuals)

    @property
    def engine(self) -> Form:
        """What scores: of its boosters' forms the slowest."""
        every = (
            engine
            for head in self.boosters.values()
            for engines in (head.pooled, *head.own.values())
            for engine in engines
        )
        return max((engine.form for engine in every), key=FORMS.index, default="booster")

    def score(self, numbers: Floats, categories: Sequence[Sequence[str | None]]) -> Scores:
        """Score the candidates of one event: ``numbers`` float64[n, n_numbers], ``categories`` n lists."""
        return self.score_matrix(self._encoder.rows(numbers, categories))

    def score_log(self, numbers: Floats, categories: Sequence[CategoryColumn]) -> Scores:
        """Score all rows of a log, to the same bits as `score` event by event."""
        return self.score_matrix(self.encode_log(numbers, categories))

    def encode_log(self, numbers: Floats, categories: Sequence[CategoryColumn]) -> Floats:
        """Return the matrix, float64[n, n_features], that the boosters read of a log's rows."""
        return self._encoder.columns(numbers, categories)

    def score_matrix(self, matrix: Floats) -> Scores:
        """Score encoded rows, float64[n, n_features]."""
        heads: dict[str, Floats] = {str(name): head for name, head in self.predict_heads(matrix).items()}
        if (log_latency := heads.pop("log_latency", None)) is not None:
            heads |= self._spread(log_latency)
        return Scores(self._value(heads, len(matrix)), heads)

    def predict_heads(self, matrix: Floats) -> dict[HeadName, Floats]:
        """Return what every head of the card says of encoded rows, float64[n] each."""
        return {name: self._predict(name, head, matrix) for name, head in self.card.heads.items()}

    def contributions(self, matrix: Floats) -> dict[HeadName, Floats]:
        """Return each head's exact TreeSHAP contributions, float64[n, n_features + 1], in the head's raw units."""
        return {
            name: self._combine(name, matrix, lambda booster, rows: booster.contributions(rows))
            for name in self.boosters
        }

    def spread(self) -> dict[str, float]:
        """Return by the name of each of the card's quantiles how far it lies above the predicted logarithm of the latency."""
        levels = [quantile.level for quantile in self.card.quantiles]
        above = np.interp(levels, durations.LEVELS, self._residuals).tolist() if levels else []
        return {quantile.name: e for quantile, e in zip(self.card.quantiles, above, strict=True)}

    def _value(self, heads: Mapping[str, Floats], n_rows: int) -> Floats:
        nothing = np.zeros(n_rows)
        return self.card.objective.value(
            success=heads.get("success_probability", nothing),
            latency_ms=heads.get("latency_ms", nothing),
            cost_usd=heads.get("cost_usd", nothing),
            over_sla=heads.get("over_sla"),
        )

    def _spread(self, log_latency: Floats) -> dict[str, Floats]:
        """Return what follows from the distribution of the latency: its quantiles, and the risk of exceeding the limit."""
        heads = {name: elementary.exp(log_latency + e) for name, e in self.spread().items()}
        limit_ms = self.card.objective.sla_latency_ms
        if limit_ms is not None:
            heads["over_sla"] = durations.exceedance(float(np.log(limit_ms)), log_latency, self._residuals)
        return heads

    def _predict(self, name: HeadName, head: Head, matrix: Floats) -> Floats:
        predicted = self._combine(name, matrix, lambda booster, rows: booster.predict(rows))
        offset = self._offsets[name]
        if offset is not None:
            predicted = predicted + np.nan_to_num(matrix[:, offset]) * MS_PER_MINUTE
        if head.scaling is not None:
            predicted = head.scaling.apply(predicted)
        return predicted.clip(head.low, head.high)

    def _combine(self, name: HeadName, matrix: Floats, ask: Callable[[Engine, Floats], Floats]) -> Floats:
        """Return what ``ask`` says of the rows: of the boosters for all, and for its share of a destination's own."""
        boosters, share = self.boosters[name], self.card.heads[name].own_share
        combined = _mean(boosters.pooled, matrix, ask)
        if self.destination is None or not share:
            return combined
        destination = matrix[:, self.destination]
        for code, own in boosters.own.items():
            rows = destination == code
            if rows.any():
                combined[rows] = (1.0 - share) * combined[rows] + share * _mean(own, matrix[rows], ask)
        return combined


def _mean(boosters: Sequence[Engine], matrix: Floats, ask: Callable[[Engine, Floats], Floats]) -> Floats:
    total = ask(boosters[0], matrix)
    if len(boosters) == 1:
        return total
    for booster in boosters[1:]:
        total = total + ask(booster, matrix)
    return total / len(boosters)


def _offset_column(card: Card, head: Head) -> int | None:
    return None if head.offset is None else card.numbers.index(head.offset)


def load(folder: Path) -> Router:
    """Load a router from a *verified* folder: a truncated LightGBM file kills the process that reads it.

    Raises
    ------
    ContractMismatchError
        If the card and the files do not fit together.
    """
    card = read_card(folder)
    boosters = {name: _load_head(folder, card, head) for name, head in card.heads.items()}
    if "log_latency" in card.heads and len(card.residuals) != len(durations.LEVELS):
        raise ContractMismatchError(f"{CARD_FILE}: residuals must number {len(durations.LEVELS)}")
    return Router(card, boosters)


def _load_head(folder: Path, card: Card, head: Head) -> Boosters:
    code_of = {}
    if head.own:
        if card.destination_column not in card.categories:
            raise ContractMismatchError(f"{CARD_FILE}: destination_column: {card.destination_column!r} is no category")
        code_of = {name: code for code, name in enumerate(card.categories[card.destination_column])}
    return Boosters(
        pooled=_load_all(folder, card, head.files),
        own={code_of[name]: _load_all(folder, card, files) for name, files in head.own.items() if name in code_of},
    )


def _load_all(folder: Path, card: Card, files: Sequence[str]) -> list[Engine]:
    n_features = len(card.numbers) + len(card.categories)
    try:
        boosters = [Engine.load(folder / file) for file in files]
    except TableError as error:
        raise ContractMismatchError(str(error)) from None
    for file, booster in zip(files, boosters, strict=True):
        if booster.n_features != n_features:
            raise ContractMismatchError(f"{file} reads {booster.n_features} features, the card names {n_features}")
    return boosters


def save_golden(folder: Path, loaded: Router, matrix: Floats) -> None:
    """Keep what ``loaded`` says of ``matrix``, for every later holder of these bytes to check."""
    rows = tuple(tuple(None if np.isnan(cell) else float(cell) for cell in row) for row in matrix)
    values = tuple(float(value) for value in loaded.score_matrix(matrix).value)
    (folder / GOLDEN_FILE).write_bytes(msgspec.json.encode(GoldenRows(matrix=rows, values=values)))


def probe(folder: Path) -> None:
    """Load the router in ``folder``, check it against its golden rows and its tables against LightGBM.

    Run this in a process that may die.

    Raises
    ------
    ProbeError
        Naming the first row that differs.
    """
    golden = msgspec.json.decode((folder / GOLDEN_FILE).read_bytes(), type=GoldenRows)
    matrix = np.array([[np.nan if cell is None else cell for cell in row] for row in golden.matrix], dtype=np.float64)
    loaded = load(folder)
    said = loaded.score_matrix(matrix).value
    wrong = np.flatnonzero(~np.isclose(said, golden.values, rtol=_GOLDEN_TOLERANCE, atol=_GOLDEN_TOLERANCE))
    if wrong.size:
        row = int(wrong[0])
        raise ProbeError(f"golden row {row} should be worth {golden.values[row]!r}, the router says {said[row]!r}")
    try:
        compiling.prove_router(folder, loaded.card, matrix)
    except compiling.UnequalTablesError as error:
        raise ProbeError(str(error)) from None
