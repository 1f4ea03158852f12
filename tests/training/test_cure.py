"""Every cure: it trains, what it remembers survives an interruption to the bit, and what it cannot go with is said."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import PUBLISHED_CURES, QUICK, composed, trained
from twins import SETTINGS, assert_twins, interrupted, resumed

import vae
from vae.config.errors import InputError
from vae.runtime import directory as names
from vae.training import checkpoint
from vae.training.cure import Batch
from vae.training.loop import train
from vae.training.setup import prepare

Weights = Callable[[Path], dict[str, torch.Tensor]]
SMALL = ["model=mlp_vae", "model.encoder_widths=[8]", "model.decoder_widths=[8]"]
VARIANTS = {  # that bring what happens late into a short run
    "delayed": ["cure.schedule.threshold=10", "cure.schedule.observe_every=3"],
    "linear": ["cure.schedule.steps=8"],
    "aggressive": ["cure.compare_every=2", "cure.max_inner=3", "cure.patience=1"],
    "pretrain": ["cure.autoencoder=0.5"],  # reset between the last checkpoint and the end
    "iwae": ["cure.samples=2"],
    "inverse_lipschitz": ["cure.widths=[8,8]"],
}
WITH_MEMORY = ("aggressive", "batch_norm_mu", "controlvae", "pretrain")


def chosen(name: str) -> list[str]:
    return [*SMALL, f"cure={name}", *VARIANTS.get(name, [])]


@pytest.mark.parametrize("name", PUBLISHED_CURES)
def test_every_cure_moves_encoder_and_decoder(name: str, digits: list[str]) -> None:
    setup = prepare(composed(*QUICK, *digits, *chosen(name)))
    model, likelihood = setup.subject.model, setup.subject.likelihood
    for step, images in setup.batches(after=0):
        noise = setup.noise(step)
        posterior, raw = setup.network(images, noise)
        loss = setup.cure.loss(Batch.of(step, 1.0, images, noise, posterior, raw, likelihood))
        loss.backward()
        break
    assert bool(loss.isfinite())
    for part in (model.encoder, model.decoder):
        gradients = [parameter.grad for parameter in part.parameters() if parameter.grad is not None]
        assert gradients
        assert all(bool(gradient.isfinite().all()) for gradient in gradients)
        assert any(bool(gradient.any()) for gradient in gradients)


@pytest.mark.parametrize(
    "name",
    [
        *WITH_MEMORY,
        *(pytest.param(name, marks=pytest.mark.slow) for name in PUBLISHED_CURES if name not in WITH_MEMORY),
    ],
)
def test_wherever_it_was_cut(name: str, digits: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = [*SETTINGS, *digits, *chosen(name)]
    train(composed(*settings), tmp_path / "whole")
    interrupted(tmp_path / "cut", 6, monkeypatch, *settings)
    assert names.has_checkpoint(tmp_path / "cut")
    resumed(tmp_path / "cut", *settings)
    assert_twins(tmp_path / "whole", tmp_path / "cut")
    assert vae.load_run(tmp_path / "cut").sample(2).isfinite().all()


@pytest.mark.parametrize("name", ["batch_norm_mu", "scale"])
def test_looking_does_not_disturb_running_statistics(
    name: str, digits: list[str], tmp_path: Path, weights: Weights
) -> None:
    often = ["train.log_every=1", "train.eval_every=1", "pictures.gif_every=1"]
    trained(tmp_path / "often", *QUICK, *digits, *chosen(name), *often)
    trained(tmp_path / "seldom", *QUICK, *digits, *chosen(name), "train.eval_every=4", "pictures.gif_every=0")
    one, other = weights(tmp_path / "often"), weights(tmp_path / "seldom")
    assert all(torch.equal(value, other[key]) for key, value in one.items())


def test_its_own_loss_stands_beside_the_plain_one(digits: list[str], tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    record = trained(tmp_path, *QUICK, *digits, *SMALL, "cure=capacity", "cure.gamma=10")
    events = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0}).Reload()
    loss, plain, kl, mse, capacity = (
        [event.value for event in events.Scalars(tag)]
        for tag in ("train/loss", "train/plain_loss", "train/kld", "train/mse", "cure/capacity")
    )
    assert plain == pytest.approx([256 * error + rate for error, rate in zip(mse, kl, strict=True)], rel=1e-4)
    assert capacity == pytest.approx([12.5, 25.0])
    assert min(own - other for own, other in zip(loss, plain, strict=True)) > 50
    assert record["training_loss"] == pytest.approx(loss[-1], rel=1e-5)
    assert (record["cure"], record["kl_weight"]) == ("capacity", 1.0)
    assert record["elbo"] > -plain[-1] - 1000  # the plain bound, which no gamma is in


def test_a_schedule_rises_to_the_weight_that_the_objective_has(digits: list[str], tmp_path: Path) -> None:
    overrides = ["anneal.weight=3", "cure=linear", "cure.schedule.steps=8"]
    record = trained(tmp_path, *QUICK, *digits, *SMALL, *overrides)
    assert (record["kl_weight"], record["final_kl_weight"]) == (1.5, 3.0)


def test_the_spectral_start_is_the_model_s(
    digits: list[str], tmp_path: Path, weights: Callable[[Path], dict[str, torch.Tensor]]
) -> None:
    trained(tmp_path / "cure", *QUICK, *digits, *SMALL, "cure=spectral_start")
    trained(tmp_path / "start", *QUICK, *digits, *SMALL, "model.start=spectral")
    one, other = weights(tmp_path / "cure"), weights(tmp_path / "start")
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_checkpoint_without_cures_is_read(digits: list[str], tmp_path: Path) -> None:
    trained(tmp_path, *QUICK, *digits, *SMALL)
    content = torch.load(tmp_path / names.CHECKPOINT, weights_only=True)
    config = {key: value for key, value in content["config"].items() if key != "cure"}
    older = {key: value for key, value in content.items() if key != "cure"} | {"format": 7, "config": config}
    torch.save(older, tmp_path / names.CHECKPOINT)
    found = checkpoint.read(tmp_path)
    assert (found.config.cure.name, found.parts["cure"]) == ("none", {})


REFUSED: dict[str, tuple[list[str], str]] = {
    "an autoencoder": (["model=ae", "cure=free_bits"], "cure=free_bits with anneal=no_kl: there is no KL term to cure"),
    "a point": (["model.posterior=dirac", "anneal=no_kl", "cure=mmd"], "with model.posterior=dirac"),
    "no code": (["model.posterior=none", "cure=delta"], "with model.posterior=none"),
    "two schedules": (["anneal=linear", "cure=delayed"], "both say what the KL weight is"),
    "a schedule and a controller": (["anneal=linear", "cure=geco"], "both say what the KL weight is"),
    "a start without the layer": (["model.start=spectral", "cure=skip"], "starts a model without that layer"),
    "a start that is undone": (["model.start=spectral", "cure=pretrain"], "is reset on the way"),
    "groups of two sizes": (["cure=free_bits", "cure.group_size=5"], "cure.group_size=5 and model.latent_dim=32"),
    "nothing to skip to": (["model=linear_vae", "cure=skip"], "model=linear_vae: its decoder has no layers"),
    "one layer to skip to": (["model=pixelcnn_vae", "model.kernels=[3]", "cure=skip"], "no layer to skip to"),
    "a decoder of one layer": (
        ["model=mlp_vae", "model.decoder_widths=[]", "cure=skip"],
        "cure=skip with model.decoder_widths=[]: there is no layer to skip to",
    ),
    **{
        f"a KL term without weight, {name}": (
            ["anneal.weight=0", f"cure={name}"],
            f"cure={name} with anneal.weight=0: there is no KL term to cure",
        )
        for name in ("free_bits", "linear", "geco", "scale")
    },
    **{
        f"one image a batch, {name}": (
            ["train.batch_size=1", f"cure={name}"],
            f"cure={name} with train.batch_size=1: it goes by how the images of a batch differ",
        )
        for name in ("mmd", "mu_forcing", "batch_norm_mu", "scale")
    },
    "another decoder": (["model=pixelcnn_vae", "cure=inverse_lipschitz"], "a decoder of its own"),
    "a negative MMD": (["cure=mmd", "cure.lam=0.001"], "must be above 0, so lam above 1"),
    "more than the run": (["cure=pretrain", "cure.rising=0.9"], "at most 1 in all"),
    "no floor": (["cure=free_bits", "cure.floor=0"], "cure.floor=0.0: must be above 0"),
    "no such gradient": (["cure=iwae", "cure.gradient=best"], "must be one of dreg, plain"),
    "no layers": (["cure=inverse_lipschitz", "cure.widths=[]"], "must be 1 to 100 numbers"),
    "another start": (["cure=spectral_start", "model.start=glorot"], "leave model.start out"),
    "a schedule that is none": (
        ["cure=linear", "cure.schedule.kind=steep"],
        "cure.schedule.kind=steep: must be one of",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_go_together_is_said_in_one_line(name: str) -> None:
    overrides, said = REFUSED[name]
    with pytest.raises(InputError) as refusal:
        composed(*overrides)
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)
