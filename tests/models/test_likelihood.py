import math
import re

import numpy as np
import pytest
import torch
from conftest import composed
from scipy import integrate, stats
from torch.distributions import Bernoulli, Categorical, ContinuousBernoulli, Independent, Normal

from vae.models import likelihood as likelihoods
from vae.models import links
from vae.models.likelihood import Likelihood

SHAPE = (1, 4, 3)
PIXELS = 12


def build(*overrides: str, output: str | None = None) -> Likelihood:
    return likelihoods.build(composed(*overrides).objective, output, SHAPE)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(7, *SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def raw() -> torch.Tensor:
    return torch.randn(7, *SHAPE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("overrides", "sigma2"),
    [
        (["objective=sse"], 0.5),
        (["objective=gaussian", "objective.sigma2=0.07"], 0.07),
        (["objective=pixel_mse"], PIXELS / 2),
    ],
)
@pytest.mark.parametrize("output", ["linear", "sigmoid"])
def test_gaussian_kinds(
    overrides: list[str], sigma2: float, output: str, images: torch.Tensor, raw: torch.Tensor
) -> None:
    likelihood = build(*overrides, output=output)
    mean = torch.sigmoid(raw) if output == "sigmoid" else raw
    expected = -Independent(Normal(mean, math.sqrt(sigma2)), 3).log_prob(images)
    assert torch.allclose(likelihood.nll(images, raw), expected, rtol=1e-5)
    # The loss differs from it by a constant.
    difference = likelihood(images, raw).loss - expected.mean()
    assert float(difference) == pytest.approx(-0.5 * PIXELS * math.log(2 * math.pi * sigma2), rel=1e-4)
    assert likelihood.effective_t(2.0) == pytest.approx(2 * sigma2)


def test_what_sse_and_pixel_mse_minimise(images: torch.Tensor, raw: torch.Tensor) -> None:
    error = (raw - images).square()
    assert float(build("objective=sse")(images, raw).loss) == pytest.approx(float(error.flatten(1).sum(1).mean()))
    assert float(build("objective=pixel_mse")(images, raw).loss) == pytest.approx(float(error.mean()))


def test_pixel_mse_on_mnist_has_t_392() -> None:
    likelihood = likelihoods.build(composed("objective=pixel_mse").objective, None, (1, 28, 28))
    assert likelihood.effective_t(1.0) == 392


def test_optimal_gaussian_is_the_maximum_over_sigma(images: torch.Tensor, raw: torch.Tensor) -> None:
    loss = float(build("objective=optimal_gaussian")(images, raw).loss)
    losses = [
        -float(Normal(raw, sigma).log_prob(images).flatten(1).sum(1).mean()) for sigma in torch.linspace(0.3, 4, 2000)
    ]
    assert loss == pytest.approx(min(losses), rel=1e-5)
    assert loss <= min(losses) + 1e-4


def test_optimal_gaussian_evaluates_with_the_training_variance(images: torch.Tensor, raw: torch.Tensor) -> None:
    likelihood = build("objective=optimal_gaussian")
    trained_on = float((raw - images).square().mean())
    for _ in range(3):
        likelihood(images, raw)
    assert float(likelihood.sigma2()) == pytest.approx(trained_on, rel=1e-5)  # no lean towards the start
    likelihood.eval()
    likelihood(images, 100 * raw)
    assert float(likelihood.sigma2()) == pytest.approx(trained_on, rel=1e-5)
    expected = -Independent(Normal(raw, math.sqrt(trained_on)), 3).log_prob(images)
    assert torch.allclose(likelihood.nll(images, raw), expected, rtol=1e-4)


def test_optimal_gaussian_survives_a_perfect_fit(images: torch.Tensor) -> None:
    perfect = images.clone().requires_grad_()
    loss = build("objective=optimal_gaussian")(images, perfect).loss
    loss.backward()
    assert loss.isfinite()
    assert perfect.grad is not None
    assert perfect.grad.isfinite().all()


def test_optimal_gaussian_below_its_floor_is_the_gaussian_of_that_variance(images: torch.Tensor) -> None:
    """There the variance is given, and the error still has its gradient."""
    near = (images + 1e-4 * torch.randn(images.shape, generator=torch.Generator().manual_seed(1))).requires_grad_()
    likelihood = build("objective=optimal_gaussian")
    (own,) = torch.autograd.grad(likelihood(images, near).loss, near)
    floor = math.sqrt(likelihoods.OptimalGaussian.FLOOR)
    nll = -Independent(Normal(near, floor), 3).log_prob(images).mean()
    (expected,) = torch.autograd.grad(nll, near)
    assert float(likelihood(images, near).loss.detach()) == pytest.approx(float(nll.detach()), rel=1e-5)
    assert torch.allclose(own, expected, rtol=1e-4)


def test_bernoulli_against_torch_distributions(raw: torch.Tensor, images: torch.Tensor) -> None:
    binary = (images > 0.5).float()
    expected = -Independent(Bernoulli(logits=raw), 3).log_prob(binary)
    assert torch.allclose(build("objective=bernoulli").nll(binary, raw), expected, rtol=1e-5)


def test_bernoulli_floor_on_grey_pixels_is_their_entropy(images: torch.Tensor) -> None:
    best = build("objective=bernoulli").nll(images, torch.logit(images))
    assert torch.allclose(best, Bernoulli(images).entropy().flatten(1).sum(1), rtol=1e-4)


def test_continuous_bernoulli_against_torch_distributions(raw: torch.Tensor, images: torch.Tensor) -> None:
    likelihood = build("objective=continuous_bernoulli")
    expected = -Independent(ContinuousBernoulli(logits=raw), 3).log_prob(images)
    assert torch.allclose(likelihood.nll(images, raw), expected, rtol=1e-5)
    mean = ContinuousBernoulli(logits=raw).mean
    assert torch.allclose(likelihood.squared_error(images, raw), (mean - images).square().flatten(1).sum(1), rtol=1e-4)


@pytest.mark.parametrize("logit", [-40.0, -2.0, -0.11, -0.09, 0.0, 1e-3, 0.5, 7.0])
def test_continuous_bernoulli_integrates_to_one(logit: float) -> None:
    likelihood = likelihoods.build(composed("objective=continuous_bernoulli").objective, None, (1, 1, 1))
    raw = torch.full((1, 1, 1, 1), logit, dtype=torch.float64)

    def density(x: float) -> float:
        return math.exp(-float(likelihood.nll(torch.full_like(raw, x), raw)))

    assert integrate.quad(density, 0, 1)[0] == pytest.approx(1, rel=1e-5)


def test_continuous_bernoulli_has_gradients_everywhere() -> None:
    raw = torch.tensor([-200.0, -1e-8, 0.0, 1e-8, 0.0999, 0.1001, 200.0], requires_grad=True)
    likelihoods.continuous_bernoulli_log_constant(raw).sum().backward()
    assert raw.grad is not None
    assert raw.grad.isfinite().all()
    assert float(raw.grad[4]) == pytest.approx(float(raw.grad[5]), rel=1e-2)


@pytest.mark.parametrize(("kind", "density"), [("sse", True), ("bernoulli", False), ("continuous_bernoulli", True)])
def test_what_is_a_density(kind: str, density: bool) -> None:
    assert build(f"objective={kind}").is_density is density


@pytest.mark.parametrize("kind", ["bernoulli", "continuous_bernoulli"])
def test_no_scale_where_there_is_none(kind: str) -> None:
    assert build(f"objective={kind}").effective_t(1.0) is None


def test_the_raw_output_of_a_mean() -> None:
    """Through the link it is the mean again, and finite at the ends of a sigmoid's range."""
    mean = torch.tensor([0.0, 0.003, 0.4, 0.5, 0.97, 1.0], dtype=torch.float64)
    for objective, output in (("sse", None), ("sse", "sigmoid"), ("bernoulli", None)):
        likelihood = likelihoods.build(composed(f"objective={objective}").objective, output, (1, 2, 3))
        raw = likelihood.raw_of(mean)
        assert raw is not None
        assert raw.isfinite().all()
        assert likelihood.link(raw).numpy() == pytest.approx(mean.numpy(), abs=1e-8)
    assert build("objective=continuous_bernoulli").raw_of(mean) is None
    logits = links.continuous_bernoulli_logit(mean[1:-1])
    assert links.continuous_bernoulli_mean(logits).numpy() == pytest.approx(mean[1:-1].numpy(), rel=1e-9)


LEVELS = torch.arange(256) / 255


@pytest.mark.parametrize("location", [0.0, 0.003, 0.4, 1.0])
@pytest.mark.parametrize("log_scale", [-6.5, -3.0, 0.0])
def test_discretised_logistic_against_scipy(location: float, log_scale: float) -> None:
    """What scipy's logistic distribution has within half a level, and beyond the ends all of it."""
    likelihood = build("objective=discretised_logistic")
    raw_location = torch.logit(torch.tensor(location), eps=1e-6)
    raw = torch.tensor([raw_location, log_scale + 2]).reshape(1, 2, 1, 1).expand(256, -1, -1, -1)
    edges = (np.arange(257) - 0.5) / 255
    edges[0], edges[-1] = -np.inf, np.inf
    reference = stats.logistic(loc=float(torch.sigmoid(raw_location)), scale=math.exp(log_scale))
    below, above = reference.cdf(edges), reference.sf(edges)
    expected = np.where(edges[1:] > location, above[:-1] - above[1:], below[1:] - below[:-1])
    found = likelihood.nll(LEVELS.reshape(-1, 1, 1, 1), raw).double().neg().exp().numpy()
    assert found.sum() == pytest.approx(1, abs=1e-4)
    assert found == pytest.approx(expected, rel=2e-3, abs=1e-7)


def test_categorical_against_torch() -> None:
    likelihood = build("objective=categorical")
    raw = torch.randn(5, 256 * 3, 2, 4, generator=torch.Generator().manual_seed(0))
    levels = torch.randint(256, (5, 3, 2, 4), generator=torch.Generator().manual_seed(1))
    reference = Categorical(logits=raw.unflatten(1, (256, 3)).movedim(1, -1))
    expected = -reference.log_prob(levels).flatten(1).sum(1)
    assert torch.allclose(likelihood.nll(levels / 255, raw), expected, rtol=1e-5)
    mean = (reference.probs * LEVELS).sum(-1)
    assert torch.allclose(likelihood.link(raw), mean, atol=1e-5)


DENSITIES = ["bernoulli", "continuous_bernoulli", "sse", "gaussian", "categorical", "discretised_logistic"]


@pytest.mark.parametrize("objective", DENSITIES)
def test_quantiles_are_draws_from_the_likelihood(objective: str) -> None:
    """Of evenly spaced noise, what they average is the mean image; and the larger the noise, the larger the value."""
    likelihood = build(f"objective={objective}")
    raw = torch.randn(1, likelihood.outputs * 3, 2, 4, generator=torch.Generator().manual_seed(0))
    count = 4000
    noise = ((torch.arange(count) + 0.5) / count).reshape(-1, 1, 1, 1).expand(-1, 3, 2, 4)
    values = likelihood.quantile(raw.expand(count, -1, -1, -1), noise)
    assert (values.diff(dim=0) >= -1e-6).all()
    if objective != "discretised_logistic":  # its link is the location, not the mean of what is cut off
        assert torch.allclose(values.mean(0), likelihood.link(raw)[0], atol=2e-3)
    assert likelihood.refuses(values) is None


def test_continuous_bernoulli_quantiles_against_torch() -> None:
    logits = torch.tensor([-12.0, -3.0, -1e-4, 0.0, 1e-4, 0.7, 12.0]).reshape(1, 1, 1, -1)
    noise = torch.tensor([0.01, 0.3, 0.9])
    likelihood = build("objective=continuous_bernoulli")
    for u in noise:
        found = likelihood.quantile(logits, u.expand_as(logits))
        expected = ContinuousBernoulli(logits=logits.double()).icdf(u.double().expand_as(logits))
        assert torch.allclose(found.double(), expected, atol=2e-5)


@pytest.mark.parametrize(
    ("objective", "images", "said"),
    [
        ("bernoulli", [0.0, 1.5], r"must be in \[0, 1\]"),
        ("continuous_bernoulli", [-0.1, 1.0], r"must be in \[0, 1\]"),
        ("categorical", [0.0, 0.3333], "between the 256 grey levels"),
        ("discretised_logistic", [0.0, 7.0], r"must be in \[0, 1\]"),
        ("bernoulli", [0.0, 0.3333], None),
        ("categorical", [0.0, 0.2, 1.0], None),
        ("sse", [-3.0, 12.0], None),
    ],
)
def test_images_that_have_no_likelihood(objective: str, images: list[float], said: str | None) -> None:
    found = build(f"objective={objective}").refuses(torch.tensor(images))
    assert found is None if said is None else found is not None and re.search(said, found)
