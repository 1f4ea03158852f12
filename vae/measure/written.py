"""How a measured number is written in a sentence."""

import math


def number(value: float) -> str:
    """Three digits, or as many as it takes to tell a small number from 0."""
    if not math.isfinite(value):
        return str(value)
    if abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{value:.3g}" if abs(value) >= 0.0005 else f"{value:.1g}" if value else "0"


def uncertainty(error: float) -> str:
    """A standard error or a standard deviation: two digits, written out."""
    return f"{error:.0f}" if 10 <= error < math.inf else f"{error:.2g}"


def with_error(value: float, error: float) -> str:
    """A number and its standard error or deviation."""
    return f"{number(value)} ± {uncertainty(error)}"
