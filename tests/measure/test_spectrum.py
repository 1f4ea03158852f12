"""The closed form, held against numpy, against optimisation, and against figures computed elsewhere."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch.distributions import MultivariateNormal

from vae.data.split import Split
from vae.measure import spectrum
from vae.measure.spectrum import Spectrum, linear_optimum


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


def of_many_pixels(split: Split, count: int = 24) -> tuple[Spectrum, np.ndarray]:
    """What is measured, and all eigenvalues by numpy."""
    rows = split.images.flatten(1).double().numpy()
    return spectrum.measure(split, count), np.linalg.svd(rows - rows.mean(0), compute_uv=False) ** 2 / len(rows)


@pytest.mark.parametrize("count", [400, 1500])
def test_spectrum_of_many_pixels(count: int) -> None:
    """Fewer images than EXACT: exact, from their products; more: by the Krylov method."""
    found, expected = of_many_pixels(Split(images(count, 1100)))
    exact = count <= spectrum.EXACT
    assert found.eigenvalues.numpy()[:24] == pytest.approx(expected[:24], rel=1e-9 if exact else 1e-5)
    assert found.total == pytest.approx(expected.sum(), rel=1e-6)


def test_spectrum_of_noise() -> None:
    """The hardest one: eigenvalues that lie close together, as those of noise do. Right to 1 % of each."""
    noise = torch.rand(1200, 1, 1, 1600, generator=torch.Generator().manual_seed(0))
    found, expected = of_many_pixels(Split(noise))
    assert found.eigenvalues.numpy() == pytest.approx(expected[:24], rel=0.01)


def test_blocks_that_would_be_more_than_the_pixels() -> None:
    """Blocks of 207 in 1,030 dimensions: of the fifth what the space has room for, so that all of it is spanned."""
    noise = torch.rand(1100, 1, 1, 1030, generator=torch.Generator().manual_seed(0))
    found, expected = of_many_pixels(Split(noise), 191)
    assert found.eigenvalues.numpy() == pytest.approx(expected[:191], rel=1e-5)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the most memory held is asked of Linux")
def test_few_large_images_are_held_once() -> None:
    """In float64, beside the images as they are."""
    split = Split(torch.rand(800, 1, 100, 200, generator=torch.Generator().manual_seed(0)))

    def held(name: str) -> int:
        status = Path("/proc/self/status").read_text()
        return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith(name)))

    Path("/proc/self/clear_refs").write_text("5")  # the highest is the present again
    before = held("VmRSS")
    spectrum.measure(split, 2)
    assert held("VmHWM") - before < 1.8 * 8 * split.images.numel()


def test_of_huge_images_all_eigenvalues_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Components are bounded by the memory that they take, eigenvalues are not."""
    split = Split(torch.rand(60, 1, 40, 40, generator=torch.Generator().manual_seed(0)))
    whole = spectrum.measure(split, 50)
    monkeypatch.setattr(spectrum, "MAX_COMPONENT_VALUES", 7 * 1600)
    bounded = spectrum.measure(Split(split.images.clone()), 50)
    assert bounded.components.shape == (1600, 7)
    assert torch.equal(bounded.eigenvalues, whole.eigenvalues)
    assert spectrum.linear_optimum(bounded, 50, 1.0, 1e-3).kept == 50


@pytest.mark.parametrize("count", [100, 500, 3000])
def test_of_halves_the_noise_of_these_images_is_not_in_it(count: int) -> None:
    """All true eigenvalues of noise are the same; those of so few images are up to 14 times as large."""
    noise = torch.rand(count, 1, 1, 784, generator=torch.Generator().manual_seed(0))
    split = Split(noise)
    assert spectrum.measure(split, 24).largest > 1.9 / 12
    found = spectrum.of_halves(split, 24)
    assert found.eigenvalues.numpy() * 12 == pytest.approx(1, abs=0.2)
    assert (found.eigenvalues.diff() <= 0).all()


def test_of_halves_what_images_share_is_in_it() -> None:
    """Of Gaussian images with known eigenvalues, fewer than their pixels: to a fifth below them, and nothing where
    there are too few to be halved."""
    true = torch.tensor([50.0, 20.0, 8.0, 3.0])
    rng = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(400, 4, generator=rng)).Q
    images = (torch.randn(300, 4, generator=rng) * true.sqrt()) @ axes.T + 0.1 * torch.randn(300, 400, generator=rng)
    found = spectrum.of_halves(Split(images.view(300, 1, 20, 20)), 8)
    assert found.eigenvalues[:4].numpy() == pytest.approx(true.numpy(), rel=0.2)
    assert found.eigenvalues[4:].numpy() == pytest.approx(0.01, abs=0.003)
    assert spectrum.of_halves(Split(images[:3].view(3, 1, 20, 20)), 8).largest == 0


def test_along_other_images_is_numpy_s_variance() -> None:
    """Of other images along the components of these; where they do not share their axes, what they vary there."""
    rng = torch.Generator().manual_seed(0)
    axes = torch.tensor([5.0, 3.0, 1.0, 0.5]).diag()
    images, others = (torch.randn(count, 4, generator=rng) @ axes for count in (400, 300))
    found = spectrum.measure(Split(images.view(-1, 1, 2, 2)), 4)
    given = spectrum.along(Split(others.view(-1, 1, 2, 2)), found).eigenvalues
    expected = np.var(others.numpy() @ found.components.numpy(), axis=0, ddof=1)
    assert given.numpy() == pytest.approx(expected, rel=1e-4)
    assert spectrum.along(Split(others[:1].view(-1, 1, 2, 2)), found).largest == 0
    scale = torch.tensor([1.0, 2.0, 0.0, 1.0])
    scaled = spectrum.along(Split(others.view(-1, 1, 2, 2)), found, scale)
    assert scaled.total == pytest.approx(np.var((others * scale).numpy(), axis=0, ddof=1).sum(), rel=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_along_other_images_a_fitted_variance_is_theirs(seed: int) -> None:
    """Ten factors in 64 pixels: so many nats are to be had of all images alike, and what 200 others vary by in all is
    not what the 4,000 do."""
    rng = torch.Generator().manual_seed(seed)
    axes = torch.linalg.qr(torch.randn(64, 10, generator=rng)).Q

    def images(count: int) -> Split:
        factors = torch.randn(count, 10, generator=rng) @ axes.T
        return Split((factors + 0.001**0.5 * torch.randn(count, 64, generator=rng)).view(count, 1, 8, 8))

    found, floor = spectrum.measure(images(4000), 20), 1e-6
    others = spectrum.along(images(200), found)
    true = 5 * math.log(1.001 / 0.001)
    for given in (found, others):
        optimum = linear_optimum(given, 10, 1.0, None, floor)
        assert optimum.is_interior
        assert optimum.kld == pytest.approx(true, rel=0.03)


def test_of_halves_the_variance_is_that_of_others() -> None:
    """numpy's with ddof=1, and what is left beyond some dimensions is that of images the plane was not made for."""
    noise = torch.rand(60, 1, 10, 10, generator=torch.Generator().manual_seed(0))
    found = spectrum.of_halves(Split(noise), 8)
    assert found.total == pytest.approx(np.var(noise.flatten(1).numpy(), axis=0, ddof=1).sum(), rel=1e-5)
    assert found.beyond(8) / 100 == pytest.approx(0.92 / 12, rel=0.05)
    assert spectrum.measure(Split(noise), 8).beyond(8) / 100 < 0.8 * 0.92 / 12


def test_spectrum_of_few_dimensions() -> None:
    """Data of a lower rank than the Krylov space: what is left of a block is rounding, and no eigenvalue is found
    twice."""
    rank = 40
    rng = torch.Generator().manual_seed(0)
    weights = torch.randn(1500, rank, generator=rng) * 0.8 ** torch.arange(rank)
    found, expected = of_many_pixels(Split((weights @ torch.randn(rank, 1100, generator=rng)).view(1500, 1, 1, 1100)))
    assert found.eigenvalues.numpy() == pytest.approx(expected[:24], rel=1e-5)
    assert (found.components.T @ found.components - torch.eye(24)).abs().max() < 1e-5


@pytest.mark.parametrize(("count", "pixels"), [(300, 40), (300, 1100), (1500, 1100)])
def test_components_against_numpy(count: int, pixels: int) -> None:
    """The plane of the first five: it does not matter which vectors span it."""
    split = Split(images(count, pixels))
    found = spectrum.measure(split, 5)
    rows = split.images.flatten(1).double().numpy()
    expected = np.linalg.svd(rows - rows.mean(0), full_matrices=False)[2][:5]
    inside = np.linalg.svd(expected @ found.components.double().numpy(), compute_uv=False)
    assert inside == pytest.approx(np.ones(5), abs=1e-5)
    assert found.mean.numpy() == pytest.approx(rows.mean(0))


def test_pixels_are_scaled_before() -> None:
    split = Split(images(200, 30))
    scale = torch.linspace(0, 2, 30)
    rows = (split.images.flatten(1) * scale).double().numpy()
    expected = np.linalg.eigvalsh(np.cov(rows.T, bias=True))[::-1]
    found = spectrum.measure(split, 30, scale)
    assert found.eigenvalues.numpy() == pytest.approx(expected, rel=1e-5, abs=1e-9)


def test_uint8_images_are_scaled() -> None:
    pixels = torch.randint(0, 256, (50, 1, 3, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert spectrum.measure(Split(pixels), 9).total == pytest.approx(
        float((pixels.double() / 255).var(0, correction=0).sum())
    )


def flat(values: list[float]) -> Spectrum:
    """Of data whose covariance is diagonal."""
    count = len(values)
    return Spectrum(torch.tensor(values, dtype=torch.float64), torch.eye(count), torch.zeros(count), sum(values), count)


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
    starts = (np.random.default_rng(seed).normal(scale=0.5, size=size) for seed in range(2))
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
    components, mean = torch.eye(784, 5), torch.zeros(784)
    reference = Spectrum(torch.tensor(head, dtype=torch.float64), components, mean, total, 784)
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


@pytest.mark.parametrize("weight", [0.5, 1.0])
def test_data_without_a_remainder_have_no_fitted_optimum(weight: float) -> None:
    """Rounding leaves a residue of them, which is none."""
    for residue in (0.0, 1e-15):
        with pytest.raises(ValueError, match="no interior optimum"):
            linear_optimum(flat([2.0, 1.0, residue, residue]), 3, weight, None)


def test_the_fitted_variance_keeps_to_its_floor() -> None:
    found = linear_optimum(flat([2.0, 1.0, 0.0, 0.0]), 3, 1.0, None, floor=1e-4)
    assert (found.kept, found.sigma2, found.is_interior) == (2, 1e-4, False)
    assert found.t == 1e-4
    inside = linear_optimum(flat(SPECTRUM), 3, 1.0, None, floor=1e-4)
    assert inside == linear_optimum(flat(SPECTRUM), 3, 1.0, None)


def test_eigenvalues_that_tie_with_the_fitted_variance() -> None:
    """[8, .2, .2, .2] and ten times .01: the four kept leave a variance of just .01."""
    found = linear_optimum(flat([8.0, 0.2, 0.2, 0.2, *[0.01] * 10]), 6, 1.0, None)
    assert found.sigma2 == pytest.approx(0.01)
    assert found.kld == pytest.approx(0.5 * math.log(800) + 1.5 * math.log(20))


def least_loss(values: np.ndarray, d: int, beta: float, sigma2: float | None, floor: float) -> float:
    """The smallest loss of a linear VAE, found numerically. For a given variance and covariance diag(values) the pixels
    are independent: of each the best decoder weight w is found on a grid, with the best encoder for it, v = w / (w^2 +
    sigma^2) and variance sigma^2 / (w^2 + sigma^2) at beta = 1 and t = beta sigma^2 in their place otherwise; the d
    pixels that gain most by it get one. The variance itself is then searched on a grid, and finer around its best."""
    w2 = np.concatenate([[0.0], np.geomspace(1e-7, 1e4, 3000)])

    def loss(variance: float) -> float:
        t = beta * variance
        gains = []
        for value in values:
            v2 = w2 / (w2 + t) ** 2
            residual = value * (1 - w2 / (w2 + t)) ** 2 + w2 * t / (w2 + t)
            kl = 0.5 * (v2 * value + t / (w2 + t) - 1 - np.log(t / (w2 + t)))
            gains.append(value / (2 * variance) - (residual / (2 * variance) + beta * kl).min())
        kept = sum(sorted(gains, reverse=True)[:d])
        return 0.5 * len(values) * math.log(2 * math.pi * variance) + values.sum() / (2 * variance) - kept

    if sigma2 is not None:
        return loss(sigma2)
    grid = np.geomspace(max(floor, 1e-9), 10 * values.max(), 120)
    losses = [loss(variance) for variance in grid]
    best = int(np.argmin(losses))
    around = np.geomspace(grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)], 40)
    return min(*losses, *(loss(variance) for variance in around))


@pytest.mark.parametrize("cases", [60, pytest.param(400, marks=pytest.mark.slow)])
def test_many_optima_against_numerical_minimisation(cases: int) -> None:
    """Half with a fitted variance; a third of these are data of at most d dimensions, whose variance goes to its
    floor."""
    rng = np.random.default_rng(0)
    at_floor = 0
    for case in range(cases):
        count, d = int(rng.integers(3, 7)), int(rng.integers(1, 4))
        values = np.sort(rng.gamma(0.5, 2.0, count) + 1e-3)[::-1]
        beta = float(np.exp(rng.normal(0, 0.7)))
        fitted = case % 2 == 0
        floor = 1e-3 if fitted else 0.0
        if fitted and case % 3 == 0:
            values[min(d, count - 1) :] = 0
        sigma2 = None if fitted else float(np.exp(rng.normal(-0.5, 1)))
        found = linear_optimum(flat(values.tolist()), d, beta, sigma2, floor)
        expected = least_loss(values, d, beta, sigma2, floor)
        assert found.loss == pytest.approx(expected, abs=2e-3 * max(1.0, abs(expected))), (values, d, beta, sigma2)
        assert found.gain >= -1e-9
        at_floor += not found.is_interior
    assert cases / 8 < at_floor < 3 * cases / 8


def test_of_too_many_pixels_a_sample_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The standard error of a variance from N Gaussian draws is lambda * sqrt(2 / N)."""
    exact = torch.tensor([4.0, 1.0, 0.25])
    images = torch.randn(40_000, 3, generator=torch.Generator().manual_seed(0)) * exact.sqrt()
    monkeypatch.setattr("vae.measure.spectrum.MAX_VALUES", 30_000)
    found = spectrum.measure(Split(images.view(-1, 1, 1, 3)), 3).eigenvalues
    assert (found / exact - 1).abs().max() < 4 * (2 / 10_000) ** 0.5
    assert not torch.equal(found, spectrum.measure(Split(images[:10_000].view(-1, 1, 1, 3)), 3).eigenvalues)
