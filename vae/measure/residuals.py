"""What a trained decoder without a code leaves over, and whether a code would pay for it.

With x_j | x_<j an exponential family of natural parameter eta_j and log-partition A_j, let r_j = x_j - E(x_j | x_<j) be
the residuals of the decoder without a code, S their covariance and Lambda = diag(E A_j''), the mean of what their
variances should be. Let a code z enter as eta_j + w_j z, with small w. To second order the loss falls by
(w' S w / beta - w' Lambda w) / 2: a code pays if and only if an eigenvalue of Lambda^-1/2 S Lambda^-1/2 lies above the
KL weight beta, and it then carries log(eigenvalue / beta) / 2 nats. Without pixels to see, this is the rule of
vae.measure.prediction. A decoder that is right has S = Lambda: the residuals of different pixels do not correlate, all
eigenvalues are 1, and beta = 1 is the edge."""

import torch
from torch import Tensor

from vae.data.split import Split
from vae.measure import spectrum as spectra
from vae.models.likelihood import Likelihood
from vae.models.vae import VAE
from vae.runtime.rng import generator

MAX_VALUES = 2**27  # residuals in memory; of more images a random sample is taken


@torch.no_grad()
def eigenvalues(
    model: VAE, likelihood: Likelihood, split: Split, batch_size: int, count: int, seed: int
) -> Tensor | None:
    """The `count` largest (or fewer), descending, float64. The directions are found in one half of the images and
    measured in the other, both ways round: so they lean to too little, where those of a sample covariance would be
    above 1 for any decoder. None where the likelihood has no curvature, or there are fewer than four images."""
    if len(split) < 4:
        return None
    rng = generator(seed, "residuals")
    total = min(len(split), max(4, MAX_VALUES // split.images[0].numel()))
    order = torch.randperm(len(split), generator=rng)[:total]
    model.eval(), likelihood.eval()
    residuals, curvature = [], torch.zeros(split.images[0].numel(), dtype=torch.float64)
    for rows in order.split(batch_size):
        images = split.batch(rows)
        mean = model.link(model.raw(torch.zeros(len(rows), model.latent_dim, device=images.device), images))
        own = _variances(likelihood, mean)
        if own is None:
            return None
        curvature += own.double().flatten(1).sum(0).cpu() / total
        residuals.append((images - mean).flatten(1).cpu())
    rows = torch.cat(residuals)
    # Of pixels that are lit or not: where less than one event is expected in all images there is nothing to measure.
    min_curvature = 1 / total if likelihood.sigma2() is None else 0.0
    scale = torch.where(curvature > min_curvature, curvature.clamp(min=1e-300).rsqrt(), 0.0)
    halves = rows[: total // 2], rows[total // 2 :]
    found = [_along(first, second, scale, count) for first, second in (halves, halves[::-1])]
    shared = min(len(part) for part in found)
    return torch.stack([part[:shared] for part in found]).mean(0).sort(descending=True).values


def _variances(likelihood: Likelihood, mean: Tensor) -> Tensor | None:
    """Of each pixel given what is before it, A''."""
    sigma2 = likelihood.sigma2()
    return likelihood.curvature(mean) if sigma2 is None else sigma2.expand_as(mean)


def _along(first: Tensor, second: Tensor, scale: Tensor, count: int) -> Tensor:
    """The variance of `second` (M, n) along the largest principal components of `first`, both scaled."""
    directions = spectra.measure(Split(first[:, None, None]), count, scale).components[:, :count].double()
    return (((second - second.mean(0)).double() * scale) @ directions).square().mean(0)
