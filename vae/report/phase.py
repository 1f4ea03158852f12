"""The phase diagram of a sweep over two axes: the fraction of the seeds that collapsed, and where the closed form says
that they do."""

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes

from vae.measure.verdict import DEAD
from vae.report.drawing import Chart, Panel, short, write_in_cell
from vae.report.groups import Group
from vae.report.runs import Run
from vae.runtime import naming

NOT_AXES = ("seed", "run_name", "sweep")
PARTS = ("cause", "cure")  # with these it is another question, which the matrix of cures answers
MAX_CELLS = 400


def axes_of(runs: Sequence[Run]) -> list[str]:
    """The settings by which a sweep's runs were called that are not the same for all, the seed left out."""
    swept = naming.varied(run.overrides for run in runs)
    return [key for key in swept if key not in NOT_AXES and not key.startswith("hydra")]


def diagram(groups: Sequence[Group]) -> Chart:
    """One cell for each pair of values of the two axes; nothing where a sweep has not two. A line runs between the
    cells where the linear VAE would keep a dimension at its optimum and those where it would not. Runs that are
    unfinished say nothing, and are left out."""
    chart = Chart(
        "phase",
        "Where it collapses",
        "Over the two settings that were swept: how many of the runs of each cell collapsed. A black line runs where a "
        "linear VAE would give up its code, if it does so between these values.",
        [],
    )
    runs = [run for group in groups for run in group.runs]
    done = [run for run in runs if run.is_conclusive]
    names = axes_of(runs)
    if len(names) != 2 or set(names) & set(PARTS):
        return chart
    columns, lines = (_values(done, name) for name in names)
    if min(len(columns), len(lines)) < 2 or len(columns) * len(lines) > MAX_CELLS:
        return chart
    draw = partial(_draw, done=done, names=names, columns=columns, lines=lines)
    size = 1.6 + 0.95 * len(columns), 1.4 + (0.6 if len(lines) <= 8 else 0.4) * len(lines)
    chart.panels = [Panel("fraction that collapsed", draw, size)]
    return chart


def _draw(axes: Axes, done: Sequence[Run], names: Sequence[str], columns: list[str], lines: list[str]) -> None:
    (across, up), shape = names, (len(lines), len(columns))
    count, dead, kept = np.zeros(shape), np.zeros(shape), np.full(shape, math.nan)
    for run in done:
        place = lines.index(_value(run, up)), columns.index(_value(run, across))
        count[place] += 1
        dead[place] += run.record["verdict"] in DEAD
        kept[place] = run.number("predicted_active_units")
    with np.errstate(invalid="ignore"):
        axes.imshow(dead / count, cmap="RdYlBu_r", vmin=0, vmax=1, origin="lower", aspect="auto")
    for line, column in np.argwhere(count > 0):
        write_in_cell(axes, f"{dead[line, column]:.0f} of {count[line, column]:.0f}", line, column)
    for start, end in boundary(kept):
        axes.plot([start[0], end[0]], [start[1], end[1]], color="black", lw=2.5)
    axes.set_xticks(range(len(columns)), labels=[short(value) for value in columns])
    axes.set_yticks(range(len(lines)), labels=[short(value) for value in lines])
    axes.set(xlabel=across, ylabel=up, xlim=(-0.5, len(columns) - 0.5), ylim=(-0.5, len(lines) - 0.5))
    axes.grid(False)


Point = tuple[float, float]


def boundary(kept: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> list[tuple[Point, Point]]:
    """The edges (x, y) between neighbouring cells (row, column) of which one keeps dimensions and the other none."""
    edges: list[tuple[Point, Point]] = []
    height, width = kept.shape
    for row in range(height):
        for column in range(width):
            for down, right in ((0, 1), (1, 0)):
                other = row + down, column + right
                if other[0] >= height or other[1] >= width:
                    continue
                pair = kept[row, column], kept[other]
                if not all(math.isfinite(value) for value in pair) or (pair[0] > 0) == (pair[1] > 0):
                    continue
                x, y = column + right / 2, row + down / 2
                edges.append(((x - down / 2, y - right / 2), (x + down / 2, y + right / 2)))
    return edges


def _value(run: Run, key: str) -> str:
    return dict(map(naming.split, run.overrides)).get(key, "")


def _values(runs: Sequence[Run], key: str) -> list[str]:
    """In the order of their numbers, or that of the runs."""
    found = list(dict.fromkeys(_value(run, key) for run in runs))
    try:
        return sorted(found, key=float)
    except ValueError:
        return found
