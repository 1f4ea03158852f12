import pytest
import torch
from elsewhere import LinearVAE, gaussian_images
from torch import Tensor

import vae

IMAGES = gaussian_images(1000)
BEST = LinearVAE(IMAGES, 3, 0.5)  # at the optimum of sigma^2 = 0.5 and KL weight 1
HANDED_OVER = {
    "log sigma": lambda s: s,
    "the log of the variance": lambda s: 2 * s,
    "sigma itself": torch.exp,
    "the variance itself": lambda s: torch.exp(2 * s),
    "minus log sigma": lambda s: -s,
    "the log of the precision": lambda s: -2 * s,
}


def doubts(make: object, **how: object) -> tuple[str, ...]:
    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        mu, log_sigma = BEST.encode(x)
        return mu, make(log_sigma)  # type: ignore[operator]

    settings = {"likelihood": "gaussian", "sigma2": 0.5, "iw_samples": 1, "probe_images": 128} | how
    return vae.diagnose(encode, BEST.decode, IMAGES, **settings).doubts  # type: ignore[arg-type]


@pytest.mark.parametrize("what", HANDED_OVER)
def test_what_was_handed_over_as_log_sigma_is_named(what: str) -> None:
    found = doubts(HANDED_OVER[what])
    if what == "log sigma":
        assert found == ()
    else:
        assert f"read as {what}" in found[0]


def test_a_log_sigma_that_is_taken_for_a_log_variance() -> None:
    assert doubts(lambda s: 2 * s, log_variance=True) == ()
    assert "read as log sigma" in doubts(lambda s: s, log_variance=True)[0]


def test_a_collapsed_code_and_one_without_a_kl_term_raise_no_doubt() -> None:
    assert doubts(lambda s: 2 * s, kl_weight=0) == ()
    dead = LinearVAE(IMAGES, 3, 7.0)
    found = vae.diagnose(dead.encode, dead.decode, IMAGES, likelihood="gaussian", sigma2=7.0, iw_samples=1)
    assert found.doubts == ()


def test_images_on_another_scale_than_the_model_s() -> None:
    """A model of images in [0, 1] that is handed the same images from 0 to 255."""
    rng = torch.Generator().manual_seed(0)
    images = torch.rand(200, 1, 2, 3, generator=rng)
    linear = LinearVAE(images, 3, 0.01)

    def decode(z: Tensor) -> Tensor:
        return linear.decode(z).clamp(0, 1)

    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        return linear.encode(x)

    fine = vae.diagnose(encode, decode, images, likelihood="gaussian", sigma2=0.01, iw_samples=1)
    assert fine.doubts == ()
    found = vae.diagnose(encode, decode, 255 * images, likelihood="gaussian", sigma2=0.01, iw_samples=1)
    assert "normalised otherwise" in found.doubts[-1]


@pytest.mark.parametrize(("scaled", "doubted"), [((2, -1), True), ((1, 0), False)])
def test_pixels_far_from_all_that_decode_gives(scaled: tuple[float, float], doubted: bool) -> None:
    """A network of images in [0, 1] that gets them in [-1, 1]: it has never met such, so no straight line brings what
    it makes of them back."""
    images = torch.rand(200, 1, 2, 3, generator=torch.Generator().manual_seed(0)) ** 4
    linear = LinearVAE(images, 3, 0.01)
    times, plus = scaled

    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        mu, log_sigma = linear.encode(x)
        is_strange = (x.flatten(1).min(1).values < 0)[:, None]
        return torch.where(is_strange, 9 * torch.sin(99 * mu), mu), log_sigma

    def decode(z: Tensor) -> Tensor:
        return linear.decode(z).clamp(0, 1)

    found = vae.diagnose(encode, decode, times * images + plus, likelihood="gaussian", sigma2=0.01, iw_samples=1)
    assert ("of their pixels: were they normalised" in " ".join(found.doubts)) == doubted
