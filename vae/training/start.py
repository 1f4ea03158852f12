"""model.start=spectral: the first weights at the optimum of the linear VAE for these data, this likelihood and the KL
weight at which the schedule ends. The run starts alive, as good as a linear VAE can be, and learns from there.

With lambda_i, u_i the eigenpairs of the data's covariance and t = beta sigma^2 (vae.measure.spectrum), each of the k
dimensions that are kept has W_i = u_i sqrt(lambda_i - t), V_i = u_i' sqrt(lambda_i - t) / lambda_i and sigma_i^2 =
t / lambda_i; the others are at the prior. For another exponential family the same holds of the data whitened by its
curvature A'', to second order: x - m = A'' (eta - eta_0). That is right for small codes; larger ones move pixels to
where their curvature is another, so it is damped (DAMPING), and W takes the length at which the loss is lowest."""

import logging

import torch
from torch import Tensor

from vae.config.errors import InputError
from vae.data import scale
from vae.measure import inference
from vae.measure import spectrum as spectra
from vae.measure.subject import Subject
from vae.models import links
from vae.models.likelihood import OptimalGaussian
from vae.models.linear_path import linear_parts
from vae.models.posteriors import MAX_LOG_SIGMA, MIN_LOG_SIGMA

log = logging.getLogger(__name__)

NO_KL = 1e-6  # of the largest eigenvalue: takes t's place where there is no KL term
DAMPING = 0.2  # of the largest curvature, added to each
SHRUNK = (1.0, 0.7, 0.4, 0.2)  # of W, where the closed form holds for small codes alone


@torch.no_grad()
def spectral(subject: Subject, weight: float) -> None:
    """Sets the weights of `subject`'s model, and says how many dimensions start alive. Raises InputError where there is
    no closed form for its likelihood."""
    model, likelihood = subject.model, subject.likelihood
    mean = subject.spectrum.mean
    raw, curvature, optimum = likelihood.raw_near(mean), likelihood.curvature(mean), subject.optimum(weight)
    if raw is None or (likelihood.sigma2() is None and curvature is None):
        raise InputError(
            f"model.start=spectral with objective={subject.config.objective.name}: needs a likelihood whose linear "
            "optimum is known; take a Gaussian one, or bernoulli"
        )
    if likelihood.sigma2() is not None and likelihood.link is not links.identity:
        raise InputError(
            f"model.start=spectral with objective={subject.config.objective.name}: the optimum is of a linear output, "
            "and its link is another; leave model.start out"
        )
    if curvature is None:
        spectrum, pixel_scale = subject.spectrum, torch.ones_like(mean)
        t = spectrum.largest * NO_KL if optimum is None else optimum.t
    else:
        damped = curvature + DAMPING * curvature.max()
        pixel_scale = torch.where(curvature > 0, damped.rsqrt(), 0.0)
        spectrum = spectra.measure(subject.data.train, model.latent_dim, pixel_scale)
        t = weight or spectrum.largest * NO_KL
    kept = min(model.latent_dim, int((spectrum.eigenvalues > t).sum()), spectrum.components.shape[1])
    values, vectors = spectrum.eigenvalues[:kept], spectrum.components[:, :kept].double() * pixel_scale[:, None]
    length = (values - t).sqrt()
    encoder, log_sigma, decoder = linear_parts(model.encoder, model.decoder)
    for parameter in (encoder.weight, encoder.bias, log_sigma, decoder.weight):
        parameter.zero_()
    encoder.weight[:kept] = (vectors * (length / values)).T
    encoder.bias[:kept] = -(spectrum.mean @ vectors) * (length / values)
    log_sigma[:kept] = _unbounded(0.5 * torch.log(t / values))
    decoder.weight[:, :kept] = vectors * length
    decoder.bias.copy_(raw)
    if isinstance(likelihood, OptimalGaussian) and optimum is not None:
        likelihood.start_at(optimum.sigma2)
    if kept == 0:
        log.warning(
            "model.start=spectral: at KL weight %g the closed form keeps no dimension, so the run starts without a "
            "code, at the mean image.",
            weight,
        )
        return
    log.info("Start: a linear VAE with %d dimensions alive (model.start=spectral).", kept)
    if curvature is not None:
        _shrink(subject, decoder.weight, weight)


def _shrink(subject: Subject, matrix: Tensor, weight: float) -> None:
    """W times the factor of SHRUNK with the lowest loss on training images."""
    model, batch_size, seed = subject.model, subject.config.evaluation.batch_size, subject.config.seed
    some = scale.sample(subject.data.train)
    whole, losses = matrix.clone(), []
    for factor in SHRUNK:
        matrix.copy_(factor * whole)
        losses.append(float(inference.losses(model, subject.likelihood, some, batch_size, seed).at(weight).mean()))
    best = min(range(len(SHRUNK)), key=lambda place: losses[place])
    matrix.copy_(SHRUNK[best] * whole)
    model.train(), subject.likelihood.train()


def _unbounded(log_sigma: Tensor) -> Tensor:
    """What vae.models.posteriors.bound_log_sigma makes `log_sigma` of."""
    bound = torch.where(log_sigma < 0, -MIN_LOG_SIGMA, MAX_LOG_SIGMA)
    return bound * torch.atanh((log_sigma / bound).clamp(-1 + 1e-7, 1 - 1e-7))
