"""Charts of a report over the steps of the training."""

from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType

import numpy as np
from matplotlib.axes import Axes

from vae.measure.catalogue import CATALOGUE
from vae.report.drawing import COLOURS, INK, MAX_LINES, Chart, Panel, colour, curve, logarithmic, mark, short, spread
from vae.report.groups import Group
from vae.report.runs import Run
from vae.runtime import directory as names

MAX_OPTIMA = 3  # levels of a linear VAE in one chart
MAX_PANELS = 8  # of charts with a panel a run

Limits = tuple[float, float]


def curves(groups: Sequence[Group]) -> Chart:
    """MSE and KL of the training batches, and the KL weight that shaped them; beside the MSE that of the best linear
    VAE, where it is the same for most."""
    linear = sorted({f"{mse:.4g}" for group in groups for mse in group.number("predicted_mse") if np.isfinite(mse)})
    has_line = 0 < len(linear) <= MAX_OPTIMA
    has_bands = any(len(group.runs) > 1 for group in groups)
    return _lines(
        groups,
        "curves",
        "While they trained" if len(groups) > 1 or has_bands else "While it trained",
        "Means over the last few training batches, z drawn."
        + (" A band spans the seeds of a group, its line is their mean." if has_bands else "")
        + (" Dashed: the MSE of the best linear VAE, in closed form." if has_line else ""),
        {
            "train/mse": (CATALOGUE["mse"].title, "log"),
            "train/kld": (CATALOGUE["kld"].title, "symlog"),
            "train/kl_weight": ("KL weight", "linear"),
        },
        {"train/mse": [float(mse) for mse in linear]} if has_line else {},
    )


def information(groups: Sequence[Group]) -> Chart:
    return _lines(
        groups,
        "information",
        "Does the code carry anything?",
        "On the test images, at every evaluation: latent dimensions whose mu varies, nats that a code tells about "
        "its image, "
        "and nats that the decoder loses with another image's code.",
        {
            "collapse/active_units": (CATALOGUE["active_units"].title, "linear"),
            "collapse/mutual_information": (CATALOGUE["mutual_information"].title, "linear"),
            "collapse/swap_gap": (CATALOGUE["swap_gap"].title, "linear"),
        },
    )


def _lines(
    groups: Sequence[Group],
    key: str,
    title: str,
    caption: str,
    tags: dict[str, tuple[str, str]],
    levels: Mapping[str, Sequence[float]] = MappingProxyType({}),
) -> Chart:
    """A panel a tag: its label and its scale; `levels`: dashed lines of some."""
    able = [group for group in groups if any(run.has(names.EVENTS) for run in group.runs)]
    shown = spread(able, MAX_LINES, lambda group: any(tag in run.curves for run in group.runs for tag in tags))
    if len(able) > MAX_LINES:
        caption += f" {len(shown)} of {len(able)} settings are drawn."
    if len(groups) > len(COLOURS):
        caption += " The colours are those of the table, in its order; point at a line to see whose it is."
    panels = [
        Panel(
            label,
            partial(_draw_lines, shown=shown, groups=groups, tag=tag, scale=scale, levels=levels.get(tag, ())),
        )
        for tag, (label, scale) in tags.items()
    ]
    return Chart(key, title, caption, panels if shown else [], shown)


def _draw_lines(
    axes: Axes, shown: Sequence[Group], groups: Sequence[Group], tag: str, scale: str, levels: Sequence[float]
) -> None:
    for group in shown:
        curve(axes, group, groups, tag)
    for level in levels:
        axes.axhline(level, color=INK, ls="--", lw=1, alpha=0.6)
    axes.set_xlabel("step")
    if scale == "log":
        logarithmic(axes)
        return
    if scale == "symlog":
        logarithmic(axes, linear_below=0.1)
    top = max(axes.get_ylim()[1], 1e-3)
    axes.set_ylim(-0.02 * (top if scale == "linear" else 1), top)  # a line at 0 is seen


def latent(groups: Sequence[Group]) -> Chart:
    """Minimum, mean and maximum of mu and sigma over all test images and dimensions: a panel a group, one scale."""
    able = [group for group in groups if group.shown.has(names.EVENTS)]
    shown = spread(able, MAX_PANELS // 2, lambda group: "latent/mu_mean" in group.shown.curves)
    panels = [
        Panel(
            f"{short(group.name, 24)}: {name}",
            partial(_draw_band, group=group, groups=groups, name=name, limits=_limits(shown, name)),
            (3.2, 2.4),
        )
        for name in ("mu", "sigma")
        for group in shown
    ]
    caption = (
        "The lowest, mean and highest mu and sigma over all test images and dimensions, on one scale: under a prior of "
        "width "
        "1, mu between -3 and 3 is what a healthy code fills."
    )
    return Chart("latent", "The range of the code", caption, panels, columns=len(shown) if len(shown) > 1 else None)


def _limits(groups: Sequence[Group], name: str) -> Limits:
    low = min((group.shown.curves[f"latent/{name}_min"].min() for group in groups), default=0.0)
    high = max((group.shown.curves[f"latent/{name}_max"].max() for group in groups), default=1.0)
    pad = 0.05 * (high - low or 1)
    return (0 if name == "sigma" else low - pad), high + pad


def _draw_band(axes: Axes, group: Group, groups: Sequence[Group], name: str, limits: Limits) -> None:
    low, mean, high = (group.shown.curves[f"latent/{name}_{bound}"] for bound in ("min", "mean", "max"))
    tint = colour(group, groups)
    axes.fill_between(low.index, low, high, color=tint, alpha=0.25, lw=0, gid=mark(group))
    axes.plot(mean.index, mean, "o-" if len(mean) == 1 else "-", ms=4, color=tint, gid=mark(group))
    axes.set(xlabel="step", ylim=limits)


def dimensions(groups: Sequence[Group]) -> Chart:
    """KL of each latent dimension over time, dimensions in the order of their last value."""
    able = [group for group in groups if group.shown.has(names.HISTORY)]
    panels = [
        Panel(short(group.name, 24), partial(_draw_dimensions, run=group.shown), (3.2, 2.6))
        for group in spread(able, MAX_PANELS, lambda group: len(group.shown.history.get("step", ())))
    ]
    caption = (
        "KL of each latent dimension while it trained, in the order of the last values, on one scale: bright is much, "
        "black is none."
    )
    return Chart("dimensions", "Which dimensions live", caption, panels)


def _draw_dimensions(axes: Axes, run: Run) -> None:
    kl = run.history["kl"]
    steps, kl = _thinned(run.history["step"], kl)
    values = np.log10(np.maximum(kl[:, kl[-1].argsort()[::-1]].T, 1e-4))
    edges = np.concatenate([[0], steps])
    mesh = axes.pcolormesh(edges, np.arange(len(values) + 1), values, vmin=-4, vmax=1.5, cmap="magma", rasterized=True)
    axes.grid(False)
    axes.set(xlabel="step", ylabel="latent dimension")
    bar = axes.figure.colorbar(mesh, ax=axes, ticks=[-4, -3, -2, -1, 0, 1])
    bar.ax.set_yticklabels(["0", ".001", ".01", ".1", "1", "10"])
    bar.ax.grid(False)
    bar.set_label("KL, nats")


def _thinned(steps: np.ndarray, kl: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most 200 columns, the last one among them."""
    every = max(1, len(steps) // 200)
    return steps[::-1][::every][::-1], kl[::-1][::every][::-1]
