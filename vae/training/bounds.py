"""Cures that minimise another bound on -log p(x) than the ELBO."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from vae.config import schema
from vae.measure.diagnostics import log_normal
from vae.models.posteriors import Posterior
from vae.training.cure import Batch, Context, Cure, build, leaves_out


@build.register(schema.IWAE)
class IWAE(Cure):
    """-log (1/K) sum_k w_k with w_k = p(x|z_k) p(z_k) / q(z_k|x), K codes an image (Burda, Grosse and Salakhutdinov
    2016, arXiv 1509.00519, eq. 8), in log space; its constants are those of the likelihood. A KL weight other than 1 is
    the power of p(z) / q(z|x).

    gradient=plain is that of the bound. gradient=dreg has the same expectation for the encoder with less noise as K
    grows (Tucker et al. 2019, arXiv 1810.04152, eq. 8): the parameters of q stand still in log w, and what arrives at
    z_k is multiplied by the normalised weight of k once more."""

    def __init__(self, config: schema.IWAE, context: Context) -> None:
        self.codes, self.is_dreg = config.samples, config.gradient == "dreg"
        self.likelihood = context.subject.likelihood
        self.z: Tensor | None = None  # as the decoder got it, where gradients meet that are to be multiplied
        if self.is_dreg:
            context.subject.model.decoder.register_forward_pre_hook(self._keep)

    def _keep(self, decoder: nn.Module, given: tuple[Any, ...]) -> None:
        if torch.is_grad_enabled():
            self.z = given[0]

    def loss(self, batch: Batch) -> Tensor:
        shape = len(batch.posterior.mu), self.codes
        noise = batch.noise.reshape(*shape, -1)
        nll = self.likelihood.nll(batch.images, batch.raw).reshape(shape)
        if not self.is_dreg:
            z = batch.posterior.mu[:, None] + batch.posterior.log_sigma[:, None].exp() * noise
            log_weights = log_importance(nll, z, batch.posterior, batch.weight)
            return math.log(self.codes) - torch.logsumexp(log_weights, 1).mean()
        assert self.z is not None
        still = Posterior(*(part.detach() for part in batch.posterior))
        log_weights = log_importance(nll, self.z.reshape(*shape, -1), still, batch.weight)
        normalised = log_weights.detach().softmax(1)  # (B, K)
        if self.z.requires_grad:  # not where the encoder is held
            self.z.register_hook(lambda gradient: gradient * normalised.reshape(-1, 1).to(gradient.dtype))
        self.z = None
        # Its value is the bound; its gradient the sum of those of log w_k, each with its normalised weight.
        bound = torch.logsumexp(log_weights.detach(), 1) - math.log(self.codes)
        return ((normalised * (log_weights.detach() - log_weights)).sum(1) - bound).mean()


def log_importance(nll: Tensor, z: Tensor, posterior: Posterior, weight: float | Tensor) -> Tensor:
    """log w (B, K) for -log p(x|z) (B, K) and codes z (B, K, d) from posteriors (B, d)."""
    if leaves_out(weight):
        return -nll
    zero = torch.zeros((), device=z.device)
    own = log_normal(z, posterior.mu[:, None], posterior.log_sigma[:, None])
    return weight * (log_normal(z, zero, zero) - own).sum(2) - nll
