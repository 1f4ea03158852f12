"""A run directory that the version before has left behind (tests/fixtures/format4: checkpoint format 4, options without
`kind`, its result.json) is read, measured again and resumed. Its data are the digits of dataset=mnist5k."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT

import vae
from vae.config.load import load_saved
from vae.runtime import directory as names
from vae.training import checkpoint
from vae.training.loop import train
from vae.training.stopping import Stopping

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
    model = vae.load_run(OLD).model
    assert all(torch.equal(value, saved()["model"][name]) for name, value in model.state_dict().items())
    assert model.sample(2).shape == (2, 1, 28, 28)


REDEFINED = {  # since then; docs/measures.md says how
    *("reason", "effective_t", "probe_accuracy", "iwae_elbo", "used_dimensions", "marginal_kl", "total_correlation"),
}


def test_it_is_measured_again_as_it_was(program: Program, copied: Path) -> None:
    """Words, counts and the times of the training exactly. All other measures to 1e-4 of their size: they are sums of
    float32 numbers, which another machine may add up in another order. What has been added since is there too."""
    status, _, err = program(f"evaluate={copied}", "train.threads=1", "evaluation.quality_images=0")
    assert status == 0, err
    before, now = record(OLD), record(copied, names.EVALUATION)
    assert set(before) <= set(now)
    times = ("seconds", "images_per_second", "peak_memory_mib")
    measured = {key for key, value in before.items() if isinstance(value, float) and key not in times} - REDEFINED
    assert len(measured) > 25
    assert {key: now[key] for key in before if key not in measured | REDEFINED} == {
        key: before[key] for key in before if key not in measured | REDEFINED
    }
    for key in measured:
        assert now[key] == pytest.approx(before[key], rel=1e-4), key
    assert (now["max_kl_weight"], now["loss_fall"]) == (before["kl_weight"], None)  # the latter was not kept then
    for file in (names.RESULT, names.CHECKPOINT, names.CONFIG):
        assert (copied / file).read_bytes() == (OLD / file).read_bytes()


def as_format_4(content: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint of today as that version would have written it."""
    recorder, optimizer = dict(content["recorder"]), content["optimizer"]
    clock = content["clock"]
    recorder |= {"logged": [recorder.pop("logged_step"), recorder.pop("logged_seconds")], **clock}
    recorder["watch"] = saved()["recorder"]["watch"]
    recorder["history"] = {key: value for key, value in recorder["history"].items() if key != "reconstruction"}
    count = next(value for name, value in optimizer.items() if name.startswith("step."))
    moments = {name: value for name, value in optimizer.items() if not name.startswith("step.")}
    schedule = {name: content["schedule"][name] for name in ("smoothed", "latched_at")}
    data = {name: content["data"][name] for name in ("train", "test")}
    old = {
        "format": 4,
        "data": data,
        "recorder": recorder,
        "optimizer": moments | {"count": count},
        "schedule": schedule,
    }
    today = {key: value for key, value in content.items() if key not in ("clock", "stopping", "cure")}
    return today | old | {"config": saved()["config"]}


def test_it_is_resumed_to_the_same_bits(program: Program, copied: Path, tmp_path: Path) -> None:
    """A run of this version and the same one as format 4 has it: ten steps more give the same weights."""
    config = load_saved(saved()["config"], ())
    short = dataclasses.replace(config.train, steps=20)
    unjudged = dataclasses.replace(config.evaluation, quality_images=0, test_images=100)
    train(dataclasses.replace(config, train=short, evaluation=unjudged), tmp_path / "new")
    content = torch.load(tmp_path / "new" / names.CHECKPOINT, weights_only=True)
    assert set(as_format_4(content)) == set(saved())
    for part, value in as_format_4(content).items():
        assert not isinstance(value, dict) or set(value) == set(saved()[part]), part
    torch.save(as_format_4(content), copied / names.CHECKPOINT)
    (copied / names.PREVIOUS_CHECKPOINT).unlink(missing_ok=True)
    for directory in (copied, tmp_path / "new"):
        found = checkpoint.read(directory)
        longer = dataclasses.replace(found.config.train, steps=30)
        train(dataclasses.replace(found.config, train=longer, evaluation=unjudged), directory, found)
    one, other = checkpoint.read(copied), checkpoint.read(tmp_path / "new")
    for part in ("model", "optimizer", "likelihood"):
        assert all(torch.equal(value, other.parts[part][name]) for name, value in one.parts[part].items())


def test_it_is_resumed(program: Program, copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten steps more: the KL weight rises on, and what format 4 did not have begins here."""
    monkeypatch.setattr("vae.measure.quality.MIN_IMAGES", 2000)  # more than there are: samples are not measured
    status, out, err = program(f"resume={copied}", "train.steps=210")
    assert status == 0, err
    assert "finished after 210 steps" in out
    resumed = checkpoint.read(copied)
    assert resumed.step == 210
    assert resumed.parts["schedule"]["latched_at"] == saved()["schedule"]["latched_at"]
    assert record(copied)["kl_weight"] == pytest.approx(record(OLD)["kl_weight"] + 10 * 0.002)
    for name, value in resumed.parts["optimizer"].items():
        assert value == 210 if name.startswith("step.") else value.any(), name
    assert record(copied)["seconds"] > saved()["recorder"]["seconds"] > 1
    with np.load(copied / names.HISTORY) as history:
        assert history["step"].tolist() == list(range(10, 211, 10))
        assert np.isfinite(history["reconstruction"]).tolist() == [False] * 20 + [True]
    assert yaml.safe_load((copied / names.CONFIG).read_text())["model"]["kind"] == "conv"


def test_the_best_of_early_stopping_is_read() -> None:
    """Format 9 compared ELBOs at KL weight 1, where this one compares losses at the weight of the schedule's end."""
    before = {"stopping": {"best": -80.0, "best_step": 20, "waited": 1}}
    state = checkpoint._from_format_9(before)["stopping"]
    one, other = Stopping(3), Stopping(3, weight=0.0)
    for stopping in (one, other):
        stopping.load_state_dict(state)
    assert (one.best, one.best_step, one.waited) == (80.0, 20, 1)
    assert (other.best, other.best_step, other.waited) == (None, 0, 0)
