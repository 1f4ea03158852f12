"""A linear path beside each network: mu = V x + b + f(x), raw = W z + c + g(z). With f and g silent at first the model
is a linear VAE, whose optimum is known in closed form (vae.training.start sets V, b, W, c and sigma to it), and learns
from there."""

import math

import torch
from torch import Tensor, nn

from vae.models.networks import GaussianHeads, LinearHeads


class EncoderWithPath(nn.Module):
    """`network` gives (mu, raw log sigma), (B, d) each; `path` adds to mu. The networks of others, whose last layer is
    not known, are `gated`: times a number for each dimension that starts at 0."""

    def __init__(self, network: nn.Module, pixels: int, latent_dim: int, gated: bool) -> None:
        super().__init__()
        self.network, self.path = network, nn.Linear(pixels, latent_dim)
        self.log_sigma = nn.Parameter(torch.zeros(latent_dim))  # raw, added to the network's
        self.gates = nn.Parameter(torch.zeros(2, latent_dim)) if gated else None

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mu, log_sigma = self.network(images)
        if self.gates is not None:
            mu, log_sigma = self.gates[0] * mu, self.gates[1] * log_sigma
        return mu + self.path(images.flatten(1)), log_sigma + self.log_sigma


class DecoderWithPath(nn.Module):
    """`network` gives raw outputs of `shape` (C, H, W), to which `path` adds."""

    def __init__(self, network: nn.Module, latent_dim: int, shape: tuple[int, int, int], gated: bool) -> None:
        super().__init__()
        self.network, self.path, self.shape = network, nn.Linear(latent_dim, math.prod(shape)), shape
        self.gate = nn.Parameter(torch.zeros(shape[0], 1, 1)) if gated else None

    def forward(self, z: Tensor) -> Tensor:
        raw = self.network(z)
        if self.gate is not None:
            raw = self.gate * raw
        return raw + self.path(z).unflatten(1, self.shape)


def silence(encoder: nn.Module, decoder: nn.Module) -> None:
    """The last layers of a pair of our own networks at 0."""
    assert isinstance(encoder, GaussianHeads)
    layers = nn.Linear | nn.Conv2d | nn.ConvTranspose2d
    *_, last = (module for module in decoder.modules() if isinstance(module, layers))
    for layer in (encoder.mu, encoder.log_sigma, last):
        nn.init.zeros_(layer.weight)
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)


def own_networks(encoder: nn.Module, decoder: nn.Module) -> tuple[nn.Module, nn.Module]:
    """A pair of networks without the paths beside them."""
    if isinstance(encoder, EncoderWithPath) and isinstance(decoder, DecoderWithPath):
        return encoder.network, decoder.network
    return encoder, decoder


def linear_parts(encoder: nn.Module, decoder: nn.Module) -> tuple[nn.Linear, nn.Parameter, nn.Linear]:
    """The layer from pixels to mu, the raw log sigma of each dimension, the layer from codes to raw outputs: of a pair
    with paths, or of the linear VAE."""
    if isinstance(encoder, LinearHeads):
        (layer,) = (module for module in decoder.modules() if isinstance(module, nn.Linear))
        return encoder.mu, encoder.log_sigma, layer
    assert isinstance(encoder, EncoderWithPath)
    assert isinstance(decoder, DecoderWithPath)
    return encoder.path, encoder.log_sigma, decoder.path
