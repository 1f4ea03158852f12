"""The approximate posterior q(z|x): a diagonal Gaussian N(mu, diag(sigma^2)) for each image, or a point."""

from typing import NamedTuple

import torch
from torch import Tensor

MIN_LOG_SIGMA, MAX_LOG_SIGMA = -10.0, 2.0


class Posterior(NamedTuple):
    """q(z|x) for a batch: a diagonal Gaussian, or a point where log_sigma is -inf (model.posterior=dirac)."""

    mu: Tensor  # (B, d)
    log_sigma: Tensor  # (B, d), natural log of the standard deviation

    def sample(self, noise: Tensor) -> Tensor:
        """z (B, d) for noise from N(0, I)."""
        return reparameterised(self.mu, self.log_sigma, noise)

    def kl(self) -> Tensor:
        """KL(q(z_j|x) || N(0, 1)) in nats, (B, d): (mu^2 + sigma^2 - 1) / 2 - log sigma (Kingma and Welling 2014,
        appendix B). expm1 keeps its digits near collapse, where sigma is almost 1."""
        return 0.5 * (self.mu.square() + torch.expm1(2 * self.log_sigma)) - self.log_sigma


def reparameterised(mu: Tensor, log_sigma: Tensor, noise: Tensor) -> Tensor:
    """z = mu + sigma * noise (Kingma and Welling 2014, section 2.4), elementwise."""
    return mu + log_sigma.exp() * noise


def bound_log_sigma(raw: Tensor, low: float = MIN_LOG_SIGMA, high: float = MAX_LOG_SIGMA) -> Tensor:
    """Any real number to between `low` < 0 and `high` > 0, so that sigma stays within (4.5e-5, 7.4) and exp cannot
    overflow. Near 0 it is the identity; the gradient is continuous, and nowhere cut off as a clamp would."""
    bound = torch.where(raw < 0, raw.new_full((), -low), raw.new_full((), high))
    return bound * torch.tanh(raw / bound)
