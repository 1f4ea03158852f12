"""`python run.py`: train a new run."""

import dataclasses
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from vae.cli import failures, processes
from vae.cli.recommend import chosen
from vae.cli.reporting import write_report
from vae.cli.session import Job
from vae.config.errors import InputError
from vae.config.load import located, modules
from vae.config.schema import RunConfig
from vae.data.split import Data
from vae.output import record as records
from vae.output.record import RunRecord
from vae.runtime import commands, files, parallel
from vae.runtime import directory as names
from vae.runtime.signals import continued_by
from vae.runtime.terminal import logged_to
from vae.training import checkpoint
from vae.training.checkpoint import Checkpoint
from vae.training.loop import train

log = logging.getLogger(__name__)


def train_new(job: Job, config: RunConfig) -> dict[str, Any]:
    """A single run that cannot begin leaves no directory."""
    with continued_by(commands.resume, job.directory):
        try:
            with alone_in(job.directory):
                if not job.is_single and names.has_checkpoint(job.directory):
                    record = _taken_up(job.directory, config)
                else:
                    config, data = chosen(job.keys, job.directory, config) if config.choose else (config, None)
                    record = train_together(config, job.directory, data=data).to_dict()
        except files.DirectoryInUse:
            raise  # it is the other run's
        except Exception:
            if job.is_single and not list(job.directory.glob(names.EVENTS)):
                failures.discard(job.directory)
            raise
        report_on(job, config)
    return record


def _taken_up(directory: Path, config: RunConfig) -> dict[str, Any]:
    """A job that its cluster has preempted and begins again, by the same call in the same directory, goes on from its
    last checkpoint."""
    saved = checkpoint.read(directory, modules(dataclasses.asdict(config)))
    same = dataclasses.replace(located(config, commands.started_in(directory)), allow=saved.config.allow)
    if not config.choose and same != saved.config:
        raise InputError(f"{directory}: holds a run with other settings; {commands.resume(directory)} continues it")
    record = records.read(directory)
    if "verdict" in record:
        return record
    log.info("%s  was begun before, and goes on after step %d", directory, saved.step)
    config = dataclasses.replace(saved.config, allow=config.allow)  # with what was chosen
    files.remove_unfinished(directory)
    files.replace(directory / names.CONFIG, OmegaConf.to_yaml(OmegaConf.structured(config)).encode())
    return train_together(config, directory, saved).to_dict()


def report_on(job: Job, config: RunConfig) -> None:
    """The report of a run that has ended; those of a sweep have one together."""
    if job.is_single and config.pictures.report:
        write_report(job.directory)


@contextmanager
def alone_in(directory: Path) -> Iterator[None]:
    """No other program trains in `directory` meanwhile. What the machine cannot give is said in one line."""
    with files.locked(directory), failures.machine_errors(directory), logged_to(directory / names.LOG):
        yield


def train_together(
    config: RunConfig, directory: Path, saved: Checkpoint | None = None, data: Data | None = None
) -> RunRecord:
    """Train with all processes of this call. `data`: the run's, where this one has read them already; of several
    processes each reads them for itself."""
    processes.announce(processes.Task(config, directory, saved))
    record = train(config, directory, saved, data if parallel.size() == 1 else None)
    assert record is not None, "the leader has one"
    return record
