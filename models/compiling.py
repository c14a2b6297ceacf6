"""Makes the leaf-mask tables of a router's boosters, and proves that they score to LightGBM's very bits."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models import engine, trees
from models.card import Card
from models.engine import Engine, NumpyMasks
from models.leaf_masks import CATEGORY, LeafMasks
from models.releases.bundle import TABLES_SUFFIX as SUFFIX
from models.trees import UnsupportedModelError

Floats = NDArray[np.float64]

MAX_ROUTER_BYTES: Final = 128 * 1024 * 1024  # of all tables of a router; the boosters past it are LightGBM's to score
N_PROOF_ROWS: Final = 512
_SEED = 7
# What training may never have seen: every kind of missing, as good as zero or just not, and no category at all.
_STRANGE: Final = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-36, -1e-36, 1.1e-35, -0.5, 2.5, -7.0, 3e9, -3e9, 1e300)


class UnequalTablesError(ValueError):
    """Tables that do not score a row as LightGBM does: names the file, the row's number and both scores."""


def compile_router(folder: Path, card: Card) -> dict[str, str]:
    """Write the tables of every booster of ``card`` beside its text in ``folder``, before it is sealed.

    Returns, by file, why a booster has none: LightGBM will score it.
    """
    refusals: dict[str, str] = {}
    room = MAX_ROUTER_BYTES
    for file in _files(card):
        try:
            room -= _compile(folder / file, room)
        except (UnsupportedModelError, UnequalTablesError) as error:
            (folder / file).with_suffix(SUFFIX).unlink(missing_ok=True)
            refusals[file] = str(error)
    return refusals


def _compile(path: Path, room: int) -> int:
    """Write and prove the tables of one booster, and return their size, which is at most ``room`` bytes."""
    tables = LeafMasks.build(trees.parse(path.read_text(encoding="utf-8")))
    n_bytes = tables.masks.nbytes + tables.values.nbytes
    if n_bytes > room:
        raise UnsupportedModelError(f"{n_bytes} bytes of tables are beyond the {room} that are left to the router")
    tables.write(path.with_suffix(SUFFIX))
    prove(path)
    return n_bytes


def prove_router(folder: Path, card: Card, golden: Floats) -> None:
    """Prove whatever tables lie in ``folder``, on the ``golden`` rows too; raises as `prove`, and as `Engine.load`."""
    for file in _files(card):
        if (folder / file).with_suffix(SUFFIX).exists():
            prove(folder / file, golden)


def prove(path: Path, golden: Floats | None = None) -> None:
    """Compare the tables beside the booster's text at ``path`` with LightGBM, in every form that is to be had.

    Raises
    ------
    UnequalTablesError
        Naming the first row on which they differ.
    """
    tables = LeafMasks.read(path.with_suffix(SUFFIX))
    rows = proof_rows(tables, N_PROOF_ROWS, seed=_SEED)
    if golden is not None:
        rows = np.concatenate((golden, rows))
    booster = Engine.load(path, fastest="booster").booster
    forms = {"numpy": NumpyMasks(tables)} | ({"C": engine.compile_tables(tables)} if engine.is_compiled() else {})
    for raw_score in (True, False):
        expected = booster.predict(rows, raw_score=raw_score)
        for form, scorer in forms.items():
            said = np.empty(len(rows))
            scorer.score(rows, said, raw_score)
            differ = np.flatnonzero((said != expected) & ~(np.isnan(said) & np.isnan(expected)))
            if differ.size:
                row = int(differ[0])
                raise UnequalTablesError(
                    f"{path.with_suffix(SUFFIX).name}: row {row} is {said[row]!r} by {form}, {expected[row]!r} by LightGBM"
                )


def proof_rows(tables: LeafMasks, n_rows: int, *, seed: int) -> Floats:
    """Return rows, float64[n_rows, n_features], that lie on, beside and far from whatever ``tables`` split at."""
    random = np.random.default_rng(seed)
    rows = random.normal(size=(n_rows, tables.n_features)) * 10.0 ** random.integers(-3, 4, (n_rows, tables.n_features))
    for feature, kind, start, count, _ in tables.columns.tolist():
        if kind == CATEGORY:
            near = random.integers(-2, count + 3, n_rows) + random.choice([0.0, 0.0, 0.5], n_rows)
        else:
            near = random.choice(tables.thresholds[start : start + count], n_rows)
            near = np.nextafter(near, near + random.integers(-1, 2, n_rows))
        rows[:, feature] = np.where(random.random(n_rows) < 0.8, near, rows[:, feature])  # noqa: PLR2004 - mostly near
    return np.where(random.random(rows.shape) < 0.1, random.choice(_STRANGE, rows.shape), rows)  # noqa: PLR2004 - now and then


def _files(card: Card) -> Iterable[str]:
    """Return the files of all boosters, those for all destinations first."""
    heads = card.heads.values()
    pooled = [file for head in heads for file in head.files]
    own = [file for head in heads for files in head.own.values() for file in files]
    return dict.fromkeys(pooled + own)
