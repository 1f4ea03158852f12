"""Which published cure brought which dead code to life: what `python run.py sweep=cures cause=all seed=0,1,2` has
measured, kept beside this file in the columns of such a sweep's cures.csv (docs/cures.md has it as a table, and says of
which runs it was put together). No torch."""

import csv
import dataclasses
import functools
from collections.abc import Mapping
from importlib import resources
from typing import Any, NamedTuple

from vae.config import load, schema
from vae.measure.setting import Setting

PLAIN = "none"  # the runs without a cure


class Cured(NamedTuple):
    """One cure on the runs that show one cause, one run a seed. Without a cure not every seed need be dead."""

    cause: str  # objective, optimiser, decoder
    cure: str
    runs: int  # that can be judged, or failed; 0 where the two cannot go together
    alive: int  # of them
    on_paper: int  # of them: alive, and costing more than it saves
    elbo_gain: float  # nats above the ELBO of the run without a cure and with the same seed, mean over seeds
    saved_less_paid: float  # nats that the code saves of log p(x|z), at most, less its KL


@functools.cache
def measured() -> tuple[Cured, ...]:
    """Every cell of the matrix, cause by cause in the order of the sweep."""
    text = resources.files("vae.measure").joinpath("cured.csv").read_text(encoding="utf-8")
    return tuple(_cell(row) for row in csv.DictReader(text.splitlines()))


def _cell(row: dict[str, str]) -> Cured:
    runs, alive, on_paper = (int(row[name]) for name in ("runs", "alive", "on_paper"))
    gain, saved = (float(row[name] or "nan") for name in ("elbo_gain", "saved_less_paid"))
    return Cured(row["cause"], row["cure"], runs, alive, on_paper, gain, saved)


def helped(cause: str | None) -> list[Cured]:
    """The cures with which every run that shows `cause` was alive, at no loss of its ELBO, the best first."""
    found = [cell for cell in measured() if cell.cause == cause and cell.runs and cell.cure != PLAIN]
    good = [cell for cell in found if cell.alive == cell.runs and cell.elbo_gain > 0]
    return sorted(good, key=lambda cell: -cell.elbo_gain)


def without(cause: str | None) -> str:
    """How many of those runs are alive without a cure, in words."""
    plain = next(cell for cell in measured() if cell.cause == cause and cell.cure == PLAIN)
    return f"without a cure {plain.alive} of {plain.runs}"


def said(cause: str | None) -> str:
    """A sentence on what is known to help; empty of a cause that was not measured."""
    tried = [cell for cell in measured() if cell.cause == cause and cell.runs and cell.cure != PLAIN]
    if not tried:
        return ""
    good = helped(cause)
    if not good:
        none = f"With none of {len(tried)} published cures were all runs that show this cause alive without loss"
        return f"{none} (docs/cures.md)."
    names = ", ".join(cell.cure for cell in good)
    most = f"Of {len(tried)} published cures, all runs that show this cause were alive with these"
    return f"{most}, the best first: {names} ({without(cause)}; docs/cures.md)."


def fits(cure: str, config: Setting, is_predicted: bool) -> bool:
    """Whether a run with this configuration, and no cure yet, could be made again with `cure`, and would be another
    one. `is_predicted`: a linear optimum is known of it."""
    if config.cure.kind != "none":
        return False
    found, values = load.cure(cure)
    model = dataclasses.replace(config.model, **values)
    if model == config.model and isinstance(found, schema.SpectralStart):
        return False
    if model.start == "spectral" != config.model.start and not is_predicted:
        return False
    changed = Changed(model, config.anneal, config.train)
    return model.misfit(config.objective) is None and found.refuses(changed) is None


def pays(cure: str, record: Mapping[str, Any]) -> bool:
    """Whether what is predicted to be gained is more than the nats that `cure` makes the code cost beyond those that
    are predicted, in a run with this flat record; true where there is no prediction."""
    kld, gain = record["predicted_kld"], record["predicted_gain"]
    if kld is None or gain is None:
        return True
    beyond = load.cure(cure)[0].least_kl(record["latent_dim"]) - kld
    return bool(record["max_kl_weight"] * beyond < gain)


class Changed(NamedTuple):
    """A configuration with the values of the model that a cure sets."""

    model: schema.Model
    anneal: schema.Anneal
    train: schema.Train | None


def table() -> str:
    """Cures by causes, in Markdown: how many of the runs came alive, and what that did to their ELBO."""
    causes = list(dict.fromkeys(cell.cause for cell in measured()))
    cells = {(cell.cure, cell.cause): cell for cell in measured()}
    lines = [["cure", *causes], ["---"] * (len(causes) + 1)]
    for cure in dict.fromkeys(cell.cure for cell in measured()):
        lines.append([f"`{cure}`", *(_shown(cells.get((cure, cause))) for cause in causes)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _shown(cell: Cured | None) -> str:
    if cell is None or not cell.runs:
        return "cannot go together"
    paper = f", {cell.on_paper} on paper" if cell.on_paper else ""
    gain = "" if cell.cure == PLAIN else f"; ELBO {cell.elbo_gain:+.2g}"
    alive = f"**{cell.alive} of {cell.runs}**" if cell.alive == cell.runs else f"{cell.alive} of {cell.runs}"
    return f"{alive}{paper}{gain}"
