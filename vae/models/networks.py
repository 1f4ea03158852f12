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


class ToPixels(nn.ConvTranspose2d):
    """A transposed convolution that doubles both sides, as a matrix product and the sum of the patches that it gives:
    where the output has few channels, torch's own takes up to four times as long."""

    def __init__(self, features: int, channels: int) -> None:
        super().__init__(features, channels, kernel_size=4, stride=2, padding=1)

    def forward(self, features: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(B, features, H, W) to (B, channels, 2H, 2W). `output_size` is always that."""
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


def conv_encoder(name: str, shape: Shape, widths: Sequence[int], hidden: int) -> nn.Module:
    """Two convolutions that halve both sides each, then a fully connected layer: images to features (B, hidden). Raises
    InputError, with the model's `name`, where sides cannot be halved twice."""
    channels, height, width = shape
    if height % 4 or width % 4:
        raise InputError(
            f"model={name} on images of {height}x{width}: both sides must be divisible by 4; "
            "resize them, or take model=mlp_vae"
        )
    first, second = widths
    return nn.Sequential(
        nn.Conv2d(channels, first, kernel_size=4, stride=2, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(first, second, kernel_size=4, stride=2, padding=1),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(second * (height // 4) * (width // 4), hidden),
        nn.ReLU(inplace=True),
    )


def hidden_layers(widths: Sequence[int]) -> list[nn.Module]:
    """Fully connected layers from the first width to the last, a ReLU after each."""
    pairs = itertools.pairwise(widths)
    return [layer for pair in pairs for layer in (nn.Linear(*pair), nn.ReLU(inplace=True))]


@build.register
def conv(config: schema.ConvModel, shape: Shape, outputs: int, rng: torch.Generator) -> Pair:
    encoder = conv_encoder(config.name, shape, config.channels, config.hidden)
    channels, height, width = shape
    first, second = config.channels
    maps = (second, height // 4, width // 4)
    decoder = nn.Sequential(
        nn.Linear(config.latent_dim, config.hidden),
        nn.ReLU(inplace=True),
        nn.Linear(config.hidden, math.prod(maps)),
        nn.ReLU(inplace=True),
        nn.Unflatten(1, maps),
        nn.ConvTranspose2d(second, first, kernel_size=4, stride=2, padding=1),
        nn.ReLU(inplace=True),
        ToPixels(first, outputs * channels),
    )
    return glorot((GaussianHeads(encoder, config.hidden, config.latent_dim), decoder), rng)


def mlp_encoder(shape: Shape, widths: Sequence[int]) -> nn.Module:
    """Images to features (B, widths[-1])."""
    return nn.Sequential(nn.Flatten(), *hidden_layers([math.prod(shape), *widths]))


@build.register
def mlp(config: schema.MLPModel, shape: Shape, outputs: int, rng: torch.Generator) -> Pair:
    widths = [config.latent_dim, *config.decoder_widths]
    maps = (outputs * shape[0], *shape[1:])
    decoder = nn.Sequential(*hidden_layers(widths), nn.Linear(widths[-1], math.prod(maps)), nn.Unflatten(1, maps))
    heads = GaussianHeads(
        mlp_encoder(shape, config.encoder_widths), [math.prod(shape), *config.encoder_widths][-1], config.latent_dim
    )
    return glorot((heads, decoder), rng)


@build.register
def linear(config: schema.LinearModel, shape: Shape, outputs: int, rng: torch.Generator) -> Pair:
    maps = (outputs * shape[0], *shape[1:])
    decoder = nn.Sequential(nn.Linear(config.latent_dim, math.prod(maps)), nn.Unflatten(1, maps))
    return glorot((LinearHeads(math.prod(shape), config.latent_dim), decoder), rng)


@build.register
def pixelcnn(config: schema.PixelCNNModel, shape: Shape, outputs: int, rng: torch.Generator) -> Pair:
    if config.encoder == "conv":
        body, width = (
            conv_encoder(config.name, shape, config.encoder_channels, config.encoder_hidden),
            config.encoder_hidden,
        )
    else:
        body, width = mlp_encoder(shape, config.encoder_widths), [math.prod(shape), *config.encoder_widths][-1]
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
    return glorot((GaussianHeads(body, width, config.latent_dim), decoder), rng)


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
