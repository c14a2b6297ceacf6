"""The parts of the fast path that stand on their own, against Python's."""

import hashlib
import json
import math
import random
import struct
import zlib
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from serving import fast_path

if not fast_path.is_compiled():
    pytest.skip("the fast path was not built", allow_module_level=True)

from serving import _fast_path  # after the look whether it is there

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
finite = st.floats(allow_nan=False, allow_infinity=False)


@given(
    value=finite
    | st.floats(1e-7, 1e16)
    | st.integers(-(2**53), 2**53).map(float)
    | st.decimals(-9, 9, places=4).map(float)
)
@example(value=0.0)
@example(value=-0.0)
@example(value=5e-324)
@example(value=1.7976931348623157e308)
@example(value=0.001)
@example(value=9007199254740993.0)
@example(value=999999999999999.9)
@example(value=1e15)
@example(value=1e-06)
def test_a_number_that_is_written_reads_back_as_the_same_double(value: float) -> None:
    text = _fast_path.digits(value)
    assert struct.pack("d", float(text)) == struct.pack("d", value)
    assert json.loads(text) == value
    assert any(sign in b".e" for sign in text)  # a float to every reader


def test_numbers_of_few_digits_are_written_with_few() -> None:
    for value in (0.05, 0.1, 0.95, 1.5, 123.456, 0.00625, 1e-05, 12345678.9):
        assert float(_fast_path.digits(value)) == value
        assert len(_fast_path.digits(value)) <= len(f"{value:.12f}")


@given(text=finite.map(repr) | st.from_regex(r"\A-?(0|[1-9][0-9]{0,18})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?\Z"))
@example(text="0.3")
@example(text="9007199254740993")
@example(text="0.5531999999999999")
@example(text="8.5000000000000000000e-1")
@example(text="18446744073709551615.5")
@example(text="9999999999999999999e-19")
def test_text_is_read_as_the_nearest_double(text: str) -> None:
    expected = float(text)
    found = _fast_path.number(text.encode())
    assert found == (expected if math.isfinite(expected) else None)


def test_numbers_of_all_sizes_read_and_write_as_pythons() -> None:
    draw = random.Random(0)  # noqa: S311 - a test
    for _ in range(20_000):
        (value,) = struct.unpack("d", struct.pack("Q", draw.getrandbits(64)))
        near = draw.uniform(-1, 1) * 10.0 ** draw.randint(-8, 17)
        for each in (value, near):
            if math.isfinite(each):
                assert float(_fast_path.digits(each)) == each
                assert _fast_path.number(repr(each).encode()) == each


@pytest.mark.parametrize(
    "text", ["", "-", "01", "1.", ".5", "1e", "1e+", "+1", "0x1", "1_0", "NaN", "Infinity", "1e400", "-1e400", "1 "]
)
def test_what_is_no_number_of_json_is_none(text: str) -> None:
    assert _fast_path.number(text.encode()) is None


@given(
    instant=st.datetimes(timezones=st.just(UTC)), timespec=st.sampled_from(["seconds", "milliseconds", "microseconds"])
)
@example(instant=datetime(2000, 2, 29, 23, 59, 59, tzinfo=UTC), timespec="seconds")
@example(instant=datetime(1900, 3, 1, tzinfo=UTC), timespec="seconds")
@example(instant=datetime(1, 1, 1, tzinfo=UTC), timespec="seconds")
def test_an_instant_is_read_to_the_microsecond(instant: datetime, timespec: str) -> None:
    text = instant.replace(tzinfo=None).isoformat(timespec=timespec) + "Z"
    known = datetime.fromisoformat(text)
    assert _fast_path.instant(text.encode()) == (known - EPOCH) // timedelta(microseconds=1)


@pytest.mark.parametrize(
    "text",
    [
        "2023-02-29T00:00:00Z",
        "1900-02-29T00:00:00Z",
        "2024-13-01T00:00:00Z",
        "2024-00-01T00:00:00Z",
        "2024-04-31T00:00:00Z",
        "2024-01-01T24:00:00Z",
        "2024-01-01T00:60:00Z",
        "2024-01-01T00:00:60Z",
        "0000-01-01T00:00:00Z",
        "2024-01-01T00:00:00",
        "2024-01-01T00:00:00+00:00",
        "2024-01-01T00:00:00.Z",
        "2024-01-01T00:00:00.1234567Z",
        "2024-01-01 00:00:00Z",
        "2024-01-01T00:00:0-Z",
        "",
    ],
)
def test_another_instant_is_left_to_others(text: str) -> None:
    assert _fast_path.instant(text.encode()) is None


@given(content=st.binary(max_size=600), person=st.binary(min_size=16, max_size=16))
@example(content=b"", person=b"turnout-decision")
@example(content=b"x" * 128, person=bytes(16))
@example(content=b"x" * 129, person=bytes(16))
@example(content=b"x" * 256, person=bytes(16))
def test_the_hash_is_that_of_hashlib(content: bytes, person: bytes) -> None:
    expected = hashlib.blake2b(content, digest_size=8, person=person).digest()
    assert _fast_path.blake2b(content, person) == int.from_bytes(expected, "big")


@given(content=st.binary(max_size=300), times=st.integers(1, 20))
@example(content=b"x" * 256, times=3)
@example(content=b"x" * 255, times=6)
def test_the_checksum_is_that_of_zlib(content: bytes, times: int) -> None:
    assert _fast_path.crc32(content * times) == zlib.crc32(content * times)


@given(st.datetimes(timezones=st.just(UTC)))
def test_an_instant_is_written_as_records_have_it(at: datetime) -> None:
    text = _fast_path.moment((at - EPOCH) // timedelta(microseconds=1))
    assert text == msgspec.json.encode(at)


def test_every_day_of_four_centuries_is_written_as_the_calendar_has_it() -> None:
    for day in range(-200_000, 200_000, 7):
        at = EPOCH + timedelta(days=day)
        assert _fast_path.moment(day * 86_400_000_000) == msgspec.json.encode(at)
