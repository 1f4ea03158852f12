"""Numbers in sentences are read at a glance: none has an exponent that it can do without."""

import math

import pytest

from vae.measure.written import number, uncertainty, with_error


@pytest.mark.parametrize(
    ("value", "written"),
    [(0, "0"), (3e-7, "3e-07"), (0.00123, "0.00123"), (12.345, "12.3"), (-1234.5, "-1234"), (math.inf, "inf")],
)
def test_number(value: float, written: str) -> None:
    assert number(value) == written


@pytest.mark.parametrize(
    ("error", "written"), [(0.0123, "0.012"), (1.26, "1.3"), (12.6, "13"), (123.4, "123"), (math.nan, "nan")]
)
def test_uncertainty(error: float, written: str) -> None:
    assert uncertainty(error) == written


def test_with_error() -> None:
    assert with_error(4321.9, 123.4) == "4322 ± 123"
