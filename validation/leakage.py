"""May these columns be learned from? Refused by name: what became known after the decision, and what is too good to be true.

Source: Kaufman, Rosset and Perlich, "Leakage in data mining: formulation, detection, and avoidance", ACM TKDD, 2012:
every value must have been legitimate to know when it was used, and a feature that tells the target nearly whole is to be
doubted before it is believed. The screen is blind to a leak that tells only a part: for those there is ``known_at``.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from features import instants, scratch
from features.decision_log import DecisionLog
from features.definitions import FeatureDefinitions
from features.known_at import KnownAt
from features.vector import CategoryColumn
from models import association
from models.association import Label

Floats = NDArray[np.float64]
Instants = NDArray[np.datetime64]
Mask = NDArray[np.bool_]
Check = Literal["known later", "known_at", "instants", "success", "latency_ms", "missingness"]

_SKEW = np.timedelta64(60, "s")  # clocks of different machines differ; an outcome that is known within it is no target


@dataclass(frozen=True, kw_only=True)
class ScreenLimits:
    """What a single column may not reach.

    Attributes
    ----------
    max_auc
        .99, what a copy of the outcome with one row in a hundred wrong has. Honest columns of real routing logs are far
        below: at most .67 in the incidents of `benchmarks.guards`, .76 in the flights.
    max_correlation
        .98 of |Spearman| or of the squared correlation. A latency that a candidate promises comes close honestly: that
        is the stream's ``latency_offset``, or on its list of what is allowed.
    min_pure_rows, pure_share
        So many rows that share a column's being there (or not), of which at least this share are of the rarer class:
        an error's code is there only where there was an error, even if not for each of them.
    max_elsewhere_share
        Of the rarer class among the other rows: above it, purity says little.
    max_rows
        A random sample of so many bounds the cost: a second or two for 40 columns.
    """

    max_auc: float = 0.99
    max_correlation: float = 0.98
    min_pure_rows: int = 100
    pure_share: float = 0.99
    max_elsewhere_share: float = 0.5
    max_rows: int = 50_000
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Screened:
    """n rows to be learned from, and what became of them; rows with one ``cluster`` share fate."""

    decision_id: NDArray[np.object_]
    decided_at: Instants
    numbers: Mapping[str, Floats]
    categories: Mapping[str, CategoryColumn]
    success: Floats
    latency_ms: Floats
    cluster: NDArray[np.int64]

    @classmethod
    def of(cls, log: DecisionLog, features: FeatureDefinitions) -> Self:
        """Return the assigned candidates' rows of ``log``, so many of them as `judge` looks at by default."""
        drawn = _draw(log.n_decisions, DEFAULT_LIMITS)  # first: a copy of all vectors would be as large as the log
        rows = log.chosen[drawn]
        numbers, categories = scratch.take(log.numbers, rows), [column.take(rows) for column in log.categories]
        return cls(
            decision_id=scratch.take(log.decision_id, drawn),
            decided_at=log.decided_at[drawn],
            numbers=dict(zip(features.numbers, numbers.T, strict=True)),
            categories=dict(zip(features.categories, categories, strict=True)),
            success=log.success[drawn],
            latency_ms=log.latency_ms[drawn],
            cluster=log.cluster[drawn],
        )

    def take(self, rows: NDArray[np.int64]) -> "Screened":
        """Return these rows."""
        return Screened(
            decision_id=self.decision_id[rows],
            decided_at=self.decided_at[rows],
            numbers={name: values[rows] for name, values in self.numbers.items()},
            categories={name: column.take(rows) for name, column in self.categories.items()},
            success=self.success[rows],
            latency_ms=self.latency_ms[rows],
            cluster=self.cluster[rows],
        )


@dataclass(frozen=True, kw_only=True)
class Leak:
    """A column that is refused: by which check, why, and the figures behind it."""

    column: str
    check: Check
    reason: str
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class LeakageVerdict:
    """``refused`` if any column leaks; ``leaks`` names each, with every check that refuses it."""

    state: Literal["passed", "refused"]
    leaks: tuple[Leak, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are refused, each once."""
        return tuple(dict.fromkeys(leak.column for leak in self.leaks))

    @property
    def reasons(self) -> tuple[str, ...]:
        """A sentence per leak, beginning with the column's name."""
        return tuple(f"{leak.column}: {leak.reason}" for leak in self.leaks)


DEFAULT_LIMITS = ScreenLimits()


def judge(
    rows: Screened,
    *,
    known_at: KnownAt | None = None,
    known_later: Mapping[str, str] | None = None,
    allowed: Collection[str | None] = (),
    limits: ScreenLimits = DEFAULT_LIMITS,
) -> LeakageVerdict:
    """Refuse every column of ``rows`` that knows what came after the decision.

    ``known_at`` says when values became known, where that is told; ``known_later`` names columns that read what is
    declared to be known only later, and what that is. ``allowed`` columns may be as good as they like and may hold later
    instants (a promise does), but nothing excuses a value that became known after the decision.
    """
    leaks = [
        Leak(column=name, check="known later", reason=f"reads {read}, which is declared to be known only later")
        for name, read in (known_later or {}).items()
    ]
    if known_at is not None:
        for name, at in known_at.columns.items():
            leaks += _find_travel(name, "known_at", at, known_at, at > known_at.decided_at)
    sample = rows.take(_draw(len(rows.decided_at), limits))
    fitted = association.split_clusters(sample.cluster, np.random.default_rng(limits.seed))
    labels = (
        Label(name="success", values=sample.success, binary=True),
        Label(name="latency_ms", values=sample.latency_ms, binary=False),
    )
    for column in _columns(sample, fitted):
        if column.name not in allowed:
            is_later = column.at > sample.decided_at + _SKEW
            leaks += _find_travel(column.name, "instants", column.at, sample, is_later)
            leaks += _find_copies(column, labels, limits)
            leaks += _find_absence(column, labels[0], limits)
    return LeakageVerdict(state="refused" if leaks else "passed", leaks=tuple(leaks))


def _draw(n_rows: int, limits: ScreenLimits) -> NDArray[np.int64]:
    if n_rows <= limits.max_rows:
        return np.arange(n_rows)
    return np.sort(np.random.default_rng(limits.seed).choice(n_rows, limits.max_rows, replace=False))


@dataclass(frozen=True, kw_only=True)
class _Column:
    """What the screen asks of a column, whether of numbers or of categories."""

    name: str
    at: Instants
    missing: Mask
    strength: Callable[[Label], float | None]


def _columns(rows: Screened, fitted: Mask) -> Iterator[_Column]:
    for name, values in rows.numbers.items():
        yield _Column(
            name=name,
            at=instants.read_numbers(values, rows.decided_at),
            missing=np.isnan(values),
            strength=partial(association.number_strength, values, fitted=fitted),
        )
    for name, category in rows.categories.items():
        yield _Column(
            name=name,
            at=instants.read_category(category),
            missing=category.codes < 0,
            strength=partial(association.category_strength, category, fitted=fitted),
        )


def _find_travel(
    column: str, check: Check, at: Instants, decisions: Screened | KnownAt, is_later: Mask
) -> Iterator[Leak]:
    """Refuse a column any of whose instants lies after its decision; NaT compares false."""
    if is_later.any():
        n_later, row = int(is_later.sum()), int(is_later.argmax())
        verb = "became known" if check == "known_at" else "holds an instant"
        example = f"{decisions.decision_id[row]}, decided at {decisions.decided_at[row]}: {at[row]}"
        reason = f"{verb} after the decision in {n_later:,} of {len(at):,} rows, such as {example}"
        yield Leak(column=column, check=check, reason=reason, figures={"n_later": float(n_later)})


def _find_copies(column: _Column, labels: Iterable[Label], limits: ScreenLimits) -> Iterator[Leak]:
    """Refuse a column that alone tells a label too well, by its values or by being there."""
    for label in labels:
        limit = limits.max_auc if label.binary else limits.max_correlation
        measure = "AUC" if label.binary else "correlation"
        ways: tuple[tuple[Check, str, float | None], ...] = (
            (label.name, "alone", column.strength(label)),
            ("missingness", "by being there or not", association.missing_strength(column.missing, label)),
        )
        for check, by, strength in ways:
            if strength is not None and strength >= limit:
                reason = f"tells {label.name} {by}: {measure} {strength:.4f}, at most {limit:g} is to be believed"
                yield Leak(column=column.name, check=check, reason=reason, figures={measure: strength})


def _find_absence(column: _Column, success: Label, limits: ScreenLimits) -> Iterator[Leak]:
    """Refuse a column that is there (or is not) almost only where the rarer outcome is."""
    known = ~np.isnan(success.values)
    if not success.enough(known):
        return
    rarer = 1.0 if success.values[known].mean() < 0.5 else 0.0  # noqa: PLR2004  # of two classes, the smaller half
    name = "success" if rarer else "failure"
    for state, rows in (("missing", column.missing & known), ("there", ~column.missing & known)):
        others = known & ~rows
        if rows.sum() < limits.min_pure_rows or not others.any():
            continue
        share = float((success.values[rows] == rarer).mean())
        elsewhere = float((success.values[others] == rarer).mean())
        if share >= limits.pure_share and elsewhere <= limits.max_elsewhere_share:
            reason = f"where it is {state}, {share:.1%} of {rows.sum():,} are a {name}, elsewhere {elsewhere:.1%}"
            figures = {"share": share, "elsewhere_share": elsewhere}
            yield Leak(column=column.name, check="missingness", reason=reason, figures=figures)
