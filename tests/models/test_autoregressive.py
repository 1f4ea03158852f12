"""The decoder that sees pixels: what it must not see, that it is a probability, that draws are drawn from it."""

import itertools

import pytest
import torch
from conftest import composed
from torch import Tensor

from vae.config.errors import InputError
from vae.models import likelihood as likelihoods
from vae.models.likelihood import Likelihood
from vae.models.vae import VAE

VARIANTS = {
    "bias": [],
    "map": ["model.z_as=map"],
    "map by convolutions, skip": ["model.z_as=map", "model.map_by=conv", "model.skip=true"],
    "bias at every layer, not residual": ["model.skip=true", "model.residual=false", "model.kernels=[5,3]"],
    "one layer": ["model.kernels=[3]"],
    "kernel 1 after the first": ["model.kernels=[3,1,3]"],
}


def built(shape: tuple[int, int, int], *overrides: str) -> tuple[VAE, Likelihood]:
    """With biases that are not 0, so that the code matters and no unit is at rest."""
    small = ("model.latent_dim=3", "model.channels=6", "model.encoder_widths=[8]", "model.map_hidden=5")
    config = composed("model=pixelcnn_vae", "objective=bernoulli", *small, *overrides)
    likelihood = likelihoods.build(config.objective, config.model.output, shape)
    model = VAE(config.model, likelihood, shape).requires_grad_(False).eval()
    rng = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.normal_(0, 0.3, generator=rng)
    return model, likelihood


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_pixel_sees_itself_or_a_later_one(variant: str) -> None:
    """By the gradient of each output to each input, of images that keep every unit away from ReLU's corner."""
    model, _ = built((2, 5, 6), *VARIANTS[variant])
    images = torch.rand(1, 2, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model.double()
    z = torch.tensor([[0.3, -0.2, 0.5]], dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda given: model.decoder(z, given), images)
    seen = jacobian.abs().sum((0, 1, 4, 5)).flatten(2).flatten(0, 1)  # (outputs' places, inputs' places)
    later = torch.ones(30, 30).triu().bool()
    assert (seen[later] == 0).all()
    assert seen[1, 0] > 0  # the pixel before it
    assert seen[6 + 2, 2] > 0  # the pixel above it


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("z", [[0.0, 0.0, 0.0], [1.0, -2.0, 0.5]])
def test_it_sums_to_one_over_all_images_of_a_tiny_size(variant: str, z: list[float]) -> None:
    model, likelihood = built((1, 3, 3), *VARIANTS[variant])
    images = torch.tensor(list(itertools.product((0.0, 1.0), repeat=9))).reshape(-1, 1, 3, 3)
    codes = torch.tensor([z]).expand(len(images), -1)
    assert float(torch.exp(-likelihood.nll(images, model.raw(codes, images))).sum()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("objective", ["categorical", "discretised_logistic"])
def test_grey_levels_sum_to_one(objective: str) -> None:
    """Of two pixels with all 256 levels each."""
    model, likelihood = built((1, 1, 2), f"objective={objective}", "model.kernels=[3]")
    levels = torch.arange(256) / 255
    images = torch.cartesian_prod(levels, levels).reshape(-1, 1, 1, 2)
    codes = torch.tensor([[0.5, 1.0, -1.0]]).expand(len(images), -1)
    log_p = -likelihood.nll(images, model.raw(codes, images)).double()
    assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_draws_are_what_the_whole_network_would_give(variant: str) -> None:
    """What is kept of earlier rows changes nothing: each pixel is the quantile of its distribution given those before
    it."""
    model, likelihood = built((1, 7, 6), *VARIANTS[variant])
    z = torch.randn(5, 3, generator=torch.Generator().manual_seed(2))
    noise = torch.rand(5, 1, 7, 6, generator=torch.Generator().manual_seed(3))
    raws: list[Tensor] = []

    def noted(raw: Tensor, of: Tensor) -> Tensor:
        raws.append(raw)
        return likelihood.quantile(raw, of)

    images = model.decoder.sample(z, noted, noise)  # type: ignore[operator]
    drawn_with = torch.cat(raws, 3).reshape(5, 1, 7, 6)
    assert torch.allclose(drawn_with, model.raw(z, images), atol=1e-5)
    assert torch.equal(images, likelihood.quantile(drawn_with, noise))


def test_draws_have_the_frequencies_that_the_likelihood_says() -> None:
    model, likelihood = built((1, 2, 2))
    z = torch.tensor([[1.0, -2.0, 0.5]])
    images = torch.tensor(list(itertools.product((0.0, 1.0), repeat=4))).reshape(-1, 1, 2, 2)
    expected = torch.exp(-likelihood.nll(images, model.raw(z.expand(16, -1), images))).double()
    count = 20_000
    noise = torch.rand(count, 1, 2, 2, generator=torch.Generator().manual_seed(4))
    drawn = model.decoder.sample(z.expand(count, -1), likelihood.quantile, noise)  # type: ignore[operator]
    places = (drawn.flatten(1) @ torch.tensor([8.0, 4.0, 2.0, 1.0])).long()
    measured = torch.bincount(places, minlength=16).double() / count
    assert measured.tolist() == pytest.approx(expected.tolist(), abs=4 * 0.5 / count**0.5)


def test_with_the_same_chance_images_differ_by_their_codes_alone() -> None:
    model, _ = built((1, 8, 8), "model.z_as=map")
    z = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    same = model.decode(z[:1].expand(3, -1), same_chance=True)
    assert torch.equal(same[0], same[1])
    assert not torch.equal(model.decode(z[:1].expand(3, -1))[0], model.decode(z[:1].expand(3, -1))[1])
    assert torch.equal(model.decode(z), model.decode(z))


def test_without_kernels_it_is_a_decoder_like_any_other() -> None:
    model, likelihood = built((1, 8, 8), "model.kernels=[]")
    z = torch.randn(2, 3)
    assert not model.is_autoregressive
    assert torch.equal(model.raw(z), model.raw(z, torch.rand(2, 1, 8, 8)))
    assert torch.equal(model.decode(z), likelihood.link(model.raw(z)))
    assert model.decode(z).flatten(2).std(2).min() > 0  # the code enters as a map: z_as=bias could not draw a picture


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.kernels=[4,3]", "4 is even"),
        ("model.kernels=[1,3]", "sees nothing"),
        ("model.encoder_channels=[]", "must be 1 to 12 numbers"),
        ("model.z_as=gate", "one of map, bias"),
    ],
)
def test_what_it_cannot_be(override: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        composed("model=pixelcnn_vae", override)


def test_an_encoder_of_convolutions() -> None:
    model, _ = built((1, 8, 8), "model.encoder=conv", "model.encoder_channels=[4,6]", "model.encoder_hidden=7")
    assert model.encode(torch.rand(2, 1, 8, 8)).mu.shape == (2, 3)
    odd, _ = built((1, 7, 9), "model.encoder=conv")
    assert odd.encode(torch.rand(2, 1, 7, 9)).mu.shape == (2, 3)
