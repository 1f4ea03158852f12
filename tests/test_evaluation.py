import dataclasses

import pytest
import torch
from conftest import composed
from torch.distributions import Independent, Normal

from vae import objective
from vae.data import Split
from vae.evaluation import evaluate
from vae.model import VAE


@pytest.fixture
def setting() -> tuple[VAE, objective.Likelihood, Split]:
    config = composed("model=mlp_vae", "model.latent_dim=3", "objective=gaussian", "objective.sigma2=0.3")
    likelihood = objective.build(config.objective, None, (1, 4, 4))
    vae = VAE(config.model, "linear", (1, 4, 4)).requires_grad_(False)
    images = torch.rand(50, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    return vae, likelihood, Split(images)


def test_the_whole_split_is_measured(setting: tuple[VAE, objective.Likelihood, Split]) -> None:
    """Not the first batch only, and images in the last, smaller batch count as much as any other."""
    vae, likelihood, split = setting
    whole, posterior = evaluate(vae, likelihood, split, 50, seed=0)
    assert posterior.mu.shape == (50, 3)
    for batch_size in (1, 7, 49, 500):
        parts, _ = evaluate(vae, likelihood, split, batch_size, seed=0)
        assert dataclasses.asdict(parts) == pytest.approx(dataclasses.asdict(whole), rel=1e-5)


def test_figures_against_torch_distributions(setting: tuple[VAE, objective.Likelihood, Split]) -> None:
    vae, likelihood, split = setting
    figures, posterior = evaluate(vae, likelihood, split, 16, seed=0)
    q = Independent(Normal(posterior.mu, posterior.log_sigma.exp()), 1)
    prior = Independent(Normal(torch.zeros(3), torch.ones(3)), 1)
    kld = torch.distributions.kl_divergence(q, prior).mean()
    assert figures.kld == pytest.approx(float(kld), rel=1e-5)
    # Many draws from torch's own sampler: their mean is what one fixed draw of 50 images estimates.
    torch.manual_seed(0)
    with torch.no_grad():
        draws = [vae.decode(q.rsample()) for _ in range(200)]
        sse = torch.stack([(draw - split.images).square().flatten(1).sum(1) for draw in draws])
        nll = torch.stack([-Independent(Normal(draw, 0.3**0.5), 3).log_prob(split.images) for draw in draws])
    spread = float(sse.mean(1).std())
    assert figures.sse == pytest.approx(float(sse.mean()), abs=4 * spread)
    assert figures.mse == pytest.approx(figures.sse / 16)
    assert figures.elbo == pytest.approx(float(-nll.mean() - kld), abs=4 * float(nll.mean(1).std()))
    mean_error = (vae.decode(posterior.mu) - split.images).square().mean()
    assert figures.mse_mu == pytest.approx(float(mean_error), rel=1e-5)


def test_bounds_are_over_all_images_and_dimensions(setting: tuple[VAE, objective.Likelihood, Split]) -> None:
    vae, likelihood, split = setting
    figures, _ = evaluate(vae, likelihood, split, 16, seed=0)
    posterior = vae.encode(split.images)
    sigma = posterior.log_sigma.exp()
    assert (figures.mu_min, figures.mu_max) == (float(posterior.mu.min()), float(posterior.mu.max()))
    assert (figures.sigma_min, figures.sigma_max) == pytest.approx((float(sigma.min()), float(sigma.max())), rel=1e-6)
    assert figures.sigma_mean == pytest.approx(float(sigma.mean()), rel=1e-5)


def test_evaluation_leaves_modes_and_torch_s_stream_alone(setting: tuple[VAE, objective.Likelihood, Split]) -> None:
    vae, likelihood, split = setting
    vae.train(), likelihood.eval()
    before = torch.get_rng_state()
    first, _ = evaluate(vae, likelihood, split, 16, seed=0)
    again, _ = evaluate(vae, likelihood, split, 16, seed=0)
    assert first == again
    assert torch.equal(torch.get_rng_state(), before)
    assert (vae.training, likelihood.training) == (True, False)
