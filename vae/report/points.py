"""Charts of a report in which each run is a point: what a sweep asks, and what codes cost and buy."""

from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes

from vae.measure.catalogue import CATALOGUE
from vae.report.drawing import COLOURS, INK, Chart, Panel, colour, finite, logarithmic, mark, marker, short, spread
from vae.report.groups import Group, varied
from vae.report.measures import one_step
from vae.report.runs import Run
from vae.runtime import directory as names

MAX_CLASSES = 10  # told apart by colour
ACTIVE, PREDICTED = "active_units", "predicted_active_units"


def fraction(groups: Sequence[Group]) -> Chart:
    """Of the runs that differ in their seed alone, the fraction that collapsed, over the number that the sweep varies
    most; a line for each setting of the rest."""
    title = "How often it collapses"
    chart = Chart("collapse_fraction", title, "", [])
    many = [group for group in groups if len(group.conclusive) > 1]
    numbers = {key: values for key, values in varied(many).items() if _are_numbers(values)} if many else {}
    if not numbers:
        return chart
    key = max(numbers, key=lambda name: len(numbers[name]))
    series: dict[str, list[tuple[float, float]]] = {}
    others = [name for name in varied(many) if name != key]
    for group in many:
        point = float(group.setting(key)), len(group.dead) / len(group.conclusive)
        series.setdefault(_settings(group, others), []).append(point)
    chart.caption = (
        f"Over {key}: of the runs that differ in their seed alone, the fraction that collapsed "
        f"({min(len(group.conclusive) for group in many)} or more seeds a point)."
    )
    chart.panels = [
        Panel("fraction of the seeds that collapsed", partial(_draw_fraction, series=series, key=key), (6.0, 3.4))
    ]
    return chart


def _settings(group: Group, keys: Sequence[str]) -> str:
    return ", ".join(group.setting(f"{key}.name") or group.setting(key) for key in keys)


def _are_numbers(values: Sequence[str]) -> bool:
    try:
        return len({float(value) for value in values}) > 1
    except ValueError:
        return False


def _draw_fraction(axes: Axes, series: dict[str, list[tuple[float, float]]], key: str) -> None:
    for i, (name, points) in enumerate(series.items()):
        x, y = zip(*sorted(points), strict=True)
        tint = COLOURS[i] if len(series) <= len(COLOURS) else INK
        axes.plot(x, y, "o-", ms=5, color=tint, label=short(name), alpha=1 if len(series) <= len(COLOURS) else 0.4)
    _maybe_log(axes, [x for points in series.values() for x, _ in points])
    axes.set(xlabel=key, ylim=(-0.04, 1.04))
    if 1 < len(series) <= len(COLOURS):
        axes.legend(frameon=False)


def _maybe_log(axes: Axes, values: Sequence[float]) -> None:
    if values and min(values) > 0 and max(values) / min(values) > 20:
        logarithmic(axes, "x")


def boundary(groups: Sequence[Group]) -> Chart:
    """Over the KL weight: what is measured, and what the closed form says."""
    chart = Chart(
        "boundary",
        "Where the code collapses",
        "Over the KL weight: measured at the end of each run (dots; the lines go through the means over seeds), and "
        "what a linear VAE keeps by the closed form (dashed). Right of the dotted line the closed form leaves no code.",
        [],
    )
    shown = [group for group in groups if finite(*group.number(PREDICTED), *group.number("kl_weight"))]
    if len({weight for group in shown for weight in group.number("kl_weight")}) < 3 or not _have_one_form(shown):
        return chart
    chart.panels = [
        Panel(title, partial(_draw_boundary, groups=shown, measured=measured, predicted=predicted, scale=scale))
        for measured, predicted, title, scale in (
            (ACTIVE, PREDICTED, CATALOGUE[ACTIVE].title, "linear"),
            ("mse", "predicted_mse", "test MSE per pixel, z drawn", "linear"),
            ("kld", "predicted_kld", CATALOGUE["kld"].title, "symlog"),
        )
    ]
    return chart


def _have_one_form(groups: Sequence[Group]) -> bool:
    """Whether one closed form is that of all these runs: data, likelihood and latent dimensions are the same."""
    runs = [run for group in groups for run in group.runs]
    edges = [edge for run in runs if finite(edge := run.number("predicted_collapse_weight"))]
    kept: dict[float, set[float]] = {}
    for run in runs:
        kept.setdefault(run.number("kl_weight"), set()).add(run.number(PREDICTED))
    return max(edges, default=0) <= 1.01 * min(edges, default=0) and all(len(found) == 1 for found in kept.values())


def _means(runs: Sequence[Run], key: str) -> tuple[list[float], list[float]]:
    """KL weights, and the mean over the runs at each."""
    weights = sorted({run.number("kl_weight") for run in runs})
    at = [[run.number(key) for run in runs if run.number("kl_weight") == weight] for weight in weights]
    return weights, [sum(values) / len(values) for values in at]


def _draw_boundary(axes: Axes, groups: Sequence[Group], measured: str, predicted: str, scale: str) -> None:
    others = [key for key in varied(groups) if key != "anneal.weight"] or ["model"]
    series: dict[str, list[Run]] = {}
    for group in groups:
        series.setdefault(_settings(group, others), []).extend(group.runs)
    for i, (name, mine) in enumerate(series.items()):
        tint = COLOURS[i] if len(series) <= len(COLOURS) else INK
        axes.plot(*_means(mine, measured), color=tint, label=short(name) if tint != INK else None)
        axes.plot(
            [run.number("kl_weight") for run in mine], [run.number(measured) for run in mine], "o", ms=4, color=tint
        )
    runs = [run for group in groups for run in group.runs]
    x, kept = _means(runs, predicted)
    axes.plot(x, kept, color=INK, ls="--", lw=1.2, label="linear VAE, closed form")
    edge = runs[0].number("predicted_collapse_weight")
    if edge > 0:
        axes.axvline(edge, color=COLOURS[6], lw=1.2, ls=":")
    if all(weight > 0 for weight in x):
        _maybe_log(axes, x)
    axes.set_xlabel("KL weight")
    if scale == "symlog":
        logarithmic(axes, linear_below=0.1)
    axes.set_ylim(0, None)
    axes.legend(frameon=False, fontsize=8)


def rate_distortion(groups: Sequence[Group]) -> Chart:
    """Not of runs whose squared error is of one-step predictions, which owe little to the code."""
    points = [
        (group, run)
        for group in groups
        for run in group.runs
        if finite(run.number("kld"), run.number("mse")) and not one_step([run])
    ]
    free = [run.number("mse") for _, run in points if run.number("kl_weight") == 0]
    caption = (
        "Each run a point: what its code costs, and the squared error that is left (z drawn). "
        "A cross is a code that is not used. "
        + ("The dashed line is the lowest error without a KL term." if free else "")
    )
    panel = Panel("code against error", partial(_draw_rate, points=points, free=free, groups=groups), (4.6, 3.6))
    legend = list(dict.fromkeys(group.index for group, _ in points))
    by_index = {group.index: group for group in groups}
    return Chart(
        "rate_distortion",
        "What a code costs and what it buys",
        caption,
        [panel] if points else [],
        [by_index[index] for index in legend],
    )


def _draw_rate(axes: Axes, points: Sequence[tuple[Group, Run]], free: Sequence[float], groups: Sequence[Group]) -> None:
    for group, run in points:
        axes.plot(
            [run.number("kld")],
            [run.number("mse")],
            marker(run),
            ms=7,
            color=colour(group, groups),
            gid=mark(group, run),
            clip_on=False,
        )
    if free:
        axes.axhline(min(free), color=INK, ls="--", lw=0.8)
    logarithmic(axes, "x", linear_below=1)
    highest = max(run.number("kld") for _, run in points)
    axes.set(xlabel="KL, nats", ylabel="test MSE per pixel", xlim=(0, max(1.0, 1.05 * highest)))
    axes.set_ylim(0, 1.1 * max(run.number("mse") for _, run in points))


def prediction(groups: Sequence[Group]) -> Chart:
    """Active units: what a linear VAE would keep against what was measured."""
    points = [
        (group, run) for group in groups for run in group.runs if finite(run.number(PREDICTED), run.number(ACTIVE))
    ]
    caption = (
        "Active units: what a linear VAE would keep at the KL weight that the run has reached, and what was measured. "
        "On the line "
        "the two agree; a network that is not linear may keep more, a stuck one keeps none."
    )
    panel = Panel("active units, measured", partial(_draw_prediction, points=points, groups=groups), (4.6, 3.6))
    return Chart("prediction", "Predicted and measured", caption, [panel] if points else [])


def _draw_prediction(axes: Axes, points: Sequence[tuple[Group, Run]], groups: Sequence[Group]) -> None:
    top = max(*(run.number(key) for _, run in points for key in (PREDICTED, ACTIVE)), 1) * 1.08
    axes.plot([0, top], [0, top], color=INK, lw=0.8)
    for group, run in points:
        x, y = run.number(PREDICTED), run.number(ACTIVE)
        axes.plot([x], [y], marker(run), ms=7, color=colour(group, groups), gid=mark(group, run), clip_on=False)
    axes.set(xlabel="kept by a linear VAE", xlim=(0, top), ylim=(0, top))
    axes.locator_params(integer=True)


def codes(groups: Sequence[Group]) -> Chart:
    """Where the test images' codes lie, in the two dimensions whose mu varies most, one scale for all."""
    able = [group for group in groups if group.shown.has(names.CODES)]
    shown = spread(able, 4, lambda group: group.shown.codes is not None and group.shown.codes.shape[1] > 1)
    reach = max((float(np.abs(_plane(group.shown)).max(initial=3)) for group in shown), default=3.0) * 1.05
    classes = sorted({label for group in shown for label in group.shown.labels}, key=lambda text: (len(text), text))
    tints = dict(zip(classes, COLOURS, strict=False)) if len(classes) <= MAX_CLASSES else {}
    panels = [
        Panel(short(group.name, 26), partial(_draw_codes, run=group.shown, reach=reach, tints=tints), (3.2, 3.2))
        for group in shown
    ]
    caption = (
        "The mu of test images in the two dimensions in which it varies most, on one scale. The circles hold 50, 90 "
        "and 99 % of the "
        "prior, which new images are drawn from." + (" Colours: the classes." if tints else "")
    )
    return Chart("codes", "Where the codes lie", caption, panels if shown else [])


def _plane(run: Run) -> np.ndarray:
    assert run.codes is not None
    return run.codes[:, np.sort(run.codes.var(0).argsort()[::-1][:2])]


def _draw_codes(axes: Axes, run: Run, reach: float, tints: dict[str, str]) -> None:
    plane = _plane(run)
    labels = np.array(run.labels if len(run.labels) == len(plane) else [""] * len(plane))
    tints = tints if np.isin(labels, [*tints]).all() else {}  # another run's classes
    for label in tints or {"": ""}:
        of_it = plane[labels == label] if tints else plane
        axes.plot(
            *of_it.T, ".", ms=3, color=tints.get(label, COLOURS[0]), alpha=0.7, rasterized=True, label=short(label, 20)
        )
    angle = np.linspace(0, 2 * np.pi, 100)
    for mass in (0.5, 0.9, 0.99):
        radius = np.sqrt(-2 * np.log(1 - mass))  # of a two-dimensional standard normal
        axes.plot(radius * np.cos(angle), radius * np.sin(angle), color=INK, lw=0.8)
    top = 1.3 * reach if tints else reach  # above the circles, where the classes are named
    axes.set(xlim=(-reach, reach), ylim=(-reach, top), aspect="equal")
    if tints:
        axes.legend(
            frameon=False, fontsize=6, markerscale=2, ncols=5, loc="upper center", handletextpad=0, columnspacing=0.5
        )
