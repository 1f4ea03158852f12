"""From an encoder's two outputs, mu and raw log sigma (B, d), to the posterior; and the layers that a cure puts between
them. A cure's layer is a class here, registered with `build` for its dataclass in vae.config.schema.

Means over a batch are means over the processes that share it, so that several do what one would."""

import math
from functools import singledispatch

import torch
from torch import Tensor, nn

from vae.config import schema
from vae.models.posteriors import Posterior, bound_log_sigma
from vae.runtime import parallel


class Head(nn.Module):
    """mu as it is, log sigma within its bounds."""

    def forward(self, mu: Tensor, raw_log_sigma: Tensor) -> Posterior:
        return Posterior(mu, bound_log_sigma(raw_log_sigma))


@singledispatch
def build(cure: schema.Cure, latent_dim: int) -> Head:
    """The head that `cure` wants; most want the usual one."""
    return Head()


class Normalised(Head):
    """What two heads share: the mean and variance of each mu_j over the images, those of the batch in training, and
    running ones in evaluation."""

    EPS = 1e-5  # added to variances, as in torch.nn.BatchNorm1d
    mean: Tensor
    variance: Tensor

    def __init__(self, latent_dim: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(latent_dim))
        self.register_buffer("variance", torch.ones(latent_dim))

    def moments(self, mu: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance (1/B), (d,) each. Gradients flow through those of a batch."""
        if not self.training:
            return self.mean, self.variance
        mean = parallel.mean(mu.mean(0))
        variance = parallel.mean((mu - mean).square().mean(0))
        with torch.no_grad():
            self.mean.lerp_(mean, self.momentum)
            self.variance.lerp_(variance, self.momentum)
        return mean, variance


@build.register(schema.BatchNormMu)
class BatchNormMu(Normalised):
    """Batch normalisation of mu with a fixed scale: mu_j = gamma (m_j - mean) / std + b_j (Zhu et al. 2020, arXiv
    2004.12585). Over a batch E[mu_j^2] = gamma^2 + b_j^2, so the mean KL is at least d gamma^2 / 2 nats, whatever sigma
    is. Only the shift b is learnt; in evaluation the running statistics stand for the batch's.

    What is added to the variance is smaller than in torch.nn.BatchNorm1d: beside its 1e-5 an encoder shrinks m until
    nothing of gamma is left, and the KL falls to 0 (seen wherever the objective asked for a collapse)."""

    EPS = 1e-10

    def __init__(self, cure: schema.BatchNormMu, latent_dim: int) -> None:
        super().__init__(latent_dim, cure.momentum)
        self.gamma = cure.gamma
        self.shift = nn.Parameter(torch.zeros(latent_dim))

    def forward(self, mu: Tensor, raw_log_sigma: Tensor) -> Posterior:
        mean, variance = self.moments(mu)
        normal = (mu - mean) * torch.rsqrt(variance + self.EPS)
        return super().forward(self.gamma * normal + self.shift, raw_log_sigma)


@build.register(schema.Scale)
class Scale(Normalised):
    """The posterior that the decoder gets: N(f_j m_j, sigma_j^2), with one factor for all images that brings each mean
    to the same spread, f_j = spread / std(m_j) (Song et al. 2024, LREC-COLING, "Scale-VAE"). Training pays for N(m_j,
    sigma_j^2) alone (vae.training.terms); every measure is of what the decoder gets, whose ELBO is a bound."""

    def __init__(self, cure: schema.Scale, latent_dim: int) -> None:
        super().__init__(latent_dim, cure.momentum)
        self.spread = cure.spread
        self.register_buffer("factor", torch.ones(latent_dim), persistent=False)  # of the last forward pass

    factor: Tensor

    def forward(self, mu: Tensor, raw_log_sigma: Tensor) -> Posterior:
        _, variance = self.moments(mu)
        self.factor = self.spread * torch.rsqrt(variance + self.EPS).detach()
        return super().forward(self.factor * mu, raw_log_sigma)

    def unscaled(self, posterior: Posterior) -> Posterior:
        """What the encoder gave, of the last batch."""
        return Posterior(posterior.mu / self.factor, posterior.log_sigma)


@build.register(schema.Delta)
class Delta(Head):
    """A family in which KL(q(z_j|x) || N(0, 1)) is at least delta nats for every image, whatever the encoder says
    (Razavi et al. 2019, arXiv 1901.03416, section 2.1, for independent dimensions): sigma lies between l and u, l^2 and
    u^2 the roots of ln x - x + 2 delta + 1 = 0, and mu^2 is at least 2 delta + 1 + ln sigma^2 - sigma^2. As there, mu
    is never negative."""

    EPS = 1e-6  # under the square root, whose slope would be infinite at 0

    def __init__(self, cure: schema.Delta, latent_dim: int) -> None:
        super().__init__()
        self.delta = cure.delta
        self.low, self.high = (math.sqrt(root) for root in variance_bounds(cure.delta))

    def forward(self, mu: Tensor, raw_log_sigma: Tensor) -> Posterior:
        sigma = self.low + (self.high - self.low) * torch.sigmoid(raw_log_sigma)
        log_sigma = sigma.log()
        least = 2 * self.delta + 1 + 2 * log_sigma - sigma.square()  # (mu^2 - least) / 2 is KL - delta
        return Posterior((least.clamp(min=0) + torch.relu(mu) + self.EPS).sqrt(), log_sigma)


def variance_bounds(delta: float) -> tuple[float, float]:
    """The two roots of ln x - x + 2 delta + 1 = 0, below and above 1, by bisection."""

    def excess(x: float) -> float:
        return math.log(x) - x + 2 * delta + 1

    def root(inside: float, outside: float) -> float:
        """Between a point where it is above 0 and one where it is below."""
        for _ in range(200):
            middle = 0.5 * (inside + outside)
            inside, outside = (middle, outside) if excess(middle) > 0 else (inside, middle)
        return inside

    return root(1.0, math.exp(-2 * delta - 1)), root(1.0, 4 * delta + 4)
