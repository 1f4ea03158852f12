"""How long a byte takes from one core to another and back. A virtual machine's cores are moved between caches of the
real one while it runs: what two threads compute together then takes up to 1.7 times as long, and the rate of a large
matrix product tells nothing of it."""

import mmap
import os
import subprocess
import sys
import tempfile
import time

BATCHES, TURNS = 5, 5_000
PATIENCE = 10  # seconds after which a partner is given up
SPINS = 10_000_000  # looks in one turn, some tenths of a second, after which the other is given up


def nanoseconds() -> float | None:
    """Of a turn there and back between two processes, each on a core of its own, in Python: some hundreds. The shortest
    of a few batches. None where there is one core, where processes cannot be bound to one, or where the other does not
    come or answer in time, as on a machine with much else to do."""
    if not is_possible():
        return None
    cores = os.sched_getaffinity(0)
    here, there = sorted(cores)[:2]
    with tempfile.NamedTemporaryFile() as file:
        file.truncate(1)
        with mmap.mmap(file.fileno(), 1) as cell:
            partner = subprocess.Popen([sys.executable, __file__, file.name, str(there)])
            try:
                os.sched_setaffinity(0, [here])
                deadline = time.monotonic() + PATIENCE
                while cell[0] != 2:  # the partner is not there yet
                    if partner.poll() is not None or time.monotonic() > deadline:
                        return None
                return min(_batch(cell) for _ in range(BATCHES)) / TURNS * 1e9
            except TimeoutError:
                return None
            finally:
                os.sched_setaffinity(0, cores)
                partner.kill()
                partner.wait()


def is_possible() -> bool:
    return hasattr(os, "sched_setaffinity") and len(os.sched_getaffinity(0)) > 1


def _batch(cell: mmap.mmap) -> float:
    start = time.perf_counter()
    for _ in range(TURNS):
        cell[0] = 1
        _wait(cell, 2)
    return time.perf_counter() - start


def _wait(cell: mmap.mmap, value: int) -> None:
    for _ in range(SPINS):
        if cell[0] == value:
            return
    raise TimeoutError


def _answer(path: str, core: int) -> None:
    """The partner, until nobody asks any more."""
    os.sched_setaffinity(0, [core])
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 1) as cell:
        cell[0] = 2
        while True:
            _wait(cell, 1)
            cell[0] = 2


if __name__ == "__main__":
    try:
        _answer(sys.argv[1], int(sys.argv[2]))
    except TimeoutError:
        sys.exit(1)
