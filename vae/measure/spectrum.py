"""The spectrum of the training data and what it predicts.

The linear VAE p(x|z) = N(Wz + m, sigma^2 I) with KL weight beta has its optimum in closed form (Tipping and Bishop
1999 for beta = 1; Lucas et al. 2019, arXiv 1911.02469; Wang and Ziyin 2022, arXiv 2205.04009, for any beta). With
lambda_1 >= lambda_2 >= ... the eigenvalues of the data's covariance (1/N) and t = beta * sigma^2, the latent
dimension i is kept if and only if lambda_i > t; it then carries log(lambda_i / t) / 2 nats."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from vae.data.split import Split
from vae.runtime.rng import generator

EXACT_PIXELS = 1024  # up to here the whole covariance matrix is made
CHUNK = 2000  # images at a time
MAX_IMAGES = 2**16  # of more a random sample is measured, which gives an eigenvalue to sqrt(2 / N): half a percent
MAX_PIXELS = 2**27  # of all images together: of large images fewer
POWER_ITERATIONS = 6
OVERSAMPLING = 16


@dataclass(frozen=True)
class Spectrum:
    """The largest eigenvalues of a split's covariance with 1/N, and what the others sum to."""

    eigenvalues: Tensor  # (k,), float64, descending
    total: float  # the sum of all `pixels` eigenvalues: the variance of an image
    pixels: int

    @property
    def largest(self) -> float:
        return float(self.eigenvalues[0])

    def beyond(self, kept: int) -> float:
        """The variance that the first `kept` principal components leave."""
        return max(0.0, self.total - float(self.eigenvalues[:kept].sum()))


@dataclass(frozen=True)
class LinearOptimum:
    """What a linear VAE does at its optimum. Nats per image, on the data that the spectrum is of."""

    kept: int  # latent dimensions in use
    sigma2: float  # the pixel variance, given or fitted
    t: float  # beta * sigma2
    kld: float
    sse: float  # expected, z sampled from q(z|x)
    elbo: float  # at KL weight 1 whatever beta was
    loss: float  # what is minimised, with its constants: -log p(x|z) + beta * KL
    collapse_weight: float  # the KL weight from which on no dimension is kept


def measure(split: Split, count: int) -> Spectrum:
    """The `count` largest eigenvalues. Exact to float64 up to EXACT_PIXELS pixels; beyond, all `count` by randomised
    subspace iteration (Halko, Martinsson and Tropp 2011, algorithm 4.4), a few passes over the images in float32.
    Of more images than MAX_IMAGES or MAX_PIXELS allow, a random sample."""
    pixels = split.images[0].numel()
    maximum = min(MAX_IMAGES, MAX_PIXELS // pixels)
    if len(split) > maximum:
        chosen = torch.randperm(len(split), generator=generator(0, "spectrum sample"))[:maximum]
        split = split.take(chosen.sort().values)
    count = min(count, pixels)
    mean = _mean(split)
    if pixels <= EXACT_PIXELS:
        covariance = torch.zeros(pixels, pixels, dtype=torch.float64)
        for images in _rows(split):
            centred = images.double() - mean
            covariance += centred.T @ centred / len(split)
        eigenvalues = torch.linalg.eigvalsh(covariance).flip(0)
        return Spectrum(eigenvalues.clamp(min=0), float(covariance.trace()), pixels)
    basis = torch.randn(pixels, min(count + OVERSAMPLING, pixels), generator=generator(0, "spectrum"))
    for _ in range(POWER_ITERATIONS):
        basis = torch.linalg.qr(_covariance_times(split, mean, basis)).Q
    small = (basis.T @ _covariance_times(split, mean, basis)).double()
    eigenvalues = torch.linalg.eigvalsh((small + small.T) / 2).flip(0)[:count]
    total = float(sum((images.double() - mean).square().sum() for images in _rows(split)) / len(split))
    return Spectrum(eigenvalues.clamp(min=0), total, pixels)


def linear_optimum(spectrum: Spectrum, latent_dim: int, beta: float, sigma2: float | None) -> LinearOptimum:
    """The optimum of a linear VAE with `latent_dim` dimensions at KL weight `beta` > 0 and pixel variance `sigma2`;
    None: the variance is fitted as well, sigma^2 = sum_{i>k} lambda_i / (n - beta k)."""
    if sigma2 is not None:
        return _at(spectrum, _kept(spectrum, latent_dim, beta * sigma2), beta, sigma2, spectrum.largest / sigma2)
    # The fitted variance depends on what is kept and the other way round: of the consistent pairs, the best.
    collapse_weight = spectrum.largest * spectrum.pixels / spectrum.total  # sigma^2 is total / n where nothing is kept
    candidates = []
    for kept in range(min(latent_dim, len(spectrum.eigenvalues)) + 1):
        free = spectrum.pixels - beta * kept
        fitted = spectrum.beyond(kept) / free if free > 0 else 0.0
        if fitted > 0 and _kept(spectrum, latent_dim, beta * fitted) == kept:
            candidates.append(_at(spectrum, kept, beta, fitted, collapse_weight))
    if not candidates:
        raise ValueError("no variance is consistent with what it keeps: the data are of full rank in latent_dim")
    return min(candidates, key=lambda optimum: optimum.loss)


def _kept(spectrum: Spectrum, latent_dim: int, t: float) -> int:
    return int((spectrum.eigenvalues[:latent_dim] > t).sum())


def _at(spectrum: Spectrum, kept: int, beta: float, sigma2: float, collapse_weight: float) -> LinearOptimum:
    t = beta * sigma2
    kld = 0.5 * float((spectrum.eigenvalues[:kept] / t).log().sum())
    sse = spectrum.beyond(kept) + kept * t
    nll = 0.5 * spectrum.pixels * math.log(2 * math.pi * sigma2) + sse / (2 * sigma2)
    return LinearOptimum(
        kept=kept,
        sigma2=sigma2,
        t=t,
        kld=kld,
        sse=sse,
        elbo=-nll - kld,
        loss=nll + beta * kld,
        collapse_weight=collapse_weight,
    )


def _mean(split: Split) -> Tensor:
    """The mean image (n,) in float64."""
    total = sum(images.double().sum(0) for images in _rows(split))
    assert isinstance(total, Tensor)
    return total / len(split)


def _covariance_times(split: Split, mean: Tensor, basis: Tensor) -> Tensor:
    product = torch.zeros_like(basis)
    for images in _rows(split):
        centred = images - mean.float()
        product += centred.T @ (centred @ basis)
    return product / len(split)


def _rows(split: Split) -> Iterator[Tensor]:
    for start in range(0, len(split), CHUNK):
        yield split.batch(slice(start, start + CHUNK)).flatten(1).cpu()
