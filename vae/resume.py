"""`python run.py resume=DIR`: go on with an interrupted run, or with what is unfinished in a sweep."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from vae import checkpoint, files, result
from vae import config as conf
from vae.config import InputError
from vae.schema import RunConfig
from vae.train import train


def go_on(composed: DictConfig, keys: list[str], directory: Path) -> dict[str, Any]:
    """Go on with the run in `directory` from its last checkpoint, or from its start where it has none yet, with its own
    configuration. Of the `keys` given on the command line only train.steps may differ, and only upwards."""
    own = directory / ".hydra" / "config.yaml"
    if not own.is_file():
        raise InputError(f"resume={directory}: {own} is missing, so this is no run's directory")
    if (directory / checkpoint.FILE).exists() or (directory / checkpoint.PREVIOUS).exists():
        saved = checkpoint.read(directory)
        before: dict[str, Any] = saved["config"]
    else:
        saved, before = {}, yaml.safe_load(own.read_text())
    config = conf.revise(before, composed, keys, ("train.steps",))
    _check_steps(config, conf.load(before), saved.get("step", 0), (directory / result.FILE).exists(), directory)
    if keys:
        files.replace(own, OmegaConf.to_yaml(OmegaConf.structured(config)).encode())
    return train(config, directory, saved or None)


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
        print(f"sweep: going on with {name}, {number} of {len(todo)}", file=sys.stderr)
        failed += subprocess.run([sys.executable, str(program), *arguments], check=False).returncode != 0
    found = runs.find([directory])
    print(f"report: {page.write(found, directory, page.heading(found))}")
    return failed


def _never_begun(directory: Path) -> dict[str, list[str]]:
    """Of a grid's jobs those that have no directory yet: for each the arguments that run it there, alone."""
    try:
        # Not resolved: a ${...} in an override is resolved job by job.
        hydra = yaml.safe_load((directory / "multirun.yaml").read_text())["hydra"]
        if not hydra["sweeper"]["_target_"].endswith("BasicSweeper"):
            return {}  # what a search tries next depends on what it has seen
        params = hydra["sweeper"]["params"] or {}
        given = [*(f"{key}={value}" for key, value in params.items()), *hydra["overrides"]["task"]]
        (jobs,) = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(given), None)
        place = f"hydra.run.dir={directory}/{hydra['sweep']['subdir']}"
    except (OSError, ValueError, LookupError, TypeError, HydraException, yaml.YAMLError) as error:
        reason = conf.one_line(error)
        raise InputError(f"{directory / 'multirun.yaml'}: does not say what the sweep is ({reason})") from error
    return {
        " ".join(job): [*job, "hydra.mode=RUN", place.replace("${hydra:job.num}", str(number))]
        for number, job in enumerate(jobs)
        if not list(directory.glob(f"{number}_*"))
    }
