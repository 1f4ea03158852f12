"""One run on several processes: the leader announces what it trains, the others train it with it."""

from pathlib import Path
from typing import NamedTuple

from vae.config.schema import RunConfig
from vae.runtime import parallel
from vae.training.checkpoint import Checkpoint
from vae.training.loop import train


class Task(NamedTuple):
    """What `train` is called with."""

    config: RunConfig
    directory: Path
    saved: Checkpoint | None


def announce(task: Task | None) -> None:
    """The leader's: tell the other processes, if there are any, what to train; None: that they can end."""
    parallel.join()
    parallel.broadcast(task)


def dismiss() -> None:
    announce(None)
    parallel.leave()


def follow() -> None:
    """Train what the leader announces, until it says that there is no more."""
    parallel.join()
    while (task := parallel.broadcast()) is not None:
        train(*task)
    parallel.leave()
