"""Which cure helped which cause: the matrix of sweep=cures, causes by cures, over seeds. A run says what it was for by
`cause` in its configuration; where a sweep varies other settings too, each of them is a cause of its own, and where it
varies those of a cure, each of these is a cure of its own."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from vae.measure.written import number, with_error
from vae.report.drawing import Chart, Panel, write_in_cell
from vae.report.groups import NO_SETTINGS, Group
from vae.report.runs import Run
from vae.runtime import naming

ALIVE = ("alive", "partly_collapsed")  # verdicts: the code is used, and worth what it costs
PLAIN = "none"  # the cure that the others are held against
Z = 1.959964  # of a normal distribution's 97.5 %
COLUMNS = (
    "alive",
    "95 % interval",
    "on paper",
    "ELBO against none, nats",
    "IWAE bound against none, nats",
    "saved less paid, nats",
    "swap gap, nats",
    "active units",
    "mutual information, nats",
    "explained variance",
    "prior samples' coverage",
    "prior samples' KID",
    "seconds",
)


class Interval(NamedTuple):
    low: float
    high: float


def wilson(alive: int, count: int) -> Interval:
    """The 95 % interval of a fraction, by its score (Wilson 1927): right for few runs too, where all or none live."""
    fraction, shrunk = alive / count, 1 + Z**2 / count
    centre = (fraction + Z**2 / (2 * count)) / shrunk
    half = Z * math.sqrt(fraction * (1 - fraction) / count + Z**2 / (4 * count**2)) / shrunk
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


@dataclass(frozen=True)
class Cell:
    """The runs of one cure on one cause."""

    cause: str
    cure: str
    runs: list[Run]  # those that can be judged
    plain: dict[object, Run]  # those without a cure, by sweep and seed
    unfinished: int  # runs that say nothing yet
    failed: int = 0  # runs that broke off, a loss that is no number for example: they have no code that lives
    refused: str | None = None  # why there are none

    @property
    def count(self) -> int:
        """The runs of which a fraction is alive."""
        return len(self.runs) + self.failed

    @property
    def all_alive(self) -> bool:
        return self.alive == self.count and not self.unfinished

    @property
    def alive(self) -> int:
        return sum(run.record["verdict"] in ALIVE for run in self.runs)

    @property
    def on_paper(self) -> int:
        return sum(run.record["verdict"] == "alive_on_paper" for run in self.runs)

    def gains(self, key: str = "elbo") -> list[float]:
        """How far a bound on log p(x) lies above that of the run without a cure in the same sweep and with the same
        seed."""
        pairs = [(run, self.plain.get(_pair(run))) for run in self.runs]
        return [run.number(key) - plain.number(key) for run, plain in pairs if plain is not None]

    def saved_less_paid(self) -> list[float]:
        """Nats that the code saves of log p(x|z), at most, less its KL (at KL weight 1)."""
        return [min(run.number("cut_gap"), run.number("swap_gap")) - run.number("kld") for run in self.runs]

    def row(self) -> list[str]:
        if not self.count:
            none = "unfinished" if self.unfinished else "no run has come to its end"
            return [self.refused or none, *[""] * (len(COLUMNS) - 1)]
        low, high = wilson(self.alive, self.count)
        left = [
            f", {count} {what}" for count, what in ((self.failed, "failed"), (self.unfinished, "unfinished")) if count
        ]
        measured = [
            [run.number(key) for run in self.runs]
            for key in (
                *("swap_gap", "active_units", "mutual_information", "explained_variance"),
                *("sample_coverage", "sample_kid", "seconds"),
            )
        ]
        return [
            f"{self.alive} of {self.count}{''.join(left)}",
            f"{low:.0%} to {high:.0%}",
            str(self.on_paper or ""),
            *(["", ""] if self.cure == PLAIN else map(mean_and_spread, (self.gains(), self.gains("iwae_bound")))),
            mean_and_spread(self.saved_less_paid()),
            *(mean_and_spread(values) for values in measured),
        ]


def mean_and_spread(values: Sequence[float]) -> str:
    """The mean, and over several runs the standard deviation."""
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return ""
    mean = float(np.mean(known))
    return number(mean) if len(known) == 1 else with_error(mean, float(np.std(known, ddof=1)))


def cells(runs: Sequence[Run]) -> dict[str, list[Cell]]:
    """By cause, in the order of the runs; empty where no run says what it was for."""
    meant = [run for run in runs if run.config.get("cause") and run.config.get("cure.name")]
    varied = naming.varied(run.overrides for run in meant)
    of_cure = [key for key in varied if key.startswith("cure.")]
    further = [key for key in varied if key not in (*NO_SETTINGS, *of_cure, "cause", "cure")]
    found: dict[str, dict[str, list[Run]]] = {}
    for run in meant:
        cause, cure = (
            ", ".join(filter(None, (str(run.config[key]), naming.label(run.overrides, varying))))
            for key, varying in (("cause", further), ("cure.name", of_cure))
        )
        found.setdefault(cause, {}).setdefault(cure, []).append(run)
    table: dict[str, list[Cell]] = {}
    for cause, cures in found.items():
        plain = {_pair(run): run for run in cures.get(PLAIN, []) if "verdict" in run.record}
        table[cause] = []
        for cure, mine in cures.items():
            ended = [run for run in mine if "verdict" in run.record]
            judged = [run for run in ended if run.is_conclusive]
            failed = sum(run.failed for run in mine)
            table[cause].append(Cell(cause, cure, judged, plain, len(ended) - len(judged), failed, _why_none(mine)))
    return table


def _pair(run: Run) -> object:
    """The same for a run with a cure and the one without that it is held against."""
    return run.directory.parent, run.seed


def _why_none(runs: Sequence[Run]) -> str | None:
    reasons = [run.refused or run.problems[0].removeprefix("failed: ") for run in runs if run.problems]
    return reasons[0] if reasons else None


def rows(of_cause: Sequence[Cell]) -> list[tuple[str, list[str]]]:
    return [(cell.cure, cell.row()) for cell in of_cause]


def table(runs: Sequence[Run]) -> pd.DataFrame:
    """The same as numbers, a row a cause and cure: cures.csv."""
    found = []
    for cell in (cell for of_cause in cells(runs).values() for cell in of_cause):
        interval = wilson(cell.alive, cell.count) if cell.count else Interval(math.nan, math.nan)
        found.append(
            {
                "cause": cell.cause,
                "cure": cell.cure,
                "runs": cell.count,
                "failed": cell.failed,
                "unfinished": cell.unfinished,
                "alive": cell.alive,
                "on_paper": cell.on_paper,
                "alive_low": interval.low,
                "alive_high": interval.high,
                "elbo_gain": _mean(cell.gains()),
                "saved_less_paid": _mean(cell.saved_less_paid()),
                **{key: _mean([run.number(key) for run in cell.runs]) for key in ("sample_coverage", "sample_kid")},
                "seconds": _mean([run.number("seconds") for run in cell.runs]),
                "refused": "" if cell.count else cell.refused or "",
            }
        )
    return pd.DataFrame(found)


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return float(np.mean(known)) if known else math.nan


def what_follows(runs: Sequence[Run]) -> list[str]:
    """A sentence or two for each cause: what brought every seed to life, what none, and which ELBO was the best."""
    return [_of_cause(cause, of_cause) for cause, of_cause in cells(runs).items()]


def _of_cause(cause: str, of_cause: Sequence[Cell]) -> str:
    tried = [cell for cell in of_cause if cell.count and cell.cure != PLAIN]
    if not tried:
        return f"Of the {cause} nothing is known: no cure has come to its end."

    def named(what: Callable[[Cell], bool]) -> str:
        return ", ".join(cell.cure for cell in tried if what(cell)) or "none"

    plain = next((cell for cell in of_cause if cell.cure == PLAIN and cell.count), None)
    without = "" if plain is None else f", where without a cure {plain.alive} of {plain.count} runs live"
    said = (
        f"The {cause}{without}: alive with every seed: {named(lambda cell: cell.all_alive)}; with some: "
        f"{named(lambda cell: cell.alive > 0 and not cell.all_alive)}; with none: "
        f"{named(lambda cell: cell.alive == 0)}."
    )
    paper = named(lambda cell: cell.on_paper > 0)
    if paper != "none":
        said += f" Paid for and not worth it: {paper}."
    gains = {cell.cure: _mean(cell.gains()) for cell in tried}
    known = {cure: gain for cure, gain in gains.items() if math.isfinite(gain)}
    if known:
        best = max(known, key=lambda cure: known[cure])
        above = f"{number(known[best])} nats above none's" if known[best] > 0 else "none is above that of none"
        said += f" The best ELBO has {best}, {above}." if known[best] > 0 else f" Of their ELBOs {above}."
    fewest = min(cell.count for cell in tried)
    if fewest < 5:
        low, high = wilson(fewest, fewest)
        said += f" With {fewest} seeds, all alive still means {low:.0%} to {high:.0%}."
    return said


def matrix(groups: Sequence[Group]) -> Chart:
    """Cures by causes, coloured by the fraction of the seeds that live."""
    chart = Chart("cures", "Which cure helps which cause?", "The fraction of runs that live; empty: refused.", [])
    found = cells([run for group in groups for run in group.runs])
    cures = list(dict.fromkeys(cell.cure for of_cause in found.values() for cell in of_cause))
    if len(cures) > 1:
        size = 2.2 + 1.5 * len(found), 1.2 + 0.3 * len(cures)
        chart.panels = [Panel("fraction alive", partial(_draw_matrix, found=found, cures=cures), size)]
    return chart


def _draw_matrix(axes: Axes, found: dict[str, list[Cell]], cures: list[str]) -> None:
    values = np.full((len(cures), len(found)), math.nan)
    for cell in (cell for of_cause in found.values() for cell in of_cause if cell.count):
        place = cures.index(cell.cure), list(found).index(cell.cause)
        values[place] = cell.alive / cell.count
        paper = f"\n{cell.on_paper} on paper" if cell.on_paper else ""
        write_in_cell(axes, f"{cell.alive} of {cell.count}{paper}", *place)
    axes.imshow(values, cmap="RdYlGn", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(found)), labels=list(found))
    axes.set_yticks(range(len(cures)), labels=cures)
    axes.set_xlabel("cause of the dead code")
    axes.grid(False)
