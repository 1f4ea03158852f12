"""Whether a code pays, from what a decoder without one leaves over: on images whose truth is known."""

import math

import numpy as np
import pytest
import torch
from conftest import composed
from torch import Tensor

from vae.data.split import Split
from vae.measure import residuals
from vae.models import likelihood as likelihoods
from vae.models.vae import VAE

SHAPE = (1, 4, 6)


def eigenvalues(images: Tensor, objective: str, *overrides: str) -> Tensor:
    """Of a decoder that gives each pixel of every image the same mean, its true one."""
    config = composed(
        "model=mlp_vae", "model.latent_dim=3", "model.posterior=none", f"objective={objective}", *overrides
    )
    likelihood = likelihoods.build(config.objective, None, SHAPE)
    model = VAE(config.model, likelihood, SHAPE).requires_grad_(False)
    *_, last, _ = model.decoder  # type: ignore[misc]
    raw = likelihood.raw_of(images.mean(0).flatten())
    assert raw is not None
    last.weight.zero_(), last.bias.copy_(raw)
    found = residuals.eigenvalues(model, likelihood, Split(images), 500, count=3, seed=0)
    assert found is not None
    return found


def test_independent_pixels_leave_nothing() -> None:
    """A sample covariance of 800 images of 24 pixels has its largest eigenvalue near 1.3; a code would not pay."""
    rng = torch.Generator().manual_seed(0)
    images = (torch.rand(800, *SHAPE, generator=rng) < 0.3).float()
    scaled = ((images - images.mean(0)) / images.std(0)).flatten(1).numpy()
    assert np.linalg.eigvalsh(np.cov(scaled.T))[-1] > 1.25
    assert eigenvalues(images, "bernoulli").tolist() == pytest.approx([1, 1, 1], abs=0.12)


@pytest.mark.parametrize("unit", [1.0, 0.001])
def test_a_shared_factor_has_its_own_eigenvalue(unit: float) -> None:
    """x = w z + noise whose variance s is the likelihood's: the whitened covariance is I + w w' / s, in any unit."""
    rng = torch.Generator().manual_seed(0)
    w = torch.linspace(-1, 1, 24).reshape(SHAPE)
    images = torch.randn(8000, 1, 1, 1, generator=rng) * w + 0.5 * torch.randn(8000, *SHAPE, generator=rng)
    found = eigenvalues(unit * images, "gaussian", f"objective.sigma2={0.25 * unit**2}")
    assert float(found[0]) == pytest.approx(1 + float(w.square().sum()) / 0.25, rel=0.05)
    assert found[1:].tolist() == pytest.approx([1, 1], abs=0.05)


def test_one_bit_for_all_pixels() -> None:
    """Each pixel is the bit, or with probability .1 its opposite: correlation .64 between any two pixels."""
    rng = torch.Generator().manual_seed(0)
    bit = torch.rand(4000, 1, 1, 1, generator=rng) < 0.5
    images = (bit ^ (torch.rand(4000, *SHAPE, generator=rng) < 0.1)).float()
    assert float(eigenvalues(images, "bernoulli")[0]) == pytest.approx(1 + 23 * 0.64, rel=0.03)


def test_pixels_that_never_vary_are_left_out() -> None:
    images = (torch.rand(500, *SHAPE, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    images[:, :, :2] = 0
    assert math.isfinite(float(eigenvalues(images, "bernoulli")[0]))


def test_a_likelihood_without_curvature_has_none() -> None:
    config = composed("model=mlp_vae", "objective=categorical")
    likelihood = likelihoods.build(config.objective, None, SHAPE)
    model = VAE(config.model, likelihood, SHAPE).requires_grad_(False)
    assert residuals.eigenvalues(model, likelihood, Split(torch.zeros(8, *SHAPE)), 4, 3, 0) is None
