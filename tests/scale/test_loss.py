import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Bernoulli, Laplace, Normal, kl_divergence
from torch.utils.data import DataLoader

import vae
from vae.data.split import Data, Split
from vae.scale.loss import KINDS, REDUCTIONS, scale

B, SHAPE, D = 5, (3, 4, 2), 7
N = math.prod(SHAPE)


def reduced(values: Tensor, reduction: str) -> Tensor:
    """(B, ...) as people write it."""
    return {
        "sum": lambda: values.sum(),
        "mean": lambda: values.mean(),
        "batchmean": lambda: values.flatten(1).sum(1).mean(),
        "batchsum": lambda: values.flatten(1).mean(1).sum(),
    }[reduction]()


@pytest.mark.parametrize(
    ("kind", "reduction", "kl_reduction"), list(itertools.product(KINDS, REDUCTIONS, REDUCTIONS)), ids=str
)
def test_the_loss_has_the_gradient_that_is_said(kind: str, reduction: str, kl_reduction: str) -> None:
    """A loss written with torch's own functions is, but for a constant factor, -log p(x|z) + beta * KL of
    torch.distributions with the sigma^2 and the beta that are told, averaged over the batch."""
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(B, *SHAPE, generator=rng, dtype=torch.float64)
    parts = [torch.randn(shape, generator=rng, dtype=torch.float64) for shape in ((B, *SHAPE), (B, D), (B, D))]
    raw, mu, logvar = (part.requires_grad_() for part in parts)
    weight, own = 0.3, 1.7
    functions = {
        "mse": lambda: F.mse_loss(raw, x, reduction="none"),
        "half_mse": lambda: 0.5 * F.mse_loss(raw, x, reduction="none"),
        "l1": lambda: F.l1_loss(raw, x, reduction="none"),
        "bce": lambda: F.binary_cross_entropy_with_logits(raw, x, reduction="none"),
    }
    kl = -0.5 * (1 + logvar - mu.pow(2) - logvar.exp())
    written = own * reduced(functions[kind](), reduction) + weight * reduced(kl, kl_reduction)

    found = scale(kind, reduction, SHAPE, kl_reduction, D, weight, batch_size=B, reconstruction_weight=own)
    if found.sigma2 is not None:
        p = Normal(raw, found.sigma2**0.5)
    else:  # the scale of a Laplace is that of its error
        laplace = N / own if REDUCTIONS[reduction][0] else 1 / own
        p = Bernoulli(logits=raw, validate_args=False) if kind == "bce" else Laplace(raw, laplace)
    beta = found.beta if kind != "l1" else found.beta / laplace
    prior = Normal(torch.zeros(D, dtype=torch.float64), 1.0)
    meant = -p.log_prob(x).flatten(1).sum(1).mean()
    meant = meant + beta * kl_divergence(Normal(mu, (0.5 * logvar).exp()), prior).sum(1).mean()
    gradients = [torch.autograd.grad(loss, (raw, mu, logvar)) for loss in (written, meant)]
    one, other = (torch.cat([part.flatten() for part in parts]) for parts in gradients)
    factor = float(one @ other / (other @ other))
    assert factor > 0
    assert float((one - factor * other).norm()) < 1e-9 * float(one.norm())


def test_what_well_known_code_weighs() -> None:
    """AntixK/PyTorch-VAE: F.mse_loss and 0.00025 of the summed KL. diffusers, train_autoencoderkl.py: 1e-6 beside the
    summed squared error. And F.mse_loss + KL on MNIST."""
    assert scale("mse", "mean", (3, 64, 64), latent_dim=128, kl_weight=0.00025).t == pytest.approx(1.536)
    assert scale("mse", "batchmean", (3, 256, 256), kl_weight=1e-6).t == pytest.approx(5e-7)
    assert scale("mse", "sum", (3, 256, 256), "sum", kl_weight=1e-6, batch_size=4).t == pytest.approx(5e-7)
    assert scale("mse", "mean", (1, 28, 28)).t == 392
    assert scale("half_mse", "batchmean", (1, 28, 28)).t == 1  # pythae
    assert scale("mse", "batchmean", (1, 28, 28), reconstruction_weight=255).t == pytest.approx(1 / 510)  # YannDubs
    # sigma-vae-pytorch's mse_vae: a mean over the batch too, beside a KL that is summed over it.
    assert scale("mse", "mean", (1, 28, 28), "sum", batch_size=128).t == 128 * 392
    # pyprobml's sigma_vae: both averaged.
    assert scale("mse", "mean", (1, 28, 28), "mean", latent_dim=16).t == pytest.approx(392 / 16)


def test_a_sum_over_an_unknown_batch_is_said() -> None:
    found = scale("mse", "mean", (1, 28, 28), "sum")
    assert found.t == 392
    assert "batch_size" in str(found)
    assert not scale("mse", "sum", (1, 28, 28), "sum").notes  # it cancels


def test_the_weight_to_write_gives_what_is_asked_for() -> None:
    for kind, reduction in (("mse", "mean"), ("half_mse", "sum"), ("bce", "mean")):
        found = scale(kind, reduction, (1, 8, 8), "sum", kl_weight=0.2, batch_size=16)
        again = scale(kind, reduction, (1, 8, 8), "sum", kl_weight=found.weight_for(beta=4.0), batch_size=16)
        assert again.beta == pytest.approx(4.0)
    found = scale("mse", "mean", (1, 8, 8), kl_weight=3.0)
    assert scale("mse", "mean", (1, 8, 8), kl_weight=found.weight_for(2.0, sigma=0.1)).t == pytest.approx(2 * 0.01)
    with pytest.raises(vae.InputError, match="no pixel variance"):
        scale("bce", "mean", (1, 8, 8)).weight_for(1.0, sigma=0.1)


def test_where_given_images_collapse() -> None:
    """At the largest eigenvalue of numpy's covariance, whatever the reduction; beside a cross-entropy, at that of the
    data whitened by the variance of a Bernoulli variable."""
    images = np.random.default_rng(0).uniform(size=(300, 1, 3, 3)) * np.linspace(0.2, 1, 9).reshape(1, 3, 3)
    covariance = np.cov(images.reshape(300, 9).T, ddof=0)
    largest = np.linalg.eigvalsh(covariance)[-1]
    for reduction in REDUCTIONS:
        found = scale("mse", reduction, images=images, kl_weight=0.01, batch_size=10)
        assert found.collapse_weight is not None
        assert found.weight_for(1.0, sigma=largest**0.5) == pytest.approx(found.collapse_weight, rel=1e-4)
    mean = images.reshape(300, 9).mean(0)
    deviation = np.sqrt(mean * (1 - mean))
    white = np.linalg.eigvalsh(covariance / deviation[:, None] / deviation)[-1]
    assert scale("bce", "batchmean", images=images).collapse_weight == pytest.approx(white, rel=1e-4)
    assert scale("bce", "mean", images=images).collapse_weight == pytest.approx(white / 9, rel=1e-4)


def test_a_fitted_variance_says_of_how_many_dimensions_it_is() -> None:
    images = torch.rand(300, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    assert "of 4 dimensions" in str(scale("mse", "sum", images=images, latent_dim=4))
    assert "of 32 dimensions" in str(scale("mse", "sum", images=torch.rand(100, 1, 8, 8)))


def test_what_is_read_as_0_to_1_is_put_into_the_pixel_range() -> None:
    """As the same images are, scaled by hand: the eigenvalue, and with it the collapse, are in the model's units."""
    images = np.random.default_rng(0).integers(0, 256, (300, 1, 3, 3), dtype=np.uint8)
    whole = torch.from_numpy(images)
    for black, white in ((0, 255), (-1, 1), (0, 1)):
        by_hand = images / 255 * (white - black) + black
        expected = scale("mse", "batchmean", images=by_hand, pixel_range=(black, white), latent_dim=4)
        floats = Split(torch.from_numpy(images / 255))
        for given in (images, DataLoader(whole, batch_size=50), Split(whole), Data(floats, floats)):
            found = scale("mse", "batchmean", images=given, pixel_range=(black, white), latent_dim=4)
            assert found.largest_eigenvalue == pytest.approx(expected.largest_eigenvalue, rel=1e-4)
            assert found.collapse_weight == pytest.approx(expected.collapse_weight, rel=1e-4)
            assert (found.fitted_sigma2, found.kept) == (pytest.approx(expected.fitted_sigma2, rel=1e-4), expected.kept)
    with pytest.raises(vae.InputError, match="values from 0 to 255; must be in"):
        scale("bce", "batchmean", images=images, pixel_range=(0, 255))


def test_no_data_in_the_range_can_pay_for_a_code() -> None:
    """The largest eigenvalue that pixels in [0, 1] can have, of black and white images, is n / 4."""
    black_and_white = np.stack([np.zeros((1, 4, 4)), np.ones((1, 4, 4))]).repeat(2, 0)
    found = scale("mse", "batchmean", images=black_and_white)
    assert found.largest_eigenvalue == pytest.approx(16 / 4)
    assert scale("mse", "mean", (1, 28, 28)).always_collapses
    assert not scale("mse", "mean", (1, 28, 28), kl_weight=0.4).always_collapses
    assert not scale("mse", "mean", (1, 28, 28), pixel_range=(-1, 1)).always_collapses


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"reconstruction": "l2"}, "reconstruction=l2: must be one of mse, half_mse, l1, bce"),
        ({"reduction": "none"}, "reduction=none: must be one of"),
        ({"kl_weight": 0.0}, "kl_weight=0.0: must be a finite number above 0"),
        ({"image_shape": None}, "image_shape: needed"),
        ({"kl_reduction": "mean"}, "latent_dim says how many"),
        ({"pixel_range": (1, 0)}, "black below white"),
        ({"images": torch.rand(4, 1, 3, 3)}, "the images have shape"),
        ({"image_shape": (1, 3, 3), "images": 255 * torch.rand(4, 1, 3, 3)}, "values from"),
        ({"kl_weight": "a"}, "kl_weight=a: must be a number"),
        ({"latent_dim": "x"}, "latent_dim=x: must be a whole number, at least 1"),
        ({"image_shape": (3.5, 2)}, "must be whole numbers from 1 on"),
        ({"pixel_range": 3}, r"pixel_range=3: must be \(black, white\), two numbers"),
        ({"reconstruction": ["mse"]}, "must be one of mse, half_mse, l1, bce"),
        ({"batch_size": -1}, "batch_size=-1: must be a whole number, at least 1"),
    ],
)
def test_mistakes_are_one_line(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(vae.InputError, match=said) as failure:
        scale(**({"image_shape": (1, 28, 28)} | wrong))  # type: ignore[arg-type]
    assert "\n" not in str(failure.value)
