"""A VAE that was trained elsewhere, seen as one of ours: any function from images to q(z|x) and any from codes to
images.

Codes may have any shape: vectors, or maps as autoencoders of latent diffusion have. Here they are rows of d numbers,
and get their own shape back before they are decoded. The networks stay on their device and in their precision; what
they give comes back to the images' device as float32, where it is measured."""

import functools
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from vae.config.errors import InputError
from vae.models import links
from vae.models.likelihood import Bernoulli, Likelihood
from vae.models.posteriors import Posterior
from vae.runtime.custom import one_line_for

Encode = Callable[[Tensor], Any]
Decode = Callable[[Tensor], Any]

MAX_LOGIT = 100.0  # of a probability of 0 or 1; torch's binary_cross_entropy stops there too
SAME = 1e-3  # of the spread of what a network gives: a larger difference is no rounding
ROUNDED = 4  # roundings of a number in half precision, each of which is more than that
TRIED = 8  # images that are tried first
MAX_VALUES = 2**22  # pixels that go through a network at once: 21 images of 256x256 in colour, thousands of digits
MEANS = ("mean", "mu", "loc", "embedding", "z_mean")
SPREADS = {  # the names under which libraries give the second half of q(z|x), and how to read it
    "log_sigma": ("log_sigma", "logsigma", "log_std", "logstd", "log_scale"),
    "log_variance": ("logvar", "log_var", "log_variance", "log_covariance", "z_log_var"),
    "sigma": ("std", "stddev", "sigma", "scale"),
}
READINGS: dict[str, Callable[[Tensor], Tensor]] = {  # to log sigma
    "log_sigma": lambda value: value,
    "log_variance": lambda value: value / 2,
    "sigma": torch.log,
    "variance": lambda value: value.log() / 2,
    "-log_sigma": torch.neg,
    "-log_variance": lambda value: -value / 2,
}
DECODED = ("sample", "reconstruction", "recon_x", "recon", "mean", "logits", "x_hat")  # names of decoded images


class Spread(NamedTuple):
    """The second half of q(z|x) as it was given."""

    value: Tensor | None  # None: there is none, each image has a point for a code
    reading: str  # one of READINGS
    is_named: bool = False  # the object itself says so


class Encoded(NamedTuple):
    mu: Tensor  # (B, ...)
    spread: Spread

    def log_sigma(self) -> Tensor:
        if self.spread.value is None:
            return torch.full_like(self.mu, -torch.inf)
        return READINGS[self.spread.reading](self.spread.value)


def encoded(given: Any, log_variance: bool) -> Encoded:
    """What an encoder gave, in whatever form: a pair of tensors, the second log sigma (or the log variance), a
    torch.distributions.Normal, an object or dictionary with a mean and a spread by their usual names, or one that has
    such a `latent_dist`. One tensor alone is a point. Raises InputError for anything else."""
    given = getattr(given, "latent_dist", given)
    if isinstance(given, Posterior):
        is_point = bool((given.log_sigma == -torch.inf).all())
        return Encoded(given.mu, Spread(None if is_point else given.log_sigma, "log_sigma", True))
    if isinstance(given, Independent):
        given = given.base_dist
    if isinstance(given, Normal):
        return Encoded(given.loc, Spread(given.scale, "sigma", True))
    if isinstance(given, Distribution):
        raise InputError(f"encode: gave a {type(given).__name__}; q(z|x) must be a Normal, one for each dimension")
    if isinstance(given, Tensor):
        return Encoded(given, Spread(None, "log_sigma", True))
    if isinstance(given, tuple | list) and all(isinstance(part, Tensor) for part in given):
        if len(given) != 2:
            raise InputError(
                f"encode: gave {len(given)} tensors; must give two, mu and log sigma (or, with log_variance=True, the "
                "log variance)"
            )
        return Encoded(given[0], Spread(given[1], "log_variance" if log_variance else "log_sigma"))
    mu = _named(given, MEANS)
    for reading, names in SPREADS.items():
        value = _named(given, names)
        if mu is not None and value is not None:
            return Encoded(mu, Spread(value, reading, True))
    raise InputError(
        f"encode: gave a {type(given).__name__}; must give (mu, log_sigma), a torch.distributions.Normal, or an object "
        "with .mean and .logvar"
    )


def _named(given: Any, names: Sequence[str]) -> Tensor | None:
    """The tensor that an object or a dictionary has under one of these names."""
    for name in names:
        found = given.get(name) if isinstance(given, Mapping) else getattr(given, name, None)
        if isinstance(found, Tensor):
            return found
    return None


@dataclass(frozen=True)
class Layout:
    """How images and codes must be handed over, found by trying (`tried`)."""

    latent_shape: tuple[int, ...]  # of the code of one image
    flat_images: bool = False  # the encoder wants rows of pixels
    dirac: bool = False
    probabilities: bool = False  # decoded images are means, where the likelihood works with logits


class ForeignModel:
    """A vae.models.latent.LatentModel of two functions. `raw` is what `likelihood` takes; `training` stays as it is,
    since `undisturbed` puts each of the networks back into its own mode."""

    has_code = True
    is_autoregressive = False
    training = False

    def __init__(
        self,
        encode: Encode,
        decode: Decode,
        likelihood: Likelihood,
        shape: tuple[int, int, int],
        layout: Layout,
        log_variance: bool = False,
        device: torch.device | None = None,
    ) -> None:
        self.encode_images, self.decode_codes, self.log_variance = encode, decode, log_variance
        self.shape, self.layout, self.link, self.outputs = shape, layout, likelihood.link, likelihood.outputs
        self.latent_dim = math.prod(layout.latent_shape)
        self.is_dirac = layout.dirac
        self.modules = networks_of(encode, decode)
        self.device, self.dtype = place_of(self.modules, device)

    def encode(self, images: Tensor) -> Posterior:
        parts = [self._posterior(batch) for batch in images.split(self._at_once())]
        return Posterior(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def _posterior(self, images: Tensor) -> Posterior:
        found = self.encoded(images)
        return Posterior(*(part.flatten(1).float().to(images.device) for part in (found.mu, found.log_sigma())))

    def encoded(self, images: Tensor) -> Encoded:
        """The same as the encoder gives it."""
        given = images.to(self.device, self.dtype)
        return encoded(self.encode_images(given.flatten(1) if self.layout.flat_images else given), self.log_variance)

    def raw(self, z: Tensor, images: Tensor | None = None) -> Tensor:
        return torch.cat([self._raw(codes) for codes in z.split(self._at_once())])

    def _raw(self, z: Tensor) -> Tensor:
        codes = z.unflatten(1, self.layout.latent_shape).to(self.device, self.dtype)
        channels, height, width = self.shape
        given = decoded(self.decode_codes(codes)).float().to(z.device)
        raw = given.reshape(len(z), self.outputs * channels, height, width)
        return torch.logit(raw.clamp(0, 1)).clamp(-MAX_LOGIT, MAX_LOGIT) if self.layout.probabilities else raw

    def _at_once(self) -> int:
        return max(1, MAX_VALUES // math.prod(self.shape))

    def decode(self, z: Tensor, same_chance: bool = False, rng: torch.Generator | None = None) -> Tensor:
        return self.link(self.raw(z))

    def parameters(self) -> Iterator[nn.Parameter]:
        seen: dict[int, nn.Parameter] = {}
        for module in self.modules:
            seen |= {id(parameter): parameter for parameter in module.parameters()}
        return iter(seen.values())

    def eval(self) -> None:
        for module in self.modules:
            module.eval()

    def train(self, mode: bool = True) -> None:
        """Nothing: see the class."""


def decoded(given: Any) -> Tensor:
    """The images in what a decoder gave: a tensor, the first of several, or what an object has under a usual name."""
    found = given[0] if isinstance(given, tuple | list) and given else given
    if not isinstance(found, Tensor):
        named = _named(found, DECODED)
        if named is None:
            raise InputError(
                f"decode: gave a {type(given).__name__}; must give images or logits, a tensor (B, C, H, W)"
            )
        return named
    return found


def tried(
    encode: Encode,
    decode: Decode,
    likelihood: Likelihood,
    images: Tensor,
    log_variance: bool = False,
    gives: str | None = None,
    device: torch.device | None = None,
) -> ForeignModel:
    """The model that two functions are, tried on a few images (B, C, H, W) first. `gives`: "mean" or "logits", what a
    decoder of a Bernoulli likelihood gives; None: told by its numbers. Raises InputError, in one line, where they give
    other shapes, numbers that are not finite or not in their range, or other codes for the same images."""
    images = images[:TRIED]
    shape = (int(images.shape[1]), int(images.shape[2]), int(images.shape[3]))
    given, flat = _first_codes(encode, images, *place_of(networks_of(encode, decode), device))
    first = encoded(given, log_variance)
    count, latent_shape = len(images), tuple(first.mu.shape[1:])
    if first.mu.dim() < 2 or len(first.mu) != count or not math.prod(latent_shape):
        raise InputError(
            f"encode: mu has shape {tuple(first.mu.shape)} for {count} images; must be ({count}, ...), a code an image"
        )
    spread = first.spread.value
    if spread is not None and spread.shape != first.mu.shape:
        raise InputError(
            f"encode: mu has shape {tuple(first.mu.shape)} and the second output {tuple(spread.shape)}; must be the "
            "same, one sigma for each dimension"
        )
    layout = Layout(latent_shape, flat, spread is None)
    model = ForeignModel(encode, decode, likelihood, shape, layout, log_variance, device)
    _check_codes(first, model.encode(images))
    _check_repeats(model, images, first.mu)
    posterior = model.encode(images)
    output = _first_images(model, posterior, likelihood)
    _check_decodes(model, images, posterior, output.dtype)
    _check_single(model, images, posterior.mu)
    layout = Layout(latent_shape, flat, spread is None, _are_probabilities(likelihood, output, gives))
    return ForeignModel(encode, decode, likelihood, shape, layout, log_variance, device)


def _first_codes(encode: Encode, images: Tensor, device: torch.device, dtype: torch.dtype) -> tuple[Any, bool]:
    """What the encoder gives for images as they are, or, where it cannot take those, as rows of pixels."""
    placed = images.to(device, dtype)
    try:
        return encode(placed), False
    except Exception:  # whatever the user's code raises
        try:
            return encode(placed.flatten(1)), True
        except Exception:  # the first failure is the one to tell
            with one_line_for("encode", f"fails on images of shape {tuple(images.shape)}"):
                return encode(placed), False


def _check_codes(first: Encoded, posterior: Posterior) -> None:
    value = first.spread.value
    if not bool(first.mu.isfinite().all()) or (value is not None and not bool(value.isfinite().all())):
        raise InputError("encode: gave numbers that are not finite for the first images")
    if value is not None and first.spread.reading == "sigma" and not bool((value > 0).all()):
        raise InputError(f"encode: sigma is {float(value.min()):.3g} somewhere; must be above 0")
    if not bool(posterior.log_sigma.exp().isfinite().all()):
        raise InputError(
            f"encode: log sigma goes up to {float(posterior.log_sigma.max()):.3g}, so that sigma overflows; is it the "
            "variance, or the precision?"
        )


def _check_repeats(model: ForeignModel, images: Tensor, mu: Tensor) -> None:
    """The same images must have the same code, `mu`, whatever is encoded with them."""
    eps = _eps(mu.dtype, model.dtype)
    mu = mu.flatten(1).float().to(images.device)
    if not _same(model.encode(images).mu, mu, eps):
        raise InputError(
            "encode: gave another mu for the same images; must give the mean of q(z|x), no sample of it, with nothing "
            "random inside (such as dropout in training mode)"
        )
    if not _same(model.encode(images[: len(images) // 2]).mu, mu, eps, batched=True):
        raise InputError(
            "encode: an image has another mu in another batch, as with a BatchNorm in training mode; put the network "
            "into eval mode, or hand over its own method, so that it can be found and put there"
        )


def _check_decodes(model: ForeignModel, images: Tensor, posterior: Posterior, dtype: torch.dtype) -> None:
    """The same codes must give the same images, whatever was encoded last and is decoded with them. `posterior` is what
    was encoded last, of `images`; `dtype`: of what `decode` gives."""
    eps = _eps(dtype, model.dtype)
    first = model.raw(posterior.mu)
    if not _same(model.raw(posterior.mu), first, eps):
        raise InputError(
            "decode: gave other images for the same codes; must give the mean of p(x|z), no sample of it, with nothing "
            "random inside (such as dropout in training mode)"
        )
    model.encode(images.flip(0))
    leak = (
        "what it gives depends on the images that were encoded last, as with skip connections from encoder to decoder; "
        "must be a function of z alone: with such a path nothing need go through the code"
    )
    if not _same(model.raw(posterior.mu), first, eps):
        raise InputError(f"decode: {leak}")
    with one_line_for("decode", f"fails on half of the codes; if {leak}"):
        half = model.raw(posterior.mu[: len(images) // 2])
    if not _same(half, first, eps, batched=True):
        raise InputError(
            "decode: a code gives another image in another batch, as with a BatchNorm in training mode; put the "
            "network into eval mode, or hand over its own method, so that it can be found and put there"
        )


def _check_single(model: ForeignModel, images: Tensor, mu: Tensor) -> None:
    """The last batch may be of one image, with the code `mu[:1]`."""
    with one_line_for("encode", "fails on a single image"):
        found = model.encoded(images[:1])
    wanted = (1, *model.layout.latent_shape)
    for name, part in (("mu", found.mu), ("the second output", found.spread.value)):
        if part is not None and part.shape != wanted:
            raise InputError(
                f"encode: of a single image {name} has shape {tuple(part.shape)}; must be {wanted}: a squeeze()?"
            )
    with one_line_for("decode", "fails on a single code"):
        model.raw(mu[:1])


def _same(found: Tensor, expected: Tensor, eps: float, batched: bool = False) -> bool:
    """Whether they are equal to rounding, `eps` of a number, which may be larger in a batch of another size (the first
    of `expected`)."""
    spread = float(expected.std()) if expected.numel() > 1 else 1.0
    noise = max(SAME * (10 if batched else 1), ROUNDED * eps) * max(spread, 1e-6)
    return torch.allclose(found, expected[: len(found)], rtol=max(SAME, ROUNDED * eps), atol=noise)


def _eps(*dtypes: torch.dtype) -> float:
    """The relative rounding of the coarsest of these types."""
    return max(torch.finfo(dtype).eps for dtype in dtypes if dtype.is_floating_point)


def _first_images(model: ForeignModel, posterior: Posterior, likelihood: Likelihood) -> Tensor:
    """What the decoder gives for the first codes."""
    codes = posterior.mu.unflatten(1, model.layout.latent_shape).to(model.device, model.dtype)
    with one_line_for("decode", f"fails on codes of shape {tuple(codes.shape)}"):
        output = decoded(model.decode_codes(codes)).detach()
    channels, height, width = model.shape
    wanted = (len(codes), likelihood.outputs * channels, height, width)
    shapes = [wanted, (len(codes), math.prod(wanted[1:]))]
    same_numbers = output.numel() == math.prod(wanted) and wanted[1] == 1
    if tuple(output.shape) not in shapes and not same_numbers:
        raise InputError(
            f"decode: gave shape {tuple(output.shape)} for codes of {tuple(codes.shape)}; must give {wanted}"
            + (", channels first" if output.numel() == math.prod(wanted) else "")
        )
    if not bool(output.isfinite().all()):
        raise InputError("decode: gave numbers that are not finite for the first codes")
    return output


def _are_probabilities(likelihood: Likelihood, output: Tensor, gives: str | None) -> bool:
    """Whether a decoder whose likelihood works with logits gives means instead. Raises InputError where it cannot give
    what it is said to."""
    if gives not in (None, "mean", "logits"):
        raise InputError(f"decoder_gives={gives}: must be mean or logits")
    if not isinstance(likelihood, Bernoulli):
        if gives == "logits":
            raise InputError("decoder_gives=logits: only the Bernoulli likelihoods take logits; leave it out")
        return False
    if gives == "logits":  # vae.measure.doubts says where they look like probabilities
        return False
    low, high = float(output.min()), float(output.max())
    inside = low >= 0 and high <= 1
    if gives == "mean" and not inside:
        raise InputError(
            f"decode: gave values from {low:.3g} to {high:.3g}, which are no probabilities; hand over what comes after "
            "the sigmoid, or say decoder_gives=logits"
        )
    if inside and likelihood.link is not links.sigmoid:
        raise InputError(
            f"decode: gave values from {low:.3g} to {high:.3g}; a continuous Bernoulli takes logits, whose sigmoid is "
            "not its mean"
        )
    return inside


def networks_of(*functions: Callable[..., Any]) -> tuple[nn.Module, ...]:
    """The networks that functions call: themselves, the objects that they are methods of, and what they take from
    around them, as a lambda does."""
    found: dict[int, nn.Module] = {}
    waiting: list[Any] = [*functions]
    seen: set[int] = set()
    while waiting:
        item = waiting.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, nn.Module):
            found[id(item)] = item
        elif isinstance(item, functools.partial):
            waiting += [item.func, *item.args, *item.keywords.values()]
        elif inspect.ismethod(item):
            waiting += [item.__self__, item.__func__]
        elif inspect.isfunction(item):
            around = inspect.getclosurevars(item)
            waiting += [value for value in (*around.nonlocals.values(), *around.globals.values()) if _may_hold(value)]
        elif isinstance(held := getattr(item, "__dict__", None), dict):
            waiting += [value for value in held.values() if isinstance(value, nn.Module)]
    return tuple(found.values())


def _may_hold(value: Any) -> bool:
    """Whether what a function takes from around it may be, or lead to, a network."""
    return isinstance(value, nn.Module | functools.partial) or inspect.isfunction(value) or inspect.ismethod(value)


def place_of(modules: Sequence[nn.Module], device: torch.device | None) -> tuple[torch.device, torch.dtype]:
    """Where networks compute, and in which precision: as their first floating-point parameter."""
    for module in modules:
        for parameter in module.parameters():
            if parameter.is_floating_point():
                return device or parameter.device, parameter.dtype
    return device or torch.device("cpu"), torch.float32


@contextmanager
def undisturbed(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Networks are in eval mode inside, and each of their parts in its own mode again afterwards; so are torch's random
    numbers."""
    modes = {part: part.training for module in modules for part in module.modules()}
    gpus = {parameter.device for part in modes for parameter in part.parameters(recurse=False) if parameter.is_cuda}
    devices = sorted(device.index for device in gpus)
    with torch.random.fork_rng(devices):
        for module in modules:
            module.eval()
        try:
            yield
        finally:
            for part, training in modes.items():
                part.training = training
