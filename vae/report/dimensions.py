"""Plots of single latent dimensions and principal components, of models whose record has them: those that vae.diagnose
has measured. One that has nothing to show is None."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from vae.measure.catalogue import CATALOGUE
from vae.measure.verdict import number
from vae.report.drawing import COLOURS, short, single
from vae.report.runs import Run

MAX_SHOWN = 6  # models in one plot


def kl_per_dimension(runs: Sequence[Run]) -> Figure | None:
    """KL of each latent dimension, largest first; of codes that are maps also where in the map it lies."""
    shown = [(run, kl) for run in runs if (kl := numbers(run, "kl_per_dimension")).size][:MAX_SHOWN]
    if not shown:
        return None
    maps = [(run, kl) for run, _ in shown if (kl := numbers(run, "latent_position_kl")).ndim == 2]
    figure = Figure(figsize=(7 + 3.2 * len(maps), 3.6), layout="constrained")
    panels = figure.subplots(1, 1 + len(maps), squeeze=False, width_ratios=[2, *[1] * len(maps)])[0]
    for place, (run, kl) in enumerate(shown):
        values = np.sort(kl)[::-1]
        panels[0].plot(np.arange(1, len(values) + 1), values, ".-", color=COLOURS[place], label=short(run.name))
    panels[0].set_yscale("symlog", linthresh=0.01)
    top = max(0.1, *(1.1 * float(kl.max()) for _, kl in shown))
    panels[0].set(xlabel="latent dimension, by KL", ylabel="KL, nats", ylim=(0, top))
    panels[0].legend(fontsize=8)
    for panel, (run, kl) in zip(panels[1:], maps, strict=True):
        figure.colorbar(panel.imshow(kl, cmap="magma", vmin=0), ax=panel, label="KL, nats")
        panel.set(title=f"{short(run.name)}: over the map", xticks=[], yticks=[])
    return figure


def spectrum(runs: Sequence[Run]) -> Figure | None:
    """The largest eigenvalues of the data's covariance, and the line at t: a linear VAE keeps what lies above."""
    shown = [(run, values) for run in runs if (values := numbers(run, "eigenvalues")).size][:MAX_SHOWN]
    if not shown:
        return None
    figure, axes = single(7, 3.6)
    for place, (run, values) in enumerate(shown):
        axes.semilogy(np.arange(1, len(values) + 1), np.maximum(values, 1e-12), ".-", color=COLOURS[place])
        t = run.number("effective_t")
        if np.isfinite(t) and t > 0:
            axes.axhline(t, color=COLOURS[place], ls="--", lw=1, label=f"{short(run.name)}: t = {t:.4g}")
    axes.set(xlabel="principal component", ylabel="eigenvalue of the covariance")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8)
    return figure


def numbers(run: Run, key: str) -> "np.ndarray[tuple[int, ...], np.dtype[np.float64]]":
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
            shown = number(value) + (f" ± {error:.2g}" if np.isfinite(error) else "")
            rows.append((item.label, [shown, item.unit, item.definition]))
    return rows
