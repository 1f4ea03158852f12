"""The figures of a report: functions from runs to matplotlib figures. A figure that has nothing to show is None."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vae.report.runs import Run

# Ids inside an SVG would otherwise differ from one writing to the next.
mpl.rcParams["svg.hashsalt"] = "vae"

MOST_CURVES = 12  # runs in one chart; of more, the first ones are drawn and the chart says so
COLOURS = mpl.colormaps["tab10"].colors  # type: ignore[attr-defined]
VERDICT_COLOURS = {
    "alive": "#2e7d32",
    "partly_collapsed": "#ef8f00",
    "collapsed": "#c62828",
    "deterministic": "#1565c0",
    "decoder_ignores_code": "#6a1b9a",
}


def curves(runs: Sequence[Run]) -> Figure | None:
    """MSE and KLD of the training batches, and the KL weight that shaped them."""
    panels = [
        ("train/mse", "MSE per pixel", "log"),
        ("train/kld", "KLD, nats", "symlog"),
        ("train/kl_weight", "KL weight", "linear"),
    ]
    return _panels(runs, panels, (10, 3.4))


def information(runs: Sequence[Run]) -> Figure | None:
    panels = [
        ("collapse/active_units", "active units", "linear"),
        ("collapse/mutual_information", "mutual information, nats", "linear"),
        ("collapse/reconstruction_gap", "SSE lost with another's code", "linear"),
    ]
    return _panels(runs, panels, (10, 3.4))


def bands(runs: Sequence[Run]) -> Figure | None:
    """Least, mean and greatest mu and sigma over all test images and dimensions, a column a run."""
    shown = [run for run in runs if "latent/mu_mean" in run.curves][:6]
    if not shown:
        return None
    figure = Figure(figsize=(max(4.0, 2.6 * len(shown)), 4.6), layout="constrained")
    axes = figure.subplots(2, len(shown), squeeze=False, sharex="col")
    for column, run in enumerate(shown):
        for row, name in enumerate(("mu", "sigma")):
            low, mean, high = (run.curves[f"latent/{name}_{bound}"] for bound in ("min", "mean", "max"))
            colour = COLOURS[column % len(COLOURS)]
            axes[row, column].fill_between(low.index, low, high, color=colour, alpha=0.25, lw=0)
            axes[row, column].plot(mean.index, mean, color=colour)
            axes[row, column].set(ylabel=name if column == 0 else "", title=_short(run.name) if row == 0 else "")
        axes[1, column].set(xlabel="step", ylim=(0, None))
    return figure


def rate_distortion(runs: Sequence[Run]) -> Figure | None:
    """Every run a point: what its code costs, what it leaves to be desired."""
    shown = [run for run in runs if _finite(run.number("kld"), run.number("mse"))]
    if not shown:
        return None
    figure, axes = _single(7, 4.2)
    for run in shown:
        colour = VERDICT_COLOURS.get(str(run.record.get("verdict")), "0.4")
        axes.scatter(run.number("kld"), run.number("mse"), color=colour, s=45, zorder=3)
        axes.annotate(
            _short(run.name), (run.number("kld"), run.number("mse")), (6, 4), textcoords="offset points", fontsize=8
        )
    free = [run.number("mse") for run in shown if run.record.get("verdict") == "deterministic"]
    if free:
        axes.axhline(min(free), color="0.5", ls="--", lw=1)
        axes.annotate(
            "the autoencoder's MSE",
            (0.02, min(free)),
            (0, 4),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            fontsize=8,
            color="0.4",
        )
    axes.set_xscale("symlog", linthresh=1)
    axes.set(xlabel="rate: KLD, nats an image", ylabel="distortion: test MSE per pixel", xlim=(-0.1, None))
    axes.set_ylim(0, 1.1 * max(run.number("mse") for run in shown))
    return figure


def prediction(runs: Sequence[Run]) -> Figure | None:
    """Active units: what a linear VAE would keep against what was measured."""
    shown = [run for run in runs if _finite(run.number("predicted_active_units"), run.number("active_units"))]
    if not shown:
        return None
    figure, axes = _single(6.5, 4.2)
    top = max(*(run.number(key) for run in shown for key in ("predicted_active_units", "active_units")), 1) * 1.08
    axes.plot([0, top], [0, top], color="0.6", lw=1)
    for run in shown:
        x, y = run.number("predicted_active_units"), run.number("active_units")
        axes.scatter(x, y, color=VERDICT_COLOURS.get(str(run.record.get("verdict")), "0.4"), zorder=3)
        if len(shown) <= MOST_CURVES:
            axes.annotate(_short(run.name), (x, y), (5, 3), textcoords="offset points", fontsize=8)
    axes.set(xlabel="kept by a linear VAE (predicted)", ylabel="active units (measured)")
    axes.set(xlim=(-0.5, top), ylim=(-0.5, top))
    return figure


def boundary(runs: Sequence[Run]) -> Figure | None:
    """Over the KL weight: what is measured, and what the closed form says."""
    shown = [run for run in runs if _finite(run.number("predicted_active_units"), run.number("kl_weight"))]
    if len({run.number("kl_weight") for run in shown}) < 3:
        return None
    ordered = sorted(shown, key=lambda run: run.number("kl_weight"))
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    panels = [
        ("active_units", "predicted_active_units", "active units", "linear"),
        ("mse", "predicted_mse", "test MSE per pixel", "linear"),
        ("kld", "predicted_kld", "KLD, nats", "symlog"),
    ]
    for axes, (measured, predicted, title, scale) in zip(figure.subplots(1, 3), panels, strict=True):
        for i, model in enumerate(dict.fromkeys(str(run.record.get("model")) for run in shown)):
            mine = [run for run in ordered if run.record.get("model") == model]
            weights = [run.number("kl_weight") for run in mine]
            axes.plot(weights, [run.number(measured) for run in mine], "o-", ms=4, color=COLOURS[i], label=model)
        weights = [run.number("kl_weight") for run in ordered]
        expected = [run.number(predicted) for run in ordered]
        axes.plot(weights, expected, color="black", ls="--", label="linear VAE, closed form")
        for weight in {run.number("predicted_collapse_weight") for run in shown}:
            axes.axvline(weight, color="tab:red", lw=1, ls=":")
        axes.set(xscale="log", title=title, xlabel="KL weight (dotted: nothing is kept beyond)")
        if scale == "symlog":
            axes.set_yscale("symlog", linthresh=0.1)
        axes.set_ylim(0, None)
    axes.legend(fontsize=8)
    return figure


def heatmaps(runs: Sequence[Run]) -> Figure | None:
    """KL of each latent dimension over time, dimensions in the order of their last value."""
    shown = [run for run in runs if run.history and len(run.history["step"])][:8]
    if not shown:
        return None
    columns = min(4, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure = Figure(figsize=(2.6 * columns + 1, 2.4 * rows + 0.3), layout="constrained")
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
        place.set(title=_short(run.name), xlabel="step")
    axes[0, 0].set_ylabel("latent dimension")
    figure.colorbar(mesh, ax=axes, label="log10 KL, nats")
    return figure


def collapse_fraction(runs: Sequence[Run]) -> Figure | None:
    """Of the runs that share all but their seed, the part that collapsed, over the learning rate where it varies."""
    shown = [run for run in runs if run.record.get("verdict") and "train.lr" in run.config]
    rates = sorted({float(run.config["train.lr"]) for run in shown})
    if len(rates) < 2:
        return None
    figure, axes = _single(6.5, 3.8)
    for model in dict.fromkeys(str(run.record.get("model")) for run in shown):
        points = []
        for rate in rates:
            dead = [
                run.record["verdict"] in ("collapsed", "decoder_ignores_code")
                for run in shown
                if run.record.get("model") == model and float(run.config["train.lr"]) == rate
            ]
            if dead:
                points.append((rate, sum(dead) / len(dead), len(dead)))
        axes.plot(
            [p[0] for p in points], [p[1] for p in points], "o-", label=f"{model} ({min(p[2] for p in points)} seeds)"
        )
    axes.set(xscale="log", xlabel="learning rate", ylabel="part of the seeds that collapsed", ylim=(-0.05, 1.05))
    axes.legend()
    return figure


CHARTS: dict[str, tuple[str, str, Callable[[Sequence[Run]], Figure | None]]] = {
    "curves": ("While they trained", "Means over the last few training batches.", curves),
    "bands": ("The latent space over time", "Least, mean and greatest over all test images and dimensions.", bands),
    "information": ("Does the code carry anything?", "On the whole test split, at every evaluation.", information),
    "rate_distortion": (
        "What a code costs and what it buys",
        "Each point a run, coloured by its verdict.",
        rate_distortion,
    ),
    "prediction": (
        "Predicted and measured",
        "What a linear VAE would keep, said before the first step.",
        prediction,
    ),
    "boundary": ("Where the code goes out", "Measured over the KL weight, beside the closed form.", boundary),
    "collapse_fraction": ("How often it collapses", "Runs that differ in their seed alone.", collapse_fraction),
    "heatmaps": ("Which dimensions live", "KL of each latent dimension, bright is much.", heatmaps),
}


def _panels(runs: Sequence[Run], panels: Sequence[tuple[str, str, str]], size: tuple[float, float]) -> Figure | None:
    shown = [run for run in runs if any(tag in run.curves for tag, _, _ in panels)]
    if not shown:
        return None
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(panels))
    for place, (tag, label, scale) in zip(axes, panels, strict=True):
        for i, run in enumerate(shown[:MOST_CURVES]):
            if tag in run.curves:
                curve = run.curves[tag]
                style = "-" if i < len(COLOURS) else "--"
                place.plot(curve.index, curve, style, color=COLOURS[i % len(COLOURS)], lw=1.3, label=_short(run.name))
        place.set(xlabel="step", title=label)
        if scale == "symlog":
            place.set_yscale("symlog", linthresh=0.1)
            place.set_ylim(0, None)
        else:
            place.set_yscale(scale)
    handles: dict[str, Any] = {}
    for place in axes:
        handles |= {label: handle for handle, label in zip(*place.get_legend_handles_labels(), strict=True)}
    title = f"the first {MOST_CURVES} of {len(shown)} runs" if len(shown) > MOST_CURVES else None
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, fontsize=8, title=title)
    return figure


def _single(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _finite(*values: float) -> bool:
    return all(math.isfinite(value) for value in values)


def _short(name: str) -> str:
    """A name as it may stand in a figure: no mathematics in it (a dollar sign would begin some), not too long."""
    name = name.replace("$", r"\$")
    return name if len(name) <= 34 else name[:31] + "..."
