"""`python run.py resume=DIR`: go on with an interrupted run, or with what is unfinished in a sweep."""

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from vae import checkpoint, files, result
from vae import config as conf
from vae.config import InputError
from vae.schema import RunConfig
from vae.terminal import say, show
from vae.train import train

MENDABLE = ("train.steps", "evaluation.batch_size", "evaluation.probe_images", "evaluation.iw_samples")


def go_on(composed: DictConfig, keys: list[str], directory: Path) -> dict[str, Any]:
    """Go on with the run in `directory` from its last checkpoint, or from its start where it has none yet, with its own
    configuration. Of the `keys` given on the command line only those of MENDABLE may differ: train.steps, upwards,
    and what an evaluation takes of memory."""
    own = directory / ".hydra" / "config.yaml"
    if (directory / checkpoint.FILE).exists() or (directory / checkpoint.PREVIOUS).exists():
        saved = checkpoint.read(directory)
        before = _revised_since(saved["config"], own)
    else:
        saved, before = {}, _begun(own)
    config = conf.revise(before, composed, keys, MENDABLE)
    _check_steps(config, conf.load(before), saved.get("step", 0), (directory / result.FILE).exists(), directory)
    files.remove_unfinished(directory)
    files.remove_unfinished(own.parent)
    if keys:
        files.replace(own, OmegaConf.to_yaml(OmegaConf.structured(config)).encode())
    return train(config, directory, saved or None)


def _begun(own: Path) -> dict[str, Any]:
    """The configuration that a run has from Hydra, which writes overrides.yaml last."""
    directory = own.parent.parent
    if not own.is_file():
        raise InputError(f"resume={directory}: {own} is missing, so this is no run's directory")
    if not (own.parent / "overrides.yaml").is_file():
        raise InputError(f"resume={directory}: ended before it had its configuration; remove it, start again")
    return _read(own)


def _read(own: Path) -> dict[str, Any]:
    try:
        values = files.read_yaml(own)
    except (OSError, ValueError) as error:
        raise InputError(f"{own}: cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"{own}: no configuration in it")
    try:
        conf.load(values)
    except InputError as error:
        raise InputError(f"{own}: {error}") from error
    return values


def _revised_since(saved: dict[str, Any], own: Path) -> dict[str, Any]:
    """The configuration of a checkpoint, with what a call of resume= has changed after it was written. Where
    config.yaml is damaged that of the checkpoint counts; where it is another run's, the two do not belong together."""
    try:
        now = dataclasses.asdict(conf.load(_read(own)))
    except InputError as error:
        say(f"{error}; going on with the configuration in the checkpoint")
        return saved
    before, after = OmegaConf.create(saved), OmegaConf.create(now)
    for key in MENDABLE:
        OmegaConf.update(before, key, OmegaConf.select(after, key))
    merged = conf.plain(before)
    for key, value in conf.flat(merged).items():
        other = conf.flat(now).get(key)
        if other != value:
            raise InputError(
                f"{own.parent.parent}: {key} is {value} in {checkpoint.FILE} and {other} in {own.name}: "
                "they are of two runs"
            )
    return merged


def _check_steps(config: RunConfig, before: RunConfig, step: int, finished: bool, directory: Path) -> None:
    steps = config.train.steps
    if finished and steps <= step:
        raise InputError(f"resume={directory}: has finished its {step} steps; train.steps=N with a larger N extends it")
    if steps < step:
        raise InputError(f"train.steps={steps}: the run in {directory} has made {step} steps already")
    if steps != before.train.steps and before.train.lr_schedule == "cosine":
        raise InputError(
            f"train.steps={steps}: with train.lr_schedule=cosine the steps already made had their learning rates from "
            f"train.steps={before.train.steps}; start a new run"
        )


def go_on_with_sweep(program: Path, directory: Path) -> int:
    """Go on with each unfinished run of a sweep and begin those that never began, one after the other, each in a
    process of its own, then write the sweep's report. How many failed."""
    from vae.report import page, runs

    jobs = sorted(path.parent.parent for path in directory.glob("*/.hydra/config.yaml"))
    unfinished = [job for job in jobs if not (job / result.FILE).exists() or (job / "error.txt").exists()]
    todo = {job.name: [f"resume={job}"] for job in unfinished} | _never_begun(directory)
    failed = 0
    for number, (name, arguments) in enumerate(todo.items(), start=1):
        say(f"sweep: going on with {name}, {number} of {len(todo)}")
        failed += subprocess.run([sys.executable, str(program), *arguments], check=False).returncode != 0
    found = runs.find([directory])
    show(f"report: {page.write(found, directory, page.heading(found))}")
    return failed


def _never_begun(directory: Path) -> dict[str, list[str]]:
    """Of a grid's jobs those that have no directory yet: for each the arguments that run it there, alone."""
    try:
        # Not resolved: a ${...} in an override is resolved job by job.
        hydra = files.read_yaml(directory / "multirun.yaml")["hydra"]
        if not hydra["sweeper"]["_target_"].endswith("BasicSweeper"):
            return {}  # what a search tries next depends on what it has seen
        jobs = conf.grid(hydra["sweeper"]["params"] or {}, hydra["overrides"]["task"])
        place = f"hydra.run.dir={directory}/{hydra['sweep']['subdir']}"
    except (OSError, ValueError, LookupError, TypeError, HydraException) as error:
        reason = conf.one_line(error)
        raise InputError(f"{directory / 'multirun.yaml'}: does not say what the sweep is ({reason})") from error
    return {
        " ".join(job): [*job, "hydra.mode=RUN", place.replace("${hydra:job.num}", str(number))]
        for number, job in enumerate(jobs)
        if not list(directory.glob(f"{number}_*"))
    }
