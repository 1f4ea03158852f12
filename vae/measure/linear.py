"""The linear VAE measured exactly: its measures on a split are sums that need no sampling of z, to be held against the
closed form of vae.measure.spectrum."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vae.data.split import Split
from vae.measure.catalogue import LinearMeasures
from vae.measure.evaluation import encode_split
from vae.measure.spectrum import LinearOptimum
from vae.models import links
from vae.models.likelihood import Likelihood
from vae.models.vae import VAE


@dataclass(frozen=True)
class Analytic:
    """Nats per image on the given split, the expectation over z taken exactly."""

    kept: int  # dimensions whose mean KL is above 0.01 nats
    kld: float
    sse: float
    elbo: float  # at KL weight 1


@torch.no_grad()
def analytic(model: VAE, likelihood: Likelihood, split: Split, batch_size: int) -> Analytic:
    """E SSE = |x - decode(mu)|^2 + sum_j sigma_j^2 |W_j|^2 for the decoder Wz + m: the noise of z adds the
    same whatever x is. Needs a linear decoder and a Gaussian likelihood with the linear link."""
    posterior = encode_split(model, split, batch_size)
    columns = decoder_matrix(model).double().square().sum(0)  # |W_j|^2, (d,)
    noise = (2 * posterior.log_sigma.double()).exp() @ columns
    errors = []
    for start in range(0, len(split), batch_size):
        rows = slice(start, start + batch_size)
        difference = split.batch(rows) - model.decode(posterior.mu[rows])
        errors.append(difference.double().square().flatten(1).sum(1))
    sse = float((torch.cat(errors) + noise).mean())
    kl = posterior.kl().double().mean(0)
    sigma2 = likelihood.sigma2()
    assert sigma2 is not None
    nll = 0.5 * likelihood.pixels * math.log(2 * math.pi * float(sigma2)) + sse / (2 * float(sigma2))
    return Analytic(int((kl > 0.01).sum()), float(kl.sum()), sse, -nll - float(kl.sum()))


def decoder_matrix(model: VAE) -> Tensor:
    """W (n, d) of a linear decoder."""
    (layer,) = (module for module in model.decoder.modules() if isinstance(module, nn.Linear))
    return layer.weight


def against_closed_form(
    model: VAE, likelihood: Likelihood, split: Split, optimum: LinearOptimum | None, batch_size: int
) -> LinearMeasures | None:
    """A linear VAE on its training split beside its optimum; None where there is no optimum."""
    if optimum is None or likelihood.link is not links.identity:
        return None
    found = analytic(model, likelihood, split, batch_size)
    return LinearMeasures(
        linear_kept=found.kept,
        optimum_kept=optimum.kept,
        linear_kld=found.kld,
        optimum_kld=optimum.kld,
        linear_sse=found.sse,
        optimum_sse=optimum.sse,
        linear_elbo=found.elbo,
        optimum_elbo=optimum.elbo,
    )
