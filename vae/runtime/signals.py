"""Stopping in good order: SIGTERM (a cluster takes its machine back) and SIGINT (Ctrl-C) are noted, the loop saves and
stops at the end of its step; behind the last step all is saved already. A second one ends the process at once."""

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType

SAME = 1.0  # seconds after a signal in which another is the same


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


def heard(numbers: Iterable[int]) -> list[int]:
    """Those that are not ignored, as SIGHUP is under nohup: they stay so."""
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


class Interruption:
    """Notes the signals that come while it is entered. One that comes within a second of the first is the same, sent to
    a call and to its processes."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = heard(numbers or (signal.SIGTERM, signal.SIGINT))
        self.number = 0  # of the signal that has come, 0: none
        self.since = 0.0
        self.before: dict[int, object] = {}
        self.answer: tuple[str, str] | None = None

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():  # python allows it nowhere else
            self.before = {number: signal.signal(number, self._note) for number in self.numbers}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
        if kind is None:  # Python swallows what a handler raises while it frees an object
            self._answer()

    def ends_with(self, said: str, command: str) -> None:
        """All is saved: a signal that has come, or comes from now on, raises Interrupted at once."""
        self.answer = said, command
        self._answer()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if not self.number:
            self.number, self.since = number, time.monotonic()
            self._answer()
        elif time.monotonic() - self.since > SAME:
            self._restore()
            signal.raise_signal(number)

    def _answer(self) -> None:
        if self.number and self.answer:
            raise Interrupted(*self.answer, self.number)

    def _restore(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self.before = {}


def is_waited_for() -> bool:
    """Whether this process would note a SIGTERM, and none has come."""
    owner = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return isinstance(owner, Interruption) and not owner.number


@contextmanager
def interrupting(stopped: Callable[[int], Interrupted], *numbers: int) -> Iterator[None]:
    """Raises `stopped(number)` where one of these signals comes within: for what waits and has nothing to save. A
    second one ends the process at once."""

    def stop(number: int, frame: FrameType | None) -> None:
        restore()
        raise stopped(number)

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    before = {number: signal.signal(number, stop) for number in heard(numbers)}
    try:
        yield
    finally:
        restore()


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
