"""The spectrum of the training data and what it predicts.

The linear VAE p(x|z) = N(Wz + m, sigma^2 I) with KL weight beta has its optimum in closed form (Tipping and Bishop
1999 for beta = 1; Lucas et al. 2019, arXiv 1911.02469; Wang and Ziyin 2022, arXiv 2205.04009, for any beta). With
lambda_1 >= lambda_2 >= ... the eigenvalues of the data's covariance (1/N) and t = beta * sigma^2, the latent
dimension i is kept if and only if lambda_i > t; it then carries log(lambda_i / t) / 2 nats."""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from vae.data.remembered import OfImages
from vae.data.split import Split
from vae.runtime.rng import generator

EXACT = 1024  # up to so many pixels, or images, the whole matrix of products is made
DOUBLE_IMAGES = 2**16  # of more images the products of a chunk are made in float32, and summed in float64
CACHED_VALUES, CACHED_IMAGES = 2**20, 256  # so many pixels at a time, which a cache holds, but no fewer images
MAX_VALUES = 2**28  # pixels of all images together; of more a random sample of the images is measured
MAX_KRYLOV_STEPS, MAX_KRYLOV_COLUMNS, MAX_KRYLOV_VALUES = 8, 1600, 2**28
CONVERGED = 1e-3  # of each eigenvalue: a step that adds less was the last
MAX_COMPONENT_VALUES = 2**26  # of all eigenvectors that are asked for; fewer are found where that is not enough
OVERSAMPLING = 16
ROUNDING = 1e-9  # of the variance of the data: less is none
FLOAT32_ROUNDING = 1e-6  # of the largest eigenvalue, what the Krylov method cannot tell from nothing


@dataclass(frozen=True)
class Spectrum:
    """The largest eigenvalues of a split's covariance with 1/N, and what all sum to. `scale`: each pixel was multiplied
    by its number in it first."""

    eigenvalues: Tensor  # (k,), float64, descending
    components: Tensor  # (n, <= k), float32: unit vectors in the space of the scaled pixels
    mean: Tensor  # (n,), float64, of the pixels as they are
    total: float  # the sum of all `pixels` eigenvalues: the variance of an image
    pixels: int  # n
    of_halves: bool = False  # `eigenvalues` are what they would be of other images; components and mean are of all

    @property
    def largest(self) -> float:
        return float(self.eigenvalues[0])

    @property
    def known(self) -> int:
        """How many principal components."""
        return len(self.eigenvalues) if self.of_halves else self.components.shape[1]

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
    gain: float  # how far that lies below the loss of a constant image
    collapse_weight: float  # the KL weight from which on the collapsed state is stable
    is_fitted: bool = False  # the variance is
    is_interior: bool = True  # False: it has fallen to its floor


def measure(split: Split, count: int, scale: Tensor | None = None) -> Spectrum:
    """The `count` largest eigenvalues (or more) and their components (or fewer, of huge images) of the images, each
    pixel multiplied by its number in `scale` (n,) first. Exact up to EXACT pixels or images; beyond, by a block Krylov
    method (Musco and Musco 2015, arXiv 1504.05477, algorithm 2), a few passes over all images in float32."""
    if scale is not None:
        return _measured(split, count, scale)
    return _KNOWN.get(split, count, lambda: _measured(split, count, None))


_KNOWN: OfImages[Spectrum] = OfImages(most=3)


def of_halves(split: Split, count: int, scale: Tensor | None = None) -> Spectrum:
    """The same with eigenvalues of other images like these: the variance of one half of them along the components of
    the other, mean over both ways, made to fall by isotonic regression. Where the images are not many times the pixels,
    the eigenvalues that `measure` gives are on average too large, since they hold the chance in these very images, and
    those that this gives too small, since components hold the chance of the half that they were found on."""
    whole, split = measure(split, count, scale), _some(split)
    order = torch.randperm(len(split), generator=generator(0, "spectrum halves"))
    halves = [split.take(rows.sort().values) for rows in order.chunk(2)]
    count = min(count, len(halves[-1]) - 1)
    whole = dataclasses.replace(whole, total=whole.total * len(split) / (len(split) - 1), of_halves=True)
    if count < 1:
        return dataclasses.replace(whole, eigenvalues=torch.zeros(1, dtype=torch.float64))
    found = [_variances(other, _measured(half, count, scale), scale)[0] for half, other in (halves, halves[::-1])]
    known = min(map(len, found))
    mean = torch.stack([values[:known] for values in found]).mean(0)
    return dataclasses.replace(whole, eigenvalues=_falling(mean))


def along(split: Split, spectrum: Spectrum, scale: Tensor | None = None) -> Spectrum:
    """The same with the variance of other images along the components in place of the eigenvalues, made to fall, and
    with theirs in all; the images are scaled as those of the spectrum were."""
    variances, total = _variances(_some(split), spectrum, scale)
    return dataclasses.replace(spectrum, eigenvalues=_falling(variances), total=total)


def _falling(variances: Tensor) -> Tensor:
    """The nearest (k,) that never rise."""
    from scipy.optimize import isotonic_regression  # a quarter of a second

    return torch.tensor(isotonic_regression(variances.numpy(), increasing=False).x.copy())


def _variances(split: Split, spectrum: Spectrum, scale: Tensor | None) -> tuple[Tensor, float]:
    """(k,): of the images along each component; and in all."""
    components = spectrum.components.double()
    squares, total = torch.zeros(components.shape[1], dtype=torch.float64), 0.0
    for rows in _Centred(split, scale).chunks(torch.float64):
        squares += (rows @ components).square().sum(0)
        total += float(rows.square().sum())
    freedom = max(1, len(split) - 1)
    return squares / freedom, total / freedom


def _measured(split: Split, count: int, scale: Tensor | None) -> Spectrum:
    split, pixels = _some(split), split.images[0].numel()
    data = _Centred(split, scale)
    count = min(count, pixels, len(split), max(1, MAX_COMPONENT_VALUES // pixels))
    if pixels <= max(EXACT, 3 * (count + OVERSAMPLING)):
        eigenvalues, components, total = _of_covariance(data, count)
    elif len(split) <= EXACT:
        eigenvalues, components, total = _of_products(data, count)
    else:
        eigenvalues, components, total = _krylov(data, count)
    return Spectrum(eigenvalues.clamp(min=0), components.float(), data.mean, total, pixels)


def _some(split: Split) -> Split:
    """No more than MAX_VALUES pixels of them."""
    return split.some(max(2, MAX_VALUES // split.images[0].numel()))


class _Centred:
    """The rows of a split less their mean, scaled, a chunk at a time."""

    def __init__(self, split: Split, scale: Tensor | None) -> None:
        self.split, self.scale, self.count = split, scale, len(split)
        self.pixels = split.images[0].numel()
        total = torch.zeros(self.pixels, dtype=torch.float64)
        for images in _rows(split):
            total += images.double().sum(0)
        self.mean = total / self.count

    def chunks(self, dtype: torch.dtype, least: int = CACHED_IMAGES) -> Iterator[Tensor]:
        mean = self.mean.to(dtype)
        scale = None if self.scale is None else self.scale.to(dtype)
        for images in _rows(self.split, least):
            centred = images.to(dtype) - mean
            yield centred if scale is None else centred * scale

    def covariance_times(self, basis: Tensor) -> Tensor:
        product = torch.zeros_like(basis)
        for rows in self.chunks(basis.dtype):
            product += rows.T @ (rows @ basis)
        return product / self.count

    def total(self) -> float:
        return float(sum(rows.square().sum(dtype=torch.float64) for rows in self.chunks(torch.float32))) / self.count


def _of_covariance(data: _Centred, count: int) -> tuple[Tensor, Tensor, float]:
    covariance = torch.zeros(data.pixels, data.pixels, dtype=torch.float64)
    for rows in data.chunks(torch.float64 if data.count <= DOUBLE_IMAGES else torch.float32):
        covariance += (rows.T @ rows).double() / data.count
    eigenvalues, vectors = torch.linalg.eigh(covariance)
    return eigenvalues.flip(0), vectors.flip(1)[:, :count], float(covariance.trace())


def _of_products(data: _Centred, count: int) -> tuple[Tensor, Tensor, float]:
    """Of fewer images than pixels: their products with each other have the same eigenvalues."""
    rows, done = torch.empty(data.count, data.pixels, dtype=torch.float64), 0
    for chunk in data.chunks(torch.float64, least=1):  # of large images all are gigabytes, which are held once
        rows[done : done + len(chunk)] = chunk
        done += len(chunk)
    products = rows @ rows.T / data.count
    eigenvalues, vectors = torch.linalg.eigh(products)
    eigenvalues, vectors = eigenvalues.flip(0), vectors.flip(1)[:, :count]
    components = torch.nn.functional.normalize(rows.T @ vectors, dim=0)
    components[:, eigenvalues[:count] <= ROUNDING * eigenvalues[0]] = 0  # of what is rounding alone
    return eigenvalues, components, float(products.trace())


def _krylov(data: _Centred, count: int) -> tuple[Tensor, Tensor, float]:
    """The Rayleigh-Ritz values in the space of all blocks B, S B, S^2 B ..., each made orthogonal to those before it:
    unlike the last block alone they are right to a percent where the eigenvalues lie close together."""
    width = count + OVERSAMPLING
    basis = torch.linalg.qr(torch.randn(data.pixels, width, generator=generator(0, "spectrum"))).Q
    image = data.covariance_times(basis)  # of the last block
    products = basis.T @ image  # of the basis with its image: the upper triangle
    eigenvalues, vectors = _ritz(products, count)
    columns = min(MAX_KRYLOV_COLUMNS, MAX_KRYLOV_VALUES // data.pixels)
    for _ in range(min(MAX_KRYLOV_STEPS, max(1, columns // width - 1))):
        block = image[:, : data.pixels - basis.shape[1]]  # no more than the basis leaves of the space
        if not block.shape[1]:
            break
        for _ in range(2):  # of few dimensions the first time leaves rounding, which lies in the basis again
            block = torch.linalg.qr(block - basis @ (basis.T @ block)).Q
        basis, image = torch.cat([basis, block], 1), data.covariance_times(block)
        products = torch.cat([torch.nn.functional.pad(products, (0, 0, 0, block.shape[1])), basis.T @ image], 1)
        before, (eigenvalues, vectors) = eigenvalues, _ritz(products, count)
        if bool((eigenvalues - before <= CONVERGED * eigenvalues + FLOAT32_ROUNDING * eigenvalues[0]).all()):
            break
    return eigenvalues, basis @ vectors.float(), data.total()


def _ritz(products: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest Ritz values, descending, and their vectors in the basis."""
    eigenvalues, vectors = torch.linalg.eigh(products.double(), UPLO="U")
    return eigenvalues.flip(0)[:count], vectors.flip(1)[:, :count]


def linear_optimum(
    spectrum: Spectrum, latent_dim: int, beta: float, sigma2: float | None, floor: float = 0.0
) -> LinearOptimum:
    """The optimum of a linear VAE with `latent_dim` dimensions at KL weight `beta` > 0 and pixel variance `sigma2`.
    None: the variance is fitted as well, to no less than `floor`; where k dimensions are kept it is
    sum_{i>k} lambda_i / (n - beta k). Raises ValueError where it would go to 0: data of no more than `latent_dim`
    dimensions have no likelihood that is the largest."""
    if sigma2 is not None:
        return _at(spectrum, _kept(spectrum, latent_dim, beta * sigma2), beta, sigma2, sigma2)
    constant = max(spectrum.total / spectrum.pixels, floor)  # the variance where nothing is kept
    if constant <= 0:
        raise ValueError("the images do not vary")
    # The loss as a function of the variance has a minimum inside each range of it that keeps k dimensions, or none.
    candidates = []
    for kept in range(min(latent_dim, len(spectrum.eigenvalues)) + 1):
        free, left = spectrum.pixels - beta * kept, spectrum.beyond(kept)
        if free > 0 and left > ROUNDING * spectrum.total and left / free > floor:
            fitted = left / free
            if _is_kept_by(spectrum, latent_dim, beta * fitted, kept):
                candidates.append(_at(spectrum, kept, beta, fitted, constant))
    rank = int((spectrum.eigenvalues > ROUNDING * spectrum.total).sum())
    if floor > 0:
        at_floor = _at(spectrum, _kept(spectrum, latent_dim, beta * floor), beta, floor, constant, is_interior=False)
        candidates.append(at_floor)
    elif rank <= latent_dim and rank < spectrum.pixels and spectrum.pixels > beta * rank:
        raise ValueError("no interior optimum: the fitted variance would go to 0")
    return dataclasses.replace(min(candidates, key=lambda optimum: optimum.loss), is_fitted=True)


def _kept(spectrum: Spectrum, latent_dim: int, t: float) -> int:
    return int((spectrum.eigenvalues[:latent_dim] > t).sum())


def _is_kept_by(spectrum: Spectrum, latent_dim: int, t: float, kept: int) -> bool:
    """Whether t lies between the last eigenvalue that is kept and the first that is not; a tie counts as both."""
    eigenvalues = spectrum.eigenvalues[:latent_dim]
    above = kept == 0 or float(eigenvalues[kept - 1]) >= t * (1 - ROUNDING)
    return above and (kept == len(eigenvalues) or float(eigenvalues[kept]) <= t * (1 + ROUNDING))


def _at(
    spectrum: Spectrum, kept: int, beta: float, sigma2: float, constant: float, is_interior: bool = True
) -> LinearOptimum:
    """`constant`: the pixel variance of a constant image."""
    t = beta * sigma2
    kld = 0.5 * float((spectrum.eigenvalues[:kept] / t).log().sum())
    sse = spectrum.beyond(kept) + kept * t
    nll = _nll(spectrum.pixels, sse, sigma2)
    loss = nll + beta * kld
    return LinearOptimum(
        kept=kept,
        sigma2=sigma2,
        t=t,
        kld=kld,
        sse=sse,
        elbo=-nll - kld,
        loss=loss,
        gain=_nll(spectrum.pixels, spectrum.total, constant) - loss,
        collapse_weight=spectrum.largest / constant,
        is_interior=is_interior,
    )


def _nll(pixels: int, sse: float, sigma2: float) -> float:
    return 0.5 * pixels * math.log(2 * math.pi * sigma2) + sse / (2 * sigma2)


def _rows(split: Split, least: int = CACHED_IMAGES) -> Iterator[Tensor]:
    for rows in split.slices(CACHED_VALUES, least):
        yield split.batch(rows).flatten(1).cpu()
