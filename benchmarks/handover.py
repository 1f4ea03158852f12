"""How long a byte takes from one core to another and back. A virtual machine's cores are moved between caches of the
real one while it runs: what two threads compute together then takes up to 1.7 times as long, and the rate of a large
matrix product tells nothing of it."""

import os
import time
from multiprocessing import get_context
from multiprocessing.shared_memory import SharedMemory

BATCHES, TURNS = 5, 5_000


def nanoseconds() -> float:
    """Of a turn there and back between two processes, each on a core of its own, in Python: some hundreds. The shortest
    of a few batches. 0 where there is one core, or where processes cannot be bound to one."""
    if not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2:
        return 0.0
    cores = os.sched_getaffinity(0)
    here, there = sorted(cores)[:2]
    shared = SharedMemory(create=True, size=1)
    partner = get_context("fork").Process(target=_answer, args=(shared, there))
    try:
        partner.start()
        os.sched_setaffinity(0, [here])
        cell = shared.buf
        while cell[0] != 2:  # the partner is there
            pass
        return min(_batch(cell) for _ in range(BATCHES)) / TURNS * 1e9
    finally:
        os.sched_setaffinity(0, cores)
        partner.join()
        shared.close()
        shared.unlink()


def _batch(cell: memoryview) -> float:
    start = time.perf_counter()
    for _ in range(TURNS):
        cell[0] = 1
        while cell[0] != 2:
            pass
    return time.perf_counter() - start


def _answer(shared: SharedMemory, core: int) -> None:
    os.sched_setaffinity(0, [core])
    cell = shared.buf
    cell[0] = 2
    for _ in range(BATCHES * TURNS):
        while cell[0] != 1:
            pass
        cell[0] = 2
