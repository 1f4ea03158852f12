"""A run that was interrupted and the same run undisturbed are twins: what they leave behind is the same to the bit, but
for the times."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import QUICK, composed
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vae.data import split
from vae.runtime import directory as names
from vae.training import checkpoint
from vae.training.loop import train

SETTINGS = [*QUICK, "train.steps=11", "train.log_every=2", "train.eval_every=4", "pictures.gif_every=3"]


class PowerCut(BaseException):
    """Stands for the end of the process: nothing in the program catches it."""


def power_cut(*args: Any, **options: Any) -> None:
    raise PowerCut


def interrupted(directory: Path, at: int, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> None:
    """Train, and cut the power when batch number `at` is asked for (11: after the last one)."""
    whole = split.training_batches

    def cut(split: split.Split, batch_size: int, seed: int, start: int = 0) -> Any:
        for number, batch in enumerate(whole(split, batch_size, seed, start), start=start):
            if number == at:
                raise PowerCut
            yield batch

    directory.mkdir(parents=True)
    (directory / ".hydra").mkdir()
    config = composed(*overrides)
    with monkeypatch.context() as patch, pytest.raises(PowerCut):
        patch.setattr("vae.data.binarize.training_batches", cut)
        if at >= config.train.steps:
            patch.setattr("vae.output.recorder.Recorder.finish", power_cut)
        train(config, directory)


def resumed(directory: Path, *overrides: str) -> None:
    saved = checkpoint.read(directory) if names.has_checkpoint(directory) else None
    train(composed(*overrides), directory, saved)


TIMES = {"seconds", "images_per_second", "peak_memory_mib"}


def timeless(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in TIMES}


def scalars(directory: Path) -> dict[str, list[tuple[int, Any]]]:
    """All points of all scalars and all images, in the order in which TensorBoard reads them."""
    events = EventAccumulator(str(directory), size_guidance={"scalars": 0, "images": 0}).Reload()
    found: dict[str, list[tuple[int, Any]]] = {
        tag: [(row.step, row.value) for row in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }
    images = events.Tags()["images"]
    found |= {tag: [(row.step, row.encoded_image_string) for row in events.Images(tag)] for tag in images}
    return {tag: rows for tag, rows in found.items() if "images_per_second" not in tag}


def left_behind(directory: Path) -> set[str]:
    """The names of a run's files, the event files under one name: how many there are tells of interruptions, as the
    log does."""
    files = {path.relative_to(directory) for path in directory.rglob("*") if path.is_file() and path.name != names.LOG}
    return {names.EVENTS if path.match(names.EVENTS) else str(path) for path in files}


def assert_same(a: Any, b: Any, where: str) -> None:
    """Equal, to the bit where they are tensors, in what they hold and in the order in which they hold it."""
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert list(a) == list(b), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), where
        for i, (one, other) in enumerate(zip(a, b, strict=True)):
            assert_same(one, other, f"{where}[{i}]")
    elif isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype, where
        assert torch.equal(a, b), where
    else:
        assert a == b, where


def assert_twins(first: Path, second: Path) -> None:
    a, b = (dataclasses.asdict(checkpoint.read(directory)) for directory in (first, second))
    for content in (a, b):
        del content["parts"]["clock"]
        del content["recorder"]["written"], content["recorder"]["logged_seconds"]  # sizes and times
    assert_same(a, b, "checkpoint")
    records = [json.loads((directory / names.RESULT).read_text()) for directory in (first, second)]
    assert timeless(records[0]) == timeless(records[1])
    assert (first / names.FILM).read_bytes() == (second / names.FILM).read_bytes()
    with np.load(first / names.HISTORY) as one, np.load(second / names.HISTORY) as two:
        assert one.files == two.files
        assert all(np.array_equal(one[name], two[name]) for name in one.files)
    curves, others = scalars(first), scalars(second)
    assert {tag for tag in curves if curves[tag] != others.get(tag)} == set()
    assert set(curves) == set(others)
    assert left_behind(first) == left_behind(second)
