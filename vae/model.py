"""The variational autoencoder: q(z|x) = N(mu(x), diag(sigma(x)^2)), prior p(z) = N(0, I), and a decoder whose
raw output a link turns into the mean image (Kingma and Welling 2014, arXiv 1312.6114)."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vae import architectures, schema
from vae.streams import generator

LOG_SIGMA_RANGE = (-10.0, 2.0)


class Posterior(NamedTuple):
    """q(z|x) for a batch: a diagonal Gaussian, or a point where log_sigma is -inf (model.posterior=dirac)."""

    mu: Tensor  # (B, d)
    log_sigma: Tensor  # (B, d), natural log of the standard deviation

    def sample(self, noise: Tensor) -> Tensor:
        """z = mu + sigma * noise, (B, d), for noise from N(0, I)."""
        return self.mu + self.log_sigma.exp() * noise

    def kl(self) -> Tensor:
        """KL(q(z_j|x) || N(0, 1)) in nats, (B, d): (mu^2 + sigma^2 - 1) / 2 - log sigma (Kingma and Welling 2014,
        appendix B). expm1 keeps its digits near collapse, where sigma is almost 1."""
        return 0.5 * (self.mu.square() + torch.expm1(2 * self.log_sigma)) - self.log_sigma


def bound_log_sigma(raw: Tensor) -> Tensor:
    """Any real number to LOG_SIGMA_RANGE, so that sigma stays within (4.5e-5, 7.4) and exp cannot overflow.
    Near 0 it is the identity; the gradient is continuous, and nowhere cut off as a clamp would."""
    low, high = LOG_SIGMA_RANGE
    bound = torch.where(raw < 0, -low, high)
    return bound * torch.tanh(raw / bound)


def continuous_bernoulli_mean(logits: Tensor) -> Tensor:
    """The mean of a continuous Bernoulli variable, 1 / (1 - exp(-l)) - 1 / l for logits l: not sigmoid(l)
    (Loaiza-Ganem and Cunningham 2019, arXiv 1907.06845, eq. 8, in logits)."""
    size = logits.abs()
    small = size < 1e-2
    safe = torch.where(small, 1.0, size)
    above = -1 / torch.expm1(-safe) - 1 / safe  # for positive logits: the exponentials do not overflow
    return torch.where(small, 0.5 + logits / 12, torch.where(logits < 0, 1 - above, above))


LINKS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda raw: raw,
    "sigmoid": torch.sigmoid,
    "continuous_bernoulli": continuous_bernoulli_mean,
}


class VAE(nn.Module):
    """An encoder, a decoder and the link from the decoder's raw output to pixels."""

    def __init__(self, config: schema.Model, link: str, shape: tuple[int, int, int], seed: int = 0) -> None:
        super().__init__()
        self.latent_dim = config.latent_dim
        self.shape = shape
        self.is_dirac = config.posterior == "dirac"
        self.link = LINKS[link]
        self.encoder, self.decoder = architectures.build(config, shape, generator(seed, "initialisation"))

    def encode(self, images: Tensor) -> Posterior:
        """Float images (B, C, H, W) to their posteriors."""
        mu, raw = self.encoder(images)
        mu = mu.float()
        return Posterior(mu, torch.full_like(mu, -torch.inf) if self.is_dirac else bound_log_sigma(raw.float()))

    def raw(self, z: Tensor) -> Tensor:
        """Codes (B, d) to the decoder's output before the link (B, C, H, W)."""
        output: Tensor = self.decoder(z)
        return output.float()

    def decode(self, z: Tensor) -> Tensor:
        """Codes (B, d) to mean images (B, C, H, W)."""
        return self.link(self.raw(z))

    def forward(self, images: Tensor, noise: Tensor) -> tuple[Posterior, Tensor]:
        """What a training step needs: the posteriors, and the raw output for one code of each. `noise` (B, d) is from
        N(0, I)."""
        posterior = self.encode(images)
        return posterior, self.raw(posterior.sample(noise))

    @torch.no_grad()
    def sample(self, count: int, seed: int = 0) -> Tensor:
        """Mean images (count, C, H, W) of codes drawn from the prior."""
        device = next(self.parameters()).device
        return self.decode(torch.randn(count, self.latent_dim, generator=generator(seed, "sample")).to(device))
