from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tap_vero_segment import times
from tests.support.fuzz import fuzz

MOMENT = 1_795_425_840_000_000  # 2026-11-23T09:24:00Z

instants = st.integers(times.EARLIEST, times.LATEST)
offsets = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@pytest.mark.parametrize(
    ("micros", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (-1, "1969-12-31T23:59:59.999999Z"),
        (MOMENT, "2026-11-23T09:24:00.000000Z"),
        (MOMENT + 1, "2026-11-23T09:24:00.000001Z"),
        (-62_135_596_800_000_000, "0001-01-01T00:00:00.000000Z"),
        (253_402_300_799_999_999, "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_microseconds_and_text_say_the_same(micros, text):
    assert times.to_text(micros) == text
    assert times.from_text(text) == micros


@pytest.mark.parametrize("micros", [times.EARLIEST - 1, times.LATEST + 1, 10**30, -(10**30)])
def test_a_year_of_other_than_four_digits_has_no_text(micros):
    with pytest.raises(OverflowError):
        times.to_text(micros)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("2026-11-23", "2026-11-23T00:00:00.000000Z"),
        ("2026-11-23T09:24", "2026-11-23T09:24:00.000000Z"),
        ("2026-11-23 09:24:00", "2026-11-23T09:24:00.000000Z"),
        ("2026-11-23T09:24:00Z", "2026-11-23T09:24:00.000000Z"),
        ("2026-11-23T09:24:00.5Z", "2026-11-23T09:24:00.500000Z"),
        ("2026-11-23T09:24:00.123Z", "2026-11-23T09:24:00.123000Z"),
        ("2026-11-23T09:24:00.123456789Z", "2026-11-23T09:24:00.123456Z"),
        ("2026-11-23T09:24:00+01:00", "2026-11-23T08:24:00.000000Z"),
        ("2026-11-23T09:24:00-0330", "2026-11-23T12:54:00.000000Z"),
        ("2026-11-23T23:59:59.999999-14:00", "2026-11-24T13:59:59.999999Z"),
        ("2026-11-23T09:24:00.123z", "2026-11-23T09:24:00.123000Z"),
        ("2026-11-23t09:24:00z", "2026-11-23T09:24:00.000000Z"),
        ("2026-11-23t09:24:00.5+01:00", "2026-11-23T08:24:00.500000Z"),
        ("20261123T092400Z", "2026-11-23T09:24:00.000000Z"),
        ("2024-02-29", "2024-02-29T00:00:00.000000Z"),
    ],
)
def test_any_iso_8601_date_or_time_becomes_utc_of_one_width(text, canonical):
    assert times.canonical(text) == canonical


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "now",
        "today",
        "yesterday",
        "09:24",
        "T09:24",
        "P1D",
        "P1D/P1D",
        "2026-11-23/P1D",
        "2026-11-23/2026-11-24",
        "2026-02-29",
        "2026-13-01",
        "2026-11-23T25:00:00Z",
        "2026-11-23T09:24:00.000000X",
        "2026-99-23T09:24:00.000000Z",
        "0000-01-01",
        "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01",
        "12026-11-23",
        "-2026-11-23",
        "٢٠٢٦",
        "\ud83d",
        "2026-11-23\0",
    ],
)
def test_what_is_no_point_in_time_is_refused(text):
    with pytest.raises(ValueError, match="is not a date or time"):
        times.from_text(text)


def test_a_refusal_repeats_no_more_than_the_beginning_of_a_long_text():
    with pytest.raises(ValueError, match="is not a date or time") as refusal:
        times.from_text("x" * 10_000)
    assert len(str(refusal.value)) < 200


def test_now_is_in_microseconds():
    assert abs(times.now() - time.time() * 1_000_000) < 3_600_000_000


@fuzz
@given(instants)
def test_text_keeps_every_microsecond(micros):
    text = times.to_text(micros)
    assert len(text) == 27
    assert datetime.fromisoformat(text) == times.EPOCH + timedelta(microseconds=micros)
    assert times.from_text(text) == micros


@fuzz
@given(instants, instants)
def test_text_sorts_as_time_does(one, other):
    assert (times.to_text(one) < times.to_text(other)) == (one < other)


@fuzz
@given(instants)
def test_canonical_text_stays_as_it_is(micros):
    text = times.to_text(micros)
    assert times.canonical(text) == text


@fuzz
@given(
    st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=offsets),  # noqa: DTZ001
    st.sampled_from(["T", " "]),
    st.sampled_from(["auto", "milliseconds", "microseconds"]),
)
def test_an_offset_is_taken_into_account(moment, separator, precision):
    written = moment.isoformat(separator, precision)
    said = datetime.fromisoformat(written).astimezone(UTC)
    expected = f"{said.replace(tzinfo=None).isoformat(timespec='microseconds')}Z"
    assert times.canonical(written) == expected


@fuzz
@given(
    st.one_of(
        st.text(st.characters(), max_size=30),
        st.text("0123456789-:TWPZYMDHS/+., ", max_size=30),
        st.from_regex(r"\d{4}-?\d\d-?\d\d[T ]\d\d:?\d\d(:?\d\d([.,]\d{1,9})?)?(Z|[+-]\d\d:?\d\d)?"),
    )
)
def test_any_text_is_a_point_in_time_or_refused(text):
    try:
        canonical = times.canonical(text)
    except ValueError:
        return
    assert len(canonical) == 27
    assert times.canonical(canonical) == canonical
