"""Axes that a reader can read numbers from."""

import pytest
from matplotlib.figure import Figure

from vae.report.drawing import logarithmic


def numbers(low: float, high: float, linear_below: float | None = None) -> list[float]:
    """What stands beside the ticks that are in view."""
    figure = Figure()
    axes = figure.subplots()
    axes.plot([0, 1], [low, high])
    logarithmic(axes, linear_below=linear_below)
    figure.draw_without_rendering()
    bottom, top = axes.get_ylim()
    ticks = [*axes.yaxis.get_major_ticks(), *axes.yaxis.get_minor_ticks()]
    said = [float(tick.label1.get_text() or "nan") for tick in ticks]
    return sorted({value for value in said if bottom <= value <= top})


@pytest.mark.parametrize(
    ("low", "high"), [(0.034, 0.09), (0.012, 0.03), (0.034, 0.036), (2, 7), (0.02, 0.2), (0.001, 10)]
)
def test_a_logarithmic_axis_has_several_numbers(low: float, high: float) -> None:
    found = numbers(low, high)
    assert 3 <= len(found) <= 9
    assert low / 2 < found[0] < found[-1] < high * 2


@pytest.mark.parametrize(("low", "high"), [(1.8, 6.7), (20, 150), (0.001, 150), (0, 0.05)])
def test_one_that_reaches_down_to_0_has_several_numbers(low: float, high: float) -> None:
    found = numbers(low, high, linear_below=0.1)
    assert 2 <= len(found) <= 9
    assert found[-1] > high / 5
