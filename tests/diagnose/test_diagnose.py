import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from conftest import QUICK, ROOT, composed, trained
from elsewhere import EIGENVALUES, LinearVAE, gaussian_images
from PIL import Image
from torch import Tensor, nn
from torch.distributions import Independent, Normal
from torch.utils.data import DataLoader, TensorDataset

import vae
from vae.config.load import is_below
from vae.data import readers
from vae.measure.catalogue import CATALOGUE
from vae.models import likelihood as likelihoods
from vae.models.vae import VAE
from vae.output.record import finite

FAST = {"iw_samples": 4, "probe_images": 64}
ABSOLUTE = vae.scale("l1", "mean", (1, 2, 3), kl_weight=0.1)
GAUSSIAN: dict[str, Any] = {"likelihood": "gaussian", "sigma2": 0.5}


@pytest.fixture(scope="module")
def images() -> Tensor:
    return gaussian_images()


RUNS = {
    "sse": (["objective=sse"], GAUSSIAN),
    "sigmoid": (["objective=gaussian", "objective.sigma2=0.1", "model.output=sigmoid"], GAUSSIAN | {"sigma2": 0.1}),
    "bernoulli": (["objective=bernoulli"], {"likelihood": "bernoulli"}),
    "weight": (["objective=sse", "anneal.weight=0.3"], GAUSSIAN | {"kl_weight": 0.3}),
    "dirac": (["objective=sse", "model.posterior=dirac", "anneal=no_kl"], GAUSSIAN | {"kl_weight": 0}),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_of_ours_has_the_numbers_of_its_record(name: str, digits: list[str], tmp_path: Path) -> None:
    overrides, told = RUNS[name]
    overrides = [*digits, *QUICK, "model=mlp_vae", "train.lr=0.003", *overrides]
    record = trained(tmp_path, *overrides)
    data = readers.load(composed(*overrides).dataset)
    found = vae.diagnose(vae.load_run(tmp_path), data, iw_samples=2, probe_images=16, **told).to_dict()
    for key in CATALOGUE.keys() & record.keys():  # a point has no mutual information: NaN, and None for JSON
        assert found[key] == finite(record[key]), key
    assert found["parameters"] == record["parameters"]


JUDGED = {
    "stopped": ["train.steps=60", "train.patience=1", "train.validation_fraction=0.2", "train.lr=0.05"],
    "thresholds": ["evaluation.thresholds.unfinished_steps=2", "evaluation.thresholds.unfinished_fall=1"],
    "cure": ["cure=free_bits", "evaluation.thresholds.unfinished_steps=2"],
    "layer": ["cure=delta", "evaluation.thresholds.unfinished_steps=2"],
}


@pytest.mark.parametrize("name", [*RUNS, *JUDGED])
def test_a_run_s_directory_says_all_the_rest(name: str, digits: list[str], tmp_path: Path) -> None:
    """Its images, likelihood, KL weight, how it is measured and judged, its cure, and how its training went."""
    own = JUDGED[name] if name in JUDGED else RUNS[name][0]
    record = trained(tmp_path, *digits, *QUICK, "model=mlp_vae", "train.lr=0.003", "seed=3", *own)
    assert name != "stopped" or record["best_step"] is not None
    for given in (str(tmp_path), tmp_path, vae.load_run(tmp_path)):
        found = vae.diagnose(given).to_dict()
        for key in CATALOGUE.keys() & record.keys():
            assert found[key] == finite(record[key]), key
        for key in (
            "run_name",
            "anneal",
            "verdict",
            "cause",
            "seed",
            *(() if record["best_step"] else ("steps", "reason")),
        ):
            assert found[key] == record[key], key
    assert vae.diagnose(tmp_path, seed=0).to_dict()["seed"] == 0


@pytest.mark.parametrize("schedule", ["anneal=delayed anneal", "cure=delayed cure.schedule"])
def test_a_kl_term_that_never_began_is_told_by_the_run_s_own_schedule(
    schedule: str, digits: list[str], tmp_path: Path
) -> None:
    """In the words of its record, and with its advice; not where another KL weight is asked after."""
    given, key = schedule.split()
    waits = [given, f"{key}.threshold=0.001", f"{key}.patience=1000", "evaluation.thresholds.unfinished_steps=2"]
    record = trained(tmp_path, *digits, *QUICK, "model=mlp_vae", "train.lr=0.003", "train.steps=60", *waits)
    found = vae.diagnose(tmp_path)
    assert f"{given} gave it no weight in 60 steps" in found.explanation
    assert found.explanation[:100] == record["explanation"][:100]
    why = record["advice"][0]["why"]
    assert "the KL term waits no longer" in why
    assert found.advice == [f"raise its threshold: {why}"]
    other = vae.diagnose(tmp_path, kl_weight=1.0).to_dict()
    assert (other["anneal"], other["max_kl_weight"]) == ("constant", 1.0)
    elsewhere = vae.diagnose(tmp_path, torch.rand(40, 1, 16, 16, generator=torch.Generator().manual_seed(0)))
    assert f"{given} gave it no weight in 60 steps" in elsewhere.explanation


def test_a_run_on_other_images(digits: list[str], tmp_path: Path) -> None:
    trained(tmp_path / "run", *digits, *QUICK, "model=mlp_vae", "train.lr=0.003", "cure=free_bits")
    (tmp_path / "photos").mkdir()
    for number in range(3):
        Image.new("L", (16, 16), 80 * number).save(tmp_path / "photos" / f"{number}.png")
    found = vae.diagnose(tmp_path / "run", tmp_path / "photos")
    assert found.measures["mse"].value > 0
    for how in ({}, {"kl_weight": 0.5}):
        assert vae.diagnose(tmp_path / "run", tmp_path / "photos", **how).to_dict()["cure"] == "free_bits"
    assert "4 steps are too few" in found.reason
    assert "train= was not given" in str(found)
    with pytest.raises(vae.InputError, match=r"photos: is no run's directory; name a run's"):
        vae.diagnose(tmp_path / "photos")


class Example(nn.Module):
    """As PyTorch's example: encode takes rows of pixels and gives mu and the log variance, decode gives rows."""

    def __init__(self, model: VAE) -> None:
        super().__init__()
        self.own = [model]

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if x.dim() != 2:
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
        mu, log_sigma = self.own[0].encode(x.view(-1, *self.own[0].shape))
        return mu, 2 * log_sigma

    def decode(self, z: Tensor) -> Tensor:
        return self.own[0].decode(z).flatten(1)


def pairs(model: VAE) -> dict[str, tuple[Any, ...]]:
    """The same model behind all the faces that encode and decode may have."""

    def posterior(x: Tensor) -> Normal:
        return Normal(model.encode(x).mu, model.encode(x).log_sigma.exp())

    def named(x: Tensor) -> SimpleNamespace:
        q = model.encode(x)
        return SimpleNamespace(mean=q.mu, logvar=2 * q.log_sigma)

    def covariance(x: Tensor) -> dict[str, Tensor]:
        q = model.encode(x)
        return {"embedding": q.mu, "log_covariance": 2 * q.log_sigma}

    def maps(x: Tensor) -> tuple[Tensor, Tensor]:
        q = model.encode(x)
        return q.mu.reshape(-1, 1, 2, 2), q.log_sigma.reshape(-1, 1, 2, 2)

    return {
        "pair": (lambda x: tuple(model.encode(x)), model.decode),
        "normal": (posterior, model.decode),
        "independent": (lambda x: Independent(posterior(x), 1), model.decode),
        "object": (named, model.decode),
        "dictionary": (covariance, lambda z: {"reconstruction": model.decode(z)}),
        "latent_dist": (
            lambda x: SimpleNamespace(latent_dist=named(x)),
            lambda z: SimpleNamespace(sample=model.decode(z)),
        ),
        "maps": (maps, lambda z: model.decode(z.flatten(1))),
        "example": (Example(model),),
        "holder": (nn.ModuleDict({"vae": Example(model), "other": nn.Linear(2, 2)}),),
    }


def test_every_face_of_the_same_weights_has_the_same_numbers(digits: list[str], tmp_path: Path) -> None:
    overrides = [*digits, *QUICK, "model=mlp_vae"]
    record = trained(tmp_path, *overrides)
    data = readers.load(composed(*overrides).dataset)
    model = vae.load_run(tmp_path).model
    for name, face in pairs(model).items():
        found = vae.diagnose(*face, images=data, iw_samples=2, probe_images=16, **GAUSSIAN).to_dict()
        by_dimension = {"used_dimensions", "decoder_sensitivity"} if name == "maps" else set()
        for key in CATALOGUE.keys() & record.keys() - by_dimension:
            expected = record[key]  # None: too few images for it, here and there
            near = None if expected is None else pytest.approx(expected, rel=1e-3, abs=1e-4)
            assert found[key] == near, (name, key)
    written = vae.diagnose(
        lambda x: (model.encode(x).mu, 2 * model.encode(x).log_sigma), model.decode, data, log_variance=True, **GAUSSIAN
    )
    assert written.to_dict()["kld"] == record["kld"]


def test_images_of_every_kind(images: Tensor) -> None:
    linear = LinearVAE(images, 2, 0.5)
    small = images[:128]
    kinds = {
        "tensor": small,
        "array": small.numpy(),
        "double": small.double().numpy(),
        "loader": DataLoader(TensorDataset(small, torch.zeros(128)), batch_size=50),
        "dataset": TensorDataset(small),
        "batches": [{"image": part} for part in small.split(60)].__iter__(),
    }
    found = {name: vae.diagnose(linear.encode, linear.decode, kind, **GAUSSIAN, **FAST) for name, kind in kinds.items()}
    assert len({d.to_dict()["elbo"] for d in found.values()}) == 1


def test_verdicts_of_known_models(images: Tensor) -> None:
    """The closed form at t = 0.5 keeps three dimensions; each other model is made of it."""
    best = LinearVAE(images, 4, 0.5)

    def verdict(encode: Any, decode: Any, **how: Any) -> tuple[str, str | None]:
        found = vae.diagnose(encode, decode, images, **(GAUSSIAN | FAST | how))
        return found.verdict, found.cause

    def nothing(x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros(len(x), 4), torch.zeros(len(x), 4)

    def mean(z: Tensor) -> Tensor:
        return best.mean.reshape(1, 1, 2, 3).expand(len(z), -1, -1, -1)

    assert verdict(best.encode, best.decode) == ("alive", None)
    assert verdict(nothing, mean) == ("collapsed", "optimiser")
    assert verdict(nothing, mean, sigma2=7.0) == ("collapsed", "objective")  # above the largest eigenvalue, 6
    assert verdict(nothing, mean, kl_weight=13.0) == ("collapsed", "objective")
    assert verdict(best.encode, mean) == ("decoder_ignores_code", None)  # as much is paid as is predicted
    assert verdict(lambda x: best.encode(x)[0], best.decode, kl_weight=0) == ("deterministic", None)


def test_the_closed_form_is_predicted_and_measured(images: Tensor) -> None:
    linear = LinearVAE(images, 4, 0.5)
    found = vae.diagnose(linear.encode, linear.decode, images, train=images, **GAUSSIAN, **FAST)
    kept = np.array(EIGENVALUES[:3])
    assert found.prediction.predicted_kld == pytest.approx(0.5 * np.log(kept / 0.5).sum(), rel=1e-4)
    assert found.prediction.predicted_collapse_weight == pytest.approx(6 / 0.5, rel=1e-4)
    kld, sse = found.measures["kld"], found.measures["sse"]
    assert kld.value == pytest.approx(0.5 * np.log(kept / 0.5).sum(), rel=1e-4)
    assert found.kl == pytest.approx([*(0.5 * np.log(kept / 0.5)), 0], rel=1e-3, abs=1e-6)
    assert sse.error is not None
    assert sse.value == pytest.approx(0.2 + 0.1 + 0.05 + 3 * 0.5, abs=4 * sse.error)
    assert (kld.unit, kld.label) == ("nats", "KL")
    # Standard errors by their definition, from torch's own distributions.
    mu, log_sigma = linear.encode(images)
    q = Normal(mu, log_sigma.exp())
    each = torch.distributions.kl_divergence(q, Normal(0.0, 1.0)).sum(1)
    assert kld.error == pytest.approx(float(each.std()) / len(images) ** 0.5, rel=1e-3)


def test_images_that_are_unlike_those_trained_on(images: Tensor) -> None:
    """Another scale is doubted, a part of the same images is not; few of them are noted."""
    linear = LinearVAE(images, 4, 0.5)
    for train, doubted in ((images[::2], False), (3 * images, True), (images / 3, True)):
        found = vae.diagnose(linear.encode, linear.decode, images, train=train, **GAUSSIAN, **FAST)
        assert any("mean square of a pixel" in doubt for doubt in found.doubts) == doubted
        assert "are few" not in str(found)
    assert "train: 10 images are few" in str(
        vae.diagnose(linear.encode, linear.decode, images, train=images[:10], **GAUSSIAN, **FAST)
    )


def test_codes_that_are_maps(images: Tensor) -> None:
    """Two channels of 1x2, of which the second is not decoded: all by channel and by position, and the sums are those
    of the vectors."""
    linear = LinearVAE(images, 2, 0.5)

    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        mu, log_sigma = linear.encode(x)
        ignored = torch.zeros(len(x), 2)
        return tuple(torch.cat(part, 1).reshape(-1, 2, 1, 2) for part in ((mu, ignored + 0.5), (log_sigma, ignored)))

    found = vae.diagnose(encode, lambda z: linear.decode(z[:, 0].flatten(1)), images, **GAUSSIAN, **FAST)
    maps = found.maps
    assert maps is not None
    assert maps.shape == (2, 1, 2)
    first = 0.5 * np.log(np.array(EIGENVALUES[:2]) / 0.5)
    assert maps.channel_kl == pytest.approx([first.sum(), 2 * 0.5 * 0.25], rel=1e-3)
    assert np.array(maps.position_kl) == pytest.approx((first + 0.125)[None], rel=1e-3)
    assert maps.channel_gaps[0] > 1
    assert maps.channel_gaps[1] == 0
    assert maps.channel_active == [1, 0]
    assert "Channel 1: KL 0.25 nats, 0 nats" in str(found)
    assert found.to_dict()["latent_channel_kl"] == maps.channel_kl


@pytest.mark.parametrize(
    ("count", "sigma2", "cause"), [(500, 0.083, None), (500, 0.4, "objective"), (500, 0.02, "optimiser")]
)
def test_few_images_of_noise(count: int, sigma2: float, cause: str | None) -> None:
    """Their covariance has eigenvalues of five times their variance, 1/12, which no other image of noise has: between
    the two it cannot be told what a training on others could have had."""
    noise = torch.rand(count, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    mean = noise.mean(0)

    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros(len(x), 8), torch.zeros(len(x), 8)

    found = vae.diagnose(
        encode, lambda z: mean.expand(len(z), 1, 28, 28), noise, likelihood="gaussian", sigma2=sigma2, **FAST
    )
    assert (found.verdict, found.cause) == ("collapsed", cause)
    assert ("Hand over the training images" in found.explanation) == (cause is None)
    told = vae.diagnose(
        encode,
        lambda z: mean.expand(len(z), 1, 28, 28),
        noise,
        train=noise,
        likelihood="gaussian",
        sigma2=0.083,
        **FAST,
    )
    assert told.cause == "optimiser"  # of those alone a code is worth something


def test_what_is_learnt_by_heart_is_no_one_s_fault() -> None:
    """Of 60 images of noise several nats are to be had, of other noise in the same directions none."""
    noise = torch.rand(260, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    train, test = noise[:60], noise[60:]

    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros(len(x), 8), torch.zeros(len(x), 8)

    def decode(z: Tensor) -> Tensor:
        return train.mean(0).expand(len(z), 1, 16, 16)

    told: dict[str, Any] = {"likelihood": "gaussian", "sigma2": 1 / 12, **FAST}
    found = vae.diagnose(encode, decode, test, train=train, **told)
    assert found.prediction.predicted_kld is not None
    assert found.prediction.predicted_kld > 3
    assert found.measures["predicted_test_kld"].value < 0.5
    assert (found.verdict, found.cause) == ("collapsed", None)
    assert "by heart" in found.explanation
    assert "Train on more images" in found.explanation
    assert not found.advice
    assert (
        vae.diagnose(encode, decode, test, train=train, **(told | {"likelihood": "bernoulli", "sigma2": None}))
        .measures["predicted_test_kld"]
        .value
        < 0.5
    )
    for others in (test[:99], 0.5 * test):  # too few to tell, and of another kind
        measures = vae.diagnose(encode, decode, others, train=train, **told).measures
        assert "predicted_test_kld" not in measures
    shared = train + 3 * torch.rand(60, 1, 1, 1, generator=torch.Generator().manual_seed(2))
    others = test + 3 * torch.rand(200, 1, 1, 1, generator=torch.Generator().manual_seed(3))
    found = vae.diagnose(encode, decode, others, train=shared, **told)
    assert (found.verdict, found.cause) == ("collapsed", "optimiser")


def test_a_chance_in_what_a_constant_image_loses_is_not_learning_by_heart() -> None:
    """The best linear VAE of images that differ in brightness: each has the same ELBO, the gain over a constant image
    is another for each, and on these hundred it is less by a quarter."""

    def bright(seed: int, count: int) -> Tensor:
        rng = torch.Generator().manual_seed(seed)
        factor = torch.randn(count, 1, generator=rng) * torch.linspace(1, 2, 6)
        return (factor + 0.05 * torch.randn(count, 6, generator=rng)).view(count, 1, 2, 3)

    train, told = bright(99, 500), {"likelihood": "gaussian", "sigma2": 0.05, **FAST}
    best = LinearVAE(train, 2, 0.05)
    found = vae.diagnose(best.encode, best.decode, bright(3, 100), train=train, **told)
    record = found.to_dict()
    gained = [record[f"{name}elbo"] - record[f"{name}constant_elbo"] for name in ("train_", "")]
    assert gained[1] < 0.75 * gained[0]
    assert gained[0] - gained[1] > 100 * record["elbo_error"]
    assert "overfits" not in str(found)


@pytest.mark.parametrize(("count", "answer"), [(12, "alive"), (6, "undecided")])
def test_ten_images_that_differ_much(count: int, answer: str) -> None:
    """A healthy code whose loss by a swap hangs on a few bright images: each loses, and of twelve that is no chance;
    of six it cannot be told, and nothing is advised."""
    rng = torch.Generator().manual_seed(0)
    bright = torch.ones(count, 1, 1, 1)
    bright[0] = 30
    images = torch.randn(count, 1, 8, 8, generator=rng) * bright

    found = vae.diagnose(
        lambda x: (x.flatten(1), torch.full((len(x), 64), -1.0)),
        lambda z: z.view(-1, 1, 8, 8),
        images,
        train=torch.randn(500, 1, 8, 8, generator=rng),
        **GAUSSIAN,
        **FAST,
    )
    assert found.verdict == answer
    assert ("6 images are too few to tell" in found.explanation) == (count == 6)
    assert count == 12 or not found.advice


def test_of_few_images_alone_the_mse_of_a_pca_is_that_of_others() -> None:
    few = torch.rand(60, 1, 16, 16, generator=torch.Generator().manual_seed(0))

    def measured(**told: Any) -> float:
        found = vae.diagnose(
            lambda x: (x.flatten(1)[:, :4], torch.zeros(len(x), 4)),
            lambda z: few.mean(0).expand(len(z), 1, 16, 16),
            few,
            **told,
        )
        return found.measures["pca_mse"].value

    assert measured(**GAUSSIAN, **FAST) == pytest.approx(1 / 12, rel=0.1)
    assert measured(train=few, **GAUSSIAN, **FAST) < 0.9 / 12


def test_a_pca_of_more_dimensions_than_pixels_leaves_nothing() -> None:
    few = torch.rand(200, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    found = vae.diagnose(
        lambda x: (torch.zeros(len(x), 8), torch.zeros(len(x), 8)),
        lambda z: few.mean(0).expand(len(z), 1, 2, 2),
        few,
        **GAUSSIAN,
        **FAST,
    )
    assert found.measures["pca_mse"].value == pytest.approx(0, abs=1e-9)


def test_a_large_map_takes_little_memory_and_time() -> None:
    """16,384 numbers a code: no measure of single dimensions, and as many images as fit."""
    images = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        mu = nn.functional.interpolate(x, scale_factor=16)
        return mu, torch.full_like(mu, -2.0)

    found = vae.diagnose(
        encode, lambda z: nn.functional.avg_pool2d(z, 16), images, iw_samples=1, probe_images=8, **GAUSSIAN
    )
    assert found.record.identity.latent_dim == 16_384
    assert found.record.final is not None
    assert found.record.final.used_dimensions is None
    assert "codes are maps" in found.to_dict()["null_reasons"]
    assert len(found.kl) == 16_384


def test_nothing_is_left_changed(images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(3)
    body = nn.Sequential(nn.Flatten(), nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 4))
    tail = nn.Sequential(nn.Linear(2, 6), nn.Unflatten(1, (1, 2, 3)))
    body[2].eval()  # a frozen part: its mode is its own
    modes = [part.training for part in body.modules()]
    weights = {name: value.clone() for name, value in body.state_dict().items()}
    state = torch.get_rng_state()

    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        assert not body.training
        assert not torch.is_grad_enabled()
        mu, log_sigma = body(x).chunk(2, 1)
        return mu, log_sigma

    first = vae.diagnose(encode, tail, images[:200], **GAUSSIAN, **FAST)
    assert torch.equal(torch.get_rng_state(), state)
    assert [part.training for part in body.modules()] == modes
    assert all(torch.equal(value, weights[name]) for name, value in body.state_dict().items())
    assert all(parameter.grad is None for parameter in [*body.parameters(), *tail.parameters()])
    assert first.to_dict() == vae.diagnose(encode, tail, images[:200], **GAUSSIAN, **FAST).to_dict()
    assert list(tmp_path.iterdir()) == []


class Network(nn.Module):
    """The closed form as a module, in any precision."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        best = LinearVAE(images, 3, 0.5)
        for name in ("mean", "v", "w", "log_sigma"):
            setattr(self, name, nn.Parameter(getattr(best, name)))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mu = (x.flatten(1) - self.mean) @ self.v
        return mu, 2 * self.log_sigma.expand_as(mu)

    def decode(self, z: Tensor) -> Tensor:
        return (z @ self.w.T + self.mean).reshape(len(z), 1, 2, 3)


def test_networks_of_any_precision(images: Tensor) -> None:
    found = {
        kind: vae.diagnose(Network(images).to(kind), images, **GAUSSIAN, **FAST).to_dict()
        for kind in (torch.float32, torch.float64, torch.bfloat16)
    }
    for key in ("kld", "mse", "swap_gap", "decoder_sensitivity"):
        assert found[torch.float64][key] == pytest.approx(found[torch.float32][key], rel=1e-4)
        assert found[torch.bfloat16][key] == pytest.approx(found[torch.float32][key], rel=0.03)


@pytest.mark.parametrize("part", ["encode", "decode"])
def test_a_rounding_of_half_precision_is_no_other_answer(part: str, images: Tensor) -> None:
    """A network whose last bit depends on the size of the batch, as that of a matrix product on a GPU may."""
    linear = LinearVAE(images, 3, 0.5)

    def last_bit(given: Tensor, changed: bool) -> Tensor:
        half = given.bfloat16()
        return half * (1 + torch.finfo(torch.bfloat16).eps) if changed else half

    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        mu, log_sigma = linear.encode(x)
        return last_bit(mu, part == "encode" and len(x) % 8 > 0), log_sigma

    def decode(z: Tensor) -> Tensor:
        return last_bit(linear.decode(z), part == "decode" and len(z) % 8 > 0)

    assert vae.diagnose(encode, decode, images[:64], **GAUSSIAN, **FAST).verdict == "alive"


def test_a_decoder_without_gradients_has_no_sensitivity(images: Tensor) -> None:
    linear = LinearVAE(images, 3, 0.5)
    found = vae.diagnose(linear.encode, torch.no_grad()(linear.decode), images, **GAUSSIAN, **FAST)
    assert "decoder_sensitivity" not in found.measures
    assert "cannot be differentiated twice" in found.to_dict()["null_reasons"]
    assert found.verdict == "alive"


LINEAR = LinearVAE(gaussian_images(64), 2, 0.5)
BERNOULLI = {"likelihood": "bernoulli"}


def spoiled(part: str) -> Any:
    """An encoder or decoder with this fault."""
    encode, decode = LINEAR.encode, LINEAR.decode
    faults = {
        "one number": lambda x: encode(x)[0].sum(1),
        "three": lambda x: (*encode(x), x),
        "shapes": lambda x: (encode(x)[0], encode(x)[1][:, :1]),
        "nan": lambda x: (encode(x)[0] * torch.nan, encode(x)[1]),
        "huge": lambda x: (encode(x)[0], encode(x)[1] + 200),
        "text": lambda x: "mu",
        "sample": lambda x: (encode(x)[0] + torch.randn(len(x), 2), encode(x)[1]),
        "batch": lambda x: (encode(x)[0] - encode(x)[0].mean(0), encode(x)[1]),
        "raises": lambda x: 1 / 0,
        "squeezes": lambda x: [part.squeeze() for part in encode(x)],
        "squeezes sigma": lambda x: (encode(x)[0], encode(x)[1].squeeze()),
        "two or more": lambda x: encode(x) if len(x) > 1 else 1 / 0,
        "mu alone": lambda x: encode(x)[0],
        "few": lambda z: decode(z)[:, :, :1],
        "last": lambda z: decode(z).expand(-1, 3, -1, -1).permute(0, 2, 3, 1),
        "probabilities": lambda z: decode(z).sigmoid(),
        "logits": lambda z: 3 * decode(z),
        "decode two or more": lambda z: decode(z) if len(z) > 1 else 1 / 0,
        "decode nan": lambda z: decode(z) / 0,
        "decode sample": lambda z: decode(z) + torch.randn(len(z), 1, 2, 3),
        "decode batch": lambda z: decode(z) - decode(z).mean(0),
    }
    return faults[part]


@pytest.mark.parametrize(
    ("encode", "decode", "how", "said"),
    [
        ("one number", None, {}, r"encode: mu has shape \(8,\) for 8 images"),
        ("three", None, {}, "encode: gave 3 tensors; must give two"),
        ("shapes", None, {}, r"mu has shape \(8, 2\) and the second output \(8, 1\)"),
        ("nan", None, {}, "encode: gave numbers that are not finite"),
        ("huge", None, {}, "log sigma goes up to .* is it the variance, or the precision"),
        ("text", None, {}, r"encode: gave a str; must give \(mu, log_sigma\)"),
        ("sample", None, {}, "encode: gave another mu for the same images"),
        ("batch", None, {}, "an image has another mu in another batch"),
        ("raises", None, {}, "encode: fails on images of shape .*ZeroDivisionError"),
        ("squeezes", None, {}, r"encode: of a single image mu has shape \(2,\); must be \(1, 2\)"),
        ("squeezes sigma", None, {}, r"encode: of a single image the second output has shape \(2,\)"),
        ("two or more", None, {}, "encode: fails on a single image"),
        (None, "decode two or more", {}, "decode: fails on a single code"),
        (None, "few", {}, r"decode: gave shape \(8, 1, 1, 3\) for codes of \(8, 2\); must give \(8, 1, 2, 3\)"),
        (None, "decode nan", {}, "decode: gave numbers that are not finite"),
        (None, "decode sample", {}, "decode: gave other images for the same codes"),
        (None, "decode batch", {}, "decode: a code gives another image in another batch"),
        (None, "logits", BERNOULLI | {"decoder_gives": "mean"}, "are no probabilities"),
        (None, None, BERNOULLI | {"images": gaussian_images(64)}, "likelihood=bernoulli: .* must be in \\[0, 1\\]"),
        (
            None,
            None,
            BERNOULLI | {"images": torch.rand(99, 1, 2, 3) + (torch.arange(99) == 98)[:, None, None, None]},
            "to",
        ),
        (None, None, {"likelihood": None}, "likelihood: needs one of gaussian, optimal_gaussian, .*; vae.scale"),
        (None, None, {"sigma2": None}, "sigma2: needed with likelihood=gaussian"),
        (None, None, {"sigma2": -1.0}, "sigma2=-1.0: must be above 0"),
        (None, None, BERNOULLI | {"sigma2": 0.5}, "sigma2=0.5: likelihood=bernoulli has no pixel variance"),
        (None, None, {"likelihood": None, "loss": "mse"}, r"loss='mse': must be what vae.scale\(...\) gives"),
        (None, None, {"likelihood": None, "loss": vae.scale("mse", "sum", 7)}, "loss: is of images of 7 values"),
        (None, None, {"likelihood": "bernoulli", "loss": vae.scale("mse", "sum", 6)}, "the loss means gaussian"),
        (None, None, {"likelihood": None, "loss": ABSOLUTE}, "loss: no likelihood is known here for reconstruction=l1"),
        (None, None, {"likelihood": "gaussian", "loss": ABSOLUTE}, "loss: no likelihood is known here"),
        (None, None, {"device": "tpu"}, "device=tpu: not usable here"),
        (None, None, {"images": {"image": torch.rand(9, 1, 2, 3)}}, "images: are a dict with image; hand over"),
        (None, None, {"images": (torch.rand(9, 1, 2, 3), torch.zeros(9).long())}, "images: are a pair"),
        ("mu alone", None, {"kl_weight": 1.0}, "encode: gives mu alone, and the KL weight is 1"),
        (None, None, {"kl_weight": -1}, "kl_weight=-1.0: must be a finite number from 0 on"),
        (None, None, {"images": torch.zeros(5, 7, 7, 7, 7)}, "images: have shape"),
        (None, None, {"images": torch.zeros(8, 1, 2, 3)}, "all 8 training images are the same"),
        (None, None, {"images": torch.full((8, 1, 2, 3), torch.nan)}, "values that are not finite"),
        (None, None, {"images": torch.ones(8, 1, 2, 3, dtype=torch.int64)}, "must be floats, or uint8"),
        (None, None, {"images": [torch.zeros(1, 2, 3), "b"]}, "images: hold a str"),
        (None, None, {"images": 3}, "images: is a int; must be"),
        (None, None, {"train": torch.rand(9, 1, 4, 4)}, "train: has images of shape"),
        (None, None, {"labels": torch.zeros(3)}, "labels: torch.float32 of shape"),
        (None, None, {"probe_images": 0}, "probe_images=0: must be at least 2"),
        (None, None, {"batches": 3}, "batches: no such argument; did you mean batch_size"),
        (None, None, {"image": 3}, r"image: no such argument; did you mean images\?"),
        (None, None, {"sigma": 0.5}, r"sigma: no such argument; did you mean sigma2\? .* likelihood, .* batch_size"),
        (None, None, {"iw_samples": "a"}, "iw_samples=a: must be a whole number, at least 1"),
        (None, None, {"sigma2": "a"}, "sigma2=a: must be a number"),
        (None, None, {"kl_weight": "a"}, "kl_weight=a: must be a number"),
        (None, None, {"max_images": -5}, "max_images=-5: must be a whole number, at least 2"),
        (None, None, {"seed": "x"}, "seed=x: must be a whole number, at least 0"),
    ],
)
def test_a_mistake_is_one_line(encode: str | None, decode: str | None, how: dict[str, Any], said: str) -> None:
    images = torch.rand(64, 1, 2, 3, generator=torch.Generator().manual_seed(0))
    given = {"images": images} | GAUSSIAN | ({"sigma2": None} if "likelihood" in how else {}) | how
    parts = spoiled(encode) if encode else LINEAR.encode, spoiled(decode) if decode else LINEAR.decode
    with pytest.raises(vae.InputError, match=said) as failure:
        vae.diagnose(*parts, **given)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("likelihood", ["gaussian", "optimal_gaussian"])
@pytest.mark.parametrize("what", ["images", "train"])
@pytest.mark.parametrize("fault", ["encode: mu or sigma", "encode: a point", "decode: log p", "decode: a point"])
def test_one_image_of_many_that_has_no_number_is_one_line(fault: str, what: str, likelihood: str) -> None:
    """A blank image that is divided by its norm, a sigma that is 0, a code that decodes to NaN: not among the first."""
    given = {name: gaussian_images(200) for name in ("images", "train")}
    given[what][[60, 130]] = 0
    labels = {"labels": torch.arange(200) % 2, "train_labels": torch.arange(200) % 2}

    def encode(images: Tensor) -> Any:
        mu, log_sigma = LINEAR.encode(images)
        norm = images.flatten(1).norm(dim=1, keepdim=True)
        if fault == "encode: mu or sigma":
            return mu, torch.where(norm > 0, log_sigma, -torch.inf)
        if fault == "encode: a point":
            return mu * (norm / norm)
        mu = torch.where(norm > 0, mu, torch.full_like(mu, 99.0))
        return mu if fault == "decode: a point" else (mu, log_sigma)

    def decode(z: Tensor) -> Tensor:
        too_far = (z[:, 0] > 50)[:, None, None, None]
        return torch.where(too_far & fault.startswith("decode"), torch.nan, LINEAR.decode(z))

    sigma2 = 0.5 if likelihood == "gaussian" else None
    with pytest.raises(vae.InputError) as failure:
        vae.diagnose(encode, decode, likelihood=likelihood, sigma2=sigma2, **given, **labels, **FAST)
    assert str(failure.value).startswith(fault[:7])
    assert f"is no finite number for 2 of 200 {what}; fix" in str(failure.value)


@pytest.mark.parametrize("repeats", [True, False])
def test_a_decoder_that_sees_the_images_past_the_code_is_refused(repeats: bool) -> None:
    """As a U-Net does. One that fails on fewer codes than images were encoded is told the same."""
    seen: list[Tensor] = []

    def encode(images: Tensor) -> tuple[Tensor, Tensor]:
        seen[:] = [images]
        return LINEAR.encode(images)

    def decode(z: Tensor) -> Tensor:
        past = seen[0].repeat(-(-len(z) // len(seen[0])), 1, 1, 1)[: len(z)] if repeats else seen[0]
        return LINEAR.decode(z) + past

    with pytest.raises(vae.InputError, match=r"decode: .* must be a function of z alone"):
        vae.diagnose(encode, decode, gaussian_images(64), **GAUSSIAN)


def test_channels_last_are_not_taken_for_channels_first() -> None:
    images = torch.rand(64, 3, 2, 3, generator=torch.Generator().manual_seed(0))
    encode = lambda x: LINEAR.encode(x[:, :1])  # noqa: E731
    with pytest.raises(vae.InputError, match="channels first"):
        vae.diagnose(encode, spoiled("last"), images, **GAUSSIAN)


def test_probabilities_and_logits_are_told_by_their_range() -> None:
    images = (torch.rand(64, 1, 2, 3, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    logits = vae.diagnose(LINEAR.encode, LINEAR.decode, images, **BERNOULLI, **FAST)
    means = vae.diagnose(LINEAR.encode, spoiled("probabilities"), images, **BERNOULLI, **FAST)
    assert means.to_dict()["elbo"] == pytest.approx(logits.to_dict()["elbo"], rel=1e-4)


def test_a_process_of_another_program_s_group_measures_by_itself(
    images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that asks the others waits for them, and they do not know of it."""
    alone = vae.diagnose(LINEAR.encode, LINEAR.decode, images, **GAUSSIAN, **FAST).to_dict()
    for name, value in {"is_initialized": True, "get_world_size": 2, "get_rank": 1}.items():
        monkeypatch.setattr(f"torch.distributed.{name}", lambda value=value: value)
    assert vae.diagnose(LINEAR.encode, LINEAR.decode, images, **GAUSSIAN, **FAST).to_dict() == alone


@pytest.mark.parametrize("kind", ["bernoulli", "continuous_bernoulli"])
def test_a_network_of_ours_says_that_it_gives_logits(kind: str) -> None:
    """A dead code on images a little brighter than grey: all logits lie in [0, 1], as probabilities do."""
    images = (torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0)) < 0.6).float()
    config = composed("model=mlp_vae", f"objective={kind}")
    likelihood = likelihoods.build(config.objective, config.model.output, (1, 8, 8))
    model = VAE(config.model, likelihood, (1, 8, 8), 0, config.cure)
    with torch.no_grad():
        weight, bias = list(model.parameters())[-2:]
        weight.zero_()
        bias.uniform_(0.2, 0.6)
        raw = model.raw(model.encode(images).mu)
    found = vae.diagnose(model, images, likelihood=kind, **FAST)
    assert not found.doubts
    expected = -likelihood.nll(images, raw).mean()
    assert found.to_dict()["elbo"] + found.to_dict()["kld"] == pytest.approx(float(expected), rel=1e-4)


def test_logits_within_0_and_1_are_taken_for_what_they_are_said_to_be_and_doubted() -> None:
    images = (torch.rand(64, 1, 2, 3, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    how, decode = BERNOULLI | FAST | {"decoder_gives": "logits"}, spoiled("probabilities")
    found = vae.diagnose(LINEAR.encode, decode, images, **how)
    means = vae.diagnose(LINEAR.encode, lambda z: decode(z).sigmoid(), images, **how | {"decoder_gives": "mean"})
    assert found.to_dict()["elbo"] == pytest.approx(means.to_dict()["elbo"], rel=1e-4)
    assert "none outside [0, 1], as probabilities do" in found.doubts[0]
    assert "none outside" not in str(vae.diagnose(LINEAR.encode, LINEAR.decode, images, **how))
    with pytest.raises(vae.InputError, match="a continuous Bernoulli takes logits"):
        vae.diagnose(LINEAR.encode, spoiled("probabilities"), images, likelihood="continuous_bernoulli")


def test_a_fitted_variance_is_the_error_that_is_left(images: Tensor) -> None:
    linear = LinearVAE(images, 2, 0.5)
    found = vae.diagnose(linear.encode, linear.decode, images, likelihood="optimal_gaussian", **FAST)
    left = found.measures["sse"]
    assert found.record.split is not None
    nll = -found.record.split.elbo - found.record.split.kld
    assert nll == pytest.approx(3 * (np.log(2 * np.pi * left.value / 6) + 1), rel=0.02)


@pytest.mark.parametrize("unit", [1.0, 1e-5, 255.0])
def test_a_fitted_variance_has_no_unit_of_its_own(unit: float, images: Tensor) -> None:
    linear = LinearVAE(images, 4, 0.05)
    given = unit * images
    found = vae.diagnose(
        lambda x: linear.encode(x / unit),
        lambda z: unit * linear.decode(z),
        given,
        train=given,
        likelihood="optimal_gaussian",
        log_variance=False,
        **FAST,
    )
    assert found.verdict == "alive"
    assert found.prediction.predicted_kld == pytest.approx(6.0237, rel=1e-3)
    assert found.measures["swap_gap"].value == pytest.approx(179, rel=0.01)
    assert found.prediction.effective_t == pytest.approx(0.075 * unit**2, rel=1e-3)


def test_a_pixel_far_out_is_no_range_to_round_to(images: Tensor) -> None:
    linear, given = LinearVAE(images, 4, 0.05), images.clone()
    given[-1, 0, 0, 0] = 1e4
    found = vae.diagnose(linear.encode, linear.decode, given, train=images, likelihood="optimal_gaussian", **FAST)
    assert found.prediction.effective_t == pytest.approx(0.075, rel=1e-3)


def test_a_run_on_dark_images_keeps_the_floor_of_its_training(tmp_path: Path) -> None:
    images = 1e-3 * torch.rand(96, 8, 8, generator=torch.Generator().manual_seed(0))
    np.savez(tmp_path / "dark.npz", images=images.numpy())
    data = ["dataset=arrays", f"dataset.train={tmp_path / 'dark.npz'}", "dataset.test_fraction=0.25"]
    record = trained(tmp_path / "run", *data, *QUICK, "model=mlp_vae", "objective=optimal_gaussian")
    assert record["effective_t"] == likelihoods.OptimalGaussian.FLOOR
    found = vae.diagnose(tmp_path / "run").to_dict()
    for key in CATALOGUE.keys() & record.keys():
        assert found[key] == finite(record[key]), key


def test_the_loss_as_it_is_written(images: Tensor) -> None:
    """A mean over the six pixels beside the KL: t = 3, as much as the second eigenvalue; advice in the weight that the
    loss has."""
    loss = vae.scale("mse", "mean", (1, 2, 3), kl_weight=4.0, pixel_range=(-10, 10))
    linear = LinearVAE(images, 4, 12.0)  # nothing is kept
    found = vae.diagnose(linear.encode, linear.decode, images, train=images, loss=loss, **FAST)
    assert (found.verdict, found.cause) == ("collapsed", "objective")
    assert found.prediction.effective_t == 12
    left = (0.1 + 0.05) / 6  # per pixel, of a PCA of four dimensions
    assert found.advised_weight == pytest.approx(left / 3, rel=1e-3)
    assert f"write {left / 3:.3g} as the KL weight (now 4)" in str(found)
    better = vae.scale("mse", "mean", (1, 2, 3), kl_weight=found.advised_weight, pixel_range=(-10, 10))
    assert better.t == pytest.approx(left, rel=1e-3)


def test_a_weight_is_advised_of_few_images_alone() -> None:
    """Of which no PCA of 32 dimensions is known: a weight below that from which on the collapsed state is stable."""
    few = torch.rand(60, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    mean, code = few.mean(0), torch.zeros(60, 32)
    for reduction, weight in (("mean", 1.0), ("sum", 5000.0)):
        loss = vae.scale("mse", reduction, (1, 6, 6), reduction, 32, kl_weight=weight)
        networks = (lambda x: (code[: len(x)], code[: len(x)]), lambda z: mean.expand(len(z), 1, 6, 6))
        found = vae.diagnose(*networks, few, loss=loss, **FAST)
        assert (found.verdict, found.cause) == ("collapsed", "objective")
        assert found.advised_weight is not None
        edge = found.prediction.predicted_collapse_weight
        assert edge is not None
        assert found.advised_weight < loss.weight_for(edge)
        assert f"write {found.advised_weight:.3g} as the KL weight (now {weight:.3g})" in " ".join(found.advice)


def test_an_absolute_error_beside_a_likelihood_of_one_s_own(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its KL weight is that beside the whole error, which is -log p(x|z) of a Laplace distribution of scale 1."""
    monkeypatch.syspath_prepend(ROOT / "examples")
    own = importlib.import_module("my_parts").Laplace((1, 2, 3), scale=1)
    linear = LinearVAE(images, 4, 0.5)
    found = vae.diagnose(linear.encode, linear.decode, images, likelihood=own, loss=ABSOLUTE, **FAST).to_dict()
    assert (found["verdict"], found["kl_weight"]) == ("alive", pytest.approx(6 * 0.1))


def test_a_loss_that_leaves_the_batch_open_is_doubted(images: Tensor) -> None:
    """Summed over a batch of 64, a KL weighs 64 times what it weighs of one image."""
    linear = LinearVAE(images, 4, 0.5)
    loss = vae.scale("mse", "mean", (1, 2, 3), kl_reduction="sum", kl_weight=0.1, pixel_range=(-10, 10))
    found = vae.diagnose(linear.encode, linear.decode, images, loss=loss, log_variance=False, **FAST)
    assert "weighs batch_size times as much" in found.doubts[0]
    assert str(loss).index("not said") < str(loss).index("t = beta")
    told = vae.scale("mse", "mean", (1, 2, 3), kl_reduction="sum", kl_weight=0.1, batch_size=64)
    assert not told.unsaid
    assert told.beta == pytest.approx(64 * loss.beta)


def test_mu_alone_is_an_autoencoder_s(images: Tensor, tmp_path: Path) -> None:
    """It has no KL: nothing is said of one, and its page can be written."""
    linear = LinearVAE(images, 4, 0.01)
    found = vae.diagnose(lambda x: linear.encode(x)[0], linear.decode, images, **GAUSSIAN, **FAST)
    assert found.verdict == "deterministic"
    assert "encode gives mu alone" in str(found)
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["kld"] is None
    assert "autoencoder" in found.report(tmp_path).read_text()
    assert found.advised_weight == pytest.approx(found.measures["mse"].value / 0.5)
    dead = vae.diagnose(lambda x: 0 * linear.encode(x)[0], linear.decode, images, **GAUSSIAN, **FAST)
    assert dead.verdict == "collapsed"
    assert "inf" not in str(dead)
    assert "0 of 4 dimensions are active" in dead.reason


def test_a_small_t_is_not_advised_to_grow(images: Tensor) -> None:
    """What the objective asks for is told by t, not by the pixel variance that a reduction means: t = 0.01, where the
    squared error that is left is far above."""
    linear = LinearVAE(images, 4, 0.5)  # less than a PCA does: the weight is not what keeps it from better images
    loss = vae.scale("mse", "mean", (1, 2, 3), kl_weight=0.01 / 3, pixel_range=(-10, 10))
    found = vae.diagnose(lambda x: linear.encode(x), lambda z: 0.8 * linear.decode(z), images, loss=loss, **FAST)
    assert loss.t == pytest.approx(0.01)
    assert found.measures["mse"].value > 1.2 * found.measures["pca_mse"].value
    assert not any("sharper" in advice for advice in found.advice)


SCALES: dict[str, tuple[Any, str | None]] = {
    "normalised": (lambda x: (x - 0.2) / 0.3, "normalised otherwise"),
    "wider": (lambda x: 255 * x, "normalised otherwise"),
    "logits": (torch.logit, "is a sigmoid missing in decode"),
    "twice": (torch.sigmoid, "does decode apply it twice"),
    "right": (lambda x: x, None),
    "constant": (lambda x: torch.full_like(x, 0.9), None),
}


@pytest.mark.parametrize("name", SCALES)
def test_decoded_images_on_another_scale_are_doubted(name: str) -> None:
    """One factor makes all pixels, which the decoder knows, but for what its last layer does to them."""
    z = torch.randn(400, 1, generator=torch.Generator().manual_seed(0))
    images = torch.sigmoid(z * torch.tensor([2.0, -2.0, 1.0, -1.0, 3.0, -3.0])).reshape(-1, 1, 2, 3)
    images = images + 0.001 * torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    images = images.clamp(0.001, 0.999)
    last, said = SCALES[name]

    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        mu = torch.logit(x.flatten(1)[:, :1]) / 2
        return mu, torch.full_like(mu, -4)

    def decode(code: Tensor) -> Tensor:
        return last(torch.sigmoid(code * torch.tensor([2.0, -2.0, 1.0, -1.0, 3.0, -3.0]))).reshape(-1, 1, 2, 3)

    found = vae.diagnose(encode, decode, images, likelihood="gaussian", sigma2=0.01, **FAST)
    if said is None:
        assert not any("decode gives" in doubt for doubt in found.doubts)
    else:
        assert said in found.doubts[0]


def test_the_page(images: Tensor, tmp_path: Path) -> None:
    """Everything is on it, and what lay in the directory before stays."""
    (tmp_path / "events.out.tfevents.1.host").write_bytes(b"")
    linear = LinearVAE(images, 4, 0.5)
    found = vae.diagnose(linear.encode, linear.decode, images, name="mine", log_variance=True, **GAUSSIAN, **FAST)
    page = found.report(tmp_path).read_text()
    assert "Diagnosis: mine" in page
    for heading in ("Where the nats are", "What the data offer", "What it draws", "Every measure"):
        assert heading in page
    assert "To run it again" not in page
    assert "second output was read as the log of the variance" in page
    assert page.count("data:image/png") == 3  # reconstructions, prior samples, a traversal
    assert page.count("<svg") >= 2
    assert json.loads((tmp_path / "result.json").read_text())["kld_error"] == found.errors["kld"]
    assert (tmp_path / "events.out.tfevents.1.host").exists()
    with pytest.raises(vae.InputError, match=r"report: .*result.json is a file"):
        found.report(tmp_path / "result.json")
    assert repr(found) == str(found)
    assert found.explanation in str(found).replace("\n", " ")


def test_modules_that_can_be_called() -> None:
    """Whatever is imported first."""
    script = (
        "import vae; a = vae.diagnose; import vae.diagnose, vae.scale; import inspect; "
        "assert callable(a) and callable(vae.diagnose) and vae.diagnose is a; "
        "assert 'likelihood' in inspect.signature(vae.diagnose).parameters; "
        "assert vae.scale('mse', 'mean', (1, 28, 28)).t == 392; "
        "from vae import diagnose, scale, audit_schedule, Monitor, load_run; assert callable(scale)"
    )
    with patch.dict(sys.modules):  # which has no module of the package, and is put back
        for name in [name for name in sys.modules if is_below(name, ["vae"])]:
            del sys.modules[name]
        exec(script, {})
