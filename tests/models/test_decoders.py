"""What a cure makes of the decoder."""

import math

import pytest
import torch
import torch.nn.functional as F
from conftest import composed
from torch import Tensor

from vae.config.errors import InputError
from vae.models import decoders, links
from vae.models.decoders import ConvexGradient
from vae.models.likelihood import FixedGaussian
from vae.models.vae import VAE

SHAPE = (1, 8, 8)


def model(*overrides: str) -> VAE:
    config = composed("model.latent_dim=5", *overrides)
    return VAE(
        config.model, FixedGaussian(links.identity, math.prod(SHAPE), 1.0), SHAPE, seed=1, cure=config.cure
    ).requires_grad_(False)


def shaken(module: torch.nn.Module, size: float = 1.0) -> None:
    """Weights far from where they start."""
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += size * torch.randn(parameter.shape, generator=rng)


@pytest.mark.parametrize("bound", [0.1, 1.0, 3.0])
@pytest.mark.parametrize("size", [0.0, 0.3, 3.0])
def test_no_two_codes_come_nearer_than_the_bound(bound: float, size: float) -> None:
    decoder = model("model=mlp_vae", "cure=inverse_lipschitz", f"cure.bound={bound}", "cure.widths=[9,7]").decoder
    shaken(decoder, size)
    rng = torch.Generator().manual_seed(1)
    first = 3 * torch.randn(2000, 5, generator=rng)
    second = first + torch.logspace(-2, 1, 2000)[:, None] * torch.randn(2000, 5, generator=rng)
    decoder.double()
    # Without autocast's float32 the bound holds to the last digits.
    images = decoder.outer(decoder.inner(torch.cat([first, second]).double()) @ torch.linalg.qr(decoder.embedding).Q.T)
    distances = (images[:2000] - images[2000:]).norm(dim=1) / (first - second).double().norm(dim=1)
    assert float(distances.min()) >= bound * (1 - 1e-9)
    assert torch.allclose(
        decoder.float()(first).flatten(1).double(), images[:2000] + decoder.shift, rtol=1e-3, atol=1e-3 * (1 + size)
    )


def test_the_gradient_written_out_is_that_of_the_potential() -> None:
    layer = ConvexGradient(4, [6, 5, 3], 0.7, torch.Generator().manual_seed(0))
    shaken(layer.requires_grad_(False))

    def potential(point: Tensor) -> Tensor:
        hidden = F.softplus(layer.direct[0](point))
        for direct, raw in zip(list(layer.direct)[1:], layer.raw_between, strict=True):
            hidden = F.softplus(hidden @ F.softplus(raw).T + direct(point))
        return hidden @ F.softplus(layer.raw_last) + 0.35 * point.square().sum(-1)

    points = torch.randn(7, 4, generator=torch.Generator().manual_seed(2), requires_grad=True)
    (expected,) = torch.autograd.grad(potential(points).sum(), points)
    assert torch.allclose(layer(points), expected, atol=1e-5)


def test_codes_that_cannot_be_told_apart_are_refused() -> None:
    with pytest.raises(InputError, match="at most 64 dimensions"):
        model("model=mlp_vae", "cure=inverse_lipschitz", "model.latent_dim=65")


@pytest.mark.parametrize(
    "network",
    [
        ["model=conv_vae", "model.channels=[4,6]", "model.hidden=9"],
        ["model=mlp_vae", "model.decoder_widths=[9,8]"],
    ],
)
def test_a_code_skips_to_every_layer(network: list[str]) -> None:
    """Each entry alone, with the layers before it at 0, still tells codes apart."""
    plain, skipping = (model(*network, *cure).decoder for cure in ([], ["cure=skip"]))
    assert isinstance(skipping, decoders.SkipDecoder)
    z = torch.randn(3, 5, generator=torch.Generator().manual_seed(0)).abs()  # which no ReLU swallows
    for entry in skipping.entries:
        torch.nn.init.zeros_(entry.weight)  # type: ignore[arg-type]
    assert torch.equal(skipping(z), plain(z))  # the same networks, but for the entries
    layers = [layer for layer in skipping.layers if isinstance(layer, torch.nn.Linear | torch.nn.ConvTranspose2d)]
    for place, entry in enumerate(skipping.entries, start=1):
        one = model(*network, "cure=skip").decoder
        torch.nn.init.zeros_(layers_of(one)[place - 1].weight)
        for other, later in enumerate(one.entries, start=1):
            torch.nn.init.constant_(later.weight, float(other == place))
        assert float((one(z)[0] - one(z)[1]).abs().max()) > 1e-4, (place, entry)
    assert len(skipping.entries) == len(layers) - 1


def layers_of(decoder: torch.nn.Module) -> list[torch.nn.Linear]:
    return [layer for layer in decoder.layers if isinstance(layer, torch.nn.Linear | torch.nn.ConvTranspose2d)]


def test_a_decoder_that_sees_pixels_has_its_own_skip() -> None:
    shape, config = (1, 8, 8), composed("model=pixelcnn_vae", "model.latent_dim=3", "cure=skip")
    likelihood = FixedGaussian(links.identity, 64, 1.0)
    found = VAE(config.model, likelihood, shape, cure=config.cure)
    assert len(found.decoder.entries) == len(config.model.kernels)  # type: ignore[union-attr, arg-type, attr-defined]
