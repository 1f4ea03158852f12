"""The variational autoencoder: q(z|x) = N(mu(x), diag(sigma(x)^2)), prior p(z) = N(0, I), and a decoder whose
raw output is what the likelihood p(x|z) needs (Kingma and Welling 2014, arXiv 1312.6114)."""

import math
from typing import Final

import torch
from torch import Tensor, nn

from vae.config import schema
from vae.models import decoders, heads
from vae.models.autoregressive import PixelCNN
from vae.models.likelihood import Likelihood
from vae.models.linear_path import DecoderWithPath, EncoderWithPath, silence
from vae.models.posteriors import Posterior, reparameterised
from vae.runtime.rng import generator


class VAE(nn.Module):
    """An encoder and a decoder for images of `shape` (C, H, W) and a likelihood, whose parameters stay its own.

    A decoder that `is_autoregressive` predicts each pixel from those before it as well: its raw output needs the
    images, and images are drawn from it pixel by pixel."""

    is_autoregressive: Final[bool]

    def __init__(
        self,
        config: schema.Model,
        likelihood: Likelihood,
        shape: tuple[int, int, int],
        seed: int = 0,
        cure: schema.Cure | None = None,
    ) -> None:
        """`cure`: its layers, if it has any, are part of the model."""
        super().__init__()
        self.latent_dim = config.latent_dim
        self.shape = shape
        self.is_dirac = config.posterior == "dirac"
        self.has_code = config.posterior != "none"
        self.link, self.quantile, self.outputs = likelihood.link, likelihood.quantile, likelihood.outputs
        rng, cure = generator(seed, "initialisation"), cure or schema.NoCure()
        self.encoder, self.decoder = decoders.build(cure, config, shape, likelihood.outputs, rng)
        self.head = heads.build(cure, self.latent_dim)
        if config.start == "spectral" and not isinstance(config, schema.LinearModel):
            maps = (likelihood.outputs * shape[0], *shape[1:])
            own = isinstance(config, schema.CustomModel)
            if not own:
                silence(self.encoder, self.decoder)
            self.encoder = EncoderWithPath(self.encoder, math.prod(shape), self.latent_dim, gated=own)
            self.decoder = DecoderWithPath(self.decoder, self.latent_dim, maps, gated=own)
        self.is_autoregressive = isinstance(self.decoder, PixelCNN) and self.decoder.is_autoregressive

    def encode(self, images: Tensor) -> Posterior:
        """Float images (B, C, H, W) to their posteriors; without a code the prior for each."""
        if not self.has_code:
            nothing = torch.zeros(len(images), self.latent_dim, device=images.device)
            return Posterior(nothing, nothing)
        mu, raw = self.encoder(images)
        mu = mu.float()
        if self.is_dirac:
            return Posterior(mu, torch.full_like(mu, -torch.inf))
        return self.head(mu, raw.float())

    def raw(self, z: Tensor, images: Tensor | None = None) -> Tensor:
        """Codes (B, d) to the decoder's output (B, outputs * C, H, W), without a code it gets zeros. One that
        is autoregressive needs the `images` (B, C, H, W) whose likelihood is asked for."""
        z = z if self.has_code else 0 * z
        if self.is_autoregressive:  # noqa: SIM108  (a form that torch.jit.script can leave out)
            output = self.decoder(z, images)
        else:
            output = self.decoder(z)
        return output.float()

    def decode(self, z: Tensor, same_chance: bool = False, rng: torch.Generator | None = None) -> Tensor:
        """Codes (B, d) to mean images (B, C, H, W). An autoregressive decoder has no mean image for a code: images are
        drawn, by `rng`, which goes on from batch to batch, or without it with the same chance at every call; with
        `same_chance` for each of the codes too, so that images differ by their codes alone."""
        if not self.is_autoregressive:
            return self.link(self.raw(z))
        z = z if self.has_code else 0 * z
        count = 1 if same_chance else len(z)
        noise = torch.rand(count, *self.shape, generator=rng or generator(0, "pixels")).clamp(min=1e-7)
        assert isinstance(self.decoder, PixelCNN)
        return self.decoder.sample(z, self.quantile, noise.to(z.device))

    def forward(self, images: Tensor, noise: Tensor) -> tuple[Posterior, Tensor]:
        """What a training step needs: the posteriors, and the raw output for one code of each. `noise` (B, d) is from
        N(0, I); of (B, K, d) there are K codes for each image, and B * K raw outputs, those of an image together."""
        posterior = self.encode(images)
        if noise.dim() == 3:
            z = reparameterised(posterior.mu[:, None], posterior.log_sigma[:, None], noise).flatten(0, 1)
            return posterior, self.raw(z, images.repeat_interleave(noise.shape[1], dim=0))
        return posterior, self.raw(reparameterised(posterior.mu, posterior.log_sigma, noise), images)

    @torch.no_grad()
    def sample(self, count: int, seed: int = 0) -> Tensor:
        """Images (count, C, H, W) of codes drawn from the prior: their means, or of an autoregressive decoder draws."""
        device = next(self.parameters()).device
        codes = torch.randn(count, self.latent_dim, generator=generator(seed, "sample"))
        return self.decode(codes.to(device), rng=generator(seed, "pixels"))
