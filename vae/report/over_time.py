"""Plots of a report over the steps of the training. One that has nothing to show is None."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from vae.measure.catalogue import CATALOGUE
from vae.report.drawing import COLOURS, MAX_CURVES, say_left_out, short, spread
from vae.report.runs import Run


def curves(runs: Sequence[Run]) -> Figure | None:
    """MSE and KL of the training batches, and the KL weight that shaped them."""
    panels = [
        ("train/mse", CATALOGUE["mse"].title, "log"),
        ("train/kld", CATALOGUE["kld"].title, "symlog"),
        ("train/kl_weight", "KL weight", "linear"),
    ]
    return _panels(runs, panels, (10, 3.4))


def information(runs: Sequence[Run]) -> Figure | None:
    panels = [
        ("collapse/active_units", CATALOGUE["active_units"].title, "linear"),
        ("collapse/mutual_information", CATALOGUE["mutual_information"].title, "linear"),
        ("collapse/swap_gap", CATALOGUE["swap_gap"].title, "linear"),
    ]
    return _panels(runs, panels, (10, 3.4))


def bands(runs: Sequence[Run]) -> Figure | None:
    """Minimum, mean and maximum of mu and sigma over all test images and dimensions, a column a run."""
    able = [run for run in runs if "latent/mu_mean" in run.curves]
    shown = spread(able, 6)
    if not shown:
        return None
    figure = Figure(figsize=(max(4.0, 2.6 * len(shown)), 4.6), layout="constrained")
    say_left_out(figure, len(shown), len(able))
    axes = figure.subplots(2, len(shown), squeeze=False, sharex="col")
    for column, run in enumerate(shown):
        for row, name in enumerate(("mu", "sigma")):
            low, mean, high = (run.curves[f"latent/{name}_{bound}"] for bound in ("min", "mean", "max"))
            colour = COLOURS[column % len(COLOURS)]
            axes[row, column].fill_between(low.index, low, high, color=colour, alpha=0.25, lw=0)
            axes[row, column].plot(mean.index, mean, color=colour)
            axes[row, column].set(ylabel=name if column == 0 else "", title=short(run.name) if row == 0 else "")
        axes[1, column].set(xlabel="step", ylim=(0, None))
    return figure


def heatmaps(runs: Sequence[Run]) -> Figure | None:
    """KL of each latent dimension over time, dimensions in the order of their last value."""
    able = [run for run in runs if run.history and len(run.history["step"])]
    shown = spread(able, 8)
    if not shown:
        return None
    columns = min(4, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure = Figure(figsize=(2.6 * columns + 1, 2.4 * rows + 0.3), layout="constrained")
    say_left_out(figure, len(shown), len(able))
    axes = figure.subplots(rows, columns, squeeze=False)
    for place in axes.flat[len(shown) :]:
        place.set_visible(False)
    for place, run in zip(axes.flat, shown, strict=False):
        kl = run.history["kl"]
        values = np.log10(np.maximum(kl[:, kl[-1].argsort()[::-1]].T, 1e-4))
        edges = np.concatenate([[0], run.history["step"]])
        mesh = place.pcolormesh(
            edges, np.arange(len(values) + 1), values, vmin=-4, vmax=1.5, cmap="magma", rasterized=True
        )
        place.set(title=short(run.name), xlabel="step")
    axes[0, 0].set_ylabel("latent dimension")
    figure.colorbar(mesh, ax=axes, label="log10 KL, nats")
    return figure


def _panels(runs: Sequence[Run], panels: Sequence[tuple[str, str, str]], size: tuple[float, float]) -> Figure | None:
    shown = [run for run in runs if any(tag in run.curves for tag, _, _ in panels)]
    if not shown:
        return None
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(panels))
    for place, (tag, label, scale) in zip(axes, panels, strict=True):
        for i, run in enumerate(shown[:MAX_CURVES]):
            if tag in run.curves:
                curve = run.curves[tag]
                style = "-" if i < len(COLOURS) else "--"
                place.plot(curve.index, curve, style, color=COLOURS[i % len(COLOURS)], lw=1.3, label=short(run.name))
        place.set(xlabel="step", title=label)
        if scale == "symlog":
            place.set_yscale("symlog", linthresh=0.1)
            place.set_ylim(0, None)
        else:
            place.set_yscale(scale)
    handles: dict[str, Any] = {}
    for place in axes:
        handles |= {label: handle for handle, label in zip(*place.get_legend_handles_labels(), strict=True)}
    title = f"the first {MAX_CURVES} of {len(shown)} runs" if len(shown) > MAX_CURVES else None
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, fontsize=8, title=title)
    return figure
