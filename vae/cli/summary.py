"""What a finished run says on the terminal."""

import os
import shlex
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vae.measure.catalogue import CATALOGUE, FinalMeasures, SplitMeasures, measures
from vae.measure.written import number
from vae.output.record import RunRecord
from vae.runtime import commands
from vae.runtime import directory as names

SHOWN = ("mse", "mse_mu", "kld", "elbo", "iwae_bound")
WIDTH = 100


def size(directory: Path) -> int:
    """Bytes of the files in and below it."""
    return sum(path.lstat().st_size for path in directory.rglob("*") if path.is_file())


def measured(record: RunRecord, before: Mapping[str, Any]) -> str:
    """Every measure of the test split and of the end, beside what `before`, an earlier record, has."""
    found = record.to_dict()
    listed = [item for group in (SplitMeasures, FinalMeasures) for item in measures(group)]
    shown = [item for item in listed if isinstance(found.get(item.name), int | float)]
    wide = max(len(item.title) for item in shown)
    lines = []
    for item in shown:
        new, old = found[item.name], before.get(item.name)
        was = f"   was {number(old)}" if isinstance(old, int | float) and number(old) != number(new) else ""
        lines.append(f"{item.title:<{wide}}  {number(new)}{was}")
    return "\n".join(lines)


def summary(found: Mapping[str, Any], directory: Path) -> str:
    """The measures in the flat record of a finished run, where it is, and its verdict in words."""
    shown = [name for name in SHOWN if found.get(name) is not None]
    titles = {name: CATALOGUE[name].title for name in shown}
    if found.get("one_step"):
        titles["mse"] = f"one-step {titles['mse']}"
    if "iwae_bound" in titles:
        titles["iwae_bound"] = "IWAE bound, probe images"  # the ELBO is of all
    lines = [f"{'test ' + titles[name]:<32}{found[name]:.6g}" for name in shown]
    lines += [
        f"{'KL weight':<32}{found['kl_weight']:.6g}",
        f"{'mu':<32}{found['mu_min']:.3g} to {found['mu_max']:.3g}, mean {found['mu_mean']:.3g}",
        f"{'sigma':<32}{found['sigma_min']:.3g} to {found['sigma_max']:.3g}, mean {found['sigma_mean']:.3g}",
        f"{'results':<32}{os.path.relpath(directory)} ({size(directory) / 1e6:.0f} MB)",
        f"{'browse':<32}tensorboard --logdir {shlex.quote(os.path.relpath(directory))}",
    ]
    if (directory / names.REPORT).is_file():
        lines.append(f"{'report':<32}{os.path.relpath(directory / names.REPORT)}")
    if "seconds" in found:  # not where an interrupted run is measured again
        lines.append(f"{'time':<32}{found['seconds']:.0f} s, {found['images_per_second']:.0f} images/s")
    if "linear_kept" in found:
        for label, kind in (("closed form", "optimum"), ("this model", "linear")):
            kept, kl, sse, elbo = (found[f"{kind}_{name}"] for name in ("kept", "kld", "sse", "elbo"))
            lines.append(f"{label:<32}kept {kept} (KL above 0.01 nats), KL {kl:.4f}, SSE {sse:.4f}, ELBO {elbo:.3f}")
    answer = textwrap.wrap(f"{found['verdict']}: {found.get('explanation', found['reason'])}", WIDTH)
    for why, command in commands.advised(found, directory):
        answer += ["", f"To try: {why}.", *([f"  {command}"] if command else [])]
    best = found.get("best_step")
    ended = f"finished after {found['steps']} steps" + (f" with the model of step {best}" if best else "")
    return "\n".join([f"{found['run_name']} {ended}", *lines, "", *answer])
