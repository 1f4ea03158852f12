"""Run directories as they lie on the disk: what each holds, complete or not. Nothing here trains or needs torch, so
runs made elsewhere, by another version or only in part are read too."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

from vae.config.load import flat
from vae.measure.verdict import OPEN
from vae.report import contents
from vae.report.contents import MAX_VALUE, Array, Curve, Events
from vae.runtime import directory as names
from vae.runtime import files, naming
from vae.runtime.terminal import printable

T = TypeVar("T")


@dataclass(eq=False)
class Run:
    """One run directory. What could not be read is empty, and `problems` says why. Its settings and its result are
    read at once, the rest when it is first asked for: a report of a thousand runs draws a few of them."""

    directory: Path
    name: str  # by what its sweep varies, else the run's own
    group: str = ""  # the same but for the seed
    record: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)  # flat: "train.lr" -> value
    overrides: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    failed: bool = False  # it began, and could not end
    refused: str | None = None  # why its settings cannot go together, so that it never began

    @property
    def problem(self) -> str | None:
        """What is wrong with it, as far as it has been read."""
        return "; ".join(self.problems) or None

    def has(self, pattern: str) -> bool:
        """Whether it has a file of that name, whatever is in it."""
        return any(self.directory.glob(pattern))

    @cached_property
    def _events(self) -> Events:
        found = self._read("events", contents.events, Events())
        self.problems += [f"events damaged, what follows in this file is missing: {place}" for place in found.damaged]
        return found

    @property
    def curves(self) -> dict[str, Curve]:
        return self._events.curves

    @cached_property
    def images(self) -> dict[str, bytes]:
        """PNG, the last of each tag."""
        places = self._events.pictures.items()
        read = {tag: self._read(tag, partial(contents.picture, tag, place), b"") for tag, place in places}
        return {tag: content for tag, content in read.items() if content}

    @cached_property
    def gif(self) -> bytes | None:
        return self._read("film", contents.film, None)

    @cached_property
    def history(self) -> dict[str, Array]:
        """step (T,), kl_weight (T,), kl (T, d)."""
        return self._read("history", contents.history, {})

    @cached_property
    def codes(self) -> Array | None:
        """mu (N, d) of test images, as the projector has them."""
        return self._read("codes", contents.codes, None)

    @cached_property
    def labels(self) -> list[str]:
        """Of those images."""
        if self.codes is None:
            return []
        found: list[str] = self._read("labels", contents.labels, [])
        return found[: len(self.codes)]

    def _read(self, what: str, how: Callable[[Path], T], instead: T) -> T:
        try:
            return how(self.directory)
        except Exception as error:  # whatever is wrong with one file, the others are read
            self.problems.append(f"{what} unreadable: {_first_line(error)}")
            return instead

    @property
    def seed(self) -> Any:
        return self.record.get("seed", self.config.get("seed"))

    @property
    def verdict(self) -> str | None:
        found = self.record.get("verdict")
        return None if found is None else str(found)

    @property
    def is_conclusive(self) -> bool:
        """Whether its verdict says something of its code."""
        return self.verdict not in (None, *OPEN)

    @property
    def fate(self) -> str | None:
        """Its verdict in words, or why it has none; None where that is not known."""
        if self.refused is not None:
            return "cannot go together"
        return "failed" if self.failed else self.verdict and self.verdict.replace("_", " ")

    def number(self, key: str) -> float:
        """A number of result.json, NaN where there is none."""
        value = self.record.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > MAX_VALUE:
            return math.nan
        return float(value)


def find(directories: list[Path]) -> list[Run]:
    """The runs in and below these directories, each once, in the order of their paths (numbers as numbers)."""
    found: dict[Path, None] = {}
    for directory in directories:
        below = sorted(names.runs_below(directory), key=_natural)
        for path in below or [directory]:
            found.setdefault(path.resolve())
    runs = [read(path) for path in found]
    _name(runs)
    return runs


def read(directory: Path) -> Run:
    run = Run(directory, directory.name)
    run.config = run._read("config", _config, {})
    run.overrides = run._read("overrides", _overrides, [])
    run.record = run._read("record", _record, {})
    failure, run.refused = _last_line(directory / names.ERROR), _last_line(directory / names.REFUSED)
    if run.refused is not None:
        run.problems.insert(0, f"cannot go together: {run.refused}")
    elif failure is not None:
        run.problems.insert(0, f"failed: {failure}" if failure else "failed")
        run.failed = True
    elif "failure" in run.record:
        run.problems.insert(0, f"failed: {run.record['failure']}")
        run.failed = True
    elif not run.record:
        run.problems.insert(0, "no result.json: still running, or interrupted")
    return run


def _last_line(path: Path) -> str | None:
    """What a text says last, empty where it says nothing; None where there is no such file."""
    if not path.is_file():
        return None
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - files.TEXT_LIMIT))
        lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    return printable(lines[-1]) if lines else ""


def _config(directory: Path) -> dict[str, Any]:
    path = directory / names.CONFIG
    if not path.is_file():
        return {}
    return {clean(key): clean(value, depth=0) for key, value in flat(files.read_yaml(path)).items()}


def _overrides(directory: Path) -> list[str]:
    path = directory / names.OVERRIDES
    found = (files.read_yaml(path) or []) if path.is_file() else []
    if not isinstance(found, list):
        raise ValueError("overrides.yaml is no list")
    return [str(clean(item, depth=0)) for item in found]


def _record(directory: Path) -> dict[str, Any]:
    path = directory / names.RESULT
    if not path.is_file():
        return {}
    record = json.loads(files.read_text(path))
    if not isinstance(record, dict):
        raise ValueError("result.json is no object")
    return {clean(key): clean(value) for key, value in record.items()}


def clean(value: Any, depth: int = 3) -> Any:
    """Numbers and None as they are, lists and dicts by what is in them, all else as text that can be written and
    shown."""
    if depth and isinstance(value, list):
        return [clean(item, depth - 1) for item in value]
    if depth and isinstance(value, dict):
        return {clean(str(key)): clean(item, depth - 1) for key, item in value.items()}
    return value if value is None or isinstance(value, bool | int | float) else printable(str(value))


def _name(runs: list[Run]) -> None:
    """Runs of a sweep by what it varies, others by their own names; names that differ, by the seed or the directory
    where nothing else tells runs apart."""
    sweeps: dict[Path | None, list[Run]] = {}
    for run in runs:
        sweeps.setdefault(_sweep_of(run.directory), []).append(run)
    for sweep, members in sweeps.items():
        keys = [] if sweep is None else naming.varied(run.overrides for run in members)
        for run in members:
            run.name = printable(naming.label(run.overrides, keys)) or _own_name(run)
            run.group = printable(naming.label(run.overrides, set(keys) - {"seed"})) or _own_name(run)
    for distinguish in (
        lambda run: f"{run.name},seed={run.seed}",
        lambda run: f"{run.name} ({run.directory.name})",
        lambda run: f"{run.name} of {run.directory.parent.name}",
        lambda run: f"{run.name}, number {runs.index(run) + 1}",
    ):
        given = [run.name for run in runs]
        for run in [run for run in runs if given.count(run.name) > 1]:
            run.name = distinguish(run)


def _own_name(run: Run) -> str:
    """The name in its record or configuration; its directory's where that would have to be computed."""
    own = str(run.record.get("run_name") or run.config.get("run_name") or "")
    return run.directory.name if not own or "${" in own else own


def _sweep_of(directory: Path) -> Path | None:
    return next((parent for parent in directory.parents if (parent / names.SWEEP).is_file()), None)


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort key by which 2_b comes before 10_a."""
    return [(int(part.split("_")[0]) if part.split("_")[0].isdecimal() else -1, part) for part in path.parts]


def _first_line(error: BaseException) -> str:
    return printable(f"{type(error).__name__}: {str(error).splitlines()[0]}" if str(error) else type(error).__name__)
