"""What a run directory holds beside its settings and its result: its curves, its pictures, the KL of each latent
dimension over time, the codes of test images. What is damaged raises ValueError, or what the library that reads it
raises."""

import math
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from google.protobuf.message import DecodeError
from tensorboard.compat.proto.event_pb2 import Event

from vae.runtime import directory as names
from vae.runtime import files, records
from vae.runtime.terminal import printable

Curve = pd.Series  # values over steps
Array = np.ndarray[Any, Any]

MAX_VALUE = 1e30  # of what a run measures, nothing is larger
IMAGES = ("reconstructions", "prior_samples", "traversal")
HISTORY_LIMIT = 400_000_000  # bytes, unpacked
EVENTS_LIMIT = 4_000_000_000
CODES_LIMIT = 50_000_000
GIF_LIMIT = 30_000_000  # bytes; a larger film is left out of the page. 160 frames of noisy digits take 17 million


@dataclass
class Events:
    """Of a run's event files, in their order."""

    curves: dict[str, Curve] = field(default_factory=dict)
    pictures: dict[str, tuple[str, records.Place]] = field(default_factory=dict)  # file and place: the last of IMAGES
    damaged: list[str] = field(default_factory=list)  # files, and from where on they cannot be read


def events(directory: Path) -> Events:
    """Pictures stay on the disk, and are not checked here: most of a file is pictures that nothing asks for."""
    found = Events()
    paths = sorted(directory.glob(names.EVENTS))
    size = sum(path.stat().st_size for path in paths)
    if size > EVENTS_LIMIT:
        raise ValueError(f"event files of {size} bytes")
    points: dict[str, dict[int, float]] = {}  # of two at a step the later one counts
    for path in paths:
        try:
            _read(path, points, found)
        except (records.Damaged, DecodeError) as error:
            found.damaged.append(printable(f"{path.name}: {error}"))
    for tag, values in points.items():
        series = pd.Series(values.values(), index=values.keys(), dtype=float)
        found.curves[tag] = series if series.index.is_monotonic_increasing else series.sort_index()
    return found


def _read(path: Path, points: dict[str, dict[int, float]], found: Events) -> None:
    with open(path, "rb") as file:
        for place in records.places(file):
            content = records.unchecked(file, place)
            event = Event.FromString(content)
            kinds = [value.WhichOneof("value") for value in event.summary.value]
            if "simple_value" in kinds:
                records.check(file, place, content)
            for value, kind in zip(event.summary.value, kinds, strict=True):
                if kind == "simple_value":
                    number = value.simple_value
                    points.setdefault(value.tag, {})[event.step] = number if abs(number) < MAX_VALUE else math.nan
                elif kind == "image" and value.tag in IMAGES:
                    found.pictures[value.tag] = path.name, place


def picture(tag: str, where: tuple[str, records.Place], directory: Path) -> bytes:
    """The PNG of that tag in an event, the place of which `events` has found."""
    name, place = where
    with open(directory / name, "rb") as file:
        event = Event.FromString(records.event(file, place))
    found = [value.image for value in event.summary.value if value.tag == tag and value.WhichOneof("value") == "image"]
    return found[-1].encoded_image_string


def film(directory: Path) -> bytes | None:
    """The GIF; None where there is none, or one too large for a page."""
    path = directory / names.FILM
    return path.read_bytes() if path.is_file() and path.stat().st_size <= GIF_LIMIT else None


def history(directory: Path) -> dict[str, Array]:
    """step (T,), kl_weight (T,) and kl (T, d); empty where there is none."""
    path = directory / names.HISTORY
    if not path.is_file():
        return {}
    with zipfile.ZipFile(path) as packed:
        if sum(member.file_size for member in packed.infolist()) > HISTORY_LIMIT:
            raise ValueError("larger than any history")
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as content:
        found = {name: content[name] for name in ("step", "kl_weight", "kl")}
    step, weight, kl = found.values()
    rows = len(step) if step.ndim else -1
    if any(array.dtype.kind not in "iuf" for array in found.values()) or kl.ndim != 2 or not kl.shape[1]:
        raise ValueError(f"kl of {kl.dtype} and shape {kl.shape}")
    if step.shape != (rows,) or weight.shape != (rows,) or len(kl) != rows or (np.diff(step, prepend=0) <= 0).any():
        raise ValueError(f"{rows} steps, kl {kl.shape}: do not fit together")
    return found


def codes(directory: Path) -> Array | None:
    """mu (N, d) of test images as the projector has them at the last step; None where there are none."""
    table = _last_codes(directory)
    if table is None:
        return None
    if table.stat().st_size > CODES_LIMIT:
        raise ValueError("larger than any table of codes")
    mu = np.loadtxt(table, delimiter="\t", ndmin=2)
    if not np.isfinite(mu).all() or np.abs(mu).max(initial=0) > MAX_VALUE:
        raise ValueError("codes that are not finite")
    return mu


def labels(directory: Path) -> list[str]:
    """Of these images; empty where they have none."""
    table = _last_codes(directory)
    if table is None or not table.with_name("metadata.tsv").is_file():
        return []
    return [printable(line) for line in files.read_text(table.with_name("metadata.tsv")).splitlines()]


def _last_codes(directory: Path) -> Path | None:
    return max(directory.glob(names.CODES), default=None)
