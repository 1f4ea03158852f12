"""One child process, measured from outside: wall time, peak resident and anonymous memory."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
SAMPLED_EVERY = 0.05  # seconds between two looks at a child's memory
PATIENCE = 3 * 3600  # seconds after which a child is given up


class Failed(Exception):
    """A child that ended with an error. The message is its last line on stderr."""

    @classmethod
    def of(cls, arguments: Sequence[str], status: int, complained: str) -> "Failed":
        last = [line for line in complained.splitlines() if line.strip()][-1:] or ["nothing on stderr"]
        return cls(f"{' '.join(arguments)[:200]}: exit status {status}: {last[0].strip()}")


@dataclass(frozen=True)
class Finished:
    stdout: str
    stderr: str
    started: float  # time.time() just before the process was made
    seconds: float
    peak_rss_mib: float  # resident: anonymous memory and the pages of mapped files, which the system can take back
    peak_anon_mib: float  # anonymous alone, which it cannot; sampled, 0 where the system has no /proc

    def answer(self) -> dict[str, Any]:
        """The JSON object on the last line of stdout: how a contestant of ours says what it measured."""
        found: dict[str, Any] = json.loads(self.stdout.strip().splitlines()[-1])
        return found


def environment(checkout: Path) -> dict[str, str]:
    """With the packages of `checkout` importable."""
    return os.environ | {"PYTHONPATH": str(checkout), "PYTHONWARNINGS": "ignore"}


def python(
    *arguments: str,
    cwd: Path,
    checkout: Path = ROOT,
    prefix: Sequence[str] = (),
    limit: Callable[[], None] | None = None,
) -> Finished:
    """Run this interpreter, with the packages of `checkout` importable. `prefix`: a command that starts it, `limit`:
    called in the child before it begins. Raises Failed."""
    command = [*prefix, sys.executable, *arguments]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started, clock = time.time(), time.perf_counter()
        child = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment(checkout),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            preexec_fn=limit,
            start_new_session=True,  # a group of its own, workers and all, to end at once
        )
        watch = Watch(child.pid)
        giving_up = threading.Timer(PATIENCE, os.killpg, (child.pid, signal.SIGKILL))
        giving_up.start()
        try:
            _, status, usage = os.wait4(child.pid, 0)  # the one call that tells the memory of this child alone
        except BaseException:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            raise
        finally:
            giving_up.cancel()
            watch.stop()
        seconds = time.perf_counter() - clock
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        said, complained = out.read().decode(errors="replace"), err.read().decode(errors="replace")
    if child.returncode:
        raise Failed.of(arguments, child.returncode, complained)
    # Taken where the system has no /proc; it counts what this process had when it made the child.
    inherited = usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return Finished(said, complained, started, seconds, watch.resident or inherited, watch.anonymous)


class Watch(threading.Thread):
    """Looks at a process's memory until stopped: MiB at its peak, as the system knows it, and the most that was
    anonymous at a look. 0 where the system has no /proc."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.status = Path(f"/proc/{pid}/status")
        self.resident = self.anonymous = 0.0
        self.ended = threading.Event()
        self.start()

    def run(self) -> None:
        while not self.ended.wait(SAMPLED_EVERY):
            try:
                status = self.status.read_text()
            except OSError:
                return
            found = {name: int(kib) / 1024 for name, kib in re.findall(r"(VmHWM|RssAnon):\s+(\d+) kB", status)}
            self.resident = max(self.resident, found.get("VmHWM", 0.0))
            self.anonymous = max(self.anonymous, found.get("RssAnon", 0.0))

    def stop(self) -> None:
        self.ended.set()
        self.join()
