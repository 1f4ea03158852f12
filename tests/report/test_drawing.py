"""Axes that a reader can read numbers from."""

import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from vae.report import drawing
from vae.report.drawing import Chart, Panel, logarithmic


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


def lines(top: float, name: str) -> Panel:
    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, top], gid=f"mark-{name}")
        axes.set(xlabel="step", ylim=(0, top))

    return Panel(name, draw, (3.2, 2.4))


@pytest.mark.parametrize("top", [1.314, 0.126, 1, 1e-6, 123456])
def test_plots_have_all_of_their_numbers(top: float) -> None:
    """White all around: a number that reached over the edge would be cut. In matplotlib's own
    margins 1.314 and 0.126 would have room for other numbers, which are less wide."""
    with drawing.style():
        pixels = np.asarray(drawing.drawn(lines(top, "one")).pixels)
    inked = pixels[..., 3] > 0
    assert inked.mean() > 0.005
    assert not inked[:3].any()
    assert not inked[-3:].any()
    assert not inked[:, :3].any()
    assert not inked[:, -3:].any()


def test_plots_on_one_sheet_stand_where_each_was_drawn() -> None:
    panels = [lines(top, name) for top, name in ((1, "one"), (2, "two"), (3, "three"))]
    with drawing.style():
        drawings = [drawing.drawn(panel) for panel in panels]
        png, svg = drawing.on_disk(Chart("some", "Some", "", panels, columns=2), drawings, [])
    with Image.open(io.BytesIO(png)) as image:
        assert image.size == (2 * 416, 2 * 312)
        sheet = np.asarray(image.convert("L")).reshape(2, 312, 2, 416).swapaxes(1, 2).reshape(4, 312, 416)
    for place, one in zip(sheet, drawings, strict=False):
        alone = Image.new("RGBA", one.pixels.size, "white")
        alone.alpha_composite(one.pixels)
        assert np.array_equal(place, np.asarray(alone.convert("L")))
    assert (sheet[3] == 255).all()
    tree = ElementTree.fromstring(svg)
    assert tree.get("viewBox") == "0 0 460.8 345.6"
    moved = [group.get("transform") for group in tree.findall("{*}g")]
    assert moved == ["translate(0 0)", "translate(230.4 0)", "translate(0 172.8)"]
    assert re.findall(r'id="mark-(\w+)"', svg.decode()) == ["one", "two", "three"]
