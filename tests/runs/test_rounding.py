"""Numbers for people: two digits of the error, and values to match."""

import math

import pytest

from pyro_vae.bounds import estimates
from pyro_vae.runs.reporting import rounding

SPACE = rounding.SPACE


@pytest.mark.parametrize(
    ("number", "error", "expected"),
    [
        (-25.318, 0.2277, f"{rounding.MINUS}25.32 ± 0.23"),
        (24093.2, 1220.0, "24,100 ± 1,200"),
        (0.2891, 0.00716, "0.2891 ± 0.0072"),
        (1.0, 0.0996, "1.00 ± 0.10"),  # rounding adds a digit
        (99.96, 9.96, "100 ± 10"),
        (-0.001, 0.2, "0.00 ± 0.20"),  # no minus zero
        (5.0, None, "5.00"),
        (5.0, math.nan, "5.00"),
        (5.0, 0.0, "5.00"),
        (12345.6, None, "12,346"),
        (None, 0.1, "unknown"),
        (math.inf, None, "unknown"),
        (1.5, 1e-9, f"1.500000{SPACE}±{SPACE}< 0.000001"),
    ],
)
def test_numbers_with_errors(number: float | None, error: float | None, expected: str) -> None:
    assert rounding.with_error(number, error) == expected.replace(" ± ", f"{SPACE}±{SPACE}")


@pytest.mark.parametrize("number", [-25.318, 24093.2, 0.2891, 0.996, -0.0001, 99.96, 3.639, 0.0])
@pytest.mark.parametrize("error", [0.0, 0.00043, 0.0996, 0.15178, 9.96, 1220.0])
def test_the_screen_and_the_page_have_one_rule(number: float, error: float) -> None:
    page = rounding.with_error(number, error).replace(rounding.MINUS, "-").replace(SPACE, " ")
    assert estimates.with_error(number, error) == page


def test_errors() -> None:
    assert [rounding.error(each) for each in (0.2277, 7e-5, 0, 1e-9, None, math.nan)] == [
        "0.23",
        "0.000070",
        "0",
        "< 0.000001",
        "unknown",
        "unknown",
    ]


def test_intervals_and_shares() -> None:
    ends = rounding.interval([-25.7678, -24.8691], 0.2277)
    assert ends.replace(rounding.MINUS, "-") == "-25.77 to -24.87"
    assert rounding.interval([None, 1.0], 0.1) == rounding.interval(None, 0.1) == "unknown"
    # Both ends have as many decimals, also without an error.
    assert rounding.interval([3.6392, 13.107], None) == "3.6 to 13.1"
    assert rounding.interval([3.6392, 13.107], 0.25) == "3.64 to 13.11"
    assert rounding.not_negative(-0.008) == 0 and rounding.not_negative(0.3) == 0.3
    assert rounding.percent(0.508) == f"51{SPACE}%"
    assert rounding.p_value(2.1e-321) == "< 0.0001" and rounding.p_value(0.0512) == "0.051"
    assert rounding.count(1, "row") == "1 row" and rounding.count(1000, "row") == "1,000 rows"
