"""One run on several processes: the leader announces what it trains, the others train it with it."""

import os
import sys
from pathlib import Path
from typing import NamedTuple, NoReturn

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


def dismiss() -> NoReturn:
    announce(None)
    _end()


def follow() -> NoReturn:
    """Train what the leader announces, until it says that there is no more."""
    parallel.join()
    while (task := parallel.broadcast()) is not None:
        train(*task)
    _end()


def _end() -> NoReturn:
    """All is written, and the process ends at once: while an interpreter shuts down, threads of torch's process group
    that still run can abort it ("terminate called without an active exception")."""
    parallel.leave()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
