"""Measures of collapse: pure functions of tensors, each with its definition and its source.

Symbols: N images, d latent dimensions, q(z|x) = N(mu, diag(sigma^2)) for each image, p(z) = N(0, I) the prior, and q(z)
= (1/N) sum_i q(z|x_i) the aggregate posterior. Everything is in nats. vae.measure.catalogue has the whole table."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vae.models.posteriors import Posterior
from vae.runtime.machine import is_out_of_memory

CEILING_MARGIN = 1.0  # nats below log N: closer, a mutual information made of N images is too low
CHUNK = 2**24  # elements of the largest intermediate matrix, in float64 128 MiB
CACHED = 2**17  # of them that are worked on at a time, so that they stay in the cache


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
    mutual_information_error: float  # standard errors over the draws
    marginal_kl_error: float


def aggregate_posterior(posterior: Posterior, z: Tensor, index: Tensor) -> Aggregate:
    """Mutual information and marginal KL (Hoffman and Johnson 2016) with q(z) made of all N posteriors.

    `z` (M, d) are draws from the posteriors number `index` (M,). Each draw contributes log q(z|x_i) - log q(z), which
    is never above log N because q(z) >= q(z|x_i) / N: the estimate keeps to its ceiling. Unbiased for x uniform over
    these N images; as an estimate for the whole data distribution it is a lower one, the ceiling says how low."""
    log_conditional = log_normal(z, posterior.mu[index], posterior.log_sigma[index]).sum(1)
    log_marginal = log_aggregate(posterior, z)
    log_prior = log_normal(z, torch.zeros_like(z), torch.zeros_like(z)).sum(1)
    information, marginal = paired(log_conditional.double() - log_marginal), paired(log_marginal - log_prior.double())
    return Aggregate(information.mean, marginal.mean, information.error, marginal.error)


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
        parts += [torch.logsumexp(rows.add_(constant), 1) for rows in logs.split(max(1, CACHED // len(mu)))]
    return torch.cat(parts)


def total_correlation(posterior: Posterior, z: Tensor) -> float:
    """KL(q(z) || prod_j q(z_j)): how far the dimensions of the code depend on each other (Watanabe 1960; Chen et al.
    2018, arXiv 1802.04942). The marginals q(z_j) are mixtures over all N images as well, one dimension at a time."""
    marginals = torch.zeros(len(z), dtype=torch.float64, device=z.device)
    for j in range(z.shape[1]):
        marginals += log_aggregate(Posterior(posterior.mu[:, [j]], posterior.log_sigma[:, [j]]), z[:, [j]])
    return float((log_aggregate(posterior, z) - marginals).mean())


def reconstruction_gap(sse: Tensor, sse_replaced: Tensor) -> float:
    """How much worse the reconstruction gets when z is replaced, by one from p(z) or by another image's: SSE (N,) per
    image less that with the matched z. Near 0: the decoder does not use the code, whatever the KL is."""
    return float(sse_replaced.double().mean() - sse.double().mean())


class Paired(NamedTuple):
    """A mean of differences that were taken image by image."""

    mean: float
    error: float  # standard error of the mean


def swap_gap(nll: Tensor, nll_shuffled: Tensor) -> Paired:
    """What log p(x|z) loses when an image gets another one's code, from -log p (N,) with its own and with that one's:
    0 where the decoder does not read the code. Nats per image."""
    return paired(nll_shuffled.double() - nll.double())


def paired(differences: Tensor) -> Paired:
    """Of differences (N,) that were taken image by image."""
    return Paired(float(differences.mean()), float(differences.std() / math.sqrt(len(differences))))


def sign_test(differences: Tensor) -> float:
    """The chance that as many of (N,) are above 0, or more, if each were with probability 1/2 (Arbuthnot 1710)."""
    total, above = len(differences), int((differences > 0).sum())
    count = torch.arange(above, total + 1, dtype=torch.float64)
    ways = math.lgamma(total + 1) - torch.lgamma(count + 1) - torch.lgamma(total - count + 1)
    return min(1.0, float((ways - total * math.log(2)).logsumexp(0).exp()))


def dimension_gaps(
    nll: Callable[[Tensor], Tensor], z: Tensor, noise: Tensor, groups: Sequence[Tensor] | None = None
) -> Tensor:
    """(d,): what log p(x|z) loses when z_j alone is replaced by noise from its prior, nats per image. `nll` maps codes
    (B, d) to -log p(x|z) (B,); `z` and `noise` (B, d). `groups`: places of dimensions that are replaced together, such
    as the channels of a map; then one number a group."""
    matched = nll(z).double()
    gaps = []
    for j in range(z.shape[1]) if groups is None else groups:
        replaced = z.clone()
        replaced[:, j] = noise[:, j]
        gaps.append((nll(replaced).double() - matched).mean())
    return torch.stack(gaps)


def sigma_ratio(posterior: Posterior, active: Tensor) -> float:
    """The largest, over the `active` (d,) dimensions, of mean sigma_j / standard deviation of mu_j: how far the codes
    of two images overlap there. Infinite where mu does not vary."""
    sigma = posterior.log_sigma.double().exp().mean(0)
    spread = posterior.mu.double().std(0, correction=0)
    return float(torch.where(spread > 0, sigma / spread, torch.inf)[active.to(sigma.device)].max())


def decoder_sensitivity(decode: Callable[[Tensor], Tensor], z: Tensor) -> Tensor | None:
    """(d,): the mean over codes z (B, d) of |d decode / d z_j|, the length of the change of the image (in pixel
    values) for a unit of z_j. Exact. 0: a dead decoder. None where `decode` cannot be differentiated twice.

    One reverse pass gives J^T u as a function of u, linear in it; one more for each j gives column j of J. Torch's
    forward mode would do the same, but imports torch's compiler."""
    with torch.enable_grad():
        codes = z.detach().requires_grad_()
        images = decode(codes)
        if not images.requires_grad:  # it works without gradients inside
            return None
        u = torch.zeros_like(images, requires_grad=True)
        norms = []
        try:
            (pulled,) = torch.autograd.grad(images, codes, u, create_graph=True, allow_unused=True)  # J^T u, (B, d)
            if pulled is None:  # nothing that the decoder does depends on its codes
                return torch.zeros(z.shape[1], dtype=torch.float64, device=z.device)
            for direction in pulled.sum(0).unbind():  # the codes are independent: their sum loses nothing
                (column,) = torch.autograd.grad(direction, u, retain_graph=True)
                norms.append(column.flatten(1).norm(dim=1).double().mean())
        except RuntimeError as error:  # fused attention, a compiled decoder and a checkpoint each say so in other words
            if is_out_of_memory(error):
                raise
            return None
    return torch.stack(norms)


class Importance(NamedTuple):
    """Bounds on log p(x) by draws from q(z|x), (B,) each."""

    bound: Tensor  # log (1/K) sum_k p(x, z_k) / q(z_k|x)
    elbo: Tensor  # the mean of the K logs


def iwae_bound(nll: Callable[[Tensor], Tensor], posterior: Posterior, samples: int, rng: torch.Generator) -> Importance:
    """The importance-weighted bound with K = `samples` draws (Burda et al. 2016, eq. 8), and the ELBO by the same
    draws. `nll` maps codes (B, d) to -log p(x|z) (B,). The weights are taken as they come, in log space and float64:
    memory does not grow with K. Larger K are tighter in expectation."""
    shape, device = posterior.mu.shape, posterior.mu.device
    total = torch.full(shape[:1], -torch.inf, dtype=torch.float64, device=device)
    mean = torch.zeros(shape[:1], dtype=torch.float64, device=device)
    zero = torch.zeros_like(posterior.mu)
    for _ in range(samples):
        z = posterior.sample(torch.randn(shape, generator=rng).to(device))
        log_ratio = (log_normal(z, zero, zero) - log_normal(z, posterior.mu, posterior.log_sigma)).double().sum(1)
        log_weight = log_ratio - nll(z).double()
        total = torch.logaddexp(total, log_weight)
        mean += log_weight / samples
    return Importance(total - math.log(samples), mean)
