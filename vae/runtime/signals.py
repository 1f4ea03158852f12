"""Stopping in good order: SIGTERM (a cluster takes its machine back) and SIGINT (Ctrl-C) are noted, the loop saves and
stops at the end of its step. A second one ends the process at once."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop and has saved itself; `command` continues it. No Exception: it ends a whole sweep, as
    Ctrl-C does."""

    def __init__(self, said: str, command: str, number: int) -> None:
        super().__init__(f"{said}; {command}")
        self.said, self.command = said, command
        self.status = 128 + number  # what a shell reports for a process that this signal ended

    def __reduce__(self) -> tuple[type["Interrupted"], tuple[str, str, int]]:
        """A launcher's worker sends it to the main process."""
        return Interrupted, (self.said, self.command, self.status - 128)


class Interruption:
    """Notes the signals that come while it is entered."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = numbers or (signal.SIGTERM, signal.SIGINT)
        self.number = 0  # of the signal that has come, 0: none
        self.before: dict[int, object] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():  # python allows it nowhere else
            self.before = {number: signal.signal(number, self._note) for number in self.numbers}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self.before = {}


@contextmanager
def interrupting(said: str, command: str, *numbers: int) -> Iterator[None]:
    """Raises Interrupted where one of these signals comes within: for what waits and has nothing to save."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Interrupted(said, command, number)

    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def continued_by(command: Callable[[Path], str], directory: Path) -> Iterator[None]:
    """Where a signal ends what is within, `command(directory)` is the line that continues it, also at a moment at which
    nothing notes signals."""
    try:
        yield
    except KeyboardInterrupt as error:
        said, number = "interrupted", int(signal.SIGINT)
        if isinstance(error, Interrupted):
            said, number = error.said, error.status - 128
        raise Interrupted(said, command(directory), number) from error
