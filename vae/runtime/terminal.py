"""What a person sees while a run trains: a progress bar on a terminal, plain lines where stderr is a file.

What is said during a run goes through Python's logging, below the logger "vae"; `log_to_stderr` shows it. What is
printed may come from paths, files and settings that others have made: nothing of it drives the terminal. A run
continues when its stderr is closed, full, or a pipe that nobody reads any more."""

import contextlib
import io
import logging
import os
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TextIO, TypeVar

from tqdm import tqdm

log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_LINE = 2000  # characters of a line


def printable(text: str) -> str:
    """`text` on one line, with escapes in place of control characters, of what is invisible or turns the direction of
    writing, and of bytes that are no text; of a very long one the begin and the end."""
    if len(text) > MAX_LINE:
        text = f"{text[: MAX_LINE // 2]} [...] {text[-MAX_LINE // 4 :]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def lines(text: str) -> str:
    """The same of each line of `text`."""
    return "\n".join(map(printable, text.splitlines()))


class TerminalHandler(logging.Handler):
    """Each message as one line on stderr, above the progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())


class LogFile(logging.Handler):
    """Each message as one line with its time at the end of a file, which is made with the first. A disk that is full
    takes no more of them, and the run continues."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def emit(self, record: logging.LogRecord) -> None:
        line = f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {printable(record.getMessage())}\n"
        with contextlib.suppress(OSError):
            # Not through a link: the directory may be of others' making.
            handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666)
            try:
                os.write(handle, line.encode(errors="backslashreplace"))
            finally:
                os.close(handle)


@contextlib.contextmanager
def logged_to(path: Path) -> Iterator[None]:
    """What the program says of a run is kept in this file meanwhile."""
    handler, logger = LogFile(path), logging.getLogger("vae")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def log_to_stderr() -> None:
    """Show what the program says of its runs. Without this call, in a notebook for example, only warnings are shown, as
    logging does by itself."""
    logger = logging.getLogger("vae")
    if not any(isinstance(handler, TerminalHandler) for handler in logger.handlers):
        logger.addHandler(TerminalHandler())
        logger.setLevel(logging.INFO)
        logger.propagate = False


def say(line: str) -> None:
    try:
        tqdm.write(printable(line), file=sys.stderr)
        sys.stderr.flush()
    except (OSError, ValueError):  # ValueError: closed
        discard_output(sys.stderr)


def show(text: str) -> None:
    """Lines on stdout. A reader that has gone away (`| head -1`) has what it wanted; else OSError is raised."""
    try:
        print(lines(text), flush=True)
    except BrokenPipeError:
        discard_output(sys.stdout)
    except OSError:
        discard_output(sys.stdout)
        raise


def discard_output(stream: TextIO) -> None:
    """Send what is written to `stream` from now on nowhere: Python would try once more at its end, and fail."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def open_streams() -> None:
    """A process may be started without stdin, stdout or stderr (`2>&-`). The next file that it opens would take the
    place of one that is missing, and get what libraries print there: nothing takes it instead. What a terminal's
    encoding has no sign for is written as an escape: it ends no run."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w", closefd=False))
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def with_progress(items: Collection[T], what: str) -> Iterator[T]:
    """The items, with a bar on a terminal while they are gone through."""
    yield from tqdm(items, desc=what, unit="", dynamic_ncols=True, leave=False, disable=None)


class Stages:
    """Which of a few things is being done, on a terminal: each is named as it begins."""

    def __init__(self, what: str, count: int) -> None:
        self.bar = tqdm(total=count, desc=what, unit="", dynamic_ncols=True, leave=False, disable=None)

    def __call__(self, name: str) -> None:
        if not self.bar.disable:
            self.bar.set_postfix_str(name, refresh=False)
            self.bar.update()

    def __enter__(self) -> "Stages":
        return self

    def __exit__(self, *failure: object) -> None:
        self.bar.close()


class Progress:
    def __init__(self, name: str, steps: int, done: int = 0) -> None:
        self.name, self.steps = name, steps
        self.said = ""
        self.bar = tqdm(total=steps, initial=done, desc=name, unit="step", dynamic_ncols=True, disable=None)

    def update(self, step: int, shown: Mapping[str, float]) -> None:
        """Called whenever training measures were read."""
        if not self.bar.disable:
            parts = [f"{key}={value:.4g}" for key, value in shown.items()]
            self.bar.set_postfix_str(", ".join([*parts, self.said] if self.said else parts), refresh=False)
            self.bar.update(step - self.bar.n)

    def milestone(self, step: int, shown: Mapping[str, float], said: str = "") -> None:
        """Called at every evaluation: the only lines of a log file. What is `said` stays beside the bar."""
        self.said = said
        if self.bar.disable:
            parts = [f"{key} {value:.4g}" for key, value in shown.items()]
            log.info("%s  step %d/%d  %s", self.name, step, self.steps, "  ".join([*parts, said] if said else parts))

    def close(self) -> None:
        self.bar.close()
