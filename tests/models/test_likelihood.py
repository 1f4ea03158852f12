import math

import pytest
import torch
from conftest import composed
from scipy import integrate
from torch.distributions import Bernoulli, ContinuousBernoulli, Independent, Normal

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
