"""One pass over a whole split: the latents of every image, and the figures that every evaluation logs.

The noise is the same at every evaluation of a run, so that curves move because the model did."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from vae.data import Split
from vae.model import VAE, Posterior
from vae.objective import Likelihood
from vae.streams import generator


@dataclass(frozen=True)
class Figures:
    """Means over all images of a split. Nats per image unless the name says otherwise."""

    mse: float  # per pixel, z sampled from q(z|x)
    mse_mu: float  # per pixel, z = mu
    sse: float  # per image, z sampled
    kld: float  # KL(q(z|x) || p(z)), summed over latent dimensions
    elbo: float  # log p(x|z) - KL at KL weight 1, with the likelihood's constants, one z an image
    mu_min: float  # these six over all images and latent dimensions
    mu_mean: float
    mu_max: float
    sigma_min: float
    sigma_mean: float
    sigma_max: float


@torch.no_grad()
def encode_split(model: VAE, split: Split, batch_size: int) -> Posterior:
    """The posterior of every image: mu and log_sigma (N, d)."""
    parts = [model.encode(batch) for batch in _batches(split, batch_size)]
    return Posterior(*(torch.cat(part) for part in zip(*parts, strict=True)))


@torch.no_grad()
def evaluate(model: VAE, likelihood: Likelihood, split: Split, batch_size: int, seed: int) -> tuple[Figures, Posterior]:
    """Figures over the whole split, and the posterior of each of its images."""
    was_training = model.training, likelihood.training
    model.eval(), likelihood.eval()
    posterior = encode_split(model, split, batch_size)
    device = posterior.mu.device
    noise = torch.randn(posterior.mu.shape, generator=generator(seed, "evaluation")).to(device)
    z = posterior.sample(noise)
    columns: dict[str, list[Tensor]] = {"nll": [], "sse": [], "sse_mu": []}
    for start, images in enumerate(_batches(split, batch_size)):
        rows = slice(start * batch_size, (start + 1) * batch_size)
        raw = model.raw(z[rows])
        columns["nll"].append(likelihood.nll(images, raw))
        columns["sse"].append(likelihood.squared_error(images, raw))
        columns["sse_mu"].append(likelihood.squared_error(images, model.raw(posterior.mu[rows])))
    # Summed on the CPU in double precision: float32 sums over many images lose digits.
    nll, sse, sse_mu = (float(torch.cat(parts).cpu().double().mean()) for parts in columns.values())
    mu, sigma = posterior.mu.cpu().double(), posterior.log_sigma.exp().cpu().double()
    kld = float(posterior.kl().cpu().double().sum(1).mean())
    model.train(was_training[0]), likelihood.train(was_training[1])
    figures = Figures(
        mse=sse / likelihood.pixels,
        mse_mu=sse_mu / likelihood.pixels,
        sse=sse,
        kld=kld,
        elbo=-nll - kld,
        mu_min=float(mu.min()),
        mu_mean=float(mu.mean()),
        mu_max=float(mu.max()),
        sigma_min=float(sigma.min()),
        sigma_mean=float(sigma.mean()),
        sigma_max=float(sigma.max()),
    )
    return figures, posterior


def _batches(split: Split, batch_size: int) -> Iterator[Tensor]:
    for start in range(0, len(split), batch_size):
        yield split.batch(slice(start, start + batch_size))
