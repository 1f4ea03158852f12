"""Plots of a report in which each run is a point. One that has nothing to show is None."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from vae.measure.catalogue import CATALOGUE
from vae.measure.verdict import DEAD
from vae.report.drawing import COLOURS, MAX_CURVES, VERDICT_COLOURS, finite, short, single
from vae.report.runs import Run


def rate_distortion(runs: Sequence[Run]) -> Figure | None:
    """Every run a point: what its code costs, what it leaves in the reconstruction. Not those whose squared error is of
    one-step predictions, which owe little to the code."""
    shown = [
        run for run in runs if finite(run.number("kld"), run.number("mse")) and run.record.get("one_step") is not True
    ]
    if not shown:
        return None
    figure, axes = single(7, 4.2)
    for run in shown:
        colour = VERDICT_COLOURS.get(str(run.record.get("verdict")), "0.4")
        axes.scatter(run.number("kld"), run.number("mse"), color=colour, s=45, zorder=3)
        axes.annotate(
            short(run.name), (run.number("kld"), run.number("mse")), (6, 4), textcoords="offset points", fontsize=8
        )
    free = [run.number("mse") for run in runs if run.number("kl_weight") == 0 and finite(run.number("mse"))]
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
    axes.set(xlabel="rate: KL, nats", ylabel="distortion: test MSE, per pixel", xlim=(-0.1, None))
    axes.set_ylim(0, 1.1 * max(run.number("mse") for run in shown))
    return figure


def prediction(runs: Sequence[Run]) -> Figure | None:
    """Active units: what a linear VAE would keep against what was measured."""
    shown = [run for run in runs if finite(run.number("predicted_active_units"), run.number("active_units"))]
    if not shown:
        return None
    figure, axes = single(6.5, 4.2)
    top = max(*(run.number(key) for run in shown for key in ("predicted_active_units", "active_units")), 1) * 1.08
    axes.plot([0, top], [0, top], color="0.6", lw=1)
    for run in shown:
        x, y = run.number("predicted_active_units"), run.number("active_units")
        axes.scatter(x, y, color=VERDICT_COLOURS.get(str(run.record.get("verdict")), "0.4"), zorder=3)
        if len(shown) <= MAX_CURVES:
            axes.annotate(short(run.name), (x, y), (5, 3), textcoords="offset points", fontsize=8)
    axes.set(xlabel="kept by a linear VAE (predicted)", ylabel="active units (measured)")
    axes.set(xlim=(-0.5, top), ylim=(-0.5, top))
    return figure


def boundary(runs: Sequence[Run]) -> Figure | None:
    """Over the KL weight: what is measured, and what the closed form says."""
    shown = [run for run in runs if finite(run.number("predicted_active_units"), run.number("kl_weight"))]
    if len({run.number("kl_weight") for run in shown}) < 3:
        return None
    ordered = sorted(shown, key=lambda run: run.number("kl_weight"))
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    panels = [
        ("active_units", "predicted_active_units", CATALOGUE["active_units"].title, "linear"),
        ("mse", "predicted_mse", f"test {CATALOGUE['mse'].title}", "linear"),
        ("kld", "predicted_kld", CATALOGUE["kld"].title, "symlog"),
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


def collapse_fraction(runs: Sequence[Run]) -> Figure | None:
    """Of the runs that share all but their seed, the fraction that collapsed, over the learning rate where it
    varies."""
    shown = [run for run in runs if run.record.get("verdict") and "train.lr" in run.config]
    rates = sorted({float(run.config["train.lr"]) for run in shown})
    if len(rates) < 2:
        return None
    figure, axes = single(6.5, 3.8)
    for model in dict.fromkeys(str(run.record.get("model")) for run in shown):
        points = []
        for rate in rates:
            dead = [
                run.record["verdict"] in DEAD
                for run in shown
                if run.record.get("model") == model and float(run.config["train.lr"]) == rate
            ]
            if dead:
                points.append((rate, sum(dead) / len(dead), len(dead)))
        axes.plot(
            [p[0] for p in points], [p[1] for p in points], "o-", label=f"{model} ({min(p[2] for p in points)} seeds)"
        )
    axes.set(xscale="log", xlabel="learning rate", ylabel="fraction of the seeds that collapsed", ylim=(-0.05, 1.05))
    axes.legend()
    return figure
