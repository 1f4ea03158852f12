"""What a contestant calls after each of its steps: it measures one stretch of them, or turns as they are asked for."""

import argparse
import json
import sys
import time

import torch

CALLS, BATCHES = 200, 5
ELEMENTS = 40_000  # of a sum that torch gives to two threads, and that is over in some microseconds
LEAD = 2  # steps at the beginning of a turn that are not timed: they bring the threads and the caches back


class Stopwatch:
    """The time of `steps` steps, after `warmup` others."""

    def __init__(self, warmup: int, steps: int) -> None:
        self.first, self.last = warmup, warmup + steps
        self.step = self.images = 0

    def tick(self, images: int) -> bool:
        """Called after each step with its batch size; whether that was the last one."""
        self.step += 1
        if self.step > self.first:
            self.images += images
        if self.step == self.first:
            self.start = time.perf_counter()
        if self.step == self.last:
            self.seconds = time.perf_counter() - self.start
        return self.step == self.last

    def answer(self) -> None:
        """For the process that started this one."""
        metrics = {"images_per_second": self.images / self.seconds, "seconds": self.seconds}
        print(f"\n{json.dumps(metrics)}", flush=True)


class InTurn(Stopwatch):
    """A turn for each line on stdin, the number of its steps; then it waits for the next one. A turn is answered by a
    line of JSON: images per second, and `crossing` before and after. Where stdin ends the process does."""

    def __init__(self) -> None:
        self.wait()

    def tick(self, images: int) -> bool:
        self.left -= 1
        if self.left < self.asked:
            self.images += images
        if self.left == self.asked:
            self.start = time.perf_counter()
        if self.left == 0:
            seconds = time.perf_counter() - self.start
            found = {"images_per_second": self.images / seconds, "crossing": [self.before, crossing()]}
            print(f"\n{json.dumps(found)}", flush=True)
            self.wait()
        return False

    def wait(self) -> None:
        line = sys.stdin.readline()
        if not line:
            sys.exit()
        self.asked, self.images = int(line), 0
        self.left = LEAD + self.asked
        self.before = crossing()


def crossing() -> float:
    """Microseconds of a sum that two threads share, some of which they wait for each other: more where their cores are
    further apart, or where the threads are let sleep. The shortest of a few batches."""
    left, right = torch.zeros(2, ELEMENTS)

    def batch() -> float:
        start = time.perf_counter()
        for _ in range(CALLS):
            torch.add(left, right, out=left)
        return time.perf_counter() - start

    return min(batch() for _ in range(BATCHES)) / CALLS * 1e6


def stopwatch(arguments: argparse.Namespace) -> Stopwatch:
    return InTurn() if arguments.turns else Stopwatch(arguments.warmup, arguments.steps)
