"""A launcher's workers: on this machine they save their runs and end when the call that launched them is stopped, or
has ended; what a cluster has been given goes on there."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from vae.runtime import children, commands, files
from vae.runtime import directory as names
from vae.runtime.signals import Interrupted, interrupting

HERE = ("LocalLauncher", "JoblibLauncher")  # launchers whose workers run on this machine
HEARD = (signal.SIGTERM, signal.SIGINT)


def launcher(config: DictConfig) -> str:
    """The name of the launcher's class."""
    return str(OmegaConf.select(config, "hydra.launcher._target_")).rpartition(".")[2]


@contextmanager
def stoppable(directory: Path, config: DictConfig) -> Iterator[int]:
    """Raises Interrupted where a SIGTERM or SIGINT comes while the sweep in `directory` is launched from this process,
    when its runs have ended. Gives the leash that `children.begin_work` wants of workers on this machine, or 0."""
    name = launcher(config)
    if name in HERE:
        with _held(directory) as leash:
            yield leash
    elif name == "BasicLauncher":  # runs one after the other in this process, and each hears for itself
        yield 0
    else:
        said = "stopped; what a cluster has been given goes on there, let it end or cancel it first"
        with interrupting(lambda number: Interrupted(said, commands.resume(directory), number), *HEARD):
            yield 0


@contextmanager
def _held(directory: Path) -> Iterator[int]:
    leash = children.Leash()

    def stopped(number: int) -> Interrupted:
        leash.let_go()
        deadline = time.monotonic() + children.GRACE
        while (left := _trained(directory)) and time.monotonic() < deadline:
            time.sleep(children.POLL)
        still = f"; {left} of its runs did not end in time" if left else ""
        return Interrupted(f"stopped{still}", commands.resume(directory), number)

    try:
        with interrupting(stopped, *HEARD):
            yield leash.pid
    finally:
        leash.let_go()


def _trained(directory: Path) -> int:
    """How many runs below `directory` a process trains now."""
    found = 0
    for run in names.runs_below(directory):
        with suppress(OSError):  # one that could not begin is removed meanwhile
            found += files.is_locked(run)
    return found
