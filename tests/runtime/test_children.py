"""Processes that end with the one that started them."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vae.runtime import children

# Says that it has begun, and ends in good order on SIGTERM.
SAVES = (
    "import pathlib, signal, sys, time\n"
    "place = pathlib.Path(sys.argv[1])\n"
    "def save(*signal): (place / 'saved').touch(); sys.exit(143)\n"
    "signal.signal(signal.SIGTERM, save)\n"
    "(place / 'begun').touch()\n"
    "time.sleep(60)"
)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_as_many_at_once_as_asked(tmp_path: Path) -> None:
    """Each writes when it began and ended: of three that take two places, two overlap and never three."""
    script = (
        "import pathlib, sys, time; begun = time.time(); time.sleep(0.3)\n"
        "pathlib.Path(sys.argv[1]).write_text(f'{begun} {time.time()}'); sys.exit(int(sys.argv[2]))"
    )
    calls = [[sys.executable, "-S", "-c", script, str(tmp_path / str(n)), str(n % 2)] for n in range(3)]
    begun: list[int] = []
    assert children.run_all(calls, 2, os.environ, begun.append) == (1, 0)
    assert begun == [0, 1, 2]
    spans = [tuple(map(float, (tmp_path / str(n)).read_text().split())) for n in range(3)]
    together = [sum(first <= begin < last for first, last in spans) for begin, _ in spans]
    assert max(together) == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_goes_on_to_all_and_no_more_begin(number: signal.Signals, tmp_path: Path) -> None:
    for n in range(3):
        (tmp_path / str(n)).mkdir()
    calls = [[sys.executable, "-S", "-c", SAVES, str(tmp_path / str(n))] for n in range(3)]

    def stop() -> None:
        until(lambda: all((tmp_path / str(n) / "begun").exists() for n in range(2)))
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=stop)
    thread.start()
    failed, stopped_by = children.run_all(calls, 2, os.environ)
    thread.join()
    assert (failed, stopped_by) == (2, number)
    assert [(tmp_path / str(n) / "saved").exists() for n in range(3)] == [True, True, False]


def test_what_nohup_has_made_it_ignore_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    hangs_up = f"import os, signal; os.kill({os.getpid()}, signal.SIGHUP)"
    try:
        assert children.run_all([[sys.executable, "-S", "-c", hangs_up]], 1, os.environ) == (0, 0)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_worker_ends_with_the_process_that_launched_it(tmp_path: Path) -> None:
    """Killed, so that it can tell its worker nothing."""
    launcher = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
    script = (
        f"import sys; sys.path.insert(0, {os.getcwd()!r})\n"
        f"from vae.runtime import children; children.end_with({launcher.pid})\n{SAVES}"
    )
    worker = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], cwd=Path(__file__).parents[2])
    until((tmp_path / "begun").exists)
    assert worker.poll() is None
    launcher.kill()
    launcher.wait(timeout=10)
    assert worker.wait(timeout=10) == 143
    assert (tmp_path / "saved").exists()
