"""Run directories as they lie on the disk: what each holds, complete or not. Nothing here trains or needs torch, so
runs made elsewhere, by another version or only in part are read too."""

import json
import logging
import math
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vae.config.load import flat
from vae.runtime import directory as names
from vae.runtime import files, naming
from vae.runtime.terminal import printable

Curve = pd.Series  # values over steps

MAX_VALUE = 1e30  # of what a run measures, nothing is larger
IMAGES = ("reconstructions", "prior_samples", "traversal")
HISTORY_LIMIT = 400_000_000  # bytes, unpacked
EVENTS_LIMIT = 4_000_000_000
CODES_LIMIT = 50_000_000
GIF_LIMIT = 30_000_000  # bytes; a larger film is left out of the page. 160 frames of noisy digits take 17 million


@dataclass(eq=False)
class Run:
    """One run directory. What could not be read is empty, and `problem` says why."""

    directory: Path
    name: str  # by what its sweep varies, else the run's own
    group: str = ""  # the same but for the seed
    record: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)  # flat: "train.lr" -> value
    overrides: list[str] = field(default_factory=list)
    curves: dict[str, Curve] = field(default_factory=dict)
    images: dict[str, bytes] = field(default_factory=dict)  # PNG, the last of each tag
    gif: bytes | None = None
    history: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)  # step (T,), kl_weight (T,), kl (T, d)
    codes: np.ndarray[Any, Any] | None = None  # mu (N, d) of test images, as the projector has them
    labels: list[str] = field(default_factory=list)  # of those images
    problem: str | None = None
    failed: bool = False  # it began, and could not end
    refused: str | None = None  # why its settings cannot go together, so that it never began

    @property
    def finished(self) -> bool:
        return self.problem is None

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
        return self.verdict not in (None, "unfinished")

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
    problems: list[str] = []
    for part in (_read_config, _read_record, _read_events, _read_history, _read_codes):
        try:
            part(run)
        except Exception as error:  # whatever is wrong with one file, the others are read
            problems.append(f"{part.__name__.removeprefix('_read_')} unreadable: {_first_line(error)}")
    gif = directory / names.FILM
    if gif.is_file() and gif.stat().st_size <= GIF_LIMIT:
        run.gif = gif.read_bytes()
    failure, run.refused = _last_line(directory / names.ERROR), _last_line(directory / names.REFUSED)
    if run.refused is not None:
        problems.insert(0, f"cannot go together: {run.refused}")
    elif failure is not None:
        problems.insert(0, f"failed: {failure}" if failure else "failed")
        run.failed = True
    elif "failure" in run.record:
        problems.insert(0, f"failed: {run.record['failure']}")
        run.failed = True
    elif not run.record:
        problems.insert(0, "no result.json: still running, or interrupted")
    run.problem = "; ".join(problems) or None
    return run


def _last_line(path: Path) -> str | None:
    """What a text says last, empty where it says nothing; None where there is no such file."""
    if not path.is_file():
        return None
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - files.TEXT_LIMIT))
        lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    return printable(lines[-1]) if lines else ""


def _read_config(run: Run) -> None:
    own, given = run.directory / names.CONFIG, run.directory / names.OVERRIDES
    if own.is_file():
        run.config = {clean(key): clean(value, depth=0) for key, value in flat(files.read_yaml(own)).items()}
    if given.is_file():
        overrides = files.read_yaml(given) or []
        if not isinstance(overrides, list):
            raise ValueError("overrides.yaml is no list")
        run.overrides = [str(clean(item, depth=0)) for item in overrides]


def _read_record(run: Run) -> None:
    path = run.directory / names.RESULT
    if path.is_file():
        record = json.loads(files.read_text(path))
        if not isinstance(record, dict):
            raise ValueError("result.json is no object")
        run.record = {clean(key): clean(value) for key, value in record.items()}


def clean(value: Any, depth: int = 3) -> Any:
    """Numbers and None as they are, lists and dicts by what is in them, all else as text that can be written and
    shown."""
    if depth and isinstance(value, list):
        return [clean(item, depth - 1) for item in value]
    if depth and isinstance(value, dict):
        return {clean(str(key)): clean(item, depth - 1) for key, item in value.items()}
    return value if value is None or isinstance(value, bool | int | float) else printable(str(value))


def _read_events(run: Run) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    sizes = [path.stat().st_size for path in run.directory.glob(names.EVENTS)]
    if not sizes:
        return
    if sum(sizes) > EVENTS_LIMIT:
        raise ValueError(f"event files of {sum(sizes)} bytes")
    guidance = {"scalars": 0, "images": 1, "tensors": 1, "histograms": 1}  # 0: all of them
    chatty = logging.getLogger("tensorboard")
    before = chatty.level
    chatty.setLevel(logging.ERROR)  # it says of each event file how many bytes it has
    try:
        events = EventAccumulator(str(run.directory), size_guidance=guidance).Reload()
    finally:
        chatty.setLevel(before)
    for tag in events.Tags()["scalars"]:
        rows = events.Scalars(tag)
        series = pd.Series(
            [row.value if abs(row.value) < MAX_VALUE else math.nan for row in rows],
            index=[row.step for row in rows],
            dtype=float,
        )
        run.curves[tag] = series[~series.index.duplicated(keep="last")].sort_index()
    for tag in set(IMAGES) & set(events.Tags()["images"]):
        run.images[tag] = events.Images(tag)[-1].encoded_image_string


def _read_history(run: Run) -> None:
    path = run.directory / names.HISTORY
    if not path.is_file():
        return
    with zipfile.ZipFile(path) as packed:
        if sum(member.file_size for member in packed.infolist()) > HISTORY_LIMIT:
            raise ValueError("larger than any history")
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as content:
        history = {name: content[name] for name in ("step", "kl_weight", "kl")}
    step, weight, kl = history.values()
    rows = len(step) if step.ndim else -1
    if any(array.dtype.kind not in "iuf" for array in history.values()) or kl.ndim != 2 or not kl.shape[1]:
        raise ValueError(f"kl of {kl.dtype} and shape {kl.shape}")
    if step.shape != (rows,) or weight.shape != (rows,) or len(kl) != rows or (np.diff(step, prepend=0) <= 0).any():
        raise ValueError(f"{rows} steps, kl {kl.shape}: do not fit together")
    run.history = history


def _read_codes(run: Run) -> None:
    """What the projector's folder of the last step has."""
    folders = sorted(path.parent for path in run.directory.glob(names.CODES))
    if not folders:
        return
    table = folders[-1] / "tensors.tsv"
    if table.stat().st_size > CODES_LIMIT:
        raise ValueError("larger than any table of codes")
    codes = np.loadtxt(table, delimiter="\t", ndmin=2)
    if not np.isfinite(codes).all() or np.abs(codes).max(initial=0) > MAX_VALUE:
        raise ValueError("codes that are not finite")
    run.codes = codes
    labels = folders[-1] / "metadata.tsv"
    if labels.is_file():
        run.labels = [printable(line) for line in files.read_text(labels).splitlines()[: len(codes)]]


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
    return [(int(part.split("_")[0]) if part.split("_")[0].isdigit() else -1, part) for part in path.parts]


def _first_line(error: BaseException) -> str:
    return printable(f"{type(error).__name__}: {str(error).splitlines()[0]}" if str(error) else type(error).__name__)
