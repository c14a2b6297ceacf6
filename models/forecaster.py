"""The demand forecaster: quantiles of the next day's hourly load, from LightGBM texts and a JSON card."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Self

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from features.calendar import Holidays, zone_rules
from features.lags import COLUMNS, SCALE_HOURS, WEEK_HOURS, Floats, Integers, Lags
from features.panel import Panel
from models import demand
from models.booster import Booster
from models.demand import Forecast, Targets

FORMAT: Final = 1
CARD_NAME: Final = "card.json"
TEXT_NAMES: Final = ("p10.txt", "p50.txt", "p90.txt")


@dataclass(frozen=True, kw_only=True)
class ForecasterConfig:
    """How a forecaster is fitted and calibrated.

    ``zone`` is where the people live whose habits make the load; ``holidays`` theirs. The last ``calibration_days``
    of the panel (at most a quarter of it) are kept from the fit. Rows start at every ``origin_every_hours``-th hour:
    a number prime to 24 meets every hour of the day. A series is the model's when ``min_known_hours`` of its last four
    weeks are known: by default a weekly rhythm must have been seen twice.
    """

    horizon_hours: int = 24
    zone: str = "UTC"
    holidays: Holidays = "none"
    calibration_days: int = 42
    origin_every_hours: int = 7
    min_known_hours: int = 2 * WEEK_HOURS
    n_rounds: int = 150
    n_leaves: int = 31
    min_rows_per_leaf: int = 300
    learning_rate: float = 0.05
    n_threads: int = 2

    def __post_init__(self) -> None:
        """Refuse what cannot be forecast or fitted, by name."""
        if not 1 <= self.horizon_hours <= WEEK_HOURS:
            raise ValueError(f"horizon_hours must lie in [1, {WEEK_HOURS}], got {self.horizon_hours}")
        if not 1 <= self.min_known_hours <= SCALE_HOURS:
            raise ValueError(f"min_known_hours must lie in [1, {SCALE_HOURS}], got {self.min_known_hours}")
        for name in ("calibration_days", "origin_every_hours", "n_rounds", "min_rows_per_leaf", "n_threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.n_leaves < 2:  # noqa: PLR2004 - a tree splits at least once
            raise ValueError(f"n_leaves must be at least 2, got {self.n_leaves}")
        if not 0 < self.learning_rate <= 1:
            raise ValueError(f"learning_rate must lie in (0, 1], got {self.learning_rate}")
        zone_rules(self.zone)


class Card(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the texts do not say about a forecaster.

    ``widen_low`` and ``widen_high`` move P10 and P90 outwards by so many widths of the band (``calibrate``).
    ``digests`` are the SHA-256 of the texts by file name; none: ``reason`` tells why every forecast is a baseline.
    The training window holds hours, UTC: the first, and the one after the last.
    """

    config: ForecasterConfig
    seed: int
    series: tuple[str, ...]
    trained_from: datetime
    trained_until: datetime
    n_rows: int
    n_calibration_rows: int
    widen_low: float = 0.0
    widen_high: float = 0.0
    columns: tuple[str, ...] = COLUMNS
    digests: dict[str, str] = {}
    reason: str | None = None
    format: int = FORMAT


class ForecasterFormatError(ValueError):
    """A folder that holds no forecaster this version can read: names the file and the rule."""


class Forecaster:
    """Forecasts the load of every series of a panel; a series without history enough is given its baseline.

    Direct forecasts of all steps by one model per quantile (P10, P50, P90, pinball loss) over ``features.lags``, each of
    the deviation from the ``usual`` load, which trees alone would have to rebuild step by step; conformalised quantiles. The coverage of about 80 % is an average over hours and series like those calibrated on:
    it says nothing about one hour of one series, and a regime never seen breaks it. Hours whose band is a point (the
    load of a closed night) are covered almost always; the others make up the promise.
    """

    def __init__(self, card: Card, texts: tuple[str, ...]) -> None:
        self.card = card
        self._texts = texts
        self._boosters = tuple(Booster.from_text(text) for text in texts)
        self._code = {name: code for code, name in enumerate(card.series)}

    def forecast(self, panel: Panel, *, at: datetime) -> Forecast:
        """Return the forecast of ``config.horizon_hours`` hours, beginning with the one under way at ``at``.

        Only hours over at ``at`` are read, whatever the panel holds; of these the last 30 days. Missing hours are
        fine, a series unknown in training too.

        Raises
        ------
        ValueError
            If ``at`` carries no zone.
        """
        config = self.card.config
        wanted = demand.targets(panel, at, config.horizon_hours)
        lags = Lags(wanted.known, horizon_hours=config.horizon_hours, zone=config.zone, holidays=config.holidays)
        band = demand.fallback(wanted, lags)
        from_model = lags.usable(wanted.series, wanted.origin, config.min_known_hours) & bool(self._boosters)
        if from_model.any():
            band[from_model] = self._band(lags, wanted, from_model)
        names = np.array(panel.series, dtype=np.str_)[wanted.series]
        p10, p50, p90 = band.T
        return Forecast(series=names, hour=wanted.hour, p10=p10, p50=p50, p90=p90, from_model=from_model)

    def save(self, folder: Path) -> None:
        """Write the forecaster to ``folder``, made if need be: LightGBM's text for each quantile, and the card."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in zip(TEXT_NAMES, self._texts, strict=False):
            (folder / name).write_bytes(text.encode())
        (folder / CARD_NAME).write_bytes(msgspec.json.format(msgspec.json.encode(self.card), indent=2) + b"\n")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the forecaster that ``save`` wrote to ``folder``.

        Raises
        ------
        ForecasterFormatError
            If the card is not one, its format or features are not of this version, or a text has not the digest
            that the card names (LightGBM kills the process on a damaged text, so it never sees one).
        OSError
            If a file cannot be read.
        """
        card = read_card(folder)
        texts = tuple(_verified_text(folder, name, card) for name in TEXT_NAMES if card.digests)
        return cls(card, texts)

    def _band(self, lags: Lags, wanted: Targets, chosen: NDArray[np.bool_]) -> Floats:
        series = wanted.series[chosen]
        codes = np.array([self._code.get(name, -1) for name in wanted.known.series])[series]
        matrix, scale = feature_matrix(lags, codes, series, wanted.origin[chosen], wanted.step[chosen])
        quantiles = usual(matrix)[:, None] + np.column_stack([booster.predict(matrix) for booster in self._boosters])
        return widened(quantiles, self.card.widen_low, self.card.widen_high) * scale[:, None]


def feature_matrix(
    lags: Lags, codes: Integers, series: Integers, origin: Integers, step: Integers
) -> tuple[Floats, Floats]:
    """Return the model's features float64[n, len(COLUMNS)] and the scale of each row; code -1 is an unknown series."""
    known, scale = lags.rows(series, origin, step)
    return np.column_stack([np.where(codes < 0, np.nan, codes), known]), scale


def usual(matrix: Floats) -> Floats:
    """Return the usual load of each row of features, float64[n], in its scale: what the models predict deviations from."""
    return matrix[:, COLUMNS.index("usual")]


def widened(quantiles: Floats, low: float, high: float) -> Floats:
    """Return quantiles float64[n, 3] in rising order and at least 0, the outer two moved outwards by so many widths."""
    ordered = np.sort(quantiles, axis=1)
    width = ordered[:, 2] - ordered[:, 0]
    moved = np.column_stack([ordered[:, 0] - low * width, ordered[:, 1], ordered[:, 2] + high * width])
    # A negative offset narrows: it must not push an end past the median, which stays where it is.
    moved[:, 0] = np.minimum(moved[:, 0], moved[:, 1])
    moved[:, 2] = np.maximum(moved[:, 2], moved[:, 1])
    return np.maximum(moved, 0.0)


def digest(text: str) -> str:
    """Return the SHA-256 of a text's UTF-8 bytes, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def read_card(folder: Path) -> Card:
    """Return the card in ``folder``, checked against this version's format; raises as ``Forecaster.load``."""
    try:
        card = msgspec.json.decode((folder / CARD_NAME).read_bytes(), type=Card)
    except msgspec.DecodeError as error:
        raise ForecasterFormatError(f"{CARD_NAME}: {error}") from error
    if card.format != FORMAT:
        raise ForecasterFormatError(f"{CARD_NAME}: format must be {FORMAT}, got {card.format}")
    if card.columns != COLUMNS:
        odd = sorted(set(card.columns) ^ set(COLUMNS)) or "another order"
        raise ForecasterFormatError(f"{CARD_NAME}: columns must be those of this version, got a difference in {odd}")
    if card.digests and set(card.digests) != set(TEXT_NAMES):
        raise ForecasterFormatError(f"{CARD_NAME}: digests must name {TEXT_NAMES}, got {sorted(card.digests)}")
    return card


def _verified_text(folder: Path, name: str, card: Card) -> str:
    text = (folder / name).read_bytes().decode(errors="replace")
    if (found := digest(text)) != card.digests[name]:
        raise ForecasterFormatError(f"{name}: SHA-256 must be {card.digests[name]}, got {found}")
    return text
