from datetime import UTC, datetime, timedelta
from uuid import RFC_4122, UUID

from hypothesis import given
from hypothesis import strategies as st

from serving import identity

AT = datetime(2026, 11, 24, 12, tzinfo=UTC)
marks = st.integers(0, 2**62 - 1)


@given(at=st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1), timezones=st.just(UTC)), mark=marks)  # noqa: DTZ001
def test_an_id_is_a_uuid_of_version_7_that_gives_its_mark_back(at: datetime, mark: int) -> None:
    text = identity.decision_id(at, mark)
    parsed = UUID(text)
    assert (parsed.version, parsed.variant, str(parsed)) == (7, RFC_4122, text)
    assert parsed.int >> 80 == int(at.timestamp() * 1000)
    assert identity.mark_of(text) == mark
    assert identity.tells(text, mark)
    assert not identity.tells(text, mark ^ 1)


@given(mark=marks)
def test_ids_sort_by_time(mark: int) -> None:
    earlier = identity.decision_id(AT, 2**62 - 1)
    assert earlier < identity.decision_id(AT + timedelta(milliseconds=1), mark)


def test_fingerprints_tell_where_one_part_ends() -> None:
    assert identity.fingerprint("ab", "c") != identity.fingerprint("a", "bc")
    assert identity.fingerprint("a", "b") == identity.fingerprint("a", "b")


def test_an_id_of_other_making_has_no_mark() -> None:
    assert identity.mark_of("order-17") is None
    assert not identity.tells("order-17", 0)
    assert identity.mark_of("6ba7b810-9dad-11d1-80b4-00c04fd430c8") is None  # version 1
