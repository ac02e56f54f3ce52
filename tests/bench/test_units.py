"""Quantities: what is read, what is refused, what is shown."""

import pytest

from bench import units


@pytest.mark.parametrize(
    ("text", "dimension", "si"),
    [
        ("15 us", units.TIME, 15e-6),
        ("15us", units.TIME, 15e-6),
        (" 0.5 s ", units.TIME, 0.5),
        ("0 s", units.TIME, 0.0),
        ("2 min", units.TIME, 120.0),
        ("3.3 ms", units.TIME, 0.0033),
        ("1e3 ns", units.TIME, 1e-6),
        ("150 GB/s", units.RATE, 150e9),
        ("0.1 TB/s", units.RATE, 1e11),
        ("0.2 %", units.FRACTION, 0.002),
        ("0.002 ratio", units.FRACTION, 0.002),
    ],
)
def test_a_quantity_becomes_the_nearest_float_in_si(text, dimension, si):
    assert units.parse(text, dimension) == si


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("nan s", "expected a time with its unit, such as 15 us (units: ns, us, ms, s, min)"),
        ("inf s", "expected a time with its unit, such as 15 us (units: ns, us, ms, s, min)"),
        ("", "expected a time with its unit, such as 15 us (units: ns, us, ms, s, min)"),
        ("1_000 s", "expected a time with its unit, such as 15 us (units: ns, us, ms, s, min)"),
        ("15", "no unit, expected a time such as 15 us (units: ns, us, ms, s, min)"),
        ("15 usec", "unknown unit usec, expected a time such as 15 us (units: ns, us, ms, s, min)"),
        ("-1 us", "expected a time that is finite and not negative"),
        ("1e400 s", "expected a time that is finite and not negative"),
    ],
)
def test_what_is_no_time_is_refused_with_the_units_that_are(text, problem):
    with pytest.raises(ValueError, match=r"expected") as refused:
        units.parse(text, units.TIME)
    assert str(refused.value) == problem


@pytest.mark.parametrize("value", [15e-6, 0.1 + 0.2, 1 / 3, 5e-324, 1.7976931348623157e308])
def test_every_float_survives_being_written_with_its_unit(value):
    assert units.parse(f"{value!r} s", units.TIME) == value


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (units.format_seconds(15e-6), "15 us"),
        (units.format_seconds(2.2249e-3), "2.22 ms"),
        (units.format_seconds(999.96e-6), "1 ms"),
        (units.format_seconds(0.0), "0 ns"),
        (units.format_seconds(90), "90 s"),
        (units.format_seconds(570), "9.5 min"),
        (units.format_seconds(9000), "2.5 h"),
        (units.format_seconds(-2e-3), "-2 ms"),
        (units.format_bytes(0), "0 B"),
        (units.format_bytes(1023), "1,023 B"),
        (units.format_bytes(3 * 2**30), "3 GiB"),
        (units.format_bytes(17.18e9), "16 GiB"),
        (units.format_rate(150e9), "150 GB/s"),
        (units.format_rate(2.5e12), "2.5 TB/s"),
        (units.format_percent(0.002), "0.2 %"),
        (units.format_percent(0.1234, signed=True), "+12.3 %"),
        (units.format_percent(-0.1234, signed=True), "-12.3 %"),
        (units.format_count(8192), "8,192"),
    ],
)
def test_people_read_three_digits_and_a_unit(shown, text):
    assert shown == text
