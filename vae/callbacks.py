"""What Hydra calls around runs: `Guard` looks before Hydra writes anything, `SweepReport` sums up a multirun."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vae import config as conf
from vae import result
from vae.terminal import say, show

NEW: list[Path] = []  # the directory of the single run of this process, until it has begun


class Guard(Callback):
    """Refuses a run that cannot be made: a wrong config, a directory that holds another run or cannot be written.

    Hydra turns an exception in a callback into a warning, so the refusal is a SystemExit with one line."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        with refusals():
            values = {key: value for key, value in config.items_ex(resolve=False) if key != "hydra"}
            conf.load(OmegaConf.create(values))
            for key in ("evaluate", "resume"):
                if config[key] is not None and not Path(config[key]).is_dir():
                    raise conf.InputError(f"{key}={config[key]}: no such directory")
            if config.evaluate is None and config.resume is None:
                directory = Path(str(config.hydra.run.dir))
                check_directory(directory)
                NEW.append(directory.absolute())

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """What is swept is checked job by job; here only that no other sweep is mixed into."""
        with refusals():
            if conf.processes() > 1:
                raise conf.InputError("torchrun is for one run; a sweep takes hydra/launcher=joblib instead")
            for item in OverridesParser.create().parse_overrides(list(config.hydra.overrides.task)):
                if item.key_or_group in ("evaluate", "resume"):
                    raise conf.InputError(f"{item.key_or_group}= takes one directory; leave -m out")
            check_directory(Path(str(config.hydra.sweep.dir)), "hydra.sweep.dir")


@contextmanager
def refusals() -> Iterator[None]:
    """End the program with one line for what a user can mend."""
    try:
        yield
    except conf.InputError as error:
        sys.exit(str(error))
    except (OmegaConfBaseException, OSError) as error:  # OSError: a name that is too long for a path
        sys.exit(conf.one_line(error))


def check_directory(directory: Path, key: str = "hydra.run.dir") -> None:
    """Raise InputError unless `directory` is empty or can be made."""
    if directory.is_dir() and any(directory.iterdir()):
        raise conf.InputError(f"{key}={directory}: holds something already; choose another, or remove it")
    parent = directory
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise conf.InputError(f"{key}={directory}: {parent} is no directory that can be written to")


PENDING: list["SweepReport"] = []  # multiruns of this process


class SweepReport(Callback):
    """Says how far a multirun is, and writes its report at the end, also when jobs failed.

    Hydra does not call on_multirun_end when a job has failed, so run.py asks PENDING at its end. Launchers send a
    copy of this object to their workers: what belongs to the main process stays behind. Finished jobs are counted on
    the disk, where every launcher's workers leave them."""

    def __init__(self) -> None:
        self.directory: Path | None = None
        self.total = 0
        self.started = 0.0
        self.owner = False

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"owner": False}

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        self.directory = Path(str(config.hydra.sweep.dir)).resolve()
        self.total = count_jobs(config)
        self.started = time.time()
        self.owner = True
        PENDING.append(self)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        if self.directory is None:  # a single run
            return
        done = len({path.parent for file in (result.FILE, "error.txt") for path in self.directory.glob(f"*/{file}")})
        spent = time.time() - self.started
        left = spent / max(done, 1) * (self.total - done)
        say(f"sweep: {done} of {self.total} runs done in {spent:.0f} s, about {left:.0f} s left")

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        self.report()

    def report(self) -> None:
        """Once, and only where there are runs."""
        if not self.owner or self.directory is None or not self.directory.is_dir():
            return
        self.owner = False
        try:
            from vae.report import page, runs

            found = runs.find([self.directory])
            show(f"report: {os.path.relpath(page.write(found, self.directory, page.heading(found)))}")
        except Exception as error:  # the runs are there, whatever became of their report
            say(f"report: not written ({type(error).__name__}: {error})")


def count_jobs(config: DictConfig) -> int:
    """How many jobs the sweeper makes: a search says it, a grid has one for each combination of the overrides in
    hydra.sweeper.params and on the command line."""
    trials = OmegaConf.select(config, "hydra.sweeper.n_trials")
    if trials is not None:
        return int(trials)
    params = OmegaConf.select(config, "hydra.sweeper.params") or {}
    return len(conf.grid(params, list(config.hydra.overrides.task)))
