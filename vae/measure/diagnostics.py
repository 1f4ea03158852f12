"""Measures of collapse: pure functions of tensors, each with its definition and its source.

Symbols: N images, d latent dimensions, q(z|x) = N(mu, diag(sigma^2)) for each image, p(z) = N(0, I) the prior, and q(z)
= (1/N) sum_i q(z|x_i) the aggregate posterior. Everything is in nats. vae.measure.catalogue has the whole table."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from vae.models.posteriors import Posterior

CHUNK = 2**24  # elements of the largest intermediate matrix, in float64 128 MiB


def mu_variance(posterior: Posterior) -> Tensor:
    """Var_x(E[z_j|x]) over the N images (1/N), (d,)."""
    return posterior.mu.var(0, correction=0)


def active_units(posterior: Posterior, threshold: float) -> int:
    """How many dimensions have Var_x(E[z_j|x]) above `threshold`; 0.01 in Burda, Grosse and Salakhutdinov 2016,
    arXiv 1509.00519, section 5. A constant mu, however far from 0, is not active."""
    return int((mu_variance(posterior) > threshold).sum())


def collapsed_fraction(kl: Tensor, epsilons: Tensor, delta: float = 0.01) -> Tensor:
    """(epsilon, delta)-collapse (Lucas et al. 2019, arXiv 1911.02469, definition 1): the fraction of the dimensions
    for which KL(q(z_j|x) || p(z_j)) < epsilon on at least 1 - delta of the images.

    `kl` (N, d) and `epsilons` (E,) give (E,)."""
    below = (kl[:, :, None] < epsilons).double().mean(0)  # (d, E)
    return (below >= 1 - delta).double().mean(0)


class Aggregate(NamedTuple):
    """Measures of the aggregate posterior, each a mean over the drawn codes."""

    mutual_information: float  # I(x; z) under q, at most log N
    marginal_kl: float  # KL(q(z) || p(z)); the two add up to E[KL(q(z|x) || p(z))]


def aggregate_posterior(posterior: Posterior, z: Tensor, index: Tensor) -> Aggregate:
    """Mutual information and marginal KL (Hoffman and Johnson 2016) with q(z) made of all N posteriors.

    `z` (M, d) are draws from the posteriors number `index` (M,). Each draw contributes log q(z|x_i) - log q(z), which
    is never above log N because q(z) >= q(z|x_i) / N: the estimate keeps to its ceiling. Unbiased for x uniform over
    these N images; as an estimate for the whole data distribution it is a lower one, the ceiling says how low."""
    log_conditional = log_normal(z, posterior.mu[index], posterior.log_sigma[index]).sum(1)
    log_marginal = log_aggregate(posterior, z)
    log_prior = log_normal(z, torch.zeros_like(z), torch.zeros_like(z)).sum(1)
    return Aggregate(
        mutual_information=float((log_conditional.double() - log_marginal).mean()),
        marginal_kl=float((log_marginal - log_prior.double()).mean()),
    )


def log_normal(z: Tensor, mu: Tensor, log_sigma: Tensor) -> Tensor:
    """log N(z; mu, sigma^2), elementwise."""
    return -0.5 * ((z - mu) * torch.exp(-log_sigma)).square() - log_sigma - 0.5 * math.log(2 * math.pi)


def log_aggregate(posterior: Posterior, z: Tensor) -> Tensor:
    """log q(z) for codes z (M, d), (M,) in float64: all M x N pairs, a block of codes at a time.

    The squared distances are a matrix product; float64 keeps their digits where sigma is small."""
    mu, precision = posterior.mu.double(), (-2 * posterior.log_sigma.double()).exp()
    constant = -0.5 * (mu.square() * precision).sum(1) - posterior.log_sigma.double().sum(1)
    constant -= 0.5 * mu.shape[1] * math.log(2 * math.pi) + math.log(len(mu))
    features = torch.cat([precision, mu * precision], 1).T  # (2d, N)
    parts = []
    for block in z.double().split(max(1, CHUNK // len(mu))):
        logs = torch.cat([-0.5 * block.square(), block], 1) @ features
        parts.append(torch.logsumexp(logs.add_(constant), 1))
    return torch.cat(parts)


def total_correlation(posterior: Posterior, z: Tensor) -> float:
    """KL(q(z) || prod_j q(z_j)): how far the dimensions of the code depend on each other (Watanabe 1960; Chen et al.
    2018, arXiv 1802.04942). The marginals q(z_j) are mixtures over all N images as well, one dimension at a time."""
    marginals = torch.zeros(len(z), dtype=torch.float64, device=z.device)
    for j in range(z.shape[1]):
        marginals += log_aggregate(Posterior(posterior.mu[:, [j]], posterior.log_sigma[:, [j]]), z[:, [j]])
    return float((log_aggregate(posterior, z) - marginals).mean())


class Gap(NamedTuple):
    """How much worse the reconstruction gets when z is replaced: SSE per image less that with the matched z. Near 0:
    the decoder does not use the code, whatever the KL is."""

    prior: float  # z from p(z)
    shuffled: float  # z of another image


def reconstruction_gap(sse: Tensor, sse_prior: Tensor, sse_shuffled: Tensor) -> Gap:
    """From SSE (N,) with the matched z, with z from the prior, and with another image's z."""
    matched = sse.double().mean()
    return Gap(float(sse_prior.double().mean() - matched), float(sse_shuffled.double().mean() - matched))


def dimension_gaps(decode: Callable[[Tensor], Tensor], images: Tensor, z: Tensor, noise: Tensor) -> Tensor:
    """(d,): the SSE per image that is lost when z_j alone is replaced by noise from its prior. `images` (B, C, H, W),
    `z` and `noise` (B, d)."""

    def sse(codes: Tensor) -> Tensor:
        return (decode(codes) - images).square().flatten(1).sum(1).double().mean()

    matched = sse(z)
    gaps = []
    for j in range(z.shape[1]):
        replaced = z.clone()
        replaced[:, j] = noise[:, j]
        gaps.append(sse(replaced) - matched)
    return torch.stack(gaps)


def decoder_sensitivity(decode: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """(d,): the mean over codes z (B, d) of |d decode / d z_j|, the length of the change of the image (in pixel
    values) for a unit of z_j. Exact. 0: a dead decoder.

    One reverse pass gives J^T u as a function of u, linear in it; one more for each j gives column j of J. Torch's
    forward mode would do the same, but imports torch's compiler."""
    with torch.enable_grad():
        codes = z.detach().requires_grad_()
        images = decode(codes)
        u = torch.zeros_like(images, requires_grad=True)
        (pulled,) = torch.autograd.grad(images, codes, u, create_graph=True)  # J^T u, (B, d)
        directions = pulled.sum(0).unbind()  # the codes are independent: their sum loses nothing
    norms = []
    for direction in directions:
        (column,) = torch.autograd.grad(direction, u, retain_graph=True)
        norms.append(column.flatten(1).norm(dim=1).double().mean())
    return torch.stack(norms)


def iwae_bound(nll: Callable[[Tensor], Tensor], posterior: Posterior, samples: int, rng: torch.Generator) -> Tensor:
    """(B,): the importance-weighted bound log (1/K) sum_k p(x, z_k) / q(z_k|x) on log p(x), z_k from q(z|x) (Burda et
    al. 2016, eq. 8). `nll` maps codes (B, d) to -log p(x|z) (B,). The mean of the weights is taken as they come, in
    log space and float64: memory does not grow with K. K = 1 is an ELBO; larger K are tighter in expectation."""
    total = torch.full((len(posterior.mu),), -torch.inf, dtype=torch.float64, device=posterior.mu.device)
    zero = torch.zeros_like(posterior.mu)
    for _ in range(samples):
        noise = torch.randn(posterior.mu.shape, generator=rng).to(posterior.mu.device)
        z = posterior.sample(noise)
        log_ratio = (log_normal(z, zero, zero) - log_normal(z, posterior.mu, posterior.log_sigma)).double().sum(1)
        total = torch.logaddexp(total, log_ratio - nll(z).double())
    return total - math.log(samples)


def probe_accuracy(train_mu: Tensor, train_labels: Tensor, test_mu: Tensor, test_labels: Tensor) -> float:
    """Accuracy on the test split of a linear classifier (logistic regression on standardised mu) that was fitted on
    the training split: what a linear classifier finds in the code."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200))
    with threadpool_limits(1):  # products this small wait longer for a second thread than they take
        probe.fit(train_mu.double().cpu().numpy(), train_labels.cpu().numpy())
        return float(probe.score(test_mu.double().cpu().numpy(), test_labels.cpu().numpy()))
