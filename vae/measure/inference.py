"""What a run's loss is made of, image by image, and how far the encoder is from the best it could do.

The gap between log p(x) and the ELBO is KL(q(z|x) || p(z|x)). A part of it is the encoder's: it must give q for all
images with one network. Fitting q to each image by itself, with the decoder fixed, measures that part (Cremer, Li and
Duvenaud 2018, arXiv 1801.03558, "amortization gap")."""

from typing import NamedTuple

import torch
from torch import Tensor

from vae.data.split import Split
from vae.measure.diagnostics import Paired, paired
from vae.models.latent import LatentModel
from vae.models.likelihood import Likelihood
from vae.models.posteriors import MAX_LOG_SIGMA, MIN_LOG_SIGMA, Posterior
from vae.models.vae import VAE
from vae.runtime.rng import generator

STEPS, LR = 300, 0.02  # of Adam, on mu and log sigma of each image
DRAWS = 16  # of z, where the fitted q is held against the encoder's


class Losses(NamedTuple):
    """Nats, of each image (N,), float64."""

    nll: Tensor  # -log p(x|z), one draw of z
    kl: Tensor

    def at(self, weight: float) -> Tensor:
        """The loss at this KL weight."""
        return self.nll + weight * self.kl if weight else self.nll


@torch.no_grad()
def losses(model: LatentModel, likelihood: Likelihood, split: Split, batch_size: int, seed: int) -> Losses:
    """Of every image of a split, the draws of z a function of the seed."""
    rng = generator(seed, "losses")
    model.eval(), likelihood.eval()
    nll, kl = [], []
    for start in range(0, len(split), batch_size):
        images = split.batch(slice(start, start + batch_size))
        posterior = model.encode(images)
        noise = torch.randn(posterior.mu.shape, generator=rng).to(images.device)
        nll.append(likelihood.nll(images, model.raw(posterior.sample(noise), images)).double().cpu())
        kl.append(posterior.kl().double().sum(1).cpu())
    return Losses(torch.cat(nll), torch.cat(kl))


def inference_gap(model: VAE, likelihood: Likelihood, images: Tensor, weight: float, seed: int) -> Paired:
    """By how much the loss of `images` (B, C, H, W) falls when q is fitted to each of them, from the encoder's on; the
    decoder stays. Nats per image, with the standard error over the images."""
    model.eval().requires_grad_(False), likelihood.eval()
    rng = generator(seed, "inference gap")
    first = model.encode(images)
    mu, log_sigma = (part.detach().clone().requires_grad_() for part in first)
    optimizer = torch.optim.Adam([mu, log_sigma], lr=LR)

    def loss(posterior: Posterior, noise: Tensor) -> Tensor:
        nll = likelihood.nll(images, model.raw(posterior.sample(noise), images))
        return nll + weight * posterior.kl().sum(1) if weight else nll

    for step in range(STEPS):
        noise = torch.randn(mu.shape, generator=rng).to(mu.device)
        optimizer.zero_grad()
        loss(Posterior(mu, log_sigma), noise).sum().backward()
        optimizer.param_groups[0]["lr"] = LR * (1 - step / STEPS)
        optimizer.step()
        with torch.no_grad():
            log_sigma.clamp_(MIN_LOG_SIGMA, MAX_LOG_SIGMA)
    with torch.no_grad():
        fitted, gained = Posterior(mu, log_sigma), torch.zeros(len(images), dtype=torch.float64)
        for _ in range(DRAWS):
            noise = torch.randn(mu.shape, generator=rng).to(mu.device)
            gained += (loss(first, noise) - loss(fitted, noise)).double().cpu() / DRAWS
    return paired(gained)
