"""What Hydra calls around runs: `Guard` checks before Hydra writes anything, `SweepReport` sums up a multirun."""

import logging
import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, read_write
from omegaconf.errors import OmegaConfBaseException

from vae.cli import failures, refusals, workers
from vae.cli.grid import (
    composed_jobs,
    count_jobs,
    is_search,
    jobs,
    naming_override,
    own_overrides,
    parsed,
    settings,
    shared_keys,
    subdirectories,
    task_overrides,
    unresolved_subdir,
)
from vae.cli.reporting import write_report
from vae.cli.session import CURRENT, DIRECTORIES
from vae.config.errors import Inconsistent, InputError, Misfit, one_line
from vae.config.load import load
from vae.runtime import children, commands, cores
from vae.runtime import directory as names
from vae.runtime.terminal import log_to_stderr
from vae.runtime.torchrun import world

log = logging.getLogger(__name__)


class Guard(Callback):
    """Refuses a run that cannot be made: a wrong config, a directory that holds another run or cannot be written.

    Hydra turns an exception in a callback into a warning, so the refusal is a SystemExit with one line. `plain`: the
    option that a sweep holds the others of its group against; what goes together with it alone is no mistake."""

    def __init__(self, plain: str | None = None) -> None:
        self.plain = plain

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        with _refusals():
            _check_names(config.hydra.runtime)
            checked = load(settings(config))
            existing = checked.verbs()
            for verb, directory in existing.items():
                place = Path(directory)
                if place.is_file():
                    raise InputError(f"{verb}={directory}: is a file; name the run's directory, {verb}={place.parent}")
                if not place.is_dir():
                    raise InputError(f"{verb}={directory}: no such directory")
            if len(existing) > 1:
                raise InputError(f"{', '.join(f'{verb}=' for verb in existing)} are one at a time")
            is_typed = _is_typed(config, "hydra.run.dir")
            if is_typed and existing:  # it would be worked on instead
                raise InputError(
                    f"hydra.run.dir: {next(iter(existing))}= writes into the run's directory; leave it out"
                )
            if is_typed and checked.recommend:
                raise InputError("hydra.run.dir: recommend=true makes no run; leave it out")
            if not existing and not checked.recommend:
                new = Path(str(config.hydra.run.dir))
                if is_typed:
                    check_directory(new)
                else:
                    new = made(new)
                    with read_write(config.hydra):
                        config.hydra.run.dir = str(new)
                session = CURRENT.get()
                if session is not None:
                    session.new_directory = new.absolute()

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """What is swept is checked before the first job, and that no other sweep is mixed into."""
        with _refusals():
            if world().size > 1:
                raise InputError("torchrun is for one run; a sweep takes hydra/launcher=joblib instead")
            for item in parsed(task_overrides(config)):
                if item.key_or_group in DIRECTORIES:
                    raise InputError(f"{DIRECTORIES[item.key_or_group]}= takes one directory; leave -m out")
            directory, key = Path(str(config.hydra.sweep.dir)), "hydra.sweep.dir"
            is_given = _is_typed(config, key)
            check_directory(directory, key) if is_given else check_place(directory, key)
            name_jobs(config)
            check_values(config)
            check_subdirectories(config)
            if self.plain is not None and not is_search(config):
                refusals.settle(config, self.plain)
            if not is_given:
                new = str(made(directory, key))
                with read_write(config.hydra):
                    config.hydra.sweep.dir = new
                    config.hydra.overrides.hydra.append(f"{key}={commands.written(new)}")  # for the jobs: see name_jobs


def _check_names(runtime: DictConfig) -> None:
    """Raises InputError where an option that was chosen stands in the user's directory, but Hydra has read the one of
    the same name that comes with the program."""
    sources = [Path(source.path) for source in runtime.config_sources if source.schema == "file" and source.path]
    for group, name in runtime.choices.items():
        places = [place for source in sources if (place := source / str(group) / f"{name}.yaml").is_file()]
        if len(places) > 1 and "hydra" not in str(group):
            raise InputError(
                f"{group}={name}: {places[-1]} has the name of an option that comes with the program, which is read "
                "instead; give it another name"
            )


class SweepReport(Callback):
    """Says how far a multirun is, and writes its report at the end, also when jobs failed.

    Hydra does not call on_multirun_end when a job has failed, so the session's end writes the report too. Launchers
    send a copy of this object to their workers. Finished jobs are counted on the disk, where every launcher's workers
    leave them."""

    def __init__(self) -> None:
        self.directory: Path | None = None
        self.total = self.launched_by = self.leash = 0
        self.ended_before: set[tuple[Path, int]] = set()
        self.started = 0.0
        self.written = False

    def begin(self, directory: Path, total: int) -> None:
        """`total` runs of the sweep in `directory` are about to be launched from this process."""
        self.directory, self.total = directory, total
        self.started, self.ended_before, self.launched_by = time.time(), self._ended(), os.getpid()

    def _ended(self) -> set[tuple[Path, int]]:
        """What runs of the sweep have left at their end, and when: a run that is resumed leaves it anew."""
        assert self.directory is not None
        found = set()
        for path in (path for file in (names.RESULT, names.ERROR) for path in self.directory.rglob(file)):
            with suppress(FileNotFoundError):  # of a run that has been resumed since
                found.add((path, path.stat().st_mtime_ns))
        return found

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        log_to_stderr()
        directory = Path(str(config.hydra.sweep.dir)).resolve()
        self.begin(directory, count_jobs(config) - len(list(directory.rglob(names.REFUSED))))
        session = CURRENT.get()
        if session is not None:
            session.sweep, session.composed = self, True
            self.leash = session.stack.enter_context(workers.stoppable(directory, config))

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """A worker on this machine ends with the call that launched it. submitit starts all jobs of a sweep at once on
        its own machine, and tells none of its share of the cores."""
        session = CURRENT.get()
        if self.leash and self.launched_by != os.getpid():
            children.begin_work(self.leash)
        elif self.leash and session is not None:  # joblib with one worker: each run hears for itself
            session.stack.close()
            self.leash = 0
        if workers.launcher(config) == "LocalLauncher":
            os.environ.setdefault("OMP_NUM_THREADS", str(cores.share(self.total)))

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        if self.directory is None or (Path(config.hydra.runtime.output_dir) / names.REFUSED).exists():
            return  # a single run, or none
        done = len({path.parent for path, _ in self._ended() - self.ended_before})
        spent = time.time() - self.started
        left = spent / max(done, 1) * (self.total - done)
        log.info("sweep: %d of %d runs done in %.0f s, about %.0f s left", done, self.total, spent, left)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        self.write()

    def write(self) -> None:
        """The report, once, and only where there are runs, refused ones among them."""
        if self.written or self.directory is None or not any(self.directory.rglob(names.CONFIG)):
            return
        self.written = True
        write_report(self.directory)


@contextmanager
def _refusals() -> Iterator[None]:
    """End the program with one line for what a user can fix."""
    try:
        yield
    except (InputError, OmegaConfBaseException, OSError) as error:  # OSError: a name that is too long for a path
        session = CURRENT.get()
        if session is not None and session.wants_traceback:
            traceback.print_exc()
        sys.exit(str(error) if isinstance(error, InputError) else one_line(error))


def name_jobs(config: DictConfig) -> None:
    """Let the name of each job's directory leave out what all jobs share. The jobs are composed anew, with Hydra's own
    overrides of this call: so it is one of them."""
    with read_write(config.hydra):
        config.hydra.overrides.hydra.append(naming_override(shared_keys(config)))


def check_values(config: DictConfig) -> None:
    """Raises InputError where a sweep has a value that is wrong whatever the others are, before the first job: each
    value is tried in one job. What a search will try is not known."""
    if is_search(config):
        return
    tried: set[str] = set()
    new: dict[int, list[str]] = {}
    for number, job in enumerate(jobs(config)):
        if not tried.issuperset(job):
            new[number] = job
            tried.update(job)
    try:
        for composed in composed_jobs(config.hydra.job.config_name, new, own_overrides(config)):
            with suppress(Misfit, Inconsistent):  # values that are fine in other jobs
                load(settings(composed))
    except HydraException as error:
        raise InputError(failures.in_one_line(error)) from error


def check_subdirectories(config: DictConfig) -> None:
    """Raises InputError where two jobs would share a directory: one would write over the other."""
    subdir = unresolved_subdir(config)
    if "hydra:job.num" in subdir or is_search(config):
        return
    first: dict[str, int] = {}
    for number, place in enumerate(subdirectories(config.hydra.job.config_name, jobs(config), own_overrides(config))):
        if place in first:
            raise InputError(
                f"hydra.sweep.subdir={subdir}: jobs {first[place]} and {number} would both write into {place}; leave "
                "it out, or put ${hydra:job.num} in it"
            )
        first[place] = number


def _is_typed(config: DictConfig, key: str) -> bool:
    """Whether this call gives one of Hydra's own keys."""
    return any(item.lstrip("+").startswith(f"{key}=") for item in own_overrides(config))


def made(directory: Path, key: str = "hydra.run.dir") -> Path:
    """`directory`, made for one run or sweep alone: with a number behind it where another has begun in the same
    second."""
    check_place(directory, key)
    new, number = directory, 1
    while True:
        try:
            new.mkdir(parents=True)
        except FileExistsError:
            number += 1
            new = directory.with_name(f"{directory.name}_{number}")
        else:
            return new


def check_directory(directory: Path, key: str = "hydra.run.dir") -> None:
    """Raise InputError unless `directory` is empty or can be made."""
    if directory.is_dir() and any(directory.iterdir()):
        raise InputError(f"{key}={directory}: holds something already; choose another, or remove it")
    check_place(directory, key)


def check_place(directory: Path, key: str) -> None:
    """Raise InputError unless `directory` can be made, or written to."""
    parent = directory
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(f"{key}={directory}: {parent} is no directory that can be written to")
