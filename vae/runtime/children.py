"""Processes of this program that end with the one that started them, however that ends: calls of it that run several at
a time, and a launcher's workers."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from vae.runtime.signals import Interruption, is_waited_for

POLL = 0.05  # seconds
GRACE = 30.0  # seconds that a run has to save itself, as on a Slurm cluster
STARTED_BY = "VAE_STARTED_BY"  # environment variable: the process that a call ends with


class Ended(NamedTuple):
    statuses: list[int]  # of those that were started, in the order in which they ended; -n: by signal n
    stopped_by: int  # the signal that stopped them, 0 where none did


def run_all(
    commands: Sequence[Sequence[str]],
    at_once: int,
    environment: Mapping[str, str],
    begins: Callable[[int], None] = lambda number: None,
) -> Ended:
    """How the commands, calls of this program, have ended. `begins` is called with the number of each that is started.

    SIGTERM, SIGINT or SIGHUP (but under nohup) to this process go on to those that run as SIGTERM, and no more are
    started; it waits until they have saved themselves. They stand in groups of their own: the terminal's Ctrl-C would
    be their second signal, which ends them at once. Where this raises, none is left; where this process is killed,
    they end by themselves."""
    environment = {**environment, STARTED_BY: str(os.getpid())}
    running: list[subprocess.Popen[bytes]] = []
    statuses: list[int] = []
    started = told = 0
    with Interruption(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as interruption:
        try:
            while running or (started < len(commands) and not interruption.number):
                while started < len(commands) and len(running) < at_once and not interruption.number:
                    begins(started)
                    running.append(
                        subprocess.Popen(commands[started], env=environment, stdin=subprocess.DEVNULL, process_group=0)
                    )
                    started += 1
                if interruption.number and not told:
                    told = interruption.number
                    for process in running:
                        process.terminate()
                statuses += [status for process in running if (status := process.poll()) is not None]
                running = [process for process in running if process.returncode is None]
                time.sleep(POLL)
        finally:
            _end(running)
    return Ended(statuses, interruption.number)


def _end(running: Sequence[subprocess.Popen[bytes]]) -> None:
    """Terminate what still runs: for those that have been told it is the second signal. What has not saved itself
    after GRACE, or when this is interrupted in turn, is killed."""
    try:
        for process in running:
            process.terminate()
        deadline = time.monotonic() + GRACE
        with contextlib.suppress(subprocess.TimeoutExpired):
            for process in running:
                process.wait(max(0.0, deadline - time.monotonic()))
    finally:
        for process in running:
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # one that waits for a disk is killed later
                process.wait(POLL)


def end_with_starter() -> None:
    """Let this process, where `run_all` has started it, end with the one that has."""
    starter = os.environ.pop(STARTED_BY, "")  # so that what this process starts is not told
    if starter.isdecimal():
        end_with(int(starter))


@cache
def end_with(pid: int, when: Callable[[], bool] = lambda: True) -> None:
    """Stop what this process does in good order, by a SIGTERM as soon as `when()`, when process `pid` of this machine
    has ended, however it did. What is left of this process after GRACE ends at once."""

    def watch() -> None:
        while _is_alive(pid):
            time.sleep(4 * POLL)
        deadline = time.monotonic() + GRACE
        while time.monotonic() < deadline and not when():
            time.sleep(POLL)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(max(0.0, deadline - time.monotonic()))
        if _held_by in (0, pid):  # joblib may have given it to another sweep
            os._exit(128 + signal.SIGTERM)

    threading.Thread(target=watch, name=f"ends with {pid}", daemon=True).start()


class Leash:
    """What a call holds a launcher's workers by: a process of its own that ends when the call lets go, or has ended
    itself, however it did."""

    def __init__(self) -> None:
        waits = [sys.executable, "-I", "-S", "-c", "import sys; sys.stdin.read()"]
        self.process = subprocess.Popen(waits, stdin=subprocess.PIPE, process_group=0)
        self.pid = self.process.pid

    def let_go(self) -> None:
        """Also a second time."""
        assert self.process.stdin is not None
        self.process.kill()
        self.process.stdin.close()
        self.process.wait()


_held_by = 0  # the leash, in a launcher's worker


def begin_work(leash: int) -> None:
    """A job begins in this process, a launcher's worker, which saves its run and takes no more when process `leash` has
    ended. The call hears the terminal's Ctrl-C as well, and waits for its workers: here it is ignored. Where one of
    them ended, joblib would kill the others: so one that has nothing to save waits to be ended."""
    global _held_by
    _held_by = leash
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    end_with(leash, is_waited_for)
    if not _is_alive(leash):
        raise KeyboardInterrupt


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's has its number now
        return False
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:  # macOS has none
        return True
    return stat.rpartition(b")")[2].split()[:1] not in ([b"Z"], [b"X"])  # ended, and not waited for
