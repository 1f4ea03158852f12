"""A run directory that the version before has left behind (tests/fixtures/format4: checkpoint format 4, options without
`kind`, its result.json) is read, measured again and resumed. Its data are the digits of dataset=mnist5k."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT, composed

import vae
from vae.runtime import directory as names
from vae.training import checkpoint
from vae.training.loop import train

Program = Callable[..., tuple[int, str, str]]
OLD = ROOT / "tests" / "fixtures" / "format4"


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD, tmp_path / "old"))


def record(directory: Path, file: str = names.RESULT) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / file).read_text())
    return found


def saved() -> dict[str, Any]:
    content: dict[str, Any] = torch.load(OLD / names.CHECKPOINT, weights_only=True)
    return content


def test_the_model_is_read() -> None:
    assert saved()["format"] == 4
    model = vae.load_run(OLD)
    assert all(torch.equal(value, saved()["model"][name]) for name, value in model.state_dict().items())
    assert model.sample(2).shape == (2, 1, 28, 28)


def test_it_is_measured_again_as_it_was(program: Program, copied: Path) -> None:
    """Words, counts and the times of the training exactly, and the accuracy of the linear probe to five of the 1,000
    test images. All other measures to 1e-4 of their size: they are sums of float32 numbers, which another machine may
    add up in another order. On the machine that made the directory all are the same to the bit."""
    status, _, err = program(f"evaluate={copied}", "train.threads=1")
    assert status == 0, err
    before, now = record(OLD), record(copied, names.EVALUATION)
    assert list(now) == list(before)
    times = ("seconds", "images_per_second", "peak_memory_mib")
    measured = {key for key, value in before.items() if isinstance(value, float) and key not in times}
    assert len(measured) > 25
    assert {key: now[key] for key in before if key not in measured} == {
        key: before[key] for key in before if key not in measured
    }
    assert now["probe_accuracy"] == pytest.approx(before["probe_accuracy"], abs=0.005)
    for key in measured - {"probe_accuracy"}:
        assert now[key] == pytest.approx(before[key], rel=1e-4), key
    for file in (names.RESULT, names.CHECKPOINT, names.CONFIG):
        assert (copied / file).read_bytes() == (OLD / file).read_bytes()


def test_it_is_resumed_as_if_this_version_had_begun_it(program: Program, copied: Path, tmp_path: Path) -> None:
    """Ten steps more: the KL weight rises on, and Adam's moments and count of steps (which format 4 had once, not for
    each parameter) are those of a run of this version from its first step on. Where its weights are is compared with
    how far the ten steps go: another machine may have rounded otherwise in the 200 steps before."""
    status, out, err = program(f"resume={copied}", "train.steps=210")
    assert status == 0, err
    assert "finished after 210 steps" in out
    overrides = yaml.safe_load((OLD / names.OVERRIDES).read_text())
    train(composed(*overrides, "train.steps=210"), tmp_path / "new")
    resumed, new = checkpoint.read(copied), checkpoint.read(tmp_path / "new")
    assert resumed.config == new.config
    assert resumed.step == new.step == 210
    assert resumed.parts["schedule"]["latched_at"] == saved()["schedule"]["latched_at"]
    assert record(copied)["kl_weight"] == pytest.approx(record(OLD)["kl_weight"] + 10 * 0.002)
    for name, value in resumed.parts["model"].items():
        moved = (value - saved()["model"][name]).abs().mean()
        assert (value - new.parts["model"][name]).abs().mean() <= 0.1 * moved, name
    assert resumed.parts["optimizer"].keys() == new.parts["optimizer"].keys()
    for name, value in resumed.parts["optimizer"].items():
        assert value == 210 if name.startswith("step.") else value.any(), name
    assert record(copied)["seconds"] > saved()["recorder"]["seconds"] > 1
    with np.load(copied / names.HISTORY) as history:
        assert history["step"].tolist() == list(range(10, 211, 10))
    assert yaml.safe_load((copied / names.CONFIG).read_text())["model"]["kind"] == "conv"
