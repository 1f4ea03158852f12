"""The table of measures: a row a group, for the page and, in plain text, for the terminal."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from vae.measure.catalogue import CATALOGUE
from vae.measure.written import uncertainty
from vae.report.groups import Group
from vae.report.runs import Run

COLUMNS = {
    "mse": "MSE per pixel, z drawn",
    "mse_mu": "MSE per pixel, z = mu",
    "kld": CATALOGUE["kld"].title,
    "kl_weight": "KL weight",
    "active_units": f"{CATALOGUE['active_units'].title} (mu varies)",
    "mutual_information": CATALOGUE["mutual_information"].title,
    "swap_gap": CATALOGUE["swap_gap"].title,
    "predicted_active_units": CATALOGUE["predicted_active_units"].title,
    "predicted_kld": "KL of a linear VAE, nats",
    "elbo": CATALOGUE["elbo"].title,
    "sample_coverage": "test images covered by prior samples",
    "mixture_coverage": "by samples of a mixture",
    "real_coverage": "by training images",
    "seconds": "seconds",
}
NEVER_NEGATIVE = ("mutual_information",)  # an estimate may be, what it estimates is not
MAX_LIKELIHOODS = 3  # with a column of ELBOs each
NAMES = ("objective.name", "dataset.name")
SAME_ELBO = (  # settings of an objective or a dataset that change neither the likelihood nor a test image
    *("objective.kind", "objective.smoothing", "dataset.kind"),
    *(f"dataset.{name}" for name in ("train", "train_size", "with_validation", "labels", "test_labels")),
    *(f"dataset.{name}" for name in ("cache", "download", "follow_links", "max_megapixels", "skip_broken")),
)


@dataclass
class Column:
    key: str
    title: str
    groups: frozenset[int] | None = None  # the indices of those whose numbers stand in it; None: all

    @property
    def definition(self) -> str:
        return CATALOGUE[self.key].definition if self.key in CATALOGUE else ""

    def has(self, group: Group) -> bool:
        return self.groups is None or group.index in self.groups


@dataclass
class Row:
    group: Group
    cells: list[str]
    sort: list[float]  # NaN where a cell is empty


def columns(groups: Sequence[Group]) -> list[Column]:
    """Those in which some run has a number. ELBOs of different likelihoods or images do not compare: each has one."""
    found, kinds = [], likelihoods(groups)
    for key, title in COLUMNS.items():
        if not any(math.isfinite(value) for group in groups for value in group.number(key)):
            continue
        if key == "elbo" and len(set(kinds)) > 1:
            for kind in list(dict.fromkeys(kinds))[:MAX_LIKELIHOODS]:
                its = (group.index for group, other in zip(groups, kinds, strict=True) if other == kind)
                found.append(Column(key, f"{title}, of {kind}", frozenset(its)))
        else:
            found.append(Column(key, title))
    return found


def likelihoods(groups: Sequence[Group]) -> list[str]:
    """What each group's ELBO is of: the likelihood with its values, the data, and in what its images differ from those
    of other groups."""
    configs = [group.runs[0].config for group in groups]
    own = dict.fromkeys(key for config in configs for key in config if key.startswith(("objective.", "dataset.")))
    differ = [
        key
        for key in own
        if key not in NAMES and key not in SAME_ELBO and (key.startswith("objective.") or _differs(configs, key))
    ]
    return [
        ", ".join(
            [str(config[key]) for key in NAMES if config.get(key)]
            + [f"{key.partition('.')[2]} {config[key]}" for key in differ if config.get(key) is not None]
        )
        for config in configs
    ]


def _differs(configs: Sequence[Mapping[str, Any]], key: str) -> bool:
    return any(config.get(key) != configs[0].get(key) for config in configs)


def rows(groups: Sequence[Group], shown: Sequence[Column]) -> list[Row]:
    """Mean and standard deviation over the seeds of each group."""
    return [
        Row(group, [_cell(group, column) for column in shown], [_mean(group, column) for column in shown])
        for group in groups
    ]


def _cell(group: Group, column: Column) -> str:
    if not column.has(group):
        return ""
    text = cell(group.number(column.key), 0.0 if column.key in NEVER_NEGATIVE else -math.inf)
    if column.key.startswith("mse") and one_step(group.runs):
        text += " (one-step)"
    if column.key == "mutual_information" and any(at_ceiling(run) for run in group.runs):
        text += " (ceiling)"
    return text


def _mean(group: Group, column: Column) -> float:
    if not column.has(group):
        return math.nan
    return float(pd.Series(group.number(column.key), dtype=float).mean())


def at_ceiling(run: Run) -> bool:
    """Whether the mutual information is as large as its estimate can be."""
    return run.number("mutual_information") > run.number("mutual_information_ceiling") - 0.05


def one_step(runs: Sequence[Run]) -> bool:
    """Whether a squared error is of each pixel predicted from those before it."""
    return bool(runs) and all(run.record.get("one_step") is True for run in runs)


def cell(values: Sequence[float], least: float = -math.inf) -> str:
    """Mean, and the standard deviation (1 / (n - 1)) where there is one to be seen, to four digits."""
    series = pd.Series(values, dtype=float).dropna()
    if series.empty:
        return ""
    mean = digits(max(float(series.mean()), least))
    spread = 0.0 if len(series) == 1 else float(series.std())
    return mean if spread <= 1e-4 * abs(series.mean()) or mean[0] == "<" else f"{mean} ± {uncertainty(spread)}"


def digits(value: float) -> str:
    """Four digits, without an exponent where the number is of a readable size, and without a negative zero."""
    if 0 < value < 1e-4:
        return "< 0.0001"
    text = f"{value:.4g}"
    if "e" in text and 1e-4 <= abs(value) < 1e7:
        text = f"{value:.0f}" if abs(value) >= 1 else f"{value:.7f}".rstrip("0")
    return "0" if float(text) == 0 else text


def plain(groups: Sequence[Group], maximum: int = 40) -> str:
    """The table in plain text: what became of each group, and the measures that a first look needs."""
    chosen = {
        "fate": "verdict",
        "kld": "KL, nats",
        "mse": "MSE",
        "mse_mu": "MSE, z = mu",
        "active_units": "active units",
    }
    table = [["run", *chosen.values()]]
    for group in groups[:maximum]:
        table.append([group.name, group.fate, *(cell(group.number(key)) for key in list(chosen)[1:])])
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = [
        "  ".join(
            text.ljust(width) if i < 2 else text.rjust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in table
    ]
    if len(groups) > maximum:
        lines.append(f"and {len(groups) - maximum} more: see the report")
    return "\n".join(line.rstrip() for line in lines)


def tally(groups: Sequence[Group]) -> dict[str, int]:
    """How many runs have each verdict; those that failed or cannot go together are counted as that."""
    found: dict[str, int] = {}
    for group in groups:
        for run in group.runs:
            name = run.fate or "without a verdict"
            found[name] = found.get(name, 0) + 1
    return dict(sorted(found.items(), key=lambda item: -item[1]))
