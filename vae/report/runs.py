"""Run directories as they lie on the disk: what each holds, complete or not. Nothing here trains or needs torch, so
runs made elsewhere, by another version or only in part are read too."""

import json
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

for chatty in ("tensorboard", "matplotlib"):
    logging.getLogger(chatty).setLevel(logging.WARNING)

Curve = pd.Series  # values over steps

IMAGES = ("reconstructions", "prior_samples")
GIF_LIMIT = 4_000_000  # bytes; a larger film is left out of the page


@dataclass(eq=False)
class Run:
    """One run directory. What could not be read is empty, and `problem` says why."""

    directory: Path
    name: str
    record: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)  # flat: "train.lr" -> value
    overrides: list[str] = field(default_factory=list)
    curves: dict[str, Curve] = field(default_factory=dict)
    images: dict[str, bytes] = field(default_factory=dict)  # PNG, the last of each tag
    gif: bytes | None = None
    history: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)  # step (T,), kl_weight (T,), kl (T, d)
    problem: str | None = None

    @property
    def finished(self) -> bool:
        return self.problem is None

    @property
    def group(self) -> str:
        """What the run is but for its seed."""
        return str(self.record.get("run_name") or self.config.get("run_name") or self.directory.name)

    @property
    def seed(self) -> Any:
        return self.record.get("seed", self.config.get("seed"))

    def number(self, key: str) -> float:
        """A figure of result.json, NaN where there is none."""
        value = self.record.get(key)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def find(directories: list[Path]) -> list[Run]:
    """The runs in and below these directories, each once, in the order of their paths (numbers as numbers)."""
    found: dict[Path, None] = {}
    for directory in directories:
        below = sorted({path.parent.parent for path in directory.rglob(".hydra/config.yaml")}, key=_natural)
        for path in below or [directory]:
            found.setdefault(path.resolve())
    runs = [read(path) for path in found]
    _tell_apart(runs)
    return runs


def read(directory: Path) -> Run:
    run = Run(directory, directory.name)
    problems: list[str] = []
    for part in (_read_config, _read_record, _read_events, _read_history):
        try:
            part(run)
        except Exception as error:  # whatever is wrong with one file, the others are read
            problems.append(f"{part.__name__.removeprefix('_read_')} unreadable: {_first_line(error)}")
    gif = directory / "training.gif"
    if gif.is_file() and gif.stat().st_size <= GIF_LIMIT:
        run.gif = gif.read_bytes()
    trace = directory / "error.txt"
    if trace.is_file():
        lines = [line for line in trace.read_text(errors="replace").splitlines() if line.strip()]
        problems.insert(0, f"failed: {lines[-1]}" if lines else "failed")
    elif "failure" in run.record:
        problems.insert(0, f"failed: {run.record['failure']}")
    elif not run.record:
        problems.insert(0, "no result.json: still running, or interrupted")
    run.problem = "; ".join(problems) or None
    return run


def _read_config(run: Run) -> None:
    hydra = run.directory / ".hydra"
    if (hydra / "config.yaml").is_file():
        run.config = dict(_flat(yaml.safe_load((hydra / "config.yaml").read_text())))
    if (hydra / "overrides.yaml").is_file():
        run.overrides = [str(item) for item in yaml.safe_load((hydra / "overrides.yaml").read_text()) or []]


def _read_record(run: Run) -> None:
    path = run.directory / "result.json"
    if path.is_file():
        record = json.loads(path.read_text())
        if not isinstance(record, dict):
            raise ValueError("result.json is no object")
        run.record = record


def _read_events(run: Run) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    if not list(run.directory.glob("events.out.tfevents.*")):
        return
    guidance = {"scalars": 0, "images": 1, "tensors": 1, "histograms": 1}  # 0: all of them
    events = EventAccumulator(str(run.directory), size_guidance=guidance).Reload()
    for tag in events.Tags()["scalars"]:
        rows = events.Scalars(tag)
        series = pd.Series([row.value for row in rows], index=[row.step for row in rows], dtype=float)
        run.curves[tag] = series[~series.index.duplicated(keep="last")].sort_index()
    for tag in set(IMAGES) & set(events.Tags()["images"]):
        run.images[tag] = events.Images(tag)[-1].encoded_image_string


def _read_history(run: Run) -> None:
    path = run.directory / "history.npz"
    if path.is_file():
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as content:
            run.history = {name: content[name] for name in ("step", "kl_weight", "kl")}


def _tell_apart(runs: list[Run]) -> None:
    """Names that differ: the run's own name, its seed where runs share that, its directory where they still do."""
    for run in runs:
        run.name = run.group
    for distinguish in (
        lambda run: f"{run.name}, seed {run.seed}",
        lambda run: f"{run.name} ({run.directory.name})",
        lambda run: f"{run.name} of {run.directory.parent.name}",
        lambda run: f"{run.name}, number {runs.index(run) + 1}",
    ):
        names = [run.name for run in runs]
        for run in [run for run in runs if names.count(run.name) > 1]:
            run.name = distinguish(run)


def _flat(values: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort key by which 2_b comes before 10_a."""
    return [(int(part.split("_")[0]) if part.split("_")[0].isdigit() else -1, part) for part in path.parts]


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0]}" if str(error) else type(error).__name__
