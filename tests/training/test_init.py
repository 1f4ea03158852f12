"""`init=DIR`: a new run begins with the weights of another, and with its model."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import QUICK
from PIL import Image

import vae
from vae.measure.advice import Advice
from vae.output.conclusion import command
from vae.training import checkpoint

Program = Callable[..., tuple[int, str, str]]
SMALL = ["model=mlp_vae", "model.encoder_widths=[16]", "model.decoder_widths=[12]", "model.latent_dim=3"]


@pytest.fixture
def digits(digits: list[str]) -> list[str]:
    return [item for item in digits if item.startswith("dataset")]


@pytest.fixture
def first(digits: list[str], program: Program, tmp_path: Path) -> Path:
    assert program(*QUICK, *digits, *SMALL, "objective=optimal_gaussian", "hydra.run.dir=first")[0] == 0
    return tmp_path / "first"


def test_the_weights_and_the_model_are_the_other_run_s(
    first: Path, digits: list[str], program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, _, err = program(*QUICK, *digits, "init=first", "train.lr=1e-12", "hydra.run.dir=second")
    assert status == 0, err
    assert "Start: the weights of first after 4 steps." in err
    one, other = (checkpoint.read(tmp_path / name) for name in ("first", "second"))
    assert (other.config.model, other.config.objective) == (one.config.model, one.config.objective)
    assert json.loads((tmp_path / "second" / "result.json").read_text())["run_name"] == "mlp_vae_constant"
    for name, weight in one.parts["model"].items():
        assert torch.allclose(weight, other.parts["model"][name], atol=1e-9), name
    assert other.step == 4
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    status, _, err = program("resume=../second", "train.steps=6")
    assert status == 0, err


def test_what_does_not_fit_is_told(first: Path, digits: list[str], program: Program, tmp_path: Path) -> None:
    np.save(tmp_path / "other.npy", np.random.default_rng(0).integers(0, 255, (40, 8, 9), dtype=np.uint8))
    other = ["dataset=arrays", "dataset.train=other.npy"]
    for arguments, says in (
        (["init=nowhere"], "nowhere: no such directory; name a run's"),
        (["init=first", "model=mlp_vae"], "its network is another one"),
        (["init=first", "model.latent_dim=4"], "its network is another one"),
        (["init=first", "objective=bernoulli"], "means something else with objective=optimal_gaussian"),
        (["init=first", *other], "init=first: trained on images of shape"),
    ):
        data = [] if arguments[-2:] == other else digits
        status, out, err = program(*QUICK, *data, *arguments, "hydra.run.dir=third")
        assert (status, out) == (1, "")
        assert says in err.splitlines()[-1], err
        assert not (tmp_path / "third").exists()


def test_images_of_a_folder_can_be_brought_to_its_shape(first: Path, program: Program, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for i in range(24):
        Image.fromarray(np.full((8, 9, 3), i, np.uint8)).save(tmp_path / "images" / f"{i}.png")
    status, _, err = program(*QUICK, "dataset=folder", "dataset.root=images", "init=first", "hydra.run.dir=second")
    assert status == 1
    assert err.splitlines()[-1].endswith("(3, 8, 9); dataset.size and dataset.grayscale change those of a folder")


@pytest.mark.parametrize(("one", "other"), [("delta", "none"), ("none", "delta"), ("skip", "none")])
def test_a_layer_that_a_cure_has_is_part_of_the_network(
    one: str, other: str, digits: list[str], program: Program, tmp_path: Path
) -> None:
    """`delta` has no weights: those of the two networks fit, and mean something else."""
    assert program(*QUICK, *digits, *SMALL, f"cure={one}", "hydra.run.dir=first")[0] == 0
    status, out, err = program(*QUICK, *digits, "init=first", f"cure={other}", "hydra.run.dir=second")
    assert (status, out) == (1, "")
    assert f"init=first with cure={other}: trained with cure={one}, and the cure is a layer" in err.splitlines()[-1]
    assert not (tmp_path / "second").exists()
    if one == "delta":
        status, _, err = program(*QUICK, *digits, "init=first", "cure=delta", "cure.delta=0.3", "hydra.run.dir=third")
        assert status == 1
        assert "init=first with cure.delta=0.3: trained with cure.delta=0.15" in err
    status, _, err = program(*QUICK, *digits, "init=first", f"cure={one}", "hydra.run.dir=third")
    assert status == 0, err


def test_a_run_whose_weights_were_taken_stays(first: Path, digits: list[str], program: Program) -> None:
    before = vae.load_run(first).sample(2)
    assert program(*QUICK, *digits, "init=first", "hydra.run.dir=second")[0] == 0
    assert torch.equal(vae.load_run(first).sample(2), before)


@pytest.mark.parametrize("advised", ["model=linear_vae", "model.latent_dim=2", "cure=delta", "cure=spectral_start"])
def test_advice_that_makes_the_network_another_can_be_followed(
    advised: str, first: Path, digits: list[str], program: Program, tmp_path: Path
) -> None:
    """The run that it makes begins with weights of its own; a cure that leaves the network begins with those given."""
    assert program(*QUICK, *digits, "init=first", "hydra.run.dir=second")[0] == 0
    config = checkpoint.read(tmp_path / "second").config
    line = command(config, tmp_path / "second", Advice("", (advised,)))
    status, _, err = program(*shlex.split(line)[2:], "hydra.run.dir=third")
    assert status == 0, err
    assert checkpoint.read(tmp_path / "third").config.init is None
    assert " init=first " in command(config, tmp_path / "second", Advice("", ("cure=linear",)))
