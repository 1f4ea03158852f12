"""The networks: an encoder from images (B, C, H, W) to the two heads (mu, raw log sigma), and a decoder from codes (B,
d) to raw outputs (B, outputs * C, H, W), of which the likelihood says how many it needs for a pixel. Convolutional,
fully connected, linear, autoregressive, or the user's own.

A kind of network is a function of its dataclass in vae.config.schema, registered with `build`. Weights start
Glorot-uniform (Glorot and Bengio 2010) and biases at 0. With torch's own initialisation mu starts so near 0 that even
an autoencoder sits at the mean image for a thousand steps."""

import itertools
import math
from collections.abc import Sequence
from functools import singledispatch

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from vae.config import schema
from vae.config.errors import InputError
from vae.models.autoregressive import Bias, Map, PixelCNN
from vae.runtime import custom

Shape = tuple[int, int, int]  # (C, H, W) of an image
Pair = tuple[nn.Module, nn.Module]  # encoder and decoder


class GaussianHeads(nn.Module):
    """Features (B, width) from `body`, then two linear heads (B, d): the mean, and log sigma before its bounds."""

    def __init__(self, body: nn.Module, width: int, latent_dim: int) -> None:
        super().__init__()
        self.body = body
        self.mu = nn.Linear(width, latent_dim)
        self.log_sigma = nn.Linear(width, latent_dim)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(images)
        return self.mu(features), self.log_sigma(features)


class LinearHeads(nn.Module):
    """mu = V x + b and one log sigma for each dimension, the same for every image: the encoder of the linear VAE
    (Lucas et al. 2019, arXiv 1911.02469, section 3)."""

    def __init__(self, pixels: int, latent_dim: int) -> None:
        super().__init__()
        self.mu = nn.Linear(pixels, latent_dim)
        self.log_sigma = nn.Parameter(torch.zeros(latent_dim))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mu = self.mu(images.flatten(1))
        return mu, self.log_sigma.expand_as(mu)


class Doubling(nn.ConvTranspose2d):
    """A transposed convolution that doubles both sides: (B, inputs, H, W) to (B, outputs, 2H, 2W)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, kernel_size=4, stride=2, padding=1)


class ToGrey(Doubling):
    """To one channel, as a matrix product and the sum of the patches that it gives: of small images torch's own takes
    up to four times as long. (To three it takes two thirds of the time that this would.)"""

    def __init__(self, inputs: int) -> None:
        super().__init__(inputs, 1)

    def forward(self, features: Tensor, output_size: list[int] | None = None) -> Tensor:
        """`output_size` is always (2H, 2W)."""
        bias = self.bias
        assert bias is not None
        height, width = features.shape[2:]
        patches = self.weight.flatten(1).t() @ features.flatten(2)
        images = F.fold(patches, (2 * height, 2 * width), kernel_size=4, stride=2, padding=1)
        return images + bias[:, None, None]


@singledispatch
def build(config: schema.Model, shape: Shape, outputs: int, rng: torch.Generator) -> Pair:
    """The encoder and decoder that `config` describes for images of `shape`, their weights drawn from `rng`. The
    decoder gives `outputs` numbers for each channel of a pixel."""
    raise NotImplementedError(type(config))


def glorot(pair: Pair, rng: torch.Generator) -> Pair:
    """The same networks with fresh weights: Glorot-uniform, biases 0; convolutions in the layout that they are fastest
    in."""
    for module in (m for network in pair for m in network.modules()):
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(module.weight, generator=rng)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.to(memory_format=torch.channels_last)
    return pair


SMALL_SIDE = 8  # channels=null halves images until neither side is larger


def stages(channels: Sequence[int] | None, shape: Shape, name: str) -> list[int]:
    """The feature maps of each convolution that halves both sides; by default as many as bring the larger side to 5 to
    8 pixels, of 64 maps, from the third on 128. Raises InputError, with the model's `name`, where nothing is left to be
    halved."""
    side = max(shape[1:])
    if channels is None:
        count = max(1, math.ceil(math.log2(side / SMALL_SIDE)))
        return [64 if stage < 2 else 128 for stage in range(count)]
    most = max(1, math.ceil(math.log2(side)))
    if len(channels) > most:
        raise InputError(
            f"model={name}: {len(channels)} convolutions, each of which halves the sides, on images of "
            f"{shape[1]}x{shape[2]}; at most {most}, or null for as many as fit"
        )
    return list(channels)


def _margins(shape: Shape, count: int) -> tuple[int, int, int, int]:
    """What is to be added left, right, above and below, so that both sides can be halved `count` times."""
    height, width = ((-side) % 2**count for side in shape[1:])
    return width // 2, width - width // 2, height // 2, height - height // 2


class Crop(nn.Module):
    """Takes margins (left, right, above, below) off again."""

    def __init__(self, margins: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.margins = margins

    def forward(self, images: Tensor) -> Tensor:
        left, right, above, below = self.margins
        return images[:, :, above : images.shape[2] - below, left : images.shape[3] - right]


def conv_heads(shape: Shape, widths: Sequence[int], hidden: int, latent_dim: int) -> GaussianHeads:
    """An encoder of convolutions that halve both sides each, then a fully connected layer. Sides that cannot be halved
    so often are continued at their edges."""
    margins = _margins(shape, len(widths))
    layers: list[nn.Module] = [nn.ReplicationPad2d(margins)] if any(margins) else []
    for before, after in itertools.pairwise([shape[0], *widths]):
        layers += [nn.Conv2d(before, after, kernel_size=4, stride=2, padding=1), nn.ReLU(inplace=True)]
    layers += [nn.Flatten(), nn.Linear(math.prod(_smallest(shape, widths)), hidden), nn.ReLU(inplace=True)]
    return GaussianHeads(nn.Sequential(*layers), hidden, latent_dim)


def _smallest(shape: Shape, widths: Sequence[int]) -> Shape:
    """(C, H, W) of the maps after the last convolution."""
    height, width = (-(-side // 2 ** len(widths)) for side in shape[1:])
    return widths[-1], height, width


def hidden_layers(widths: Sequence[int]) -> list[nn.Module]:
    """Fully connected layers from the first width to the last, a ReLU after each."""
    pairs = itertools.pairwise(widths)
    return [layer for pair in pairs for layer in (nn.Linear(*pair), nn.ReLU(inplace=True))]


@build.register
def conv(config: schema.ConvModel, shape: Shape, outputs: int, rng: torch.Generator) -> Pair:
    widths = stages(config.channels, shape, config.name)
    maps, margins = _smallest(shape, widths), _margins(shape, len(widths))
    layers: list[nn.Module] = [
        nn.Linear(config.latent_dim, config.hidden),
        nn.ReLU(inplace=True),
        nn.Linear(config.hidden, math.prod(maps)),
        nn.ReLU(inplace=True),
        nn.Unflatten(1, maps),
    ]
    for before, after in itertools.pairwise(reversed(widths)):
        layers += [Doubling(before, after), nn.ReLU(inplace=True)]
    channels = outputs * shape[0]
    layers.append(ToGrey(widths[0]) if channels == 1 else Doubling(widths[0], channels))
    if any(margins):
        layers.append(Crop(margins))
    return glorot((conv_heads(shape, widths, config.hidden, config.latent_dim), nn.Sequential(*layers)), rng)


def mlp_heads(shape: Shape, widths: Sequence[int], latent_dim: int) -> GaussianHeads:
    """A fully connected encoder."""
    widths = [math.prod(shape), *widths]
    return GaussianHeads(nn.Sequential(nn.Flatten(), *hidden_layers(widths)), widths[-1], latent_dim)


@build.register
def mlp(config: schema.MLPModel, shape: Shape, outputs: int, rng: torch.Generator) -> Pair:
    widths = [config.latent_dim, *config.decoder_widths]
    maps = (outputs * shape[0], *shape[1:])
    decoder = nn.Sequential(*hidden_layers(widths), nn.Linear(widths[-1], math.prod(maps)), nn.Unflatten(1, maps))
    return glorot((mlp_heads(shape, config.encoder_widths, config.latent_dim), decoder), rng)


@build.register
def linear(config: schema.LinearModel, shape: Shape, outputs: int, rng: torch.Generator) -> Pair:
    maps = (outputs * shape[0], *shape[1:])
    decoder = nn.Sequential(nn.Linear(config.latent_dim, math.prod(maps)), nn.Unflatten(1, maps))
    return glorot((LinearHeads(math.prod(shape), config.latent_dim), decoder), rng)


@build.register
def pixelcnn(config: schema.PixelCNNModel, shape: Shape, outputs: int, rng: torch.Generator) -> Pair:
    if config.encoder == "conv":
        widths = stages(config.encoder_channels, shape, config.name)
        encoder = conv_heads(shape, widths, config.encoder_hidden, config.latent_dim)
    else:
        encoder = mlp_heads(shape, config.encoder_widths, config.latent_dim)
    entering = max(1, len(config.kernels) if config.skip else 1)
    entry: nn.Module
    entries: list[nn.Module]
    if config.z_as == "bias" and config.kernels:
        entry = nn.Identity()
        entries = [Bias(config.latent_dim, config.channels) for _ in range(entering)]
    else:
        entry = Map(
            config.latent_dim, config.map_hidden, config.map_channels, shape[1:], convolves=config.map_by == "conv"
        )
        entries = [nn.Conv2d(config.map_channels, config.channels, kernel_size=1) for _ in range(entering)]
    decoder = PixelCNN(shape, outputs * shape[0], config.kernels, config.channels, config.residual, entry, entries)
    return glorot((encoder, decoder), rng)


@build.register
def own(config: schema.CustomModel, shape: Shape, outputs: int, rng: torch.Generator) -> Pair:
    """The user's networks. They draw their own first weights, from torch's own generator, which is seeded for that;
    lazy ones when they first see an image. Raises InputError where a part is no torch module."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.initial_seed())
        pair = tuple(
            custom.build(spec, f"model.{name}", shape=shape, latent_dim=config.latent_dim)
            for name, spec in (("encoder", config.encoder), ("decoder", config.decoder))
        )
        given = torch.zeros(2, *shape), torch.zeros(2, config.latent_dim)
        for name, network, example in zip(("encoder", "decoder"), pair, given, strict=True):
            if not isinstance(network, nn.Module):
                raise InputError(f"model.{name}: gave {type(network).__name__}; must be a torch.nn.Module")
            if any(is_lazy(parameter) for parameter in network.parameters()):
                with torch.no_grad(), custom.one_line_for(f"model.{name}", f"fails on shape {tuple(example.shape)}"):
                    network.eval()(example)
                    network.train()
    return pair
