"""Fits a router, from the outcomes that a log reveals to a folder of text. The pipeline's side; the shim never imports it."""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import lightgbm
import msgspec
import numpy as np
import sklearn
from numpy.typing import NDArray

from features.choices import Training
from features.decision_log import DecisionLog, random_place
from features.definitions import FeatureDefinitions
from features.objective import Objective
from models import contest, router
from models.boosting import Fitted
from models.card import CARD_FILE, Card, Head, HeadName, Quantile
from models.contest import Choice
from models.encoding import EncodedRows, Encoder
from models.examples import Examples, TrainingRefusedError
from models.heads import MAX_CATEGORIES, Material, Rounds

Floats = NDArray[np.float64]
N_GOLDEN_ROWS = 32
VALUE_TAIL = 0.02  # of the predictions on each side that the reward model gives up for narrower bounds
N_VALUE_ROWS = 20_000  # tell those bounds to a thousandth of the rows
CALIBRATION_SHARE = 0.05  # at most, of a log too long to be cross-fitted whole: kept from the fit, to calibrate it

__all__ = ["MAX_CATEGORIES", "Examples", "Subject", "TrainingRefusedError", "learn", "train"]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What a router is fitted for: its stream, the features it reads, what an outcome is worth, where events may go.

    ``trained`` goes into the card as it is: the window of the data, say. ``limited`` are the heads that a limit is on:
    they are fitted though the objective does not weigh them.
    """

    stream: str
    feature_set: str
    objective: Objective
    destinations: tuple[str, ...]
    settings: Training
    trained: Mapping[str, str | float | int]
    limited: Collection[str] = ()


def learn(
    log: DecisionLog,
    features: FeatureDefinitions,
    folder: Path,
    subject: Subject,
    *,
    sample: DecisionLog | None = None,
) -> router.Router:
    """Choose the form of a router by cross-fitting, fit it, calibrate it, write it to ``folder``, and return it.

    ``sample`` is the part of ``log`` on which forms compete; without one it is drawn. Of ``log`` itself only the revealed
    rows are read. Where the sample is the whole log its predictions out of fold calibrate the router, which is then
    fitted on all of it; of a longer log some whole clusters are kept from the fit to calibrate it.

    Raises
    ------
    TrainingRefusedError
        As `train`.
    """
    settings = subject.settings
    if not settings.contest_decisions:
        return train(Examples.of(log, features), folder, subject)
    place = random_place(log.cluster, settings.seed)
    compared = sample or log.take(place < settings.contest_decisions)
    if compared.n_decisions == log.n_decisions:
        choice = contest.hold(compared, features, subject.objective, settings, subject.limited)
        return train(Examples.of(log, features), folder, subject, choice)
    alone = msgspec.structs.replace(settings, n_boosters=1)  # a mean of several moves all forms alike
    choice = contest.hold(compared, features, subject.objective, alone, subject.limited)
    choice = replace(choice, rounds={})  # a sample asks for fewer than the whole log can bear
    n_kept = min(settings.contest_decisions, int(CALIBRATION_SHARE * log.n_decisions))
    card, _ = _fit(Examples.of(log, features, place >= n_kept), folder, subject, choice)
    return _calibrate(folder, card, log.take(place < n_kept))


def train(examples: Examples, folder: Path, subject: Subject, choice: Choice | None = None) -> router.Router:
    """Fit every head the objective weighs, write the router to ``folder``, and return it as loaded from there.

    Without a ``choice`` the first of the configured forms is fitted with all rounds. The same examples, settings and
    number of threads give the same bytes. Rows are weighted by the inverse propensity, clipped at
    ``settings.max_weight`` (1: not at all): the fit then leans towards choices the logging policy rarely took.

    Raises
    ------
    TrainingRefusedError
        If there are too few rows, a label has one class or is not finite, or a feature is infinite.
    """
    return _finish(folder, *_fit(examples, folder, subject, choice))


def _fit(examples: Examples, folder: Path, subject: Subject, choice: Choice | None) -> tuple[Card, EncodedRows]:
    """Fit every head and save its boosters; return the card, which is not written yet, and the rows that were fitted on."""
    settings = subject.settings
    chosen = choice or Choice(form=settings.forms[0])
    material = Material.of(examples, subject.objective, settings, subject.limited)
    if not chosen.residuals:  # nothing tells how latencies spread around their prediction
        material.labels.pop("log_latency", None)
    folder.mkdir(parents=True, exist_ok=True)
    heads = {name: _fit_head(folder, name, material, chosen) for name in material.labels}
    card = Card(
        stream=subject.stream,
        feature_set=subject.feature_set,
        numbers=examples.number_names,
        categories=material.orders,
        heads=heads,
        objective=subject.objective,
        destinations=subject.destinations,
        value_low=subject.objective.low,
        value_high=subject.objective.high,
        trained=_origin(examples, subject),
        destination_column=examples.destination_column,
        residuals=chosen.residuals if "log_latency" in heads else (),
        quantiles=_quantiles(settings) if "log_latency" in heads else (),
        contest=chosen.contest,
    )
    return card, material.matrix


def _origin(examples: Examples, subject: Subject) -> dict[str, str | float | int]:
    """Return where a router comes from: what the subject says of it, and what its bytes follow from."""
    told = {
        **subject.trained,
        "n_examples": len(examples),
        "lightgbm": lightgbm.__version__,
        "seed": subject.settings.seed,
    }
    if subject.settings.shared_pair_trees:
        told |= {"scikit-learn": sklearn.__version__, "n_compared_events": examples.n_compared_events}
    return told


def _fit_head(folder: Path, name: HeadName, material: Material, choice: Choice) -> Head:
    settings = material.settings
    rounds = choice.rounds.get(name) or Rounds(pooled=settings.rounds, own=settings.rounds)
    head = material.head(name, np.arange(len(material.matrix)))
    own: Mapping[int, Fitted] = {}
    if choice.own_share:
        own = head.own(rounds.own) if choice.part == "own" else head.shared()
    destinations = material.orders[material.destination_column] if material.destination_column else ()
    low, high = head.bounds
    return Head(
        files=_save(folder, name, head.pooled(rounds.pooled)),
        low=low,
        high=high,
        own={destinations[code]: _save(folder, f"{name}_of_{code}", boosters) for code, boosters in own.items()},
        own_share=choice.own_share if own else 0.0,
        offset=settings.latency_offset if name == "latency_ms" else None,
        scaling=choice.scaling if name == "success_probability" else None,
    )


def _save(folder: Path, name: str, boosters: Fitted) -> tuple[str, ...]:
    files = tuple(f"{name}_{number}.txt" for number in range(len(boosters)))
    for file, booster in zip(files, boosters, strict=True):
        booster.save_model(folder / file)
    return files


def _quantiles(settings: Training) -> tuple[Quantile, ...]:
    return tuple(Quantile(level=q, name=f"latency_p{100 * q:g}_ms") for q in settings.latency_quantiles)


def _finish(folder: Path, card: Card, matrix: EncodedRows) -> router.Router:
    """Write the card with the bounds that its values keep on ``matrix``, and the golden rows; return the router."""
    _write_card(folder, card)
    some = matrix.take(slice(None, None, max(1, len(matrix) // N_VALUE_ROWS)))
    values = card.objective.clip(router.load(folder).score_matrix(some).value)
    low, high = np.quantile(values, (VALUE_TAIL, 1.0 - VALUE_TAIL)).tolist()
    if low < high:  # a router that says the same of everything keeps the objective's own bounds
        _write_card(folder, msgspec.structs.replace(card, value_low=low, value_high=high))
    loaded = router.load(folder)
    router.save_golden(folder, loaded, _golden_rows(matrix.take(slice(64 * N_GOLDEN_ROWS))))
    return loaded


def _calibrate(folder: Path, card: Card, kept: DecisionLog) -> router.Router:
    """Calibrate a router on decisions that were kept from its fit, and finish it."""
    _write_card(folder, _uncalibrated(card))
    matrix = Encoder(card.categories).over(kept.numbers, kept.categories)
    raw = router.load(folder).predict_heads(matrix.take(slice(None)))
    heads = dict(card.heads)
    if "success_probability" in raw:
        scaling = contest.fit_scaling(raw["success_probability"], kept)
        heads["success_probability"] = msgspec.structs.replace(heads["success_probability"], scaling=scaling)
    residuals = contest.fit_residuals(raw["log_latency"], kept) if "log_latency" in raw else ()
    return _finish(folder, msgspec.structs.replace(card, heads=heads, residuals=residuals), matrix)


def _uncalibrated(card: Card) -> Card:
    return msgspec.structs.replace(
        card, heads={name: msgspec.structs.replace(head, scaling=None) for name, head in card.heads.items()}
    )


def _write_card(folder: Path, card: Card) -> None:
    (folder / CARD_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(card)))


def _golden_rows(matrix: Floats) -> Floats:
    """Pick rows by their own content, so that the same data give the same golden rows in any order."""
    keys = [hashlib.sha256(row.tobytes()).digest() for row in matrix]
    return matrix[sorted(range(len(keys)), key=keys.__getitem__)[:N_GOLDEN_ROWS]]
