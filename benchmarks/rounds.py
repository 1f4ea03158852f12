"""Alternating rounds, kept on disk: each measurement is written as it comes, an interrupted section resumes."""

import json
import os
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import handover, machine
from benchmarks.process import Failed

Metrics = dict[str, Any]  # what one measurement of one contestant found
Measured = Mapping[str, list[Metrics]]  # of each contestant, round by round
FAILED = "failed"  # the key of a measurement that was not to be had: why
HANDOVER = "handover_ns"  # the key of how far the cores were from each other, before or after it; of a record: at best
FAR = 1.5  # times the best: they do not share the cache that they shared then


class Record:
    """The measurements of one section. `settings`: what they depend on; a record on disk is resumed only where
    settings, machine and code are the same."""

    def __init__(self, name: str, directory: Path, settings: Metrics, fresh: bool = False) -> None:
        self.path = directory / f"{name}.json"
        self.content: Metrics = {
            "section": name,
            "settings": settings,
            "machine": machine.describe(),
            "code": machine.code(),
            "started": time.strftime("%Y-%m-%d %H:%M:%S"),
            "load_average": os.getloadavg()[0],
            "done": False,
            "measured": {},
        }
        saved = read(directory, name)
        if saved is None or fresh:
            return
        if all(saved[key] == self.content[key] for key in ("settings", "machine", "code")):
            self.content = saved
            print(f"{name}: {'complete' if saved['done'] else 'resumed'} ({self.path})", flush=True)
        else:
            print(f"{name}: {self.path} is of other settings, packages or code; starting over", flush=True)

    def alternate(self, contestants: Mapping[str, Callable[[], Metrics]], rounds: int, attempts: int = 1) -> None:
        """Measure each contestant once a round, in turn; at once again, where there are more attempts, what began or
        ended while the cores were further from each other than at other times."""
        measured: dict[str, list[Metrics]] = self.content["measured"]
        for number in range(rounds):
            for name, measure in contestants.items():
                found = measured.setdefault(name, [])
                if len(found) > number and FAILED not in found[number]:
                    continue
                start = time.perf_counter()
                for _ in range(attempts):
                    metrics = self._measured(measure)
                    if FAILED in metrics or not self._far(metrics):
                        break
                found[number : number + 1] = [metrics]
                self.save()
                said = ", ".join(f"{key} {value:.4g}" for key, value in metrics.items() if isinstance(value, float))
                said = str(metrics.get(FAILED, said))
                spent, section = time.perf_counter() - start, self.content["section"]
                print(f"{section}  round {number + 1}/{rounds}  {name}: {said}  ({spent:.0f} s)", flush=True)

    def _measured(self, measure: Callable[[], Metrics]) -> Metrics:
        before = handover.nanoseconds()
        try:
            metrics = measure()
        except Failed as failure:
            return {FAILED: str(failure)}
        known = [found for found in (before, handover.nanoseconds()) if found is not None]
        if not known:
            return metrics
        self.content[HANDOVER] = min(known + values([self.content], HANDOVER))
        return {**metrics, HANDOVER: max(known)}

    def _far(self, metrics: Metrics) -> bool:
        return HANDOVER in metrics and bool(metrics[HANDOVER] > FAR * self.content[HANDOVER])

    def finish(self) -> Metrics:
        self.content["done"] = True
        self.save()
        return self.content

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(self.content, indent=1) + "\n")
        partial.replace(self.path)


def read(directory: Path, name: str) -> Metrics | None:
    """The record of a section, or None."""
    try:
        content: Metrics = json.loads((directory / f"{name}.json").read_text())
    except FileNotFoundError:
        return None
    return content


def values(found: Iterable[Metrics], key: str) -> list[float]:
    """A metric in every round that has it."""
    return [metrics[key] for metrics in found if key in metrics]


def quotients(above: Iterable[Metrics], below: Iterable[Metrics], above_key: str, below_key: str) -> list[float]:
    """above / below in each round in which both were measured."""
    pairs = zip(above, below, strict=False)
    return [a[above_key] / b[below_key] for a, b in pairs if above_key in a and below_key in b]


def ratios(measured: Measured, above: str, below: str, key: str) -> list[float]:
    """The same of one metric of two contestants, by their names."""
    return quotients(measured.get(above, []), measured.get(below, []), key, key)


def apart(content: Metrics, again: str = "") -> str:
    """A sentence on how the cores were placed while a section was measured; `again`: how the names begin of what has
    several attempts."""
    measured: Measured = content["measured"]
    found = [value for name in measured if name.startswith(again) for value in values(measured[name], HANDOVER)]
    if not found:
        return ""
    far = sum(value > FAR * content[HANDOVER] for value in found)
    return (
        " Before and after each measurement a byte goes from one core to the other and back, in "
        f"{content[HANDOVER]:.0f} ns at best. Where that took more than {FAR:g} times as long (the cores of a virtual "
        f"machine do not always share a cache), {again or 'it'} was measured again at once; in {far} of "
        f"{len(found)} measurements it still did."
    )


def median(found: list[float]) -> float | None:
    return statistics.median(found) if found else None


def spread(found: list[float], digits: int = 3, unit: str = "") -> str:
    """Median (min to max), for a table."""
    if not found:
        return "–"
    low, middle, high = (_rounded(value, digits) for value in (min(found), statistics.median(found), max(found)))
    return f"{middle}{unit}" if len(found) == 1 else f"{middle}{unit} ({low}–{high})"


@dataclass(frozen=True)
class Goal:
    text: str
    measured: str
    reached: bool | None  # None: not measured

    @classmethod
    def at_least(cls, text: str, value: float | None, wanted: float, unit: str = "") -> "Goal":
        return cls(text, *(("–", None) if value is None else (f"{value:.2f}{unit}", value >= wanted)))

    @classmethod
    def at_most(cls, text: str, value: float | None, wanted: float, unit: str = "") -> "Goal":
        return cls(text, *(("–", None) if value is None else (f"{value:.2f}{unit}", value <= wanted)))


def _rounded(value: float, digits: int) -> str:
    """`value` to so many significant digits, but all of its whole ones."""
    return f"{value:,.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:.{digits}g}"


def table(head: list[str], rows: list[list[str]]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)
