"""The closed form, held against numpy, against optimisation, and against figures computed elsewhere."""

import math

import numpy as np
import pytest
import torch
from conftest import composed
from scipy.optimize import minimize
from torch.distributions import MultivariateNormal

from vae.data.split import Split
from vae.measure import spectrum
from vae.measure.prediction import predict, sentence
from vae.measure.spectrum import Spectrum, linear_optimum
from vae.models import likelihood as likelihoods


def images(count: int, pixels: int, seed: int = 0) -> torch.Tensor:
    chance = np.random.default_rng(seed)
    mixing = chance.normal(size=(pixels, pixels)) / (1 + np.arange(pixels))  # a power law, as images have
    values = chance.normal(size=(count, pixels)) @ mixing.T + chance.normal(size=pixels)
    return torch.from_numpy(values.astype(np.float32)).view(count, 1, 1, pixels)


def test_exact_spectrum_against_numpy() -> None:
    split = Split(images(300, 40))
    found = spectrum.measure(split, 40)
    covariance = np.cov(split.images.flatten(1).double().numpy().T, bias=True)  # 1/N
    expected = np.linalg.eigvalsh(covariance)[::-1]
    assert found.eigenvalues.numpy() == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert found.total == pytest.approx(expected.sum(), rel=1e-12)


@pytest.mark.parametrize(("count", "pixels"), [(400, 1100), (1500, 1100)])
def test_randomised_spectrum_of_many_pixels(count: int, pixels: int) -> None:
    assert pixels > spectrum.EXACT_PIXELS
    split = Split(images(count, pixels))
    found = spectrum.measure(split, 24)
    rows = split.images.flatten(1).double().numpy()
    expected = np.linalg.svd(rows - rows.mean(0), compute_uv=False) ** 2 / count
    assert found.eigenvalues.numpy() == pytest.approx(expected[:24], rel=2e-3)
    assert found.total == pytest.approx(expected.sum(), rel=1e-6)


def test_uint8_images_are_scaled() -> None:
    pixels = torch.randint(0, 256, (50, 1, 3, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert spectrum.measure(Split(pixels), 9).total == pytest.approx(
        float((pixels.double() / 255).var(0, correction=0).sum())
    )


def flat(values: list[float]) -> Spectrum:
    return Spectrum(torch.tensor(values, dtype=torch.float64), sum(values), len(values))


SPECTRUM = [4.0, 2.5, 1.2, 0.6, 0.3, 0.1]


def loss_of(parameters: np.ndarray, d: int, beta: float, sigma2: float | None) -> float:
    """beta-ELBO loss of a linear VAE on data of covariance diag(SPECTRUM), by its definition."""
    n, s = len(SPECTRUM), np.diag(SPECTRUM)
    w, v = parameters[: n * d].reshape(n, d), parameters[n * d : 2 * n * d].reshape(d, n)
    log_var = parameters[2 * n * d : 2 * n * d + d]
    residual = np.eye(n) - w @ v
    sse = np.trace(residual @ s @ residual.T) + np.exp(log_var) @ (w**2).sum(0)
    kl = 0.5 * (np.trace(v @ s @ v.T) + np.exp(log_var).sum() - d - log_var.sum())
    if sigma2 is None:
        sigma2 = np.exp(parameters[-1])
    return float(0.5 * n * math.log(2 * math.pi * sigma2) + sse / (2 * sigma2) + beta * kl)


@pytest.mark.parametrize(
    ("d", "beta", "sigma2"), [(3, 1.0, 0.5), (3, 2.0, 0.4), (5, 1.0, 1.0), (2, 0.5, 3.0), (3, 1.0, None)]
)
def test_optimum_against_numerical_optimisation(d: int, beta: float, sigma2: float | None) -> None:
    size = 2 * len(SPECTRUM) * d + d + (sigma2 is None)
    starts = (np.random.default_rng(seed).normal(scale=0.5, size=size) for seed in range(4))
    best = min(
        minimize(loss_of, start, (d, beta, sigma2), "L-BFGS-B", options={"maxiter": 4000, "maxfun": 10**6}).fun
        for start in starts
    )
    assert linear_optimum(flat(SPECTRUM), d, beta, sigma2).loss == pytest.approx(best, abs=2e-4)


def test_elbo_at_beta_one_is_the_likelihood_of_probabilistic_pca() -> None:
    optimum = linear_optimum(flat(SPECTRUM), 3, 1.0, None)
    n, d = len(SPECTRUM), 3
    variance = sum(SPECTRUM[d:]) / (n - d)
    covariance = torch.diag(torch.tensor([*SPECTRUM[:d], *[variance] * (n - d)], dtype=torch.float64))
    model = MultivariateNormal(torch.zeros(n, dtype=torch.float64), covariance)
    # The mean log-likelihood of zero-mean data depends on their covariance alone: use points that have it.
    points = torch.diag(torch.tensor(SPECTRUM, dtype=torch.float64).sqrt() * math.sqrt(n))
    assert optimum.sigma2 == pytest.approx(variance)
    assert optimum.elbo == pytest.approx(float(model.log_prob(points).mean()))


def test_mnist_reference_figures() -> None:
    """60,000 training images, x / 255: computed once elsewhere from the full spectrum (lambda_1..lambda_13, trace)."""
    total = 52.7250
    head = [5.1168, 3.7413, 3.2527, 2.8416, 2.5671]
    reference = Spectrum(torch.tensor(head, dtype=torch.float64), total, 784)
    optimum = linear_optimum(reference, 5, 1.0, 392.0)
    assert (optimum.kept, optimum.kld) == (0, 0)
    assert optimum.sse == pytest.approx(52.7250)
    assert optimum.elbo == pytest.approx(-3061.250, abs=1e-3)
    assert optimum.collapse_weight == pytest.approx(0.01305, abs=1e-5)


@pytest.mark.parametrize("sigma2", [0.7, None])
def test_from_the_collapse_weight_on_nothing_is_kept(sigma2: float | None) -> None:
    weight = linear_optimum(flat(SPECTRUM), 3, 1.0, sigma2).collapse_weight
    assert linear_optimum(flat(SPECTRUM), 3, weight * 1.0001, sigma2).kept == 0
    assert linear_optimum(flat(SPECTRUM), 3, weight * 0.9, sigma2).kept > 0


def test_general_beta_with_fitted_variance_is_self_consistent() -> None:
    for beta in (0.3, 1.0, 1.7):
        optimum = linear_optimum(flat(SPECTRUM), 3, beta, None)
        # sigma^2 is then the mean squared error of a pixel.
        assert optimum.sigma2 == pytest.approx(optimum.sse / len(SPECTRUM))


def test_data_without_a_remainder_have_no_fitted_optimum() -> None:
    with pytest.raises(ValueError, match="full rank"):
        linear_optimum(flat([2.0, 1.0, 0.0, 0.0]), 3, 1.0, None)


def prediction(weight: float, *overrides: str, rises: bool = False) -> str:
    likelihood = likelihoods.build(composed(*overrides).objective, None, (1, 2, 3))
    given = flat(SPECTRUM)
    optimum = predict(given, likelihood, 3, weight)
    return sentence(optimum, given, overrides[0].split("=")[1], 3, weight, rises)


def test_what_is_said_beforehand() -> None:
    assert "would keep 3 of 3 dimensions" in prediction(1, "objective=sse")
    assert "from KL weight 8 on" in prediction(1, "objective=sse")
    doomed = prediction(2, "objective=pixel_mse", rises=True)  # sigma^2 = 3
    assert doomed.startswith("Warning")
    assert "Annealing only postpones it, to about KL weight 1.33" in doomed
    assert "postpones" not in prediction(2, "objective=pixel_mse")
    assert prediction(1, "objective=bernoulli").startswith("Prediction: none")
    assert "no KL term" in prediction(0, "objective=sse")


def test_of_many_images_a_sample_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The standard error of a variance from N Gaussian draws is lambda * sqrt(2 / N)."""
    exact = torch.tensor([4.0, 1.0, 0.25])
    images = torch.randn(40_000, 3, generator=torch.Generator().manual_seed(0)) * exact.sqrt()
    monkeypatch.setattr("vae.measure.spectrum.MAX_IMAGES", 10_000)
    found = spectrum.measure(Split(images.view(-1, 1, 1, 3)), 3).eigenvalues
    assert (found / exact - 1).abs().max() < 4 * (2 / 10_000) ** 0.5
    assert not torch.equal(found, spectrum.measure(Split(images[:10_000].view(-1, 1, 1, 3)), 3).eigenvalues)
