"""Columns that know what came after the decision are refused by name; T05 of the fault matrix."""

from dataclasses import replace

import numpy as np
import pytest

from features import instants, sources
from features.decision_log import DecisionLog
from features.definitions import FeatureDefinitions
from features.known_at import KnownAt
from features.vector import CategoryColumn
from validation import leakage
from validation.leakage import Screened, ScreenLimits

N = 3_000
DECIDED = np.datetime64("2026-01-01", "us") + np.arange(N) * np.timedelta64(1, "m")
EPOCH = DECIDED.astype(np.int64) / 1e6


def world(seed: int = 0, **numbers: np.ndarray) -> Screened:
    """An honest world: the amount tells a good part of the success, the country a little."""
    rng = np.random.default_rng(seed)
    amount, country = rng.uniform(size=N), rng.integers(0, 3, N)
    success = (rng.uniform(size=N) < 0.9 - 0.7 * amount + 0.05 * country).astype(np.float64)
    return Screened(
        decision_id=np.array([f"d{i}" for i in range(N)], np.object_),
        decided_at=DECIDED,
        numbers={"amount": amount, **numbers},
        categories={"country": CategoryColumn(country, ("NO", "SE", "DK"))},
        success=success,
        latency_ms=rng.lognormal(5, 1, N),
        cluster=np.arange(N),
    )


def with_category(given: Screened, name: str, texts: list[str | None]) -> Screened:
    values = tuple(sorted({text for text in texts if text is not None}))
    codes = np.array([-1 if text is None else values.index(text) for text in texts])
    return replace(given, categories={**given.categories, name: CategoryColumn(codes, values)})


@pytest.mark.parametrize("seed", range(10))
def test_an_honest_world_passes(seed: int) -> None:
    assert leakage.judge(world(seed)).state == "passed"


def test_t05_a_planted_copy_of_the_outcome_is_refused_by_name() -> None:
    honest = world()
    flipped = np.where(np.random.default_rng(1).uniform(size=N) < 0.005, 1 - honest.success, honest.success)
    verdict = leakage.judge(replace(honest, numbers={**honest.numbers, "paid": flipped}))
    assert (verdict.state, verdict.columns) == ("refused", ("paid",))
    assert verdict.reasons[0].startswith("paid: tells success alone: AUC 0.99")
    slow = leakage.judge(replace(honest, numbers={**honest.numbers, "took": np.sqrt(honest.latency_ms)}))
    assert [(leak.column, leak.check) for leak in slow.leaks] == [("took", "latency_ms")]


def test_t05_a_copy_as_a_category_is_refused() -> None:
    honest = world()
    verdict = leakage.judge(with_category(honest, "state", ["ok" if s else "broken" for s in honest.success]))
    assert verdict.columns == ("state",)


def test_t05_a_column_that_is_filled_only_after_a_failure_is_refused() -> None:
    honest, rng = world(), np.random.default_rng(2)
    always = leakage.judge(
        with_category(honest, "error", [None if s else str(rng.integers(9)) for s in honest.success])
    )
    assert {leak.check for leak in always.leaks} >= {"missingness"}
    sometimes = [str(rng.integers(9)) if not s and rng.uniform() < 0.3 else None for s in honest.success]
    verdict = leakage.judge(with_category(honest, "error", sometimes))
    assert [(leak.column, leak.check) for leak in verdict.leaks] == [("error", "missingness")]
    assert "where it is there, 100.0%" in verdict.reasons[0]


def test_t05_a_column_declared_to_be_known_later_is_refused_however_it_is_derived() -> None:
    features = FeatureDefinitions(
        numbers={"amount": "event.amount", "log_refund": "log1p(abs(event.refund)) + event.amount"},
        categories={"country": "event.country", "code": "event.code"},
    )
    reading = sources.columns_reading(features, ("event.refund", "event.code"))
    assert reading == {"log_refund": "event.refund", "code": "event.code"}
    verdict = leakage.judge(world(), known_later=reading, allowed=reading)
    assert verdict.columns == ("log_refund", "code")


def test_t05_a_value_known_after_its_decision_is_refused_with_count_and_example() -> None:
    later = DECIDED - np.timedelta64(1, "h")
    later[[7, 9]] = DECIDED[[7, 9]] + np.timedelta64(1, "us")
    never = np.full(N, np.datetime64("NaT"), "datetime64[us]")
    told = KnownAt(
        decision_id=world().decision_id,
        decided_at=DECIDED,
        columns={"amount": later, "country": DECIDED, "silent": never},
    )
    verdict = leakage.judge(world(), known_at=told, allowed=("amount",))  # being allowed excuses no time travel
    assert verdict.columns == ("amount",)
    assert (
        "in 2 of 3,000 rows, such as d7, decided at 2026-01-01T00:07:00.000000: 2026-01-01T00:07" in verdict.reasons[0]
    )


@pytest.mark.parametrize("per_unit", [1.0, 1e3, 1e6, 1e9])
def test_a_column_of_later_instants_is_refused_in_whichever_unit_it_counts(per_unit: float) -> None:
    later, earlier = (EPOCH + 3_600) * per_unit, (EPOCH - 3_600) * per_unit
    assert leakage.judge(world(closed_at=later)).columns == ("closed_at",)
    assert leakage.judge(world(opened_at=earlier)).state == "passed"
    assert leakage.judge(world(promised_at=later), allowed=("promised_at",)).state == "passed"


def test_instants_as_text_are_read_with_their_zone() -> None:
    texts = [str(at)[:19] + "+02:00" for at in DECIDED]  # two hours earlier than they look
    assert leakage.judge(with_category(world(), "seen_at", texts)).state == "passed"
    assert leakage.judge(with_category(world(), "due_at", [str(at)[:19] + "-02:00" for at in DECIDED])).columns == (
        "due_at",
    )


def test_numbers_and_texts_that_are_no_instants_are_none() -> None:
    assert np.isnat(instants.read_numbers(np.array([1.0, np.nan, 2e9]), DECIDED[:3])).all()
    assert np.isnat(instants.read_category(CategoryColumn(np.array([0, 1]), ("2026-01-01", "NO")))).all()
    assert np.isnat(instants.read_category(CategoryColumn(np.array([0]), ("20260101",)))).all()


def test_what_reads_only_configuration_and_clock_cannot_know() -> None:
    features = FeatureDefinitions(
        numbers={"fee": "destination.fee", "hour": "time.hour", "cost": "destination.fee * event.amount"},
        categories={"destination": "destination.name", "country": "event.country"},
    )
    assert sources.innocent_columns(features) == {"fee", "hour", "destination"}
    assert sources.clock_columns(features) == {"hour"}


def test_a_large_log_is_screened_on_a_sample_the_same_each_time() -> None:
    honest = world()
    planted = replace(honest, numbers={**honest.numbers, "paid": honest.success})
    limits = ScreenLimits(max_rows=1_000)
    assert leakage.judge(planted, limits=limits) == leakage.judge(planted, limits=limits)
    assert leakage.judge(planted, limits=limits).columns == ("paid",)


def test_a_screen_of_a_log_copies_no_more_of_it_than_it_looks_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each decision has two candidates, of which the second was assigned."""
    honest, n = world(), np.arange(N)
    unknown = np.full(N, np.nan)
    log = DecisionLog(
        decision_id=honest.decision_id,
        decided_at=honest.decided_at,
        cluster=honest.cluster,
        offsets=2 * np.arange(N + 1),
        chosen=2 * n + 1,
        propensity=np.ones(N),
        reward=unknown,
        success=honest.success,
        latency_ms=honest.latency_ms,
        cost_usd=unknown,
        numbers=np.column_stack([unknown, honest.numbers["amount"]]).reshape(2 * N, 1),
        categories=[],
        destination=CategoryColumn(np.tile([0, 1], N), ("card", "bank")),
        policies={},
        timed_out=np.zeros(N, np.bool_),
    )
    amount = FeatureDefinitions(numbers={"amount": "event.amount"}, categories={})
    expected = replace(honest, categories={})
    np.testing.assert_array_equal(Screened.of(log, amount).numbers["amount"], expected.numbers["amount"])
    limits = ScreenLimits(max_rows=1_000)
    monkeypatch.setattr(leakage, "DEFAULT_LIMITS", limits)
    some = Screened.of(log, amount)
    assert len(some.decided_at) == len(some.numbers["amount"]) == 1_000
    planted = replace(log, success=(log.numbers[log.chosen, 0] > 0.5).astype(np.float64))
    whole = replace(expected, success=planted.success)
    verdict = leakage.judge(Screened.of(planted, amount), limits=limits)
    assert verdict == leakage.judge(whole, limits=limits)
    assert verdict.columns == ("amount",)
