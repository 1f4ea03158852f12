"""Plots drawn with matplotlib: the spectrum with the line at t, KL per dimension over time, and the aggregate
posterior beside the prior. Each gives a picture, uint8 (H, W, 3)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from vae.output.pictures import Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure


MAX_NAMED = 10  # classes that are told apart by colour and name
ZERO = 1e-12  # eigenvalues up to it are rounding


def spectrum_plot(
    values: Tensor, latent_dim: int, kept: int | None = None, edge: tuple[str, float] = ("", 0), of: str = "covariance"
) -> Picture:
    """The largest eigenvalues of what `of` names, but for those that are 0; filled: those that a code would keep, which
    lie above the line at `edge`, a name and a value. `kept` None: that is not known, and there is no line."""
    figure = _figure(7, 4)
    axes = figure.add_subplot()
    height = values[values > ZERO].numpy()
    place = np.arange(1, len(height) + 1)
    axes.semilogy(place, height, color="0.6", lw=1)
    axes.set(xlabel="principal component", ylabel=f"eigenvalue of the {of}")
    if kept is None:
        axes.semilogy(place, height, "o", ms=4, color="0.5")
        axes.set_title("The largest eigenvalues of the data")
        return _drawn(figure)
    axes.semilogy(place[kept:], height[kept:], "o", ms=4, mfc="white", mec="0.5", label="not kept")
    axes.semilogy(place[:kept], height[:kept], "o", ms=5, color="tab:blue", label=f"kept: {kept} of {latent_dim}")
    name, line = edge
    axes.axhline(line, color="tab:red", lw=1.5, label=f"{name} = {line:.4g}")
    axes.set_title(f"Kept is what lies above the line, at most {latent_dim}")
    axes.legend()
    return _drawn(figure)


def kl_heatmap(steps: Sequence[int], weights: Sequence[float], kl: np.ndarray[Any, Any]) -> Picture:
    """KL of each latent dimension over time, `kl` (T, d) in nats, dimensions sorted by their last value; above it
    the KL weight."""
    figure = _figure(8, 5)
    top, below = figure.subplots(2, 1, sharex=True, height_ratios=[1, 4])
    top.plot(steps, weights, color="tab:red")
    top.set(ylabel="KL weight", ylim=(0, max(*weights, 1e-6) * 1.1))
    order = kl[-1].argsort()[::-1]
    shown = np.log10(np.maximum(kl[:, order].T, 1e-4))
    edges = np.concatenate([[0], np.asarray(steps)])
    mesh = below.pcolormesh(edges, np.arange(kl.shape[1] + 1), shown, vmin=-4, vmax=1.5, cmap="magma")
    below.set(xlabel="step", ylabel="latent dimension, by last KL")
    figure.colorbar(mesh, ax=[top, below], label="log10 KL, nats")
    return _drawn(figure)


def aggregate_plot(
    z: Tensor, dims: Sequence[int], labels: Tensor | None, classes: Sequence[str] | None = None
) -> Picture:
    """Draws from the aggregate posterior q(z) in two dimensions, over the circles that hold 50, 90 and 99 % of the
    prior. `z` (N, d); `classes`: the labels' names."""
    figure = _figure(5.5, 5)
    axes = figure.add_subplot()
    angle = np.linspace(0, 2 * np.pi, 200)
    for mass in (0.5, 0.9, 0.99):
        radius = np.sqrt(-2 * np.log(1 - mass))  # of a two-dimensional standard normal
        axes.plot(radius * np.cos(angle), radius * np.sin(angle), color="black", lw=1, alpha=0.6)
    x, y = (z[:, dim].cpu().numpy() for dim in dims)
    if labels is None:
        axes.scatter(x, y, s=6, alpha=0.7)
    elif (named := _class_names(labels, classes)) is not None:
        for label, name in named.items():
            of_it = (labels == label).numpy()
            axes.scatter(x[of_it], y[of_it], s=6, alpha=0.7, label=_drawable(name)[:20].replace("$", r"\$"))
        axes.legend(fontsize=7, markerscale=2, loc="upper right")
    else:
        figure.colorbar(axes.scatter(x, y, s=6, c=labels.numpy(), cmap="tab10", alpha=0.7), label="label")
    reach = max(3.5, float(np.abs(np.concatenate([x, y])).max()) * 1.05)
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    axes.set(xlabel=f"z[{dims[0]}]", ylabel=f"z[{dims[1]}]", title="q(z) of the test images; circles: the prior")
    return _drawn(figure)


def _class_names(labels: Tensor, classes: Sequence[str] | None) -> dict[int, str] | None:
    """The name of each label that occurs, its number where it has none; None where there are too many to tell apart."""
    found = sorted(set(labels.tolist()))
    if len(found) > MAX_NAMED:
        return None
    return {label: str(label) if classes is None else classes[label] for label in found}


def _drawable(name: str) -> str:
    """The name, with an escape for each sign that the font lacks: it would be an empty box, and a warning."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    known = get_font(findfont(FontProperties())).get_charmap()
    return "".join(sign if ord(sign) in known else sign.encode("unicode_escape").decode() for sign in name)


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure  # half a second, only when something is drawn

    return Figure(figsize=(width, height), dpi=100)  # its default margins do: fitted ones cost more than the drawing


def _drawn(figure: "Figure") -> Picture:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
