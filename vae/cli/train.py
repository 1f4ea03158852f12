"""`python run.py`: train a new run."""

from pathlib import Path

from vae.cli import failures, processes
from vae.cli.session import Job
from vae.config.schema import RunConfig
from vae.output.record import RunRecord
from vae.runtime import directory as names
from vae.runtime import files
from vae.training.checkpoint import Checkpoint
from vae.training.loop import train


def train_new(job: Job, config: RunConfig) -> RunRecord:
    """A single run that cannot begin leaves no directory."""
    try:
        return train_alone(config, job.directory)
    except files.DirectoryInUse:
        raise  # it is the other run's
    except Exception:
        if job.is_single and not list(job.directory.glob(names.EVENTS)):
            failures.discard(job.directory)
        raise


def train_alone(config: RunConfig, directory: Path, saved: Checkpoint | None = None) -> RunRecord:
    """Train in `directory` while no other program does, with all processes of this one."""
    with files.locked(directory), failures.machine_errors(directory):
        processes.announce(processes.Task(config, directory, saved))
        record = train(config, directory, saved)
    assert record is not None, "the leader has one"
    return record
