import copy
import io
import math
import pickle
import warnings

import joblib
import pytest
import torch
from conftest import composed
from torch import nn
from torch.distributions import Independent, Normal, kl_divergence

from vae.config.errors import InputError
from vae.models import links, networks
from vae.models.likelihood import FixedGaussian
from vae.models.links import Link, continuous_bernoulli_mean
from vae.models.posteriors import MAX_LOG_SIGMA, MIN_LOG_SIGMA, Posterior, bound_log_sigma
from vae.models.vae import VAE


def build(*overrides: str, shape: tuple[int, int, int] = (1, 28, 28), link: Link = links.identity) -> VAE:
    return VAE(composed(*overrides).model, FixedGaussian(link, math.prod(shape), 1.0), shape)


@pytest.mark.parametrize(("model", "parameters"), [("conv_vae", 1_767_233), ("ae", 1_767_233), ("mlp_vae", 1_084_348)])
def test_parameter_counts(model: str, parameters: int) -> None:
    assert sum(p.numel() for p in build(f"model={model}").parameters()) == parameters


@pytest.mark.parametrize("model", ["conv_vae", "mlp_vae", "linear_vae", "ae"])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 8, 20), (1, 64, 4)])
def test_any_image_size(model: str, shape: tuple[int, int, int]) -> None:
    vae = build(f"model={model}", "model.latent_dim=5", shape=shape)
    posterior = vae.encode(torch.rand(2, *shape))
    assert posterior.mu.shape == posterior.log_sigma.shape == (2, 5)
    assert vae.decode(posterior.mu).shape == (2, *shape)
    assert vae.sample(3).shape == (3, *shape)


@pytest.mark.parametrize("model", ["conv_vae", "mlp_vae"])
@pytest.mark.parametrize("shape", [(1, 5, 7), (3, 30, 33), (16, 1, 9)])
def test_sides_that_cannot_be_halved(model: str, shape: tuple[int, int, int]) -> None:
    vae = build(f"model={model}", shape=shape)
    assert vae.sample(1).shape == (1, *shape)
    assert vae.encode(torch.rand(2, *shape)).mu.shape == (2, 32)


@pytest.mark.parametrize(
    ("side", "convolutions"), [(8, 1), (16, 1), (17, 2), (28, 2), (32, 2), (64, 3), (100, 4), (256, 5)]
)
def test_depth_from_the_size_of_the_images(side: int, convolutions: int) -> None:
    """A 256x256x3 network has 5.7 million parameters; two convolutions of 64 would give it 134 million."""
    vae = build("model=conv_vae", "model.channels=null", shape=(3, side, side // 2))
    assert sum(isinstance(module, nn.Conv2d) for module in vae.encoder.modules()) == convolutions
    assert sum(p.numel() for p in vae.parameters()) < 6e6
    assert vae.sample(1).shape == (1, 3, side, side // 2)


def test_an_image_is_not_halved_to_nothing() -> None:
    with pytest.raises(InputError, match="at most 3, or null"):
        build("model.channels=[4,4,4,4]", shape=(1, 8, 3))


def test_widths_and_depth_are_config_values() -> None:
    vae = build("model=mlp_vae", "model.encoder_widths=[7,6,5]", "model.decoder_widths=[]", shape=(1, 4, 4))
    widths = [tuple(m.weight.shape) for m in vae.modules() if isinstance(m, nn.Linear)]
    assert widths == [(7, 16), (6, 7), (5, 6), (32, 5), (32, 5), (16, 32)]
    conv = build("model.channels=[3,5]", "model.hidden=11")
    kernels = [tuple(m.weight.shape[:2]) for m in conv.modules() if isinstance(m, nn.Conv2d)]
    assert kernels == [(3, 1), (5, 3)]


@pytest.mark.parametrize("model", ["conv_vae", "mlp_vae", "linear_vae"])
def test_glorot_uniform_weights_and_zero_biases(model: str) -> None:
    for module in build(f"model={model}").modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            area = module.weight[0, 0].numel()
            limit = math.sqrt(6 / (area * (module.weight.shape[0] + module.weight.shape[1])))
            weight = module.weight.detach()
            assert weight.abs().max() <= limit
            assert weight.std() == pytest.approx(limit / math.sqrt(3), rel=0.06)  # of U(-limit, limit)
            assert module.bias is not None
            assert module.bias.abs().max() == 0


def test_initial_weights_depend_on_the_seed_alone() -> None:
    config = composed().model
    torch.manual_seed(1)
    first = VAE(config, FixedGaussian(links.identity, 784, 1.0), (1, 28, 28), seed=3)
    torch.manual_seed(2)
    again = VAE(config, FixedGaussian(links.identity, 784, 1.0), (1, 28, 28), seed=3)
    other = VAE(config, FixedGaussian(links.identity, 784, 1.0), (1, 28, 28), seed=4)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.encoder.mu.weight, other.encoder.mu.weight)  # type: ignore[union-attr]


def test_log_sigma_stays_in_its_range_and_keeps_a_gradient() -> None:
    raw = torch.tensor([-1e30, -1e4, -30, -1, -1e-3, 0, 1e-3, 1, 6, 1e4, 1e30], requires_grad=True)
    bounded = bound_log_sigma(raw)
    assert bounded.min() == MIN_LOG_SIGMA
    assert bounded.max() == MAX_LOG_SIGMA
    assert torch.isfinite((2 * bounded).exp()).all()
    bounded.sum().backward()
    assert raw.grad is not None
    assert raw.grad.isfinite().all()
    assert (raw.grad[2:9] > 0).all()
    assert raw.grad[4:7].tolist() == pytest.approx([1, 1, 1], abs=1e-5)  # the identity near 0


def test_kl_against_torch_distributions() -> None:
    mu, log_sigma = 3 * torch.randn(50, 4, dtype=torch.float64), torch.randn(50, 4, dtype=torch.float64)
    expected = kl_divergence(Normal(mu, log_sigma.exp()), Normal(0.0, 1.0))
    assert torch.allclose(Posterior(mu, log_sigma).kl(), expected, rtol=1e-12, atol=1e-12)


def test_kl_keeps_its_digits_near_collapse() -> None:
    log_sigma = torch.tensor([[1e-4]])
    exact = 0.5 * math.expm1(2e-4) - 1e-4
    assert float(Posterior(torch.zeros(1, 1), log_sigma).kl()) == pytest.approx(exact, rel=1e-2)
    assert float(0.5 * (torch.exp(2 * log_sigma) - 1) - log_sigma) != pytest.approx(exact, rel=1e-2)


def test_a_sample_has_the_posterior_s_moments() -> None:
    mu, log_sigma = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.5, -1.0]])
    noise = torch.randn(200_000, 2, generator=torch.Generator().manual_seed(0))
    z = Posterior(mu, log_sigma).sample(noise)
    expected = Independent(Normal(mu[0], log_sigma[0].exp()), 1)
    assert torch.allclose(z.mean(0), expected.mean, atol=0.02)
    assert torch.allclose(z.std(0), expected.stddev, rtol=0.01)


def test_dirac_posterior_is_the_mean() -> None:
    vae = build("model=ae", "model.posterior=dirac")
    posterior = vae.encode(torch.rand(2, 1, 28, 28))
    assert torch.equal(posterior.sample(torch.randn(2, 32)), posterior.mu)
    assert posterior.log_sigma.exp().max() == 0


def test_continuous_bernoulli_mean_against_torch_distributions() -> None:
    logits = torch.tensor(
        [-30, -3, -0.5, -0.011, -0.009, -1e-6, 0, 1e-6, 0.009, 0.011, 0.5, 3, 30], dtype=torch.float64
    )
    expected = torch.distributions.ContinuousBernoulli(logits=logits, lims=(0.4999, 0.5001)).mean
    assert torch.allclose(continuous_bernoulli_mean(logits), expected, atol=1e-6)
    at_zero = torch.zeros(1, requires_grad=True)
    continuous_bernoulli_mean(at_zero).sum().backward()
    assert at_zero.grad is not None
    assert float(at_zero.grad) == pytest.approx(1 / 12)
    far = torch.tensor([-1000.0, 1000.0], requires_grad=True)
    continuous_bernoulli_mean(far).sum().backward()
    assert far.grad is not None
    assert far.grad.isfinite().all()


def test_to_grey_is_the_transposed_convolution() -> None:
    ours, torchs = networks.ToGrey(5), networks.Doubling(5, 1)
    torchs.load_state_dict(ours.state_dict())
    images, upstream = torch.randn(2, 5, 6, 7), torch.randn(2, 1, 12, 14)
    for layer in (ours, torchs):
        layer(images).backward(upstream)
    torch.testing.assert_close(ours(images), torchs(images))
    for mine, theirs in zip(ours.parameters(), torchs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-5)


LINKS = [links.identity, links.sigmoid, continuous_bernoulli_mean]


@pytest.mark.parametrize("model", ["conv_vae", "mlp_vae", "linear_vae"])
@pytest.mark.parametrize("link", LINKS)
def test_a_model_can_be_pickled_saved_copied_and_scripted(model: str, link: Link) -> None:
    vae = build(f"model={model}", "model.latent_dim=3", shape=(1, 8, 8), link=link).eval()
    saved, dumped = io.BytesIO(), io.BytesIO()
    torch.save(vae, saved)
    joblib.dump(vae, dumped)
    saved.seek(0), dumped.seek(0)
    with warnings.catch_warnings():
        for kind in (FutureWarning, DeprecationWarning):
            warnings.simplefilter("ignore", kind)  # torch advises against TorchScript; people have it
        scripted = torch.jit.script(vae)
    images, noise = torch.rand(2, 1, 8, 8), torch.randn(2, 3)
    posterior, raw = vae(images, noise)
    copies = [
        pickle.loads(pickle.dumps(vae)),
        torch.load(saved, weights_only=False),
        joblib.load(dumped),
        copy.deepcopy(vae),
        scripted,
    ]
    for other in copies:
        found, output = other(images, noise)
        assert torch.equal(found.mu, posterior.mu)
        assert torch.equal(output, raw)
    assert all(torch.equal(other.decode(noise), vae.decode(noise)) for other in copies[:-1])
