"""Processes that end with the one that started them."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import until

from vae.runtime import children

# Says that it has begun, and ends in good order on SIGTERM.
SAVES = (
    "import os, pathlib, signal, sys, time\n"
    "place = pathlib.Path(sys.argv[1])\n"
    "def save(*signal): (place / 'saved').touch(); sys.exit(143)\n"
    "signal.signal(signal.SIGTERM, save)\n"
    "(place / 'pid').write_text(str(os.getpid()))\n"
    "(place / 'begun').touch()\n"
    "time.sleep(60)"
)


def is_running(place: Path) -> bool:
    """SAVES in this directory."""
    try:
        os.kill(int((place / "pid").read_text()), 0)
    except ProcessLookupError:
        return False
    return True


def test_as_many_at_once_as_asked(tmp_path: Path) -> None:
    """Each writes when it began and ended: of three that take two places, two overlap and never three."""
    script = (
        "import pathlib, sys, time; begun = time.time(); time.sleep(0.3)\n"
        "pathlib.Path(sys.argv[1]).write_text(f'{begun} {time.time()}'); sys.exit(int(sys.argv[2]))"
    )
    calls = [[sys.executable, "-S", "-c", script, str(tmp_path / str(n)), str(n % 2)] for n in range(3)]
    begun: list[int] = []
    statuses, stopped_by = children.run_all(calls, 2, os.environ, begun.append)
    assert (sorted(statuses), stopped_by) == ([0, 0, 1], 0)
    assert begun == [0, 1, 2]
    spans = [tuple(map(float, (tmp_path / str(n)).read_text().split())) for n in range(3)]
    together = [sum(first <= begin < last for first, last in spans) for begin, _ in spans]
    assert max(together) == 2


@pytest.fixture
def _not_under_nohup() -> Iterator[None]:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("_not_under_nohup")
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
    ended = children.run_all(calls, 2, os.environ)
    thread.join()
    assert ended == ([143, 143], number)
    assert [(tmp_path / str(n) / "saved").exists() for n in range(3)] == [True, True, False]


def test_a_second_ctrl_c_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes before the first has been passed on, and raises KeyboardInterrupt; the run saves itself all the same."""
    monkeypatch.setattr("vae.runtime.signals.SAME", 0)

    def stop() -> None:
        until((tmp_path / "begun").exists)
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        children.run_all([[sys.executable, "-S", "-c", SAVES, str(tmp_path)]], 1, os.environ)
    thread.join()
    assert (tmp_path / "saved").exists()
    assert not is_running(tmp_path)


def test_a_command_that_cannot_be_started_ends_the_others(tmp_path: Path) -> None:
    calls = [[sys.executable, "-S", "-c", SAVES, str(tmp_path)], [str(tmp_path / "nothing")]]

    def begins(number: int) -> None:
        if number == 1:
            until((tmp_path / "begun").exists)

    with pytest.raises(FileNotFoundError):
        children.run_all(calls, 2, os.environ, begins)
    assert (tmp_path / "saved").exists()
    assert not is_running(tmp_path)


def test_one_that_does_not_end_in_time_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "GRACE", 0.2)
    stays = SAVES.replace("sys.exit(143)", "None")
    calls = [[sys.executable, "-S", "-c", stays, str(tmp_path)], [str(tmp_path / "nothing")]]
    with pytest.raises(FileNotFoundError):
        children.run_all(calls, 2, os.environ, lambda number: until((tmp_path / "begun").exists) if number else None)
    assert (tmp_path / "saved").exists()
    assert not is_running(tmp_path)


def test_what_runs_ends_with_a_call_that_is_killed(tmp_path: Path) -> None:
    """run.py asks for it first of all; here the command does."""
    begin = f"import sys; sys.path.insert(0, {os.getcwd()!r})\nfrom vae.runtime import children\n"
    worker = f"{begin}children.end_with_starter()\n{SAVES}"
    script = f"{begin}import os\nchildren.run_all([[sys.executable, '-c', {worker!r}, sys.argv[1]]], 1, os.environ)"
    call = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], cwd=Path(__file__).parents[2])
    until((tmp_path / "begun").exists)
    call.kill()
    call.wait(timeout=10)
    until((tmp_path / "saved").exists)


def test_a_call_ends_with_the_process_that_started_it(program: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And tells those that it starts itself nothing of it."""
    told: list[int] = []
    monkeypatch.setattr(children, "end_with", told.append)
    monkeypatch.setenv(children.STARTED_BY, "123")
    assert program("--cfg", "job")[0] == 0
    assert told == [123]
    assert children.STARTED_BY not in os.environ


def test_what_nohup_has_made_it_ignore_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    hangs_up = f"import os, signal; os.kill({os.getpid()}, signal.SIGHUP)"
    try:
        assert children.run_all([[sys.executable, "-S", "-c", hangs_up]], 1, os.environ) == ([0], 0)
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
    if not Path("/proc").exists():
        launcher.wait(timeout=10)
    assert worker.wait(timeout=10) == 143, "also where nobody has waited for what has ended"
    assert (tmp_path / "saved").exists()
    launcher.wait(timeout=10)
