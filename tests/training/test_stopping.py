"""Early stopping: on images that it was not trained on, with the best model kept, and resumed to the same bits."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import composed, trained

import vae
from vae.data import readers
from vae.training import checkpoint
from vae.training.loop import train
from vae.training.setup import prepare
from vae.training.stopping import Stopping, with_validation

SETTINGS = [
    "model=mlp_vae",
    "model.encoder_widths=[64]",
    "model.decoder_widths=[64]",
    "model.latent_dim=8",
    "objective=optimal_gaussian",
    "train.threads=1",
    "train.device=cpu",
    "train.batch_size=16",
    "train.lr=0.01",
    "train.steps=2000",
    "train.eval_every=20",
    "train.patience=3",
    "pictures.gif_every=0",
    "evaluation.iw_samples=2",
    "evaluation.probe_images=16",
    "evaluation.quality_images=0",
]


@pytest.fixture
def noise(tmp_path: Path) -> list[str]:
    """Few images and much noise: what is learnt by heart does not help others."""
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(80, 2)) @ rng.normal(size=(2, 64))
    images = 0.5 + 0.1 * factors + 0.1 * rng.normal(size=(80, 64))
    np.save(tmp_path / "images.npy", images.clip(0, 1).reshape(-1, 8, 8))
    return ["dataset=arrays", f"dataset.train={tmp_path}/images.npy", "dataset.test_fraction=0.2"]


def test_it_counts_from_the_best() -> None:
    stopping = Stopping(2)
    assert [stopping.observe(step, elbo) for step, elbo in ((1, -5.0), (2, -4.0), (3, -4.5))] == [True, True, False]
    assert not stopping.is_over
    again = Stopping(2)
    again.load_state_dict(stopping.state_dict())
    assert not again.observe(4, -4.0)  # as good is no better
    assert again.is_over
    assert (again.best, again.best_step) == (-4.0, 2)
    assert not Stopping(None).is_over
    assert (
        "after step 4, 2 evaluations without a gain (train.patience=2); kept is the model of step 2"
        in again.sentence(4)
    )
    assert stopping.sentence(9).startswith("all 9 steps are made; kept is the model of step 2")


@pytest.mark.parametrize(
    "state", [{}, {"best": "x", "best_step": 1, "waited": 1}, {"best": None, "best_step": -1, "waited": 0}]
)
def test_a_state_that_is_none(state: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="stopping"):
        Stopping(1).load_state_dict(state)


def test_validation_images_are_not_trained_on(noise: list[str]) -> None:
    config = composed(*noise, *SETTINGS, "train.validation_fraction=0.25", "dataset.binarize=dynamic")
    data = with_validation(readers.load(config.dataset), config.train)
    assert data.validation is not None
    assert data.grey is not None
    assert (len(data.train), len(data.validation), len(data.grey), len(data.test)) == (48, 16, 48, 16)
    both = torch.cat([data.train.images, data.validation.images]).flatten(1)
    whole = readers.load(config.dataset).train.images.flatten(1)
    assert torch.equal(both.sort(0).values, whole.sort(0).values)
    setup = prepare(config)
    assert len(setup.subject.data.train) == 48
    assert with_validation(data, config.train) is data  # a split of their own stays


def test_it_stops_and_keeps_the_best_model(noise: list[str], tmp_path: Path) -> None:
    record = trained(tmp_path / "run", *noise, *SETTINGS)
    assert record["best_step"] < record["steps"] < 2000
    assert record["steps"] == record["best_step"] + 3 * 20
    saved = checkpoint.read(tmp_path / "run")
    assert saved.step == record["best_step"]
    assert not (tmp_path / "run" / "checkpoint.best.pt").exists()
    longer = trained(tmp_path / "longer", *noise, *SETTINGS, "train.patience=null", f"train.steps={record['steps']}")
    assert longer["best_step"] is None
    config = composed(*noise, *SETTINGS)
    data = with_validation(readers.load(config.dataset), config.train)
    images = data.test.batch(slice(None))
    model = vae.load_run(tmp_path / "run").model
    mean = model.decode(model.encode(images).mu)
    assert float((mean - images).square().mean()) == pytest.approx(record["mse_mu"], rel=1e-4)
    assert record["verdict"] != "unfinished"


def test_a_run_that_nothing_stopped_may_be_unfinished(noise: list[str], tmp_path: Path) -> None:
    """It has made all its steps, with its best model the last one's, and was still learning."""
    brief = ["train.steps=120", "train.lr=0.0001", "train.log_every=4", "train.patience=50"]
    record = trained(tmp_path / "run", *noise, *SETTINGS, *brief)
    assert record["best_step"] == record["steps"] == 120
    assert record["verdict"] == "unfinished"


def test_resumed_to_the_same_bits(noise: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = trained(tmp_path / "whole", *noise, *SETTINGS)
    (tmp_path / "cut").mkdir()
    config = composed(*noise, *SETTINGS)

    class PowerCut(Exception):
        pass

    observe = Stopping.observe

    def cut(self: Stopping, step: int, elbo: float) -> bool:
        if step == whole["best_step"] + 20:
            raise PowerCut
        return observe(self, step, elbo)

    with monkeypatch.context() as patch, pytest.raises(PowerCut):
        patch.setattr(Stopping, "observe", cut)
        train(config, tmp_path / "cut")
    resumed = train(config, tmp_path / "cut", checkpoint.read(tmp_path / "cut"))
    assert resumed is not None
    found = resumed.to_dict()
    same = {key: value for key, value in whole.items() if "second" not in key and "memory" not in key}
    assert {key: found[key] for key in same} == same
    a, b = (torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["model"] for name in ("whole", "cut"))
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert json.loads((tmp_path / "cut" / "result.json").read_text())["best_step"] == whole["best_step"]


def test_a_run_that_has_ended_with_its_best_model_keeps_it(
    noise: list[str], program: Callable[..., tuple[int, str, str]]
) -> None:
    assert program(*noise, *SETTINGS, "hydra.run.dir=mine")[0] == 0
    before = {path.name: path.read_bytes() for path in Path("mine").iterdir() if path.is_file()}
    for extra in ([], ["train.steps=5000"]):
        status, out, err = program("resume=mine", *extra)
        assert (status, out) == (1, "")
        assert "has ended with the best of its evaluations" in err
    assert {path.name: path.read_bytes() for path in Path("mine").iterdir() if path.is_file()} == before
