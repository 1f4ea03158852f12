"""What becomes of a run that fails: the line that its user reads, error.txt, and the directory that it leaves or
not."""

import contextlib
import re
import shlex
import shutil
import sys
import traceback
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from pathlib import Path

from vae.cli.session import CURRENT, Job, Session
from vae.config.errors import InputError, RunFailed, one_line
from vae.config.load import (
    keys_below,
    no_group,
    no_list,
    options_of,
    unknown_key,
    unknown_option,
    without_value,
)
from vae.runtime import directory as names
from vae.runtime import files, terminal


@contextlib.contextmanager
def noted(job: Job) -> Iterator[None]:
    """Leaves error.txt for the failure of a sweep's job: the other jobs continue, and the report names this one. A
    single run ends with the line that its user can do something about; Hydra would put one of its own above it."""
    try:
        yield
    except Exception as error:
        session = CURRENT.get()
        if not job.is_single and not isinstance(error, files.DirectoryInUse):  # whose end the other process tells
            said = str(error) if isinstance(error, InputError) else traceback.format_exc()
            with contextlib.suppress(OSError):  # what went wrong may be just that nothing can be written
                job.directory.mkdir(parents=True, exist_ok=True)
                (job.directory / names.ERROR).write_text(terminal.lines(said) + "\n")
        elif job.is_single and isinstance(error, InputError) and session is not None and not session.wants_traceback:
            sys.exit(str(error))
        raise


@contextlib.contextmanager
def machine_errors(directory: Path) -> Iterator[None]:
    """Turns I/O and out-of-memory errors into RunFailed, with what to do."""
    try:
        yield
    except OSError as error:
        where = f" (at {error.filename})" if error.filename else ""
        raise RunFailed(
            f"{directory}: {error.strerror or error}{where}; fix that, and resume={directory} continues the run if it "
            "had begun"
        ) from error
    except (MemoryError, RuntimeError) as error:
        from vae.runtime.machine import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        raise RunFailed(
            f"{directory}: out of memory; take a smaller model, or lower train.batch_size or dataset.size"
        ) from error


def discard(directory: Path) -> None:
    """Remove the directory of a run that never began, and those above it, below this one, that it leaves empty."""
    shutil.rmtree(directory, ignore_errors=True)
    with contextlib.suppress(OSError):
        for parent in directory.parents:
            if not parent.is_relative_to(Path.cwd()) or parent == Path.cwd():
                break
            parent.rmdir()


def last_line(error: Exception, session: Session) -> str:
    """The line that ends the program; the directory of a run that Hydra could not begin goes with it."""
    if is_killed_worker(error):
        directory = session.sweep.directory if session.sweep is not None else None
        return f"{what_ended(error)}; resume={directory} continues where it stopped"
    if isinstance(error, InputError):
        return str(error)
    said = in_one_line(error)
    if session.new_directory is None:
        return said
    discard(session.new_directory)
    return f"{session.new_directory}: {said}" if isinstance(error, OSError) else said


def in_one_line(error: Exception) -> str:
    """What Hydra, OmegaConf or the system say."""
    said = one_line(error)  # with its cause
    return _mistake(str(error)) or _mistake(said) or said or type(error).__name__


def _mistake(text: str) -> str | None:
    """What Hydra says of a key or an option that does not exist, in our words. Its own hint, to put a + before the key,
    does not help: such a key is refused all the same."""
    key = re.match(r"Could not override '([^']+)'", text)
    if key:
        return unknown_key(key[1])
    word = re.match(r"Error parsing override '(.*)'\nmissing EQUAL", text)
    if word:
        return without_value(word[1])
    several = re.match(r"Ambiguous value for argument '([^=']+)=([^']*)'", text)
    if several:
        name, values = several[1].removeprefix("use."), several[2]
        listed_values = shlex.quote(f"{name}=[{values}]")
        return f"{name}={values}: is several values; a list is {listed_values}, and -m runs one after the other"
    merged = re.match(r"Error merging override \+*([\w.]+)=(.*?)\s(Cannot |Invalid type|field ')", text)
    if merged:
        name, value = merged[1], merged[2]
        below = keys_below(name)
        is_group = below or (name.startswith("hydra.") and not value.startswith("{"))
        return no_group(name, value, below) if is_group else no_list(name, value)
    second = re.match(r"In '\S+': Could not load '([\w/]+)/([^'/]+)'", text)  # of several that were given for a group
    if second:
        return unknown_option(second[1], second[2], options_of(second[1]))
    option = re.search(r"Could not find '([\w/]+)/([^'/]+)'", text)
    listed = re.search(r"Available options in '[^']+':\n((?:\t.+\n?)+)", text)
    return unknown_option(option[1], option[2], listed[1].split()) if option and listed else None


def is_killed_worker(error: Exception) -> bool:
    """Whether a launcher (joblib, submitit, Ray) says that a process of its own came to an end."""
    lost = ("UncompletedJobError", "FailedJobError", "WorkerCrashedError", "OutOfMemoryError")
    launcher = type(error).__module__.partition(".")[0] in ("submitit", "ray")
    return isinstance(error, BrokenExecutor) or (launcher and type(error).__name__ in lost)


def what_ended(error: Exception) -> str:
    """What a launcher says of a process of its own that came to an end: killed, or with an exception of its own, whose
    traceback submitit hands on between two rules."""
    raised = re.search(r"([^\n]+)\s*\n-{20,}", str(error).partition("with trace:")[2].partition("\n")[2].lstrip("-\n"))
    return f"a job failed ({raised[1]})" if raised else "a job was killed, or ran out of memory or time"
