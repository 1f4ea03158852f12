"""Each measure against an independent source and on constructed cases with known answers."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import binomtest, ttest_rel
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal, Normal
from torch.utils.checkpoint import checkpoint

from vae.measure import diagnostics
from vae.models.posteriors import Posterior


def posterior(count: int, dims: int, seed: int = 0) -> tuple[Posterior, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    q = Posterior(2 * torch.randn(count, dims, generator=rng), 0.5 * torch.randn(count, dims, generator=rng) - 0.5)
    return q, q.sample(torch.randn(count, dims, generator=rng))


def collapsed(count: int, dims: int) -> tuple[Posterior, Tensor]:
    q = Posterior(torch.zeros(count, dims), torch.zeros(count, dims))
    return q, torch.randn(count, dims, generator=torch.Generator().manual_seed(0))


def test_active_units_have_a_mean_that_varies() -> None:
    mu = torch.randn(1000, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 0.2, 0.09, 0.0])
    q = Posterior(mu + 7, torch.zeros_like(mu))
    assert diagnostics.active_units(q, 0.01) == 2
    assert diagnostics.mu_variance(q).numpy() == pytest.approx(mu.numpy().var(0), rel=1e-4)


def test_a_threshold_of_zero_would_count_every_unit() -> None:
    """Seen elsewhere: with threshold 0 rounding alone makes all units active."""
    noise = 1e-4 * torch.randn(1000, 5, generator=torch.Generator().manual_seed(0))
    q = Posterior(noise, torch.zeros_like(noise))
    assert diagnostics.active_units(q, 0.0) == 5
    assert diagnostics.active_units(q, 0.01) == 0


def test_constant_mean_has_kl_but_no_active_unit_and_no_information() -> None:
    q = Posterior(torch.full((200, 3), 2.0), torch.zeros(200, 3))
    z = q.sample(torch.randn(200, 3, generator=torch.Generator().manual_seed(0)))
    assert float(q.kl().sum(1).mean()) == pytest.approx(6)
    assert diagnostics.active_units(q, 0.01) == 0
    found = diagnostics.aggregate_posterior(q, z, torch.arange(200))
    assert found.mutual_information == pytest.approx(0, abs=1e-6)
    assert found.marginal_kl == pytest.approx(6, abs=0.6)  # all of the KL is there; 200 draws


def test_full_collapse_has_no_information() -> None:
    """Seen elsewhere: adding the log-weights before the sum over dimensions reports 37.3 nats here."""
    q, z = collapsed(64, 10)
    found = diagnostics.aggregate_posterior(q, z, torch.arange(64))
    assert found.mutual_information == pytest.approx(0, abs=1e-6)
    assert found.marginal_kl == pytest.approx(0, abs=1e-6)
    assert diagnostics.total_correlation(q, z) == pytest.approx(0, abs=1e-6)
    assert diagnostics.active_units(q, 0.01) == 0


def test_codes_far_apart_carry_log_n_and_never_more() -> None:
    q = Posterior(20 * torch.eye(50), torch.zeros(50, 50))
    z = q.sample(torch.randn(50, 50, generator=torch.Generator().manual_seed(0)))
    found = diagnostics.aggregate_posterior(q, z, torch.arange(50))
    assert found.mutual_information == pytest.approx(math.log(50), abs=1e-6)
    tiny = Posterior(torch.randn(300, 8, generator=torch.Generator().manual_seed(1)), torch.full((300, 8), -9.0))
    z = tiny.sample(torch.randn(300, 8, generator=torch.Generator().manual_seed(2)))
    found = diagnostics.aggregate_posterior(tiny, z, torch.arange(300))
    assert found.mutual_information <= math.log(300) + 1e-9
    assert found.mutual_information == pytest.approx(math.log(300), abs=1e-6)


def test_aggregate_density_against_torch_distributions_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    q, z = posterior(97, 5)
    parts = Independent(Normal(q.mu.double(), q.log_sigma.double().exp()), 1)
    mixture = MixtureSameFamily(Categorical(torch.ones(97, dtype=torch.float64)), parts)
    expected = mixture.log_prob(z.double())
    assert torch.allclose(diagnostics.log_aggregate(q, z), expected, rtol=1e-10, atol=1e-10)
    monkeypatch.setattr(diagnostics, "CHUNK", 1000)  # ten codes at a time
    assert torch.allclose(diagnostics.log_aggregate(q, z), expected, rtol=1e-10, atol=1e-10)


def test_total_correlation_against_scipy() -> None:
    q, z = posterior(40, 3)
    mu, sigma, codes = q.mu.double().numpy(), q.log_sigma.double().exp().numpy(), z.double().numpy()
    logs = -0.5 * ((codes[:, None] - mu) / sigma) ** 2 - np.log(sigma) - 0.5 * np.log(2 * np.pi)  # (M, N, d)
    joint = logsumexp(logs.sum(2), axis=1) - np.log(40)
    marginals = (logsumexp(logs, axis=1) - np.log(40)).sum(1)
    assert diagnostics.total_correlation(q, z) == pytest.approx((joint - marginals).mean(), rel=1e-9)


def test_information_and_marginal_kl_add_up_to_the_kl() -> None:
    q, _ = posterior(500, 3)
    index = torch.arange(500).repeat(20)
    z = Posterior(q.mu[index], q.log_sigma[index]).sample(
        torch.randn(10_000, 3, generator=torch.Generator().manual_seed(1))
    )
    found = diagnostics.aggregate_posterior(q, z, index)
    assert found.mutual_information + found.marginal_kl == pytest.approx(float(q.kl().sum(1).mean()), rel=0.02)


def linear_gaussian(count: int, eigenvalues: list[float], t: float) -> tuple[Posterior, Tensor]:
    """Data N(0, diag(eigenvalues)) and the optimal linear encoder for beta = 1, sigma^2 = t."""
    rng = torch.Generator().manual_seed(0)
    values = torch.tensor(eigenvalues)
    x = torch.randn(count, len(eigenvalues), generator=rng) * values.sqrt()
    return Posterior(x * (values - t).sqrt() / values, (0.5 * (t / values).log()).expand(count, -1)), x


def test_on_gaussian_data_information_is_the_kl() -> None:
    """q(z) is then the prior itself, so that nothing is left for the marginal KL."""
    q, _ = linear_gaussian(4000, [4.0, 2.0], 1.0)
    z = q.sample(torch.randn(4000, 2, generator=torch.Generator().manual_seed(1)))
    found = diagnostics.aggregate_posterior(q, z, torch.arange(4000))
    exact = 0.5 * (math.log(4) + math.log(2))
    assert found.mutual_information == pytest.approx(exact, rel=0.03)
    assert found.marginal_kl == pytest.approx(0, abs=0.02)
    assert diagnostics.mu_variance(q).tolist() == pytest.approx([1 - 1 / 4, 1 - 1 / 2], rel=0.05)  # 1 - t / lambda


def test_iwae_bound_has_no_variance_at_the_linear_optimum() -> None:
    """There q(z|x) is the exact posterior: every K, and every draw, gives log p(x)."""
    eigenvalues, t = [4.0, 2.0], 1.0
    q, x = linear_gaussian(50, eigenvalues, t)
    w = torch.diag((torch.tensor(eigenvalues) - t).sqrt())

    def nll(z: Tensor) -> Tensor:
        return -Independent(Normal(z @ w.T, math.sqrt(t)), 1).log_prob(x)

    exact = MultivariateNormal(torch.zeros(2), torch.diag(torch.tensor(eigenvalues))).log_prob(x)
    for samples in (1, 2, 50):
        found = diagnostics.iwae_bound(nll, q, samples, torch.Generator().manual_seed(samples))
        assert torch.allclose(found.bound, exact.double(), atol=1e-5)
        assert torch.allclose(found.elbo, exact.double(), atol=1e-5)


def test_iwae_bound_against_direct_evaluation_and_rises_with_k() -> None:
    q, _ = posterior(20, 2)
    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(5))

    def nll(z: Tensor) -> Tensor:
        return -Independent(Normal(z.tanh(), 0.5), 1).log_prob(x)

    rng = torch.Generator().manual_seed(9)
    z = torch.stack([q.sample(torch.randn(20, 2, generator=rng)) for _ in range(30)])
    prior = Independent(Normal(torch.zeros(2), torch.ones(2)), 1)
    encoder = Independent(Normal(q.mu, q.log_sigma.exp()), 1)
    weights = torch.stack([-nll(codes) for codes in z]) + prior.log_prob(z) - encoder.log_prob(z)
    expected = logsumexp(weights.double().numpy(), axis=0) - math.log(30)
    found = diagnostics.iwae_bound(nll, q, 30, torch.Generator().manual_seed(9))
    assert found.bound.numpy() == pytest.approx(expected, rel=1e-5)
    assert found.elbo.numpy() == pytest.approx(weights.double().mean(0).numpy(), rel=1e-5)  # of all draws
    bounds = [diagnostics.iwae_bound(nll, q, k, torch.Generator().manual_seed(3)).bound for k in (1, 10, 1000)]
    means = [float(bound.mean()) for bound in bounds]
    assert means[0] < means[1] < means[2]


def test_collapsed_fraction() -> None:
    kl = torch.zeros(100, 4)
    kl[:, 0] = 1.0  # never small
    kl[:1, 1] = 1.0  # small on 99 of 100 images: collapsed at delta = 0.01
    kl[:2, 2] = 1.0  # on 98: not
    epsilons = torch.tensor([0.0, 0.01, 2.0])
    assert diagnostics.collapsed_fraction(kl, epsilons, delta=0.01).tolist() == pytest.approx([0, 0.5, 1])


def decode(z: Tensor) -> Tensor:
    """A decoder that reads z_0 twice as strongly as z_1 and never z_2; 2 x 2 images."""
    return torch.stack([2 * z[:, 0], z[:, 1], torch.zeros_like(z[:, 0]), torch.ones_like(z[:, 0])], 1).view(-1, 1, 2, 2)


def test_decoder_sensitivity_is_the_length_of_the_jacobian_s_columns() -> None:
    z = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    assert diagnostics.decoder_sensitivity(decode, z).tolist() == pytest.approx([2, 1, 0])

    def curved(z: Tensor) -> Tensor:
        return decode(z).sin()

    jacobian = torch.autograd.functional.jacobian(lambda z: curved(z).flatten(1).sum(0), z)  # (pixels, B, d)
    expected = jacobian.norm(dim=0).mean(0)
    assert diagnostics.decoder_sensitivity(curved, z).tolist() == pytest.approx(expected.tolist(), rel=1e-5)


class Once(Function):
    """As a compiled network: its gradient has none."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        return decode(z)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> Tensor:
        return torch.zeros(len(given), 3)


def exhausted(message: str) -> Callable[[Tensor], Tensor]:
    def backward(given: Tensor) -> Tensor:
        raise RuntimeError(message)

    def failing(z: Tensor) -> Tensor:
        images = decode(z)
        images.register_hook(backward)
        return images

    return failing


def test_a_decoder_that_cannot_be_differentiated_twice_has_no_sensitivity() -> None:
    z = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    assert diagnostics.decoder_sensitivity(Once.apply, z) is None
    assert diagnostics.decoder_sensitivity(lambda codes: checkpoint(decode, codes, use_reentrant=True), z) is None
    assert diagnostics.decoder_sensitivity(exhausted("double backward"), z) is None
    with pytest.raises(RuntimeError, match="memory"):
        diagnostics.decoder_sensitivity(exhausted("DefaultCPUAllocator: can't allocate memory"), z)


def test_dimension_gaps_find_the_dimension_that_is_not_read() -> None:
    rng = torch.Generator().manual_seed(0)
    z, noise = torch.randn(20_000, 3, generator=rng), torch.randn(20_000, 3, generator=rng)
    images = decode(z)

    def nll(codes: Tensor) -> Tensor:
        return (decode(codes) - images).square().flatten(1).sum(1)

    gaps = diagnostics.dimension_gaps(nll, z, noise)
    assert gaps.tolist() == pytest.approx([4 * 2, 2, 0], rel=0.05)  # E (z - noise)^2 = 2


def test_decoder_that_has_no_codes_in_its_graph() -> None:
    constant = torch.zeros(7, 1, 2, 2, requires_grad=True)
    z = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    assert diagnostics.decoder_sensitivity(lambda codes: constant * 1, z).tolist() == [0, 0, 0]


def test_swap_gap_against_scipy_and_the_closed_form() -> None:
    """The mean and the error of a paired difference are scipy's; at the optimum of a linear VAE the gap is
    sum (lambda_i - t) / sigma^2: 1 + 3 here."""
    eigenvalues, t = [4.0, 2.0], 1.0
    q, x = linear_gaussian(100_000, eigenvalues, t)
    w = torch.diag((torch.tensor(eigenvalues) - t).sqrt())
    z = q.sample(torch.randn(q.mu.shape, generator=torch.Generator().manual_seed(1)))

    def nll(codes: Tensor) -> Tensor:
        return -Independent(Normal(codes @ w.T, math.sqrt(t)), 1).log_prob(x)

    own, other = nll(z), nll(z.roll(1, 0))
    found = diagnostics.swap_gap(own, other)
    result = ttest_rel(other.numpy(), own.numpy())
    low, high = result.confidence_interval(math.erf(1 / math.sqrt(2)))  # one standard error
    assert found.mean == pytest.approx((low + high) / 2, rel=1e-4)
    assert found.error == pytest.approx((high - low) / 2, rel=1e-3)
    assert found.mean == pytest.approx(4, abs=4 * found.error)
    assert diagnostics.swap_gap(own, own) == (0, 0)


@pytest.mark.parametrize(("above", "total"), [(0, 5), (3, 5), (10, 10), (5, 10), (520, 1000), (5100, 10_000)])
def test_the_sign_test_is_scipy_s(above: int, total: int) -> None:
    differences = torch.tensor([0.1] * above + ([0.0] + [-3.0] * total)[: total - above])
    expected = binomtest(above, total, alternative="greater").pvalue
    assert diagnostics.sign_test(differences) == pytest.approx(expected, rel=1e-9)


def test_sigma_ratio_is_the_largest_of_the_active_dimensions() -> None:
    mu = torch.tensor([[1.0, 10.0, 0.0], [-1.0, -10.0, 0.0]])
    sigma = torch.tensor([[0.2, 0.5, 1.0], [0.4, 0.5, 1.0]])
    q = Posterior(mu, sigma.log())
    assert diagnostics.sigma_ratio(q, torch.tensor([True, True, False])) == pytest.approx(0.3)
    assert diagnostics.sigma_ratio(q, torch.tensor([False, False, True])) == math.inf  # mu does not vary


def test_reconstruction_gap_of_a_dead_decoder_is_zero() -> None:
    images = torch.rand(10, 4)
    sse = (images - 0.3).square().sum(1)
    assert diagnostics.reconstruction_gap(sse, sse) == 0
    assert diagnostics.reconstruction_gap(sse, sse + 2) == pytest.approx(2, rel=1e-6)
