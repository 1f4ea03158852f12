"""What the plots of a report share. A chart is a list of panels; each panel draws into axes of its own. On the page
each is an SVG by itself, so that panels stack where the page is narrow and take its colours; on the disk a chart is
one PNG and one SVG, for a slide."""

import io
import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from vae.report.groups import Group
from vae.report.runs import Run

COLOURS = ("#4e8fd1", "#e8743b", "#3aa66a", "#c45ab3", "#b8960c", "#19a7ae", "#d9485f", "#8d7be0", "#7d858f", "#7fae2d")
VERDICT_MARKERS = {
    "alive": "o",
    "partly_collapsed": "D",
    "alive_on_paper": "d",
    "collapsed": "X",
    "decoder_ignores_code": "P",
}
INK, GRID = "#010203", "#d0d4d8"  # what the page replaces with its own colours
MAX_LINES = 60  # groups in one chart; of more, some of each kind


@dataclass
class Panel:
    title: str
    draw: Callable[[Axes], None]
    size: tuple[float, float] = (4.0, 3.0)  # inches


@dataclass
class Chart:
    key: str  # its file
    title: str
    caption: str
    panels: list[Panel]
    legend: list[Group] = field(default_factory=list)  # whose colours it has
    columns: int | None = None  # of a chart whose panels belong in rows; None: as many as fit


def colour(group: Group, groups: Sequence[Group]) -> str:
    """The same in every chart; of many groups, in their order along a scale."""
    if len(groups) <= len(COLOURS):
        return COLOURS[group.index]
    scale = mpl.colormaps["turbo"]
    return mpl.colors.to_hex(scale(0.08 + 0.84 * group.index / (len(groups) - 1)))


def marker(run: Run) -> str:
    """Of its verdict."""
    return VERDICT_MARKERS.get(run.verdict or "", "o")


def mark(group: Group, run: Run | None = None) -> str:
    """The id of what is drawn for a group or a run, by which the page lights it up."""
    return f"mark-{group.index}" if run is None else f"mark-{group.index}-{group.runs.index(run)}"


def spread(groups: Sequence[Group], maximum: int, fit: Callable[[Group], object]) -> list[Group]:
    """At most so many of those that are fit, evenly over their order. Few more are asked than are taken: the answer may
    have to be read from the disk."""
    left = list(groups)
    while True:
        few = len(left) <= maximum
        chosen = left if few else [left[round(i * (len(left) - 1) / (maximum - 1))] for i in range(maximum)]
        unfit = [group.index for group in chosen if not fit(group)]
        if not unfit:
            return chosen
        left = [group for group in left if group.index not in unfit]


def finite(*values: float) -> bool:
    return all(math.isfinite(value) for value in values)


def short(name: str, maximum: int = 34) -> str:
    """A name as it may stand in a plot: no mathematics in it (a dollar sign would begin some). Of one that is too long
    the end is kept, where names differ."""
    name = name if len(name) <= maximum else "..." + name[-(maximum - 3) :]
    return name.replace("$", r"\$")


@contextmanager
def style() -> Iterator[None]:
    settings = {
        "svg.hashsalt": "vae",  # ids inside an SVG would differ from one writing to the next
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 9,
        "axes.titlesize": 9.5,
        "axes.titlelocation": "left",
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": GRID,
        "grid.linewidth": 0.6,
        "axes.formatter.useoffset": False,
        "axes.formatter.limits": (-4, 6),
        "savefig.dpi": 130,
    }
    with mpl.rc_context(settings):  # type: ignore[arg-type]
        yield


def on_page(panel: Panel) -> str:
    """The panel as SVG for the page: in its colours, with `data-mark` on what belongs to a group."""
    figure = Figure(figsize=panel.size, layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.subplots()
    axes.patch.set_alpha(0)
    panel.draw(axes)
    axes.set_title(panel.title)
    text = saved(figure, "svg").decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\sxmlns(?::\w+)?="[^"]*"', "", text)
    width, height = (round(72 * side) for side in panel.size)
    text = re.sub(r"<svg[^>]*>", f'<svg viewBox="0 0 {width} {height}" role="img">', text, count=1)
    text = text.replace("xlink:href", "href").replace(INK, "currentColor").replace(GRID, "var(--line)")
    text = re.sub(r'id="(mark-[\d-]+)"', r'data-mark="\1"', text)
    return re.sub(r'\b(?:d|x|y)="[^"]*"', _rounded, text)


def logarithmic(axes: Axes, axis: str = "y", linear_below: float | None = None) -> None:
    """A logarithmic scale with plain numbers; with `linear_below` one that reaches down to 0. Where the largest value
    is less than three times the smallest the axis stays linear: a logarithmic one would have two numbers, or none."""
    low, high = axes.dataLim.intervaly if axis == "y" else axes.dataLim.intervalx
    span = high / low if low > (linear_below or 0) else math.inf
    if linear_below is None and span < 3:
        return
    kind = "log" if linear_below is None else "symlog"
    axes.set(**{f"{axis}scale": kind})
    if linear_below is not None:
        (axes.set_yscale if axis == "y" else axes.set_xscale)(kind, linthresh=linear_below, subs=range(2, 10))
    one = axes.yaxis if axis == "y" else axes.xaxis
    one.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    told = "" if span > 20 else "25" if span > 5 else "1234568"  # first digits that have a number
    one.set_minor_formatter(
        mpl.ticker.FuncFormatter(lambda value, _: f"{value:.2g}" if f"{value:.0e}"[0] in told else "")
    )


def _rounded(attribute: re.Match[str]) -> str:
    """A hundredth of a point is enough for a place."""
    return re.sub(r"(\.\d\d)\d+", r"\1", attribute[0])


def on_disk(chart: Chart, groups: Sequence[Group]) -> tuple[bytes, bytes]:
    """All panels of a chart as one PNG and one SVG."""
    columns = chart.columns or min(len(chart.panels), 3 if len(chart.panels) % 4 else 4)
    rows = math.ceil(len(chart.panels) / columns)
    width, height = chart.panels[0].size
    below = 0.25 * math.ceil(len(chart.legend) / 4)
    figure = Figure(figsize=(width * columns, height * rows + below), layout="constrained")
    places = figure.subplots(rows, columns, squeeze=False)
    for axes, panel in zip(places.flat, chart.panels, strict=False):
        panel.draw(axes)
        axes.set_title(panel.title)
    for axes in places.flat[len(chart.panels) :]:
        axes.set_visible(False)
    if 1 < len(chart.legend) <= len(COLOURS):
        handles = [
            mpl.lines.Line2D([], [], color=colour(group, groups), marker="o", ms=4, label=short(group.name))
            for group in chart.legend
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
    png = saved(figure, "png")
    figure.set_layout_engine("none")  # it has its layout
    return png, saved(figure, "svg")


def saved(figure: Figure, kind: str) -> bytes:
    """As PNG or SVG. `Figure.savefig` would draw it twice, first for a layout that drawing makes anyway. Signs that the
    font lacks are boxes in a PNG; of an SVG the reader's own font may have them."""
    buffer = io.BytesIO()
    figure.dpi = mpl.rcParams["savefig.dpi"]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph|Matplotlib currently does not support")
        if kind == "png":
            FigureCanvasAgg(figure).print_png(buffer)
        else:
            FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    return buffer.getvalue()


def curve(axes: Axes, group: Group, groups: Sequence[Group], tag: str) -> None:
    """A line of one run; of several seeds their mean and the band from the lowest to the highest. A marker where there
    is one point only."""
    found = [run.curves[tag].dropna() for run in group.runs if tag in run.curves]
    found = [series for series in found if len(series)]
    if not found:
        return
    tint = colour(group, groups)
    if len(found) > 1:
        table = pd.concat(found, axis=1).sort_index()
        low, high = table.min(axis=1), table.max(axis=1)
        axes.fill_between(table.index, low, high, color=tint, alpha=0.2, lw=0, gid=mark(group))
        found = [table.mean(axis=1)]
    for series in found:
        thin = series.iloc[:: max(1, len(series) // 150)] if len(series) > 300 else series
        axes.plot(thin.index, thin, "o-" if len(thin) == 1 else "-", ms=4, lw=1.4, color=tint, gid=mark(group))
