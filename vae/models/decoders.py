"""What a cure makes of a model's decoder: the code enters every layer, or another decoder takes its place. Such a cure
is a function here, registered with `build` for its dataclass in vae.config.schema."""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from functools import singledispatch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vae.config import schema
from vae.config.errors import InputError
from vae.models import networks
from vae.models.networks import Pair, Shape


@singledispatch
def build(cure: schema.Cure, config: schema.Model, shape: Shape, outputs: int, rng: torch.Generator) -> Pair:
    """The encoder and decoder of `config` (vae.models.networks) with what `cure` changes in them; most change
    nothing."""
    return networks.build(config, shape, outputs, rng)


@build.register
def skip(cure: schema.Skip, config: schema.Model, shape: Shape, outputs: int, rng: torch.Generator) -> Pair:
    if isinstance(config, schema.PixelCNNModel):  # which has that already
        return networks.build(dataclasses.replace(config, skip=True), shape, outputs, rng)
    encoder, decoder = networks.build(config, shape, outputs, rng)
    assert isinstance(decoder, nn.Sequential)
    return encoder, SkipDecoder(decoder, config.latent_dim, rng)


class SkipDecoder(nn.Module):
    """`layers` with the code at every layer that has weights, the first excepted, which has it already: W_z z is added
    to what comes out, the same at each place of a map (Dieng et al. 2019, arXiv 1807.04863, eq. 7). At the last layer
    W_z starts at 0, so that the first images are those of the plain decoder's scale."""

    def __init__(self, layers: nn.Sequential, latent_dim: int, rng: torch.Generator) -> None:
        super().__init__()
        _, *later = (layer for layer in layers if isinstance(layer, nn.Linear | nn.ConvTranspose2d))
        widths = [layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels for layer in later]
        self.layers = layers
        self.entries = nn.ModuleList(nn.Linear(latent_dim, width, bias=False) for width in widths)
        *hidden, last = self.entries
        networks.glorot((nn.ModuleList(hidden), nn.Identity()), rng)
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)

    def forward(self, z: Tensor) -> Tensor:
        features, entries, is_first = z, iter(self.entries), True
        for layer in self.layers:
            features = layer(features)
            if isinstance(layer, nn.Linear | nn.ConvTranspose2d):
                if not is_first:
                    entered = next(entries)(z)
                    features = features + (entered[:, :, None, None] if features.dim() == 4 else entered)
                is_first = False
        return features


@build.register
def inverse_lipschitz(
    cure: schema.InverseLipschitz, config: schema.Model, shape: Shape, outputs: int, rng: torch.Generator
) -> Pair:
    encoder, _ = networks.build(config, shape, outputs, rng)
    maps = (outputs * shape[0], *shape[1:])
    return encoder, InjectiveDecoder(config.latent_dim, maps, cure.widths, cure.bound, rng)


class InjectiveDecoder(nn.Module):
    """raw = grad G2(Q grad G1(z)) + c, with Q (n, d) of orthonormal columns and G1, G2 convex (Wang, Blei and
    Cunningham 2021, arXiv 2301.00537, section 3). Each G(y) = ICNN(y) + (m/2) |y|^2 with m = sqrt(L), so that grad G
    takes two points at least m times as far apart (Kinoshita et al. 2023, arXiv 2304.12770): raw outputs of two codes
    lie at least L times as far apart as the codes.

    n: outputs * C * H * W. Raises InputError where it is below d."""

    def __init__(self, latent_dim: int, maps: Shape, widths: Sequence[int], bound: float, rng: torch.Generator) -> None:
        super().__init__()
        self.maps, outputs = maps, math.prod(maps)
        if outputs < latent_dim:
            raise InputError(
                f"cure=inverse_lipschitz with model.latent_dim={latent_dim}: the decoder gives {outputs} numbers, "
                f"in which at most {outputs} dimensions can be told apart; lower model.latent_dim"
            )
        self.inner = ConvexGradient(latent_dim, widths, math.sqrt(bound), rng)
        self.embedding = nn.Parameter(torch.empty(outputs, latent_dim))
        self.outer = ConvexGradient(outputs, widths, math.sqrt(bound), rng)
        self.shift = nn.Parameter(torch.zeros(outputs))
        nn.init.xavier_uniform_(self.embedding, generator=rng)

    def forward(self, z: Tensor) -> Tensor:
        with torch.autocast(z.device.type, enabled=False):  # the bound holds to rounding
            inner = self.inner(z.float())
            embedded = inner @ torch.linalg.qr(self.embedding).Q.T
            return (self.outer(embedded) + self.shift).unflatten(1, self.maps)


class ConvexGradient(nn.Module):
    """The gradient of G(y) = ICNN(y) + (m/2) |y|^2 for points y (B, p), (B, p). The network has layers
    h_1 = s(W_1 y + b_1), h_i = s(U_i h_{i-1} + W_i y + b_i) and the value a' h_last, with s the softplus, convex and
    rising, and U_i, a not negative: it is convex in y (Amos, Xu and Kolter 2017, arXiv 1609.07152, section 3.1).

    The gradient is written out, layer by layer back to y, so that evaluation needs no differentiation."""

    def __init__(self, points: int, widths: Sequence[int], strength: float, rng: torch.Generator) -> None:
        super().__init__()
        self.strength = strength
        self.direct = nn.ModuleList(nn.Linear(points, width) for width in widths)
        # Softplus of these is what the formula calls U_i and a; they start so that a layer's sum is near its mean.
        self.raw_between = nn.ParameterList(
            torch.full((after, before), _inverse_softplus(1 / before)) for before, after in itertools.pairwise(widths)
        )
        self.raw_last = nn.Parameter(torch.full((widths[-1],), _inverse_softplus(1.0)))
        networks.glorot((self.direct, nn.Identity()), rng)

    def forward(self, points: Tensor) -> Tensor:
        before = [self.direct[0](points)]
        between = [F.softplus(raw) for raw in self.raw_between]
        for layer, weight in zip(list(self.direct)[1:], between, strict=True):
            before.append(F.linear(F.softplus(before[-1]), weight) + layer(points))
        upstream = F.softplus(self.raw_last).expand_as(before[-1])
        gradient = self.strength * points
        for place in reversed(range(len(before))):
            slope = upstream * torch.sigmoid(before[place])
            layer = self.direct[place]
            assert isinstance(layer, nn.Linear)
            gradient = gradient + slope @ layer.weight
            if place:
                upstream = slope @ between[place - 1]
        return gradient


def _inverse_softplus(value: float) -> float:
    return math.log(math.expm1(value))
