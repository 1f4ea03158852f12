"""Signals are noted while there is something to save, and answered at once where all is saved."""

import os
import signal
from collections.abc import Callable, Iterator

import pytest

from vae.runtime.signals import Interrupted, Interruption, interrupting, is_waited_for


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    yield
    found = {number: signal.getsignal(number) for number in before}
    for number, handler in before.items():
        signal.signal(number, handler)
    assert found == before


def kill(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


class Freed:
    """Python says of what is raised while an object is freed only that it was ignored."""

    def __del__(self) -> None:
        kill()


def early(interruption: Interruption) -> None:
    kill()
    interruption.ends_with("saved", "resume")
    raise AssertionError("goes on")


def late(interruption: Interruption) -> None:
    interruption.ends_with("saved", "resume")
    kill()
    raise AssertionError("goes on")


def swallowed(interruption: Interruption) -> None:
    interruption.ends_with("saved", "resume")
    Freed()


@pytest.mark.parametrize("when", [early, late, swallowed])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_where_all_is_saved_a_signal_is_answered(when: Callable[[Interruption], None]) -> None:
    with pytest.raises(Interrupted) as stopped, Interruption() as interruption:
        when(interruption)
    assert (str(stopped.value), stopped.value.status) == ("saved; resume", 128 + signal.SIGTERM)


def test_what_is_ignored_stays_ignored() -> None:
    """As under nohup; a launcher's workers ignore the terminal's Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Interruption() as interruption:
        kill(signal.SIGINT)
        assert interruption.number == 0
        kill()
        assert interruption.number == signal.SIGTERM
    signal.signal(signal.SIGINT, before)


def test_a_signal_to_a_call_and_to_its_processes_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster sends it to all, and the call passes it on; a second one, later, ends the process at once."""
    with pytest.raises(KeyboardInterrupt), Interruption() as interruption:
        assert is_waited_for()
        kill()
        assert not is_waited_for()
        kill(signal.SIGINT)
        assert interruption.number == signal.SIGTERM
        monkeypatch.setattr("vae.runtime.signals.SAME", 0)
        kill(signal.SIGINT)
        raise AssertionError("goes on")
    assert not is_waited_for()


def test_a_second_signal_does_not_wait() -> None:
    with pytest.raises(KeyboardInterrupt) as second, interrupting(lambda number: waits(), signal.SIGTERM):
        kill()
    assert not isinstance(second.value, Interrupted)


def waits() -> Interrupted:
    kill(signal.SIGINT)  # whose handler is Python's own
    raise AssertionError("goes on")
