"""The layers between an encoder and its posterior: what each promises of KL holds whatever the encoder says."""

import numpy as np
import pytest
import torch
from conftest import composed
from scipy.special import lambertw
from torch import Tensor

from vae.models import heads
from vae.models.heads import Head


def head(*overrides: str, latent_dim: int = 6) -> Head:
    return heads.build(composed(*overrides).cure, latent_dim).requires_grad_(False)


def given(count: int = 400, latent_dim: int = 6, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    mu, raw = (scale * torch.randn(count, latent_dim, generator=rng) for _ in range(2))
    return mu * torch.tensor([1e-2, 0.1, 1, 1, 10, 100]) + 5, raw


@pytest.mark.parametrize("delta", [0.01, 0.15, 2.0])
def test_delta_commits_every_dimension_of_every_image(delta: float) -> None:
    found = head("cure=delta", f"cure.delta={delta}")(*given(scale=30))
    assert float(found.kl().min()) >= delta * (1 - 1e-4)
    mu, raw = given()
    least = head("cure=delta", f"cure.delta={delta}")(-mu.abs(), raw).kl()  # where the encoder asks for no more
    assert torch.allclose(least, torch.full_like(least, delta), atol=1e-5)


@pytest.mark.parametrize("delta", [0.01, 0.15, 2.0])
def test_the_bounds_of_delta_s_sigma_are_the_roots(delta: float) -> None:
    """x e^-x = e^(-2 delta - 1) has the two real branches of Lambert's W."""
    place = -np.exp(-2 * delta - 1)
    expected = [-lambertw(place, branch).real for branch in (0, -1)]
    assert heads.variance_bounds(delta) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("gamma", [0.1, 0.5, 2.0])
def test_batch_norm_mu_floors_the_mean_kl(gamma: float) -> None:
    normalised = head("cure=batch_norm_mu", f"cure.gamma={gamma}")
    mu, raw = given()
    floor = gamma**2 / 2
    for shrunk in (1.0, 1e-2):  # an encoder that shrinks its means gains nothing by it
        found = normalised((mu - 5) * shrunk, raw)
        assert bool((found.kl().mean(0) >= floor * (1 - 1e-3)).all())
        assert torch.allclose(found.mu.var(0, correction=0).sqrt(), torch.tensor(gamma), rtol=1e-2)


def test_batch_norm_mu_is_that_of_torch() -> None:
    ours, theirs = head("cure=batch_norm_mu", "cure.gamma=0.7"), torch.nn.BatchNorm1d(6, eps=1e-10, momentum=0.1)
    torch.nn.init.constant_(theirs.weight, 0.7)
    for part in range(20):
        mu, raw = (chunk.chunk(20)[part] for chunk in given())
        assert torch.allclose(ours(mu, raw).mu, theirs(mu), atol=1e-3)
    mu, raw = given()
    ours.eval(), theirs.eval()
    assert torch.allclose(ours(mu, raw).mu, theirs(mu), rtol=0.05)  # torch's running variance has 1/(B - 1)


def test_scale_brings_every_mean_to_the_same_spread() -> None:
    scaled = head("cure=scale", "cure.spread=2")
    assert isinstance(scaled, heads.Scale)
    mu, raw = given()
    found = scaled(mu, raw)
    assert torch.allclose(found.mu.std(0, correction=0)[1:], torch.tensor(2.0), rtol=1e-3)
    before = scaled.unscaled(found)
    assert torch.allclose(before.mu, mu, rtol=1e-5)
    assert torch.equal(before.log_sigma, Head()(mu, raw).log_sigma)


def test_scale_in_evaluation_does_not_depend_on_the_batch() -> None:
    scaled = head("cure=scale")
    mu, raw = given()
    for _ in range(200):
        scaled(mu, raw)
    trained = scaled(mu, raw).mu
    scaled.eval()
    assert torch.allclose(scaled(mu, raw).mu, trained, rtol=1e-4)
    assert torch.equal(scaled(mu[:3], raw[:3]).mu, scaled(mu, raw).mu[:3])
