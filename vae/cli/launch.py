"""The begin and the end of a call: streams, exit status, the one line that a failure leaves, what is put in order."""

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vae.cli import failures
from vae.cli.arguments import expanded
from vae.cli.left_out import left_out
from vae.cli.session import CURRENT, DIRECTORIES, SHORT, Job, Session
from vae.config.errors import InputError
from vae.runtime import children, commands, naming, terminal
from vae.runtime import directory as names
from vae.runtime.signals import Interrupted
from vae.runtime.torchrun import world

VERBS = (
    *DIRECTORIES,
    "explain.steps",
    *(key for key in SHORT.values() if key.startswith("use.")),
    "allow",
    "recommend",
)  # what this call is to do, no part of a run's configuration
ALL = {"cause=all": "cause=objective,optimiser,decoder"}  # of sweep=cures
FULL_ERROR = "HYDRA_FULL_ERROR"


def run(main: Callable[[], Any]) -> None:
    """Call `main`, and end the process: whatever a user can fix ends it with one line on stderr and an exit status
    that is not 0."""
    terminal.open_streams()
    children.end_with_starter()
    try:
        given, added = expanded([ALL.get(item, item) for item in sys.argv[1:]])
    except InputError as error:
        sys.exit(_said(str(error)))
    without, notes = left_out(given)
    for line in notes:
        terminal.say(line)
    place = next((i for i, item in enumerate(given) if item.lstrip("+").startswith("experiment=")), 0)
    sys.argv[1:] = [*given[:place], *without, *given[place:]]  # a parser of flags wants them side by side
    session = Session(wants_traceback=os.environ.get(FULL_ERROR) == "1", added=[*added, *without])
    token = CURRENT.set(session)
    try:
        with _hydra_raises():
            _lead_or_follow(main, session)
    except Exception as error:
        if session.wants_traceback or not _is_for_the_user(error, session):
            raise
        sys.exit(_said(failures.last_line(error, session)))
    except SystemExit as stop:
        sys.exit(_said(stop.code) if isinstance(stop.code, str) else stop.code)
    except KeyboardInterrupt as stop:  # Ctrl-C, or what the loop makes of a signal
        terminal.say(_stopped(stop, session))
        sys.exit(getattr(stop, "status", 130))
    finally:
        session.stack.close()
        try:
            if session.sweep is not None:
                session.sweep.write()
        finally:
            CURRENT.reset(token)


def _stopped(stop: KeyboardInterrupt, session: Session) -> str:
    """The last line of a call that was interrupted. A sweep is continued as a whole, with the jobs that never began;
    its table comes before that line."""
    sweep = session.sweep
    if sweep is None or sweep.directory is None or not (sweep.directory / names.SWEEP).is_file():
        return str(stop) or "interrupted"
    sweep.write()
    said = stop.said if isinstance(stop, Interrupted) else "interrupted"
    return f"{said}; {commands.resume(sweep.directory)}"


def _said(line: str) -> str:
    """The last line, with its key as it is typed."""
    return terminal.printable(re.sub(r"^use\.(?=\w+[=:])", "", line))


def begin_job() -> Job:
    """What Hydra has composed is about to be run, in this process or in a launcher's."""
    terminal.log_to_stderr()
    session = CURRENT.get()
    if session is not None:
        session.composed, session.new_directory = True, None
    hydra = HydraConfig.get()
    directory = Path(hydra.runtime.output_dir)
    overrides = OverridesParser.create().parse_overrides(list(hydra.overrides.task))
    added = session.added if session is not None else []
    lines = [item.input_line for item in overrides]  # what was typed comes after what was added, perhaps the same
    overrides = [item for i, item in enumerate(overrides) if lines[i] not in added or lines[i] in lines[:i]]
    keys = [item.key_or_group for item in overrides if item.key_or_group not in VERBS]
    if not any(item.key_or_group in {*DIRECTORIES, "recommend"} - {"resume"} for item in overrides):
        (directory / names.ERROR).unlink(missing_ok=True)  # of an earlier attempt
    is_single = hydra.mode == RunMode.RUN
    return Job(directory, keys, is_single, not is_single and (directory / names.REFUSED).exists())


def register_resolvers() -> None:
    """What conf/config.yaml computes with."""
    OmegaConf.register_new_resolver("or", lambda *values: next(filter(None, values), None), replace=True)
    OmegaConf.register_new_resolver("unless", lambda given, value: None if given else value, replace=True)
    OmegaConf.register_new_resolver("when", lambda given, value: value if given else None, replace=True)
    OmegaConf.register_new_resolver("joined", lambda values: "-".join(map(str, values)) or "none", replace=True)
    OmegaConf.register_new_resolver("swept", _swept, replace=True)


def _swept(overrides: Sequence[str], shared: Sequence[str]) -> str | None:
    """A job's overrides without those that all jobs share, as the name of its directory."""
    name = naming.label(overrides, {naming.split(item)[0] for item in overrides} - set(shared))
    return naming.as_directory(name) if name else None


def user_environment() -> dict[str, str]:
    """The environment for another `python run.py`: without what this call has changed in it."""
    session = CURRENT.get()
    wanted = "1" if session is not None and session.wants_traceback else "0"
    return os.environ | {FULL_ERROR: wanted}


def _lead_or_follow(main: Callable[[], Any], session: Session) -> None:
    """The first of several processes composes and leads; the others train what it announces. torch is imported only
    where something is computed."""
    place = world()
    if place.size == 1:
        main()
        return
    from vae.cli import processes

    if place.is_leader:
        main()
        processes.dismiss()
    else:
        terminal.log_to_stderr()
        session.composed = True  # by the leader
        processes.follow()


def _is_for_the_user(error: Exception, session: Session) -> bool:
    known = isinstance(error, HydraException | OmegaConfBaseException | InputError | OSError)
    # Hydra answers some overrides with errors that are not its own.
    return known or failures.is_killed_worker(error) or not session.composed


@contextlib.contextmanager
def _hydra_raises() -> Iterator[None]:
    """Hydra prints several lines for a mistake in a configuration; told to raise it instead, it leaves the line to
    us."""
    before = os.environ.get(FULL_ERROR)
    os.environ[FULL_ERROR] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[FULL_ERROR]
        else:
            os.environ[FULL_ERROR] = before


register_resolvers()
