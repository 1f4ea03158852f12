"""The linear VAE, trained by the ordinary loop, against its closed form."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import composed, trained

import vae
from vae.data import readers
from vae.measure import linear
from vae.measure.evaluation import encode_split
from vae.models import likelihood as likelihoods
from vae.models import links
from vae.models.likelihood import FixedGaussian
from vae.models.vae import VAE

SETTINGS = [
    "dataset=gaussian",
    "model=linear_vae",
    "train.threads=1",
    "train.device=cpu",
    "train.steps=4000",
    "train.batch_size=512",
    "train.lr=0.01",
    "train.log_every=10",
    "train.eval_every=1000",
    "pictures.gif_every=0",
    "evaluation.iw_samples=2",
    "evaluation.quality_images=0",
]


def converged(directory: Path, *overrides: str) -> dict[str, Any]:
    return trained(directory, *SETTINGS, *overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        [
            *("model.latent_dim=4", "objective=optimal_gaussian"),
            *("train.steps=1200", "train.lr=0.02", "train.lr_schedule=cosine"),
        ],
        *(
            pytest.param(overrides, marks=pytest.mark.slow)
            for overrides in (
                ["model.latent_dim=3", "objective=gaussian", "objective.sigma2=0.4", "anneal.weight=3"],
                ["model.latent_dim=5", "objective=gaussian", "objective.sigma2=0.4"],
                ["model.latent_dim=4", "objective=sse", "anneal=linear", "anneal.steps=500"],
                ["model.latent_dim=3", "objective=optimal_gaussian", "anneal.weight=0.5"],
            )
        ),
    ],
)
def test_training_arrives_at_the_optimum(overrides: list[str], tmp_path: Path) -> None:
    record = converged(tmp_path, *overrides)
    assert record["linear_kept"] == record["optimum_kept"] == record["active_units"]
    assert record["linear_kld"] == pytest.approx(record["optimum_kld"], rel=0.01)
    assert record["linear_sse"] == pytest.approx(record["optimum_sse"], rel=0.01)
    assert record["linear_elbo"] == pytest.approx(record["optimum_elbo"], rel=0.002)
    assert record["verdict"] == "alive"


def test_an_objective_that_asks_for_collapse_gets_it(tmp_path: Path) -> None:
    record = converged(tmp_path, "model.latent_dim=3", "objective=gaussian", "objective.sigma2=10", "train.steps=1500")
    assert (record["verdict"], record["cause"]) == ("collapsed", "objective")
    assert record["linear_kept"] == record["optimum_kept"] == 0


@pytest.mark.slow
def test_weights_up_to_signed_permutation(tmp_path: Path) -> None:
    """W_i = sqrt(lambda_i - t) u_i, and Var(mu_i) = 1 - t / lambda_i; a dimension without use has neither."""
    t = 0.4
    converged(tmp_path, "model.latent_dim=6", "objective=gaussian", f"objective.sigma2={t}", "train.steps=10000")
    model = vae.load_run(tmp_path).model
    data = readers.load(composed(*SETTINGS).dataset)
    rows = data.train.images.flatten(1).double().numpy()
    eigenvalues, vectors = np.linalg.eigh(np.cov(rows.T, bias=True))
    eigenvalues, vectors = eigenvalues[::-1], vectors[:, ::-1]
    kept = eigenvalues > t
    expected = vectors[:, kept] * np.sqrt(eigenvalues[kept] - t)
    w = linear.decoder_matrix(model).detach().double().numpy()
    w = w[:, np.argsort(-np.linalg.norm(w, axis=0))]
    used, unused = w[:, : kept.sum()], w[:, kept.sum() :]
    assert np.abs(unused).max() < 0.05
    signs = np.sign((used * expected).sum(0))
    assert np.abs(used * signs - expected).max() < 0.08
    variance = encode_split(model, data.train, 5000).mu.var(0, correction=0).sort(descending=True).values.numpy()
    assert variance[: kept.sum()] == pytest.approx(1 - t / eigenvalues[kept], abs=0.03)
    assert variance[kept.sum() :] == pytest.approx(0, abs=0.005)


def test_analytic_figures_are_the_mean_over_many_draws() -> None:
    config = composed("dataset=gaussian", "model=linear_vae", "model.latent_dim=3", "dataset.train_size=300")
    split = readers.load(config.dataset).train
    likelihood = likelihoods.build(config.objective, "linear", split.shape)
    model = VAE(config.model, FixedGaussian(links.identity, 8, 1.0), split.shape, seed=1).requires_grad_(False)
    model.encoder.log_sigma.copy_(torch.tensor([-0.5, 0.2, 0.6]))  # type: ignore[operator, union-attr]
    found = linear.analytic(model, likelihood, split, batch_size=70)
    posterior = encode_split(model, split, 300)
    chance = torch.Generator().manual_seed(0)
    draws = [model.decode(posterior.sample(torch.randn(300, 3, generator=chance))) for _ in range(2000)]
    sse = np.mean([float((draw - split.images).square().flatten(1).sum(1).mean()) for draw in draws])
    assert found.sse == pytest.approx(sse, rel=2e-3)
    assert found.kld == pytest.approx(float(posterior.kl().sum(1).mean()), rel=1e-5)
