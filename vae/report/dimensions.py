"""Plots of single latent dimensions and principal components, of models whose record has them: those that vae.diagnose
has measured. One that has nothing to show is None."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from vae.measure.catalogue import CATALOGUE
from vae.measure.written import number, uncertainty
from vae.report.drawing import COLOURS, Chart, Panel, logarithmic, short
from vae.report.groups import Group
from vae.report.runs import Run

Numbers = np.ndarray[Any, np.dtype[np.float64]]

MAX_SHOWN = 6  # models in one plot


def kl_per_dimension(groups: Sequence[Group]) -> Chart:
    """KL of each latent dimension, largest first; of codes that are maps also where in the map it lies."""
    chart = Chart("kl_per_dimension", "Where the nats are", "Mean KL over the images.", [])
    shown = [(run, kl) for run in _runs(groups) if (kl := numbers(run, "kl_per_dimension")).size][:MAX_SHOWN]
    if shown:
        maps = [(run, kl) for run, _ in shown if (kl := numbers(run, "latent_position_kl")).ndim == 2]
        chart.panels = [
            Panel("KL of each latent dimension", partial(_draw_kl, shown=shown), (6.0, 3.4)),
            *(Panel(f"{short(run.name)}: over the map", partial(_draw_map, kl=kl), (3.6, 3.4)) for run, kl in maps),
        ]
    return chart


def _draw_kl(axes: Axes, shown: Sequence[tuple[Run, Numbers]]) -> None:
    for place, (run, kl) in enumerate(shown):
        values = np.sort(kl)[::-1]
        axes.plot(np.arange(1, len(values) + 1), values, ".-", color=COLOURS[place], label=short(run.name))
    axes.set(ylim=(0, max(0.1, *(1.1 * float(kl.max()) for _, kl in shown))))
    logarithmic(axes, "y", linear_below=0.01)
    axes.set(xlabel="latent dimension, by KL", ylabel="KL, nats")
    axes.legend(frameon=False)


def _draw_map(axes: Axes, kl: Numbers) -> None:
    axes.figure.colorbar(axes.imshow(kl, cmap="magma", vmin=0), ax=axes, label="KL, nats")
    axes.set(xticks=[], yticks=[])
    axes.grid(False)


def spectrum(groups: Sequence[Group]) -> Chart:
    """The largest eigenvalues of the data's covariance, and the line at t: a linear VAE keeps what lies above."""
    chart = Chart("spectrum", "What the data offer", "A linear VAE keeps what lies above t.", [])
    shown = [(run, values) for run in _runs(groups) if (values := numbers(run, "eigenvalues")).size][:MAX_SHOWN]
    if shown:
        chart.panels = [Panel("eigenvalues of the covariance", partial(_draw_spectrum, shown=shown), (6.0, 3.4))]
    return chart


def _draw_spectrum(axes: Axes, shown: Sequence[tuple[Run, Numbers]]) -> None:
    for place, (run, values) in enumerate(shown):
        axes.plot(np.arange(1, len(values) + 1), np.maximum(values, 1e-12), ".-", color=COLOURS[place])
        t = run.number("effective_t")
        if np.isfinite(t) and t > 0:
            axes.axhline(t, color=COLOURS[place], ls="--", lw=1, label=f"{short(run.name)}: t = {t:.4g}")
    logarithmic(axes)
    axes.set(xlabel="principal component", ylabel="eigenvalue")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)


def _runs(groups: Sequence[Group]) -> list[Run]:
    return [run for group in groups for run in group.runs]


def numbers(run: Run, key: str) -> Numbers:
    """A list of numbers, or of lists of them, in a run's record; empty where it has none, or one that is not finite."""
    try:
        found = np.asarray(run.record.get(key, []), np.float64)
    except (TypeError, ValueError):
        return np.zeros(0)
    return found if np.isfinite(found).all() else np.zeros(0)


def measures(run: Run) -> list[tuple[str, list[str]]]:
    """Every measure of a model that was diagnosed: what it is, its value with the standard error, its unit."""
    if "kl_per_dimension" not in run.record:
        return []
    rows = []
    for name, item in CATALOGUE.items():
        value, error = run.number(name), run.number(f"{name}_error")
        if np.isfinite(value):
            shown = number(value) + (f" ± {uncertainty(error)}" if np.isfinite(error) else "")
            rows.append((item.label, [shown, item.unit, item.definition]))
    return rows
