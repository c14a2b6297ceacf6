"""The load shift: what 100 % would send where, and whether that fits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from validation.load_shift import shift_load

NAMES = ("bank", "card", "cash")
# Five decisions between bank and card: today all but one go by card, the challenger sends four to the bank.
DESTINATION = np.array([0, 1] * 5)
TODAY = np.array([1.0, 0.0] + [0.0, 1.0] * 4)
FULL = np.array([1.0, 0.0] * 4 + [0.0, 1.0])


def test_the_ratio_is_of_todays_load_and_so_is_the_capacity() -> None:
    bank, card = shift_load(
        TODAY, FULL, DESTINATION, NAMES, n_decisions=5, events_per_hour=100.0, capacities={"bank": 32.0, "card": 500.0}
    )
    assert (bank.destination, bank.today_share, bank.full_share) == ("bank", 0.2, 0.8)
    assert (bank.ratio, bank.capacity_ratio, bank.verdict) == (pytest.approx(4.0), pytest.approx(1.6), "beyond")
    assert (card.ratio, card.capacity_ratio, card.verdict) == (pytest.approx(0.25), pytest.approx(6.25), "within")
    assert (
        str(bank) == "at 100 % destination bank gets 4.0 times today's load (20.0% to 80.0%); its capacity is 1.6 times"
    )


@pytest.mark.parametrize("known", [{"events_per_hour": 100.0}, {"capacities": {"bank": 1.0}}])
def test_without_traffic_or_capacity_nobody_says_that_it_fits(known: dict[str, object]) -> None:
    bank, _ = shift_load(TODAY, FULL, DESTINATION, NAMES, n_decisions=5, **known)  # type: ignore[arg-type]  # one of two
    assert (bank.capacity_ratio, bank.verdict) == (None, "unknown")
    assert str(bank).endswith("its capacity is not known")


@pytest.mark.parametrize(("capacity", "verdict"), [(79.0, "beyond"), (81.0, "within")])
def test_what_fits_is_told_from_what_just_does_not(capacity: float, verdict: str) -> None:
    bank, _ = shift_load(
        TODAY, FULL, DESTINATION, NAMES, n_decisions=5, events_per_hour=100.0, capacities={"bank": capacity}
    )
    assert bank.verdict == verdict


def test_a_destination_without_load_today_comes_first_and_has_no_ratio() -> None:
    none = np.array([0.0, 1.0] * 5)
    bank, _ = shift_load(
        none, FULL, DESTINATION, NAMES, n_decisions=5, events_per_hour=10.0, capacities={"bank": 4.0, "card": 99.0}
    )
    assert (bank.destination, bank.ratio, bank.capacity_ratio, bank.verdict) == ("bank", None, None, "beyond")
    assert "a load that it does not have today (0.0% to 80.0%); that is beyond its capacity" in str(bank)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30))
def test_what_one_destination_gains_others_lose(shares: list[tuple[float, float]]) -> None:
    n = len(shares)
    policies = [np.array([[share, 1.0 - share] for share in column]).ravel() for column in zip(*shares, strict=True)]
    shifts = shift_load(*policies, np.array([0, 1] * n), NAMES, n_decisions=n)
    assert sum(shift.today_share for shift in shifts) == pytest.approx(1.0)
    assert sum(shift.full_share for shift in shifts) == pytest.approx(1.0)


def test_the_same_policy_shifts_nothing() -> None:
    assert [shift.ratio for shift in shift_load(TODAY, TODAY, DESTINATION, NAMES, n_decisions=5)] == [1.0, 1.0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n_decisions": 4}, "champion must sum to the 4 decisions"),
        ({"destination": np.array([0, 3] * 5)}, "one of the 3 destinations"),
        ({"destination": np.array([0, -1] * 5)}, "one of the 3 destinations"),
        ({"capacities": {"bank": 0.0}}, "capacity of bank must be positive"),
        ({"capacities": {"bank": float("nan")}}, "capacity of bank must be positive"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(changes: dict[str, object], words: str) -> None:
    arguments = {"destination": DESTINATION, "names": NAMES, "n_decisions": 5, **changes}
    with pytest.raises(ValueError, match=words):
        shift_load(TODAY, FULL, **arguments)  # type: ignore[arg-type]  # changed on purpose
