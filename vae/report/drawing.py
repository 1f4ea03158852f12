"""What the plots of a report share: colours, sizes, and how names are written in them."""

import math
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vae.report.runs import Run

MAX_CURVES = 12  # runs in one chart; of more, the first ones are drawn and the chart says so
COLOURS = mpl.colormaps["tab10"].colors  # type: ignore[attr-defined]
VERDICT_COLOURS = {
    "alive": "#2e7d32",
    "partly_collapsed": "#ef8f00",
    "alive_on_paper": "#00838f",
    "collapsed": "#c62828",
    "deterministic": "#1565c0",
    "decoder_ignores_code": "#6a1b9a",
    "unfinished": "#6d6d6d",
}


def spread(runs: Sequence[Run], maximum: int) -> list[Run]:
    """At most so many runs, one of each group before a second of any; in their order."""
    seen: dict[str, int] = {}
    ranks = []
    for run in runs:
        seen[run.group] = seen.get(run.group, 0) + 1
        ranks.append(seen[run.group])
    chosen = sorted(range(len(runs)), key=lambda i: (ranks[i], i))[:maximum]
    return [runs[i] for i in sorted(chosen)]


def say_left_out(figure: Figure, shown: int, able: int) -> None:
    if shown < able:
        figure.suptitle(f"{shown} of {able} runs, each kind first", fontsize=9)


def single(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def finite(*values: float) -> bool:
    return all(math.isfinite(value) for value in values)


def short(name: str) -> str:
    """A name as it may stand in a plot: no mathematics in it (a dollar sign would begin some), not too long."""
    name = name.replace("$", r"\$")
    return name if len(name) <= 34 else name[:31] + "..."
