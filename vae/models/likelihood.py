"""What is minimised: a reconstruction term for p(x|z), to which the loop adds weight * KL.

Every likelihood is in nats per image, summed over pixels. For the Gaussian kinds the KL weight beta and the pixel
variance sigma^2 act as one number, t = beta * sigma^2, which decides what survives (vae.measure.spectrum).

A likelihood is a class here and a dataclass in vae.config.schema, brought together by a function that is registered
with `build`."""

import math
from abc import ABC, abstractmethod
from functools import singledispatch
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vae.config import schema
from vae.config.errors import InputError
from vae.models import links
from vae.models.links import Link
from vae.runtime import custom, parallel


class Reconstruction(NamedTuple):
    loss: Tensor  # (), what is minimised: mean over the batch of -log p(x|z), some constants left out
    squared_error: Tensor  # (B,), of the mean image, summed over pixels


class Likelihood(nn.Module, ABC):
    """p(x|z) given the decoder's raw output, which `link` turns into the mean image. `pixels` is n = C * H * W."""

    is_density = True  # over images; False where exp(-nll) does not integrate to one
    outputs = 1  # numbers that the decoder gives for each channel of a pixel

    def __init__(self, link: Link, pixels: int) -> None:
        super().__init__()
        self.link = link
        self.pixels = pixels

    def sigma2(self) -> Tensor | None:
        """() variance of a pixel around the decoder's mean, where the likelihood has one."""
        return None

    @abstractmethod
    def nll(self, images: Tensor, raw: Tensor) -> Tensor:
        """-log p(x|z) in nats with all its constants, (B,)."""

    def squared_error(self, images: Tensor, raw: Tensor) -> Tensor:
        """Squared error of the mean image, summed over pixels, (B,)."""
        return F.mse_loss(self.link(raw), images, reduction="none").flatten(1).sum(1)

    def forward(self, images: Tensor, raw: Tensor) -> Reconstruction:
        return Reconstruction(self.nll(images, raw).mean(), self.squared_error(images, raw))

    def raw_of(self, mean: Tensor) -> Tensor | None:
        """The decoder's output whose mean image is `mean` (any shape); None where this likelihood does not say."""
        return links.inverse(self.link, mean)

    def raw_near(self, mean: Tensor) -> Tensor | None:
        """The same for training to start from: pixels that never vary are held off the ends, where nothing is
        learnt."""
        return self.raw_of(mean)

    def curvature(self, mean: Tensor) -> Tensor | None:
        """The variance of each pixel, given its mean, as an exponential family: A''(eta) of its log-partition A at the
        natural parameter that is the decoder's output. 0 where a pixel cannot vary. None for other likelihoods."""
        return None

    def quantile(self, raw: Tensor, noise: Tensor) -> Tensor:
        """Pixel values (B, C, H, W) for the decoder's output: those below which a fraction `noise`, in (0, 1), of their
        distribution lies. Of uniform noise it makes draws from p(x|z). Raises NotImplementedError where it is not
        known."""
        raise NotImplementedError(type(self))

    def refuses(self, images: Tensor) -> str | None:
        """Why images like these have no likelihood here; None where they have."""
        return None

    def is_density_of(self, images: Tensor) -> bool:
        """Whether exp(-nll) integrates (or, over images like these, sums) to one."""
        return self.is_density

    def fitted_to(self, variance: float) -> "Likelihood":
        """This likelihood where a constant image leaves `variance` per pixel: another one only where it fits that."""
        return self

    def effective_t(self, weight: float) -> float | None:
        """t = beta * sigma^2, or None where the likelihood has no such scale."""
        sigma2 = self.sigma2()
        return None if sigma2 is None else weight * float(sigma2)


class FixedGaussian(Likelihood):
    """N(x; mean, sigma2 I). The loss is SSE / (2 sigma2): for sigma2 = 1/2 the plain sum of squared errors."""

    variance: Tensor

    def __init__(self, link: Link, pixels: int, sigma2: float) -> None:
        super().__init__(link, pixels)
        self.register_buffer("variance", torch.tensor(sigma2), persistent=False)

    def sigma2(self) -> Tensor:
        return self.variance

    def quantile(self, raw: Tensor, noise: Tensor) -> Tensor:
        return self.link(raw) + self.sigma2().sqrt() * torch.special.ndtri(noise)

    def nll(self, images: Tensor, raw: Tensor) -> Tensor:
        constant = 0.5 * self.pixels * torch.log(2 * math.pi * self.sigma2())
        return self.squared_error(images, raw) / (2 * self.sigma2()) + constant

    def forward(self, images: Tensor, raw: Tensor) -> Reconstruction:
        error = self.squared_error(images, raw)
        return Reconstruction(error.mean() / (2 * self.variance), error)


class OptimalGaussian(FixedGaussian):
    """N(x; mean, sigma*^2 I) with one variance fitted to the data (Rybkin, Daniilidis and Levine 2021,
    arXiv 2006.13202, section 3.2: sigma*^2 is the mean squared error).

    A training step uses its batch's own variance. Evaluation uses an exponential mean of those, never the test
    images' own. Below `floor` there is nothing left to fit: that is FLOOR, the variance of rounding pixels in [0, 1] to
    256 grey levels, unless another is set."""

    FLOOR = 1 / (12 * 255**2)
    total: Tensor
    mass: Tensor

    def __init__(self, link: Link, pixels: int, smoothing: float) -> None:
        super().__init__(link, pixels, sigma2=1.0)
        self.smoothing, self.floor = smoothing, self.FLOOR
        self.register_buffer("total", torch.zeros(()))  # of variances, weighted
        self.register_buffer("mass", torch.zeros(()))  # of weights: without it early means would lean to 0

    def sigma2(self) -> Tensor:
        fitted = (self.total / self.mass.clamp(min=1e-12)).clamp(min=self.floor)
        return torch.where(self.mass > 0, fitted, self.variance)

    def start_at(self, sigma2: float) -> None:
        """The fitted variance before the first step, which those of the steps replace."""
        self.total.fill_(sigma2)
        self.mass.fill_(1.0)

    def fitted_to(self, variance: float) -> Likelihood:
        return FixedGaussian(self.link, self.pixels, max(variance, self.floor)).to(self.variance.device)

    def forward(self, images: Tensor, raw: Tensor) -> Reconstruction:
        error = self.squared_error(images, raw)
        variance = error.mean() / self.pixels
        variance = parallel.mean(variance) if self.training else variance
        fitted = variance.clamp(min=self.floor)
        if self.training:
            self.total.lerp_(fitted.detach(), 1 - self.smoothing)
            self.mass.lerp_(torch.ones_like(self.mass), 1 - self.smoothing)
        rest = torch.where(variance > self.floor, torch.ones_like(variance), variance / self.floor)
        return Reconstruction(0.5 * self.pixels * (torch.log(2 * math.pi * fitted) + rest), error)


class Bernoulli(Likelihood):
    """Cross-entropy summed over pixels. A probability where pixels are 0 or 1; on grey ones no density, and its
    floor is the entropy of the pixels, not 0."""

    is_density = False
    RARE = 0.001  # means nearer to 0 or 1 are started from here

    def raw_near(self, mean: Tensor) -> Tensor | None:
        return torch.logit(mean.double(), eps=self.RARE)

    def is_density_of(self, images: Tensor) -> bool:
        return bool(((images == 0) | (images == 1)).all())

    def refuses(self, images: Tensor) -> str | None:
        return _outside(images, 0, 1)

    def quantile(self, raw: Tensor, noise: Tensor) -> Tensor:
        return (noise > torch.sigmoid(-raw)).to(raw.dtype)

    def curvature(self, mean: Tensor) -> Tensor | None:
        return mean * (1 - mean)

    def nll(self, images: Tensor, raw: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(raw, images, reduction="none").flatten(1).sum(1)


class ContinuousBernoulli(Bernoulli):
    """The Bernoulli form with the constant that makes it a density on [0, 1] (Loaiza-Ganem and Cunningham 2019,
    arXiv 1907.06845)."""

    RARE = 0.01
    is_density = True

    def is_density_of(self, images: Tensor) -> bool:
        return True

    def raw_near(self, mean: Tensor) -> Tensor | None:
        return links.continuous_bernoulli_logit(mean.double().clamp(self.RARE, 1 - self.RARE))

    def raw_of(self, mean: Tensor) -> Tensor | None:
        """None: where a pixel never varies its density grows without bound, and a constant image has no likelihood."""
        return None

    def curvature(self, mean: Tensor) -> Tensor:
        """mean'(l) = 1 / l^2 - 1 / (4 sinh^2(l / 2)) at the logit l of that mean. 0 as well where the mean lies within
        RARE of 0 or 1: there this variance is so small, about mean^2, that the few training images in which such a
        pixel is lit would stand for the data."""
        size = links.continuous_bernoulli_logit(mean.double().clamp(self.RARE, 1 - self.RARE)).abs()
        small = size < 0.05
        safe = torch.where(small, 1.0, size)
        exact = 1 / safe.square() - 0.25 / torch.sinh(safe / 2).square()
        inside = (mean > self.RARE) & (mean < 1 - self.RARE)
        return torch.where(inside, torch.where(small, 1 / 12 - size.square() / 240, exact), 0.0)

    def quantile(self, raw: Tensor, noise: Tensor) -> Tensor:
        """log(1 + u (e^l - 1)) / l, for logits of either sign without overflow."""
        size = raw.abs()
        small = size < 1e-3
        safe = torch.where(small, 1.0, size)
        upper = torch.where(raw < 0, 1 - noise, noise)  # the density of -l is that of l, mirrored
        exact = 1 + torch.log(upper + (1 - upper) * torch.exp(-safe)) / safe
        value = torch.where(small, upper + size * upper * (1 - upper) / 2, exact)
        return torch.where(raw < 0, 1 - value, value)

    def nll(self, images: Tensor, raw: Tensor) -> Tensor:
        return super().nll(images, raw) - continuous_bernoulli_log_constant(raw).flatten(1).sum(1)


class DiscretisedLogistic(Likelihood):
    """A probability for each of 256 grey levels: what a logistic distribution has within half a level of it, and beyond
    0 and 1 all that is left (Kingma et al. 2016, arXiv 1606.04934, section 4; Salimans et al. 2017, arXiv 1701.05517,
    section 2.1, with one component). The decoder gives location and log scale of each pixel."""

    outputs = 2
    START, MIN_LOG_SCALE = -2.0, -7.0  # log scale at raw output 0, and its bound

    def is_density_of(self, images: Tensor) -> bool:
        return True

    def refuses(self, images: Tensor) -> str | None:
        return _outside(images, 0, 1) or _between_levels(images)

    def _place_and_scale(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        raw_location, raw_scale = raw.chunk(2, 1)
        return torch.sigmoid(raw_location), (raw_scale + self.START).clamp(min=self.MIN_LOG_SCALE)

    def quantile(self, raw: Tensor, noise: Tensor) -> Tensor:
        location, log_scale = self._place_and_scale(raw)
        values = location + log_scale.exp() * torch.logit(noise)
        top = links.LEVELS - 1
        return (values * top).round().clamp(0, top) / top

    def nll(self, images: Tensor, raw: Tensor) -> Tensor:
        location, log_scale = self._place_and_scale(raw)
        half = 0.5 / (links.LEVELS - 1)
        upper, lower = ((images + side - location) * torch.exp(-log_scale) for side in (half, -half))
        width = 2 * half * torch.exp(-log_scale)
        # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)), with nothing cancelled
        below, above = F.logsigmoid(upper), F.logsigmoid(-lower)
        inside = below + above + torch.log(-torch.expm1(-width))
        log_p = torch.where(images < half, below, torch.where(images > 1 - half, above, inside))
        return -log_p.flatten(1).sum(1)


class Categorical(Likelihood):
    """A probability of its own for each of 256 grey levels (van den Oord et al. 2016, arXiv 1601.06759, section
    3.4)."""

    outputs = links.LEVELS

    def is_density_of(self, images: Tensor) -> bool:
        return True

    def refuses(self, images: Tensor) -> str | None:
        return _outside(images, 0, 1) or _between_levels(images)

    def quantile(self, raw: Tensor, noise: Tensor) -> Tensor:
        below = raw.unflatten(1, (links.LEVELS, -1)).softmax(1).cumsum(1)
        top = links.LEVELS - 1
        return (below < noise[:, None]).sum(1).clamp(max=top).to(raw.dtype) / top

    def nll(self, images: Tensor, raw: Tensor) -> Tensor:
        levels = (images * (links.LEVELS - 1)).round().long()
        return F.cross_entropy(raw.unflatten(1, (links.LEVELS, -1)), levels, reduction="none").flatten(1).sum(1)


def _outside(images: Tensor, low: float, high: float) -> str | None:
    if bool(((images >= low) & (images <= high)).all()):
        return None
    return f"the images have values from {float(images.min()):g} to {float(images.max()):g}; must be in [0, 1]"


def _between_levels(images: Tensor) -> str | None:
    scaled = images * (links.LEVELS - 1)
    if bool(((scaled - scaled.round()).abs() < 1e-3).all()):
        return None
    return "the images have values between the 256 grey levels; round them to multiples of 1/255, or save them as uint8"


def continuous_bernoulli_log_constant(logits: Tensor) -> Tensor:
    """log C of the density C lam^x (1 - lam)^(1 - x): C = 2 atanh(1 - 2 lam) / (1 - 2 lam), which in logits l
    is l / tanh(l / 2). A Taylor series around 0, where value and gradient of that form are 0/0."""
    size = logits.abs()
    small = size < 0.1
    safe = torch.where(small, 1.0, size)
    exact = safe.log() - torch.log(-torch.expm1(-safe)) + torch.log1p(torch.exp(-safe))
    return torch.where(small, math.log(2) + size.square() / 12 - 7 * size.pow(4) / 1440, exact)


@singledispatch
def build(config: schema.Objective, output: str | None, shape: tuple[int, int, int]) -> Likelihood:
    """The likelihood of `config` for images of `shape` (C, H, W); `output` is model.output."""
    raise NotImplementedError(type(config))


@build.register
def squared_error(config: schema.SquaredError, output: str | None, shape: tuple[int, int, int]) -> Likelihood:
    return FixedGaussian(links.OUTPUTS[output], math.prod(shape), sigma2=0.5)


@build.register
def pixel_mse(config: schema.PixelMSE, output: str | None, shape: tuple[int, int, int]) -> Likelihood:
    """SSE / n + KL, as if a pixel's variance were n / 2."""
    return FixedGaussian(links.OUTPUTS[output], math.prod(shape), sigma2=math.prod(shape) / 2)


@build.register
def gaussian(config: schema.Gaussian, output: str | None, shape: tuple[int, int, int]) -> Likelihood:
    return FixedGaussian(links.OUTPUTS[output], math.prod(shape), config.sigma2)


@build.register
def optimal_gaussian(config: schema.OptimalGaussian, output: str | None, shape: tuple[int, int, int]) -> Likelihood:
    return OptimalGaussian(links.OUTPUTS[output], math.prod(shape), config.smoothing)


@build.register
def bernoulli(config: schema.Bernoulli, output: str | None, shape: tuple[int, int, int]) -> Likelihood:
    return Bernoulli(links.sigmoid, math.prod(shape))


@build.register
def continuous_bernoulli(
    config: schema.ContinuousBernoulli, output: str | None, shape: tuple[int, int, int]
) -> Likelihood:
    return ContinuousBernoulli(links.continuous_bernoulli_mean, math.prod(shape))


@build.register
def discretised_logistic(
    config: schema.DiscretisedLogistic, output: str | None, shape: tuple[int, int, int]
) -> Likelihood:
    return DiscretisedLogistic(links.location, math.prod(shape))


@build.register
def categorical(config: schema.Categorical, output: str | None, shape: tuple[int, int, int]) -> Likelihood:
    return Categorical(links.categorical_mean, math.prod(shape))


@build.register
def own(config: schema.CustomObjective, output: str | None, shape: tuple[int, int, int]) -> Likelihood:
    """The user's likelihood. Raises InputError where it is none."""
    likelihood = custom.build(config.likelihood, "objective.likelihood", shape=shape)
    if not isinstance(likelihood, Likelihood):
        raise InputError(
            f"objective.likelihood: gave {type(likelihood).__name__}; must be a subclass of "
            "vae.models.likelihood.Likelihood"
        )
    if not hasattr(likelihood, "pixels"):
        raise InputError("objective.likelihood: its __init__ must call super().__init__(link, pixels)")
    return likelihood
