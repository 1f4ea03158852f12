"""Commands that run in processes of their own, several at a time, and end with the process that started them."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache

from vae.runtime.signals import Interruption

POLL = 0.05  # seconds
GRACE = 30.0  # seconds that a run has to save itself, as on a Slurm cluster


def run_all(
    commands: Sequence[Sequence[str]],
    at_once: int,
    environment: Mapping[str, str],
    begins: Callable[[int], None] = lambda number: None,
) -> tuple[int, int]:
    """How many of the commands failed, and the signal that stopped them, 0 where none did. `begins` is called with the
    number of each that is started.

    SIGTERM, SIGINT or SIGHUP (but under nohup) to this process go on to those that run as SIGTERM, and no more are
    started; it waits until they have saved themselves. They stand in groups of their own: the terminal's Ctrl-C would
    be their second signal, which ends them at once."""
    running: list[subprocess.Popen[bytes]] = []
    failed = started = told = 0
    hears = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        hears.append(signal.SIGHUP)
    with Interruption(*hears) as interruption:
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
            ended = [process for process in running if process.poll() is not None]
            failed += sum(process.returncode != 0 for process in ended)
            running = [process for process in running if process.returncode is None]
            time.sleep(POLL)
    return failed, interruption.number


@cache
def end_with(pid: int) -> None:
    """Stop this process in good order, by a SIGTERM, when process `pid` of this machine has ended, however it did; a
    worker of joblib that has saved its run and waits for another goes with a second."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # submitit's workers ignore it

    def watch() -> None:
        while _is_alive(pid):
            time.sleep(1)
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(GRACE)

    threading.Thread(target=watch, name=f"ends with {pid}", daemon=True).start()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's has its number now
        return False
    return True
