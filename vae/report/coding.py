"""What an image costs to send by bits-back coding (Hinton and van Camp 1993; Chen et al. 2017, arXiv 1611.02731,
section 2.1): -log p(x|z) nats say it given a code, KL nats say the code."""

import math
from collections.abc import Sequence

from vae.measure.written import number
from vae.report.runs import Run

COLUMNS = {
    "given": "image given its code, nats",
    "code": "code (KL), nats",
    "sum": "together (−ELBO), nats",
    "pixel": "bits per pixel",
    "saves": "cut off, the code would be missed by, nats",
    "inference": "of it lost to inexact inference, at least, nats",
}


def table(runs: Sequence[Run]) -> dict[str, list[str]]:
    """A row a run, of those whose likelihood is a probability or density of the images."""
    return {run.name: _row(run) for run in runs if math.isfinite(run.number("iwae_bound"))}


def _row(run: Run) -> list[str]:
    elbo, kld, mse = (run.number(name) for name in ("elbo", "kld", "mse"))
    pixels = run.number("sse") / mse if mse else math.nan
    values = {
        "given": -elbo - kld,
        "code": kld,
        "sum": -elbo,
        "pixel": -elbo / pixels / math.log(2),
        "saves": run.number("cut_gap"),
        "inference": run.number("posterior_gap"),
    }
    return [number(values[name]) if math.isfinite(values[name]) else "" for name in COLUMNS]
