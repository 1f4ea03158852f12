"""The combinations of a sweep that cannot go together, where the sweep asks just that. They are found, said and left on
the disk before anything is trained; their jobs then do nothing."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from vae.cli.grid import composed_jobs, jobs, own_overrides, settings
from vae.config.errors import Misfit
from vae.config.load import load
from vae.runtime import directory as names
from vae.runtime import naming, terminal

log = logging.getLogger(__name__)


class Refusal(NamedTuple):
    """A job that cannot be run, and why."""

    job: list[str]
    place: str  # of its directory in the sweep's
    settings: DictConfig
    reason: Misfit


def settle(config: DictConfig, plain: str) -> None:
    """Of the sweep that `config`, Hydra's, describes: a job whose settings do not fit each other, and would with the
    option `plain` (as in cure=none) in place of its own, leaves its reason in its directory. Raises InputError for a
    job that is refused for anything else, and where no job is left."""
    every = jobs(config)
    try:
        found = _refused(config, every, plain)
    except HydraException:
        return  # of which Hydra tells the user, before the first job
    if not found:
        return
    if len(found) == len(every):
        raise found[0].reason
    keys = [key for key in naming.varied(every) if key != "seed"]
    what = dict.fromkeys(naming.label(refusal.job, keys) for refusal in found)
    terminal.log_to_stderr()
    log.info("sweep: %d of %d combinations cannot go together: %s", len(found), len(every), "; ".join(what))
    for refusal in found:
        _leave(refusal, Path(str(config.hydra.sweep.dir)) / refusal.place)


def _refused(config: DictConfig, every: Sequence[list[str]], plain: str) -> list[Refusal]:
    """Settings that differ in the seed alone are tried once."""
    name, own = str(config.hydra.job.config_name), own_overrides(config)
    alike: dict[tuple[str, ...], dict[int, list[str]]] = {}
    for number, job in enumerate(every):
        alike.setdefault(tuple(item for item in job if naming.split(item)[0] != "seed"), {})[number] = job
    found = []
    for numbered in alike.values():
        job = next(iter(numbered.values()))
        reason = _reason(name, job, own)
        if reason is None:
            continue
        if _reason(name, _with(plain, job), own) is not None:
            raise reason
        for composed, job in zip(composed_jobs(name, numbered, own), numbered.values(), strict=True):
            found.append(Refusal(job, str(composed.hydra.sweep.subdir), settings(composed), reason))
    return found


def _reason(name: str, job: list[str], own: Sequence[str]) -> Misfit | None:
    """Why the settings of a job do not fit each other; None where they do. Raises InputError for any other mistake."""
    (found,) = (settings(composed) for composed in composed_jobs(name, {0: job}, own))
    try:
        load(found)
    except Misfit as reason:
        return reason
    return None


def _with(plain: str, job: Sequence[str]) -> list[str]:
    """The job with another option of a group, and without the values of its own."""
    group = naming.split(plain)[0]
    others = [item for item in job if not (naming.split(item)[0] + ".").startswith(group + ".")]
    return [*others, plain]


def _leave(refusal: Refusal, directory: Path) -> None:
    """What the report reads of a run that never began."""
    (directory / names.CONFIG).parent.mkdir(parents=True)
    (directory / names.CONFIG).write_text(OmegaConf.to_yaml(refusal.settings))
    (directory / names.OVERRIDES).write_text(OmegaConf.to_yaml(OmegaConf.create(refusal.job)))
    (directory / names.REFUSED).write_text(terminal.lines(str(refusal.reason)) + "\n")
