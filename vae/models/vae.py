"""The variational autoencoder: q(z|x) = N(mu(x), diag(sigma(x)^2)), prior p(z) = N(0, I), and a decoder whose
raw output a link turns into the mean image (Kingma and Welling 2014, arXiv 1312.6114)."""

import torch
from torch import Tensor, nn

from vae.config import schema
from vae.models import networks
from vae.models.links import Link
from vae.models.posteriors import Posterior, bound_log_sigma, reparameterised
from vae.runtime.rng import generator


class VAE(nn.Module):
    """An encoder, a decoder and the link from the decoder's raw output to pixels, for images of `shape` (C, H, W)."""

    def __init__(self, config: schema.Model, link: Link, shape: tuple[int, int, int], seed: int = 0) -> None:
        super().__init__()
        self.latent_dim = config.latent_dim
        self.shape = shape
        self.is_dirac = config.posterior == "dirac"
        self.has_code = config.posterior != "none"
        self.link = link
        self.encoder, self.decoder = networks.build(config, shape, generator(seed, "initialisation"))

    def encode(self, images: Tensor) -> Posterior:
        """Float images (B, C, H, W) to their posteriors; without a code the prior for each."""
        if not self.has_code:
            nothing = torch.zeros(len(images), self.latent_dim, device=images.device)
            return Posterior(nothing, nothing)
        mu, raw = self.encoder(images)
        mu = mu.float()
        if self.is_dirac:
            return Posterior(mu, torch.full_like(mu, -torch.inf))
        return Posterior(mu, bound_log_sigma(raw.float()))

    def raw(self, z: Tensor) -> Tensor:
        """Codes (B, d) to the decoder's output before the link (B, C, H, W); without a code it gets zeros."""
        z = z if self.has_code else 0 * z
        output: Tensor = self.decoder(z)
        return output.float()

    def decode(self, z: Tensor) -> Tensor:
        """Codes (B, d) to mean images (B, C, H, W)."""
        return self.link(self.raw(z))

    def forward(self, images: Tensor, noise: Tensor) -> tuple[Posterior, Tensor]:
        """What a training step needs: the posteriors, and the raw output for one code of each. `noise` (B, d) is from
        N(0, I)."""
        posterior = self.encode(images)
        return posterior, self.raw(reparameterised(posterior.mu, posterior.log_sigma, noise))

    @torch.no_grad()
    def sample(self, count: int, seed: int = 0) -> Tensor:
        """Mean images (count, C, H, W) of codes drawn from the prior."""
        device = next(self.parameters()).device
        return self.decode(torch.randn(count, self.latent_dim, generator=generator(seed, "sample")).to(device))
