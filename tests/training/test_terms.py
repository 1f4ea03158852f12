"""Cures that are a term of the loss, each against what it must do."""

import importlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, composed, trained
from torch import Tensor

import vae
from vae.models.likelihood import Reconstruction
from vae.models.posteriors import Posterior
from vae.training.cure import Batch, Cure
from vae.training.setup import prepare
from vae.training.terms import mmd_to_prior

SMALL = ["dataset=gaussian", "dataset.train_size=64", "dataset.test_size=8", "train.threads=1", "train.device=cpu"]
LINEAR = [
    *("dataset=gaussian", "model=linear_vae", "model.latent_dim=5", "dataset.train_size=2000"),
    *("objective=gaussian", "objective.sigma2=0.2", "train.threads=1", "train.device=cpu", "pictures.gif_every=0"),
    *("train.batch_size=500", "train.lr=0.02", "train.log_every=100", "train.steps=1200", "train.eval_every=1200"),
    *(
        "evaluation.iw_samples=2",
        "evaluation.probe_images=16",
        "evaluation.marginal_samples=64",
        "evaluation.quality_images=0",
    ),
]


def cure(*overrides: str) -> Cure:
    return prepare(composed(*SMALL, "model=mlp_vae", "model.latent_dim=4", *overrides)).cure


def batch(kl: Tensor, weight: float = 1.0, step: int = 1, mu: Tensor | None = None) -> Batch:
    """Of a KL (d,), where a cure looks at nothing else; the reconstruction term is 7."""
    mu = torch.zeros(1, len(kl)) if mu is None else mu
    reconstruction = Reconstruction(torch.tensor(7.0), torch.ones(1))
    nothing = torch.zeros(len(mu), len(kl))
    return Batch(step, weight, nothing, nothing, Posterior(mu, nothing), nothing, reconstruction, kl)


def slope(of: Cure, kl: Tensor, **given: Any) -> Tensor:
    kl = kl.clone().requires_grad_()
    (found,) = torch.autograd.grad(of.loss(batch(kl, **given)), kl)
    return found


def test_no_cure_is_the_plain_loss() -> None:
    kl = torch.tensor([1.0, 2.0, 0.0, 0.5])
    assert float(cure().loss(batch(kl, weight=0.5))) == 7 + 0.5 * 3.5
    infinite = torch.full((4,), torch.inf)
    assert float(cure().loss(batch(infinite, weight=0.0))) == 7  # of a point, without a KL term


def test_the_allowance_of_the_examples_is_for_all_processes_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other of two has a KL of 0."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    own = importlib.import_module("my_parts").Allowance(None, nats=5.0, steps=10)
    monkeypatch.setattr("vae.runtime.parallel.mean", lambda values: values / 2)
    assert float(own.loss(batch(torch.tensor([8.0]), step=0))) == 7
    assert float(own.loss(batch(torch.tensor([12.0]), step=0))) == 7 + 1
    assert [own.is_settled(step) for step in (9, 10)] == [False, True]


def test_free_bits_have_no_gradient_below_the_floor_and_the_kl_s_above() -> None:
    free = cure("cure=free_bits", "cure.floor=0.25")
    kl = torch.tensor([0.0, 0.2, 0.3, 4.0])
    assert slope(free, kl, weight=0.5).tolist() == [0.0, 0.0, 0.5, 0.5]
    assert float(free.loss(batch(kl))) == pytest.approx(7 + 0.25 + 0.25 + 0.3 + 4.0)
    assert float(free.loss(batch(kl + 1))) == float(cure().loss(batch(kl + 1)))  # the plain loss


def test_free_bits_of_groups() -> None:
    free = cure("cure=free_bits", "cure.floor=1", "cure.group_size=2")
    assert slope(free, torch.tensor([0.9, 0.2, 0.3, 0.4])).tolist() == [1.0, 1.0, 0.0, 0.0]


def test_free_bits_average_images_before_the_floor() -> None:
    """Images of which half carry a nat and half none carry half a nat: above the floor, so all pay."""
    mu = torch.tensor([[math.sqrt(2.0)] * 4, [0.0] * 4])
    posterior = Posterior(mu, torch.zeros(2, 4))
    loss = cure("cure=free_bits", "cure.floor=0.25").loss(batch(posterior.kl().mean(0), mu=mu))
    assert float(loss) == pytest.approx(7 + 4 * 0.5)


def water_filling(eigenvalues: Tensor, rate: float) -> float:
    """The least E SSE of a Gaussian source at this rate (Cover and Thomas 2006, theorem 10.3.3), by bisection of the
    level: sum log(lambda / D) / 2 over those above it."""
    values = eigenvalues.double()
    low, high = 1e-9, float(values.max())
    for _ in range(200):
        level = 0.5 * (low + high)
        found = float(0.5 * (values / values.clamp(max=level)).log().sum())
        low, high = (level, high) if found > rate else (low, level)
    return float(values.clamp(max=low).sum())


def eigenvalues(*overrides: str) -> Tensor:
    images = prepare(composed(*LINEAR, *overrides)).subject.data.train.batch(slice(None)).flatten(1).double()
    return torch.linalg.eigvalsh(torch.cov(images.T, correction=0)).flip(0)


@pytest.mark.parametrize("capacity", [3.0, pytest.param(1.0, marks=pytest.mark.slow)])
def test_capacity_ends_at_c_on_the_rate_distortion_curve(capacity: float, tmp_path: Path) -> None:
    """Five dimensions carry all that is worth a nat here, so the linear VAE at rate C has the least error there is.
    gamma is above the slope of that curve, in nats a nat; with 1000 the KL is there as soon, the error much later."""
    held = ["cure=capacity", f"cure.capacity={capacity}", "cure.steps=600", "cure.gamma=20"]
    overrides = [*held, "train.lr_schedule=cosine"]
    record = trained(tmp_path, *LINEAR, *overrides)
    assert record["linear_kld"] == pytest.approx(capacity, rel=0.05)
    assert record["linear_sse"] == pytest.approx(water_filling(eigenvalues(), record["linear_kld"]), rel=0.03)


def test_capacity_rises_in_a_line_and_pays_for_the_mean() -> None:
    held = cure("cure=capacity", "cure.capacity=8", "cure.steps=4", "cure.gamma=10")
    kl = torch.tensor([1.0, 2.0, 0.0, 0.0])
    off = [float(held.loss(batch(kl, step=step))) - 7 for step in (1, 2, 4, 9)]
    assert off == pytest.approx([10 * abs(3 - c) for c in (2, 4, 8, 8)])


def test_mu_forcing_keeps_the_means_apart_where_the_objective_would_not(tmp_path: Path) -> None:
    """At sigma2 = 20 the collapsed state is the optimum; the means must spread all the same, and no further."""
    overrides = ["objective.sigma2=20", "cure=mu_forcing", "cure.floor=1.5", "cure.strength=2", "train.steps=600"]
    record = trained(tmp_path, *LINEAR, *overrides)
    assert record["verdict"] == "alive_on_paper"  # the KL that this takes buys next to nothing
    images = prepare(composed(*LINEAR, *overrides)).subject.data.train.batch(slice(None))
    spread = float(vae.load_run(tmp_path).encode(images).mu.var(0, correction=0).sum())
    assert spread == pytest.approx(1.5, rel=0.05)


def test_mmd_is_a_double_sum_over_codes_and_prior() -> None:
    """Against the sum over pairs, with the prior's part by a hundred thousand draws."""
    rng = torch.Generator().manual_seed(0)
    z = 0.7 * torch.randn(40, 3, generator=rng, dtype=torch.float64) + 0.5
    prior = torch.randn(100_000, 3, generator=rng, dtype=torch.float64)

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return torch.exp(-torch.cdist(a, b).square() / (2 * 3))

    pairs = [float(kernel(z[[i]], z[[j]])) for i in range(40) for j in range(40) if i != j]
    among_prior = kernel(prior[:50_000], prior[50_000:50_040]).mean(), kernel(prior[::2], prior[1:4000:100]).mean()
    expected = np.mean(pairs) - 2 * float(kernel(z, prior).mean()) + float(sum(among_prior)) / 2
    assert float(mmd_to_prior(z)) == pytest.approx(expected, abs=1e-2)
    assert expected > 0.02


def test_mmd_is_0_in_the_mean_where_codes_are_the_prior_s() -> None:
    rng = torch.Generator().manual_seed(1)
    found = torch.stack([mmd_to_prior(torch.randn(16, 8, generator=rng)) for _ in range(2000)])
    assert abs(float(found.mean())) < 3 * float(found.std()) / math.sqrt(2000)
    assert float(found.min()) < 0  # unbiased: it errs to both sides


def test_mmd_pays_as_its_paper_says() -> None:
    chosen = cure("cure=mmd", "cure.alpha=0.25", "cure.lam=3")
    kl = torch.tensor([1.0, 2.0, 0.0, 0.0])
    given = batch(kl, mu=torch.randn(8, 4, generator=torch.Generator().manual_seed(0)))
    expected = 7 + 0.75 * 3 + 2.25 * mmd_to_prior(given.posterior.mu)  # the noise is 0
    assert float(chosen.loss(given)) == pytest.approx(float(expected))


def test_scale_pays_for_what_the_encoder_gave() -> None:
    setup = prepare(composed(*SMALL, "model=mlp_vae", "model.latent_dim=4", "cure=scale", "cure.spread=5"))
    images = setup.subject.data.train.batch(slice(0, 32))
    setup.subject.model.requires_grad_(False)
    posterior = setup.subject.model.encode(images)
    mu, _ = setup.subject.model.encoder(images)
    plain = Posterior(mu, posterior.log_sigma)
    given = batch(posterior.kl().mean(0), mu=posterior.mu)._replace(posterior=posterior)
    assert float(setup.cure.loss(given)) == pytest.approx(7 + float(plain.kl().mean(0).sum()), rel=1e-5)
    assert float(posterior.kl().mean(0).sum()) > 2 * float(plain.kl().mean(0).sum())  # what is measured
