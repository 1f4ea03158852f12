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
from PIL import Image

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
        "axes.titley": 1,  # where it is anyway, but not worked out at each drawing
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


@dataclass
class Drawing:
    """A panel, drawn once for both its uses."""

    size: tuple[float, float]  # inches
    svg: str  # what stands inside of <svg>, with its upper left corner at (0, 0); 72 to an inch
    pixels: Image.Image  # RGBA


def drawn(panel: Panel) -> Drawing:
    figure = Figure(figsize=panel.size)
    axes = figure.subplots()
    axes.patch.set_alpha(0)
    panel.draw(axes)
    axes.set_title(panel.title)
    fit(figure)
    return rendered(figure)


def fit(figure: Figure) -> None:
    """Margins for what stands beside the axes, and no less than is usual, so that panels beside one another are in
    line. Where the axes then have room for more ticks or fewer, with other numbers, once more: each time costs as much
    as a drawing."""
    FigureCanvasAgg(figure)  # by which text is measured
    width, height = figure.get_size_inches()
    usual = {"left": 0.43 / width, "bottom": 0.45 / height, "right": 1 - 0.05 / width, "top": 1 - 0.24 / height}
    figure.subplots_adjust(**usual)
    for _ in range(3):
        room = _ticks(figure)
        figure.tight_layout(pad=0.4)
        found = figure.subplotpars
        figure.subplots_adjust(
            left=max(found.left, usual["left"]),
            bottom=max(found.bottom, usual["bottom"]),
            right=min(found.right, usual["right"]),
            top=min(found.top, usual["top"]),
        )
        if room == _ticks(figure):
            break


def _ticks(figure: Figure) -> list[int]:
    """How many numbers each axis has room for."""
    return [axis.get_tick_space() for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]


def on_page(drawing: Drawing) -> str:
    """As SVG for the page: in its colours, with `data-mark` on what belongs to a group."""
    width, height = (round(72 * side) for side in drawing.size)
    text = drawing.svg.replace("xlink:href", "href").replace(INK, "currentColor").replace(GRID, "var(--line)")
    text = re.sub(r'id="(mark-[\d-]+)"', r'data-mark="\1"', text)
    text = re.sub(r'\b(?:d|x|y)="[^"]*"', _rounded, text)
    return f'<svg viewBox="0 0 {width} {height}" role="img">{text}</svg>'


def _rounded(attribute: re.Match[str]) -> str:
    """A hundredth of a point is enough for a place."""
    return re.sub(r"(\.\d\d)\d+", r"\1", attribute[0])


def on_disk(chart: Chart, drawings: Sequence[Drawing], groups: Sequence[Group]) -> tuple[bytes, bytes]:
    """The panels of a chart, drawn in `drawings`, on one sheet, as PNG and as SVG; below them whose colours they
    have."""
    columns = chart.columns or min(len(drawings), 3 if len(drawings) % 4 else 4)
    wide, high = (max(drawing.size[side] for drawing in drawings) for side in (0, 1))
    rows = math.ceil(len(drawings) / columns)
    places = [(wide * (i % columns), high * (i // columns), drawing) for i, drawing in enumerate(drawings)]
    width, height = wide * columns, high * rows
    if 1 < len(chart.legend) <= len(COLOURS):
        legend = _legend(chart.legend, groups, width)
        places.append((0, height, legend))
        height += legend.size[1]
    dpi = mpl.rcParams["savefig.dpi"]
    sheet = Image.new("RGBA", (round(dpi * width), round(dpi * height)), "white")
    parts = []
    for x, y, drawing in places:
        sheet.alpha_composite(drawing.pixels, (round(dpi * x), round(dpi * y)))
        parts.append(f'<g transform="translate({72 * x:g} {72 * y:g})">{drawing.svg}</g>')
    width, height = 72 * width, 72 * height
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{width:g}pt" height="{height:g}pt" viewBox="0 0 {width:g} {height:g}">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>\n'
    )
    return png(sheet), svg.encode()


def _legend(shown: Sequence[Group], groups: Sequence[Group], width: float) -> Drawing:
    figure = Figure(figsize=(width, 0.25 * math.ceil(len(shown) / 4) + 0.05))
    handles = [
        mpl.lines.Line2D([], [], color=colour(group, groups), marker="o", ms=4, label=short(group.name))
        for group in shown
    ]
    figure.legend(handles=handles, loc="center", ncols=4, frameon=False)
    return rendered(figure)


def rendered(figure: Figure) -> Drawing:
    figure.patch.set_alpha(0)
    image = pixels(figure)
    buffer = io.BytesIO()
    FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    svg = buffer.getvalue().decode()
    svg = svg[svg.index(">", svg.index("<svg")) + 1 : svg.rindex("</svg>")]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    width, height = figure.get_size_inches()
    return Drawing((width, height), svg, image)


def pixels(figure: Figure) -> Image.Image:
    """RGBA. Signs that the font lacks are boxes."""
    figure.dpi = mpl.rcParams["savefig.dpi"]
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph|Matplotlib currently does not support")
        canvas.draw()
    return Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba())


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    dpi = mpl.rcParams["savefig.dpi"]
    image.convert("RGB").save(buffer, "PNG", dpi=(dpi, dpi))
    return buffer.getvalue()


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


def write_in_cell(axes: Axes, text: str, row: int, column: int) -> None:
    """On a light ground, whatever colour the cell has."""
    box = {"boxstyle": "round", "facecolor": "white", "edgecolor": "none", "alpha": 0.7}
    size = 6.5 if "\n" in text else 7
    axes.annotate(text, (column, row), ha="center", va="center", fontsize=size, bbox=box, color="black")


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
