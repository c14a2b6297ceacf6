"""When a champion loses its stream by itself."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from features.choices import Demotion
from validation import champion

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def faults(failed: list[float], *, age_hours: float = 1.0, **choices: float) -> tuple[str, ...]:
    fitted_until = NOW - timedelta(hours=age_hours)
    return champion.find_faults(np.array(failed), fitted_until=fitted_until, now=NOW, demotion=Demotion(**choices))


def test_by_default_nothing_demotes() -> None:
    assert faults([1.0] * 500, age_hours=1e5) == ()


def test_a_stale_champion_is_named_with_its_age() -> None:
    assert faults([], age_hours=48.0, max_age_hours=48.0) == ()
    assert faults([], age_hours=49.0, max_age_hours=48.0) == (
        "stale: what it was fitted on ended 49 hours ago, at most 48",
    )


def test_p17_a_champion_that_certainly_fails_too_often_is_named() -> None:
    (fault,) = faults([1.0, 0.0] * 200, max_failure_rate=0.2)
    assert fault == "fails too often: 50.00% of 400 decisions within 24 hours, certainly above 20.00%"
    assert faults([1.0, 0.0], max_failure_rate=0.2) == ()


@pytest.mark.parametrize("rate", [0.05, 0.2])
def test_a_champion_at_its_limit_is_rarely_demoted(rate: float) -> None:
    rng = np.random.default_rng(0)
    runs = [faults((rng.uniform(size=2_000) < rate).astype(float).tolist(), max_failure_rate=rate) for _ in range(300)]
    assert sum(map(bool, runs)) <= 3  # alpha is .001 a run
