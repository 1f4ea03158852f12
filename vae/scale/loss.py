"""What the weights and reductions of a loss amount to.

A loss is written r * R + w * K: a reconstruction term R and a KL term K, each summed or averaged over the numbers of an
image (its n pixel values, its d latent dimensions) and over the batch. Averaging divides by n, d or the batch size, so
the written weight w says little. The same loss, but for a constant factor, is SSE / (2 sigma^2) + beta * KL per image,
summed over pixels and dimensions; its optimum depends on t = beta * sigma^2 alone (vae.measure.spectrum), and collapses
where t exceeds the largest eigenvalue of the data's covariance. No torch, unless images are given."""

import dataclasses
import math
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from vae.config import checks
from vae.config.errors import InputError
from vae.measure.written import number

REDUCTIONS = {  # averaged over the numbers of an image, and over the batch
    "sum": (False, False),
    "mean": (True, True),
    "batchmean": (False, True),
    "batchsum": (True, False),
}
SAID = {
    "sum": "summed over everything",
    "mean": "averaged over everything",
    "batchmean": "summed over {}, averaged over the batch",
    "batchsum": "averaged over {}, summed over the batch",
}
FITTED = 32  # latent dimensions of a linear VAE that fits the variance, where nobody said how many
KINDS = {"mse": 1.0, "half_mse": 0.5, "l1": 1.0, "bce": 1.0}  # the factor of its error
NAMES = {"mse": "squared error", "half_mse": "half the squared error", "l1": "absolute error", "bce": "cross-entropy"}


@dataclass(frozen=True)
class Scale:
    """What a written loss means, in nats per image. Made by `scale`."""

    reconstruction: str  # one of KINDS
    reduction: str  # one of REDUCTIONS
    kl_reduction: str
    kl_weight: float  # as it is written
    pixels: int  # n
    pixel_range: tuple[float, float]
    sigma2: float | None  # the pixel variance that the reconstruction term means; None: it is no squared error
    beta: float  # the KL weight beside it
    unsaid: tuple[str, ...] = ()  # what was left open, and changes the numbers
    notes: tuple[str, ...] = ()
    largest_eigenvalue: float | None = None  # of the given images (bce: whitened by its curvature)
    collapse_weight: float | None = None  # the written KL weight from which on the collapsed state is stable
    fitted_sigma2: float | None = None  # the pixel variance that a linear VAE would fit, of `dimensions`
    dimensions: int | None = None  # latent_dim, or 32 where that was not given
    kept: int | None = None  # dimensions that a linear VAE keeps of these images, at this weight
    kld: float | None = None  # and its nats

    @property
    def t(self) -> float | None:
        """t = beta * sigma^2; None where there is no pixel variance."""
        return None if self.sigma2 is None else self.beta * self.sigma2

    @property
    def likelihood(self) -> str | None:
        """As vae.diagnose names it; None for l1, for which it has none."""
        return {"bce": "bernoulli", "l1": None}.get(self.reconstruction, "gaussian")

    @property
    def always_collapses(self) -> bool:
        """Whether the collapsed state is stable whatever the images are: no values in this range vary by more than a
        quarter of its square (Popoviciu 1935), so no eigenvalue exceeds n times that."""
        black, white = self.pixel_range
        return self.t is not None and self.t >= self.pixels * (white - black) ** 2 / 4

    def _collapses_at(self, kl_weight: float) -> bool:
        """Whether the collapsed state would be stable at this written KL weight, for these images or for any."""
        if self.collapse_weight is not None:
            return kl_weight >= self.collapse_weight
        return self.always_collapses and kl_weight >= self.kl_weight

    def weight_for(self, beta: float = 1.0, sigma: float | None = None) -> float:
        """The KL weight to write for this beta, beside the pixel variance that the loss means or, where `sigma` is
        given, as if that were the standard deviation of a pixel. Raises InputError where the reconstruction term has
        none."""
        per_weight, beta = self.beta / self.kl_weight, checks.number("beta", beta)
        if sigma is None:
            return beta / per_weight
        sigma = checks.number("sigma", sigma)
        if self.sigma2 is None:
            raise InputError(
                f"sigma={sigma:g}: reconstruction={self.reconstruction} has no pixel variance; leave it out"
            )
        if not sigma > 0:
            raise InputError(f"sigma={sigma:g}: must be above 0, in the units of a pixel")
        return beta * sigma**2 / (per_weight * self.sigma2)

    def summed(self, beta: float) -> str:
        """The loss of this beta with both terms summed over an image's numbers and averaged over the batch, in words;
        empty where they are written so."""
        if REDUCTIONS[self.reduction][0] is REDUCTIONS[self.kl_reduction][0] is False:
            return ""
        weight = beta if self.sigma2 is None else beta * self.sigma2 * 2 * KINDS[self.reconstruction]
        return (
            f"{_short(weight)} beside the {NAMES[self.reconstruction]} summed over pixels and the KL summed over "
            "dimensions, both averaged over the batch"
        )

    def __str__(self) -> str:
        return "\n".join(f"{name:<26}{value}" for name, value in self._rows())

    def _rows(self) -> list[tuple[str, str]]:
        black, white = self.pixel_range
        error = f"{NAMES[self.reconstruction]}, {SAID[self.reduction].format('pixels')}"
        kl = f"KL, {SAID[self.kl_reduction].format('dimensions')}"
        rows = [("not said", text) for text in self.unsaid]
        rows += [("the loss as written", error), ("", f"+ {self.kl_weight:g} x {kl}")]
        if self.sigma2 is None:
            rows.append(
                ("means, per image", f"the whole {NAMES[self.reconstruction]} + beta x KL, beta = {_short(self.beta)}")
            )
        else:
            means = f"SSE / (2 sigma^2) + beta x KL, sigma^2 = {_short(self.sigma2)}, beta = {_short(self.beta)}"
            rows.append(("means, per image", means))
        if self.t is not None:
            deviation = math.sqrt(self.t)
            rows.append(("t = beta sigma^2", _short(self.t)))
            rows.append(
                (
                    "as an ELBO (beta = 1)",
                    f"sigma = {_short(deviation)}, {_times(deviation / (white - black))} the range of a pixel",
                )
            )
        if self.collapse_weight is not None and self.largest_eigenvalue is not None:
            rows.append(("largest eigenvalue", _short(self.largest_eigenvalue)))
            stable = "this loss is beyond it" if self.kl_weight >= self.collapse_weight else "this loss is below it"
            rows.append(("collapse is stable from", f"KL weight {_short(self.collapse_weight)} on: {stable}"))
        elif self.always_collapses:
            rows.append(
                ("collapse", "stable whatever the images are: no data in this range vary enough for a code to pay")
            )
        if self.kept is not None and self.kld is not None:
            rows.append(("a linear VAE would keep", f"{self.kept} dimensions with {number(self.kld)} nats"))
        beside = "" if self.sigma2 is None else f", beside sigma^2 = {_short(self.sigma2)}"
        whole = self.weight_for(1.0)
        still = ": collapsed all the same" if self._collapses_at(whole) else ""
        rows.append(("to write for beta = 1", f"KL weight {_short(whole)}{beside}{still}"))
        if self.fitted_sigma2 is not None:
            fitted = self.weight_for(1.0, math.sqrt(self.fitted_sigma2))
            of = f"sigma^2 = {_short(self.fitted_sigma2)}, of {self.dimensions} dimensions"
            rows.append(("with a fitted variance", f"KL weight {_short(fitted)} ({of})"))
        elif self.sigma2 is not None:
            tenth = self.weight_for(1.0, 0.1 * (white - black))
            rows.append(("and sigma = .1 range", f"KL weight {_short(tenth)}"))
        return [*rows, *(("note", note) for note in self.notes)]


def scale(
    reconstruction: str = "mse",
    reduction: str = "mean",
    image_shape: Sequence[int] | int | None = None,
    kl_reduction: str = "batchmean",
    latent_dim: int | None = None,
    kl_weight: float = 1.0,
    pixel_range: tuple[float, float] = (0.0, 1.0),
    batch_size: int | None = None,
    reconstruction_weight: float = 1.0,
    images: Any = None,
) -> Scale:
    """What the loss `reconstruction_weight * R + kl_weight * KL` means.

    `reconstruction`: mse, half_mse, l1 or bce. `reduction` and `kl_reduction`, in torch's words: sum (over everything,
    the batch too), mean (over everything), batchmean (summed over an image's pixels or dimensions, averaged over the
    batch), batchsum (the other way round). `image_shape` (C, H, W) and `latent_dim`: what is averaged over.
    `batch_size` matters where one term is summed over the batch and the other is not; without it such a sum is taken
    for that of one image, and the answer says so. `images`, of any kind that vae.diagnose takes: where these data
    collapse. Floats are in `pixel_range`; what is read as 0 to 1 (uint8, a dataset of this program) is put there.
    Raises InputError."""
    _one_of("reconstruction", reconstruction, KINDS)
    _one_of("reduction", reduction, REDUCTIONS)
    _one_of("kl_reduction", kl_reduction, REDUCTIONS)
    kl_weight = _above_zero("kl_weight", kl_weight)
    reconstruction_weight = _above_zero("reconstruction_weight", reconstruction_weight)
    black, white = checks.span("pixel_range", pixel_range)
    if image_shape is not None:
        image_shape = _shape(image_shape)
    split, notes, unsaid = None, list[str](), list[str]()
    if images is not None:
        from vae.data import scale as pixel_scale
        from vae.data.in_memory import split_of
        from vae.data.split import Data, Split

        split, notes = split_of(images)
        if isinstance(images, Split | Data) or not split.images.is_floating_point():
            some = pixel_scale.sample(split).batch(slice(None))
            if float(some.min()) >= 0 and float(some.max()) <= 1:  # else they have a range of their own
                split = pixel_scale.onto(split, black, white)
        if image_shape is not None and math.prod(image_shape) != math.prod(split.shape):
            raise InputError(f"image_shape={image_shape}: the images have shape {split.shape}")
        image_shape = split.shape
    if image_shape is None:
        raise InputError("image_shape: needed, as in (3, 64, 64), or images")
    if latent_dim is not None:
        latent_dim = checks.whole("latent_dim", latent_dim, 1)
    pixels = math.prod(image_shape)
    over_pixels, over_batch = REDUCTIONS[reduction]
    over_dimensions, kl_over_batch = REDUCTIONS[kl_reduction]
    if over_dimensions and latent_dim is None:
        raise InputError(f"kl_reduction={kl_reduction}: averages over latent dimensions; latent_dim says how many")
    if over_batch != kl_over_batch and batch_size is None:
        term, times = ("KL", "batch_size") if over_batch else ("reconstruction", "1 / batch_size")
        unsaid.append(
            f"the {term} term is taken for that of one image; summed over a batch, the KL weighs {times} times as "
            "much: say batch_size if it is"
        )
    if batch_size is not None:
        batch_size = checks.whole("batch_size", batch_size, 1)
    size = batch_size or 1
    error = reconstruction_weight * KINDS[reconstruction]
    averaged = pixels if over_pixels else 1
    kl = kl_weight / (latent_dim if over_dimensions and latent_dim else 1)
    beta = kl * (1 if kl_over_batch else size) / (1 if over_batch else size)
    is_squared = reconstruction in ("mse", "half_mse")
    found = Scale(
        reconstruction=reconstruction,
        reduction=reduction,
        kl_reduction=kl_reduction,
        kl_weight=kl_weight,
        pixels=pixels,
        pixel_range=(black, white),
        sigma2=averaged / (2 * error) if is_squared else None,
        beta=beta if is_squared else beta * averaged / error,
        unsaid=tuple(unsaid),
        notes=tuple(notes),
    )
    return found if split is None else _on_data(found, split, latent_dim)


def _on_data(found: Scale, split: Any, latent_dim: int | None) -> Scale:
    """With what the closed form says of these images."""
    from vae.config import schema
    from vae.measure import prediction, spectrum
    from vae.measure.catalogue import wider
    from vae.models import likelihood as likelihoods

    some = split.batch(slice(0, 1000))
    black, white = found.pixel_range
    low, high = float(some.min()), float(some.max())
    slack = 1e-3 * (white - black)
    if low < black - slack or high > white + slack:
        raise InputError(f"pixel_range=({black:g}, {white:g}): the images have values from {low:g} to {high:g}")
    if found.likelihood is None:
        return dataclasses.replace(found, notes=(*found.notes, "no closed form is known for absolute errors"))
    dimensions = latent_dim or FITTED
    spectrum_found = spectrum.measure(split, wider(dimensions))
    if found.sigma2 is None:
        likelihood = likelihoods.build(schema.Bernoulli(name="bernoulli"), None, split.shape)
    else:
        likelihood = likelihoods.build(schema.Gaussian(name="gaussian", sigma2=found.sigma2), None, split.shape)
    refused = likelihood.refuses(some)
    if refused is not None:
        raise InputError(f"reconstruction={found.reconstruction}: {refused}")
    white_found = prediction.whitened(split, spectrum_found, likelihood, wider(dimensions))
    predicted = prediction.measures(spectrum_found, white_found, likelihood, dimensions, found.beta)
    edge = predicted.predicted_collapse_weight
    fitted = None
    if found.sigma2 is not None:
        floor = likelihoods.OptimalGaussian.FLOOR * (white - black) ** 2
        fitted = spectrum.linear_optimum(spectrum_found, dimensions, 1.0, None, floor).sigma2
    return dataclasses.replace(
        found,
        largest_eigenvalue=spectrum_found.largest if white_found is None else white_found.largest,
        collapse_weight=None if edge is None else found.weight_for(edge),
        fitted_sigma2=fitted,
        dimensions=None if fitted is None else dimensions,
        kept=None if latent_dim is None else predicted.predicted_active_units,
        kld=None if latent_dim is None else predicted.predicted_kld,
    )


def _shape(given: Any) -> tuple[int, ...]:
    try:
        shape = tuple(operator.index(size) for size in (given if isinstance(given, Iterable) else (given,)))
    except TypeError:
        shape = ()
    if not shape or min(shape) < 1:
        raise InputError(f"image_shape={given}: must be whole numbers from 1 on, as in (3, 64, 64)")
    return shape


def _one_of(name: str, value: Any, allowed: Iterable[str]) -> None:
    if value not in [*allowed]:
        raise InputError(f"{name}={value}: must be one of {', '.join(allowed)}")


def _above_zero(name: str, value: Any) -> float:
    found = checks.number(name, value)
    if not 0 < found < math.inf:
        raise InputError(f"{name}={value}: must be a finite number above 0")
    return found


def _times(factor: float) -> str:
    return f"{factor:.2g} times" if factor >= 1 else f"{factor:.2g} of"


def _short(value: float) -> str:
    return f"{value:.3g}"
