"""The importance weighted bound: its value, its gradients, and where both have no noise."""

import math
from collections.abc import Callable

import pytest
import torch
from conftest import composed
from torch import Tensor

from vae.models.likelihood import FixedGaussian
from vae.training.cure import Batch
from vae.training.setup import Setup, prepare

LINEAR = [
    *("dataset=gaussian", "dataset.train_size=50", "model=linear_vae", "model.latent_dim=3", "objective=gaussian"),
    *("objective.sigma2=0.5", "train.threads=1", "train.device=cpu", "train.batch_size=20"),
]


def setup(*overrides: str) -> Setup:
    """In double precision, at weights that are nothing special."""
    found = prepare(composed(*LINEAR, "cure=iwae", *overrides))
    found.subject.model.double(), found.subject.likelihood.double()
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in found.subject.model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=rng, dtype=torch.float64)
    return found


def images(of: Setup) -> Tensor:
    return of.subject.data.train.batch(slice(0, 20)).double()


def noise(seed: int, codes: int) -> Tensor:
    shape = (20, codes, 3) if codes > 1 else (20, 3)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def loss(of: Setup, given: Tensor, weight: float = 1.0) -> Tensor:
    model, likelihood = of.subject.model, of.subject.likelihood
    encoded = model.encoder(images(of))
    # VAE.encode brings what networks give to float32, which is too coarse for finite differences.
    posterior = model.head(encoded[0], encoded[1])
    z = posterior.mu[:, None] + posterior.log_sigma[:, None].exp() * given.reshape(20, -1, 3)
    raw = model.decoder(z.flatten(0, 1))
    return of.cure.loss(Batch.of(1, weight, images(of), given, posterior, raw, likelihood))


def gradients(of: Setup, given: Tensor) -> dict[str, Tensor]:
    of.subject.model.zero_grad()
    loss(of, given).backward()
    return {name: p.grad.clone() for name, p in of.subject.model.named_parameters() if p.grad is not None}


def mean_of(draw: Callable[[int], Tensor], count: int) -> tuple[Tensor, Tensor]:
    """And its standard error."""
    found = torch.stack([draw(seed) for seed in range(count)])
    return found.mean(0), found.std(0) / math.sqrt(count)


@torch.no_grad()
def test_the_value_is_the_bound_that_is_measured() -> None:
    """Against sum_k p(x, z_k) / q(z_k | x) by torch.distributions, exponentiated as it stands."""
    from torch.distributions import Normal

    of, given = setup("cure.samples=7"), noise(0, 7)
    model, sigma = of.subject.model, math.sqrt(0.5)
    mu, log_sigma = model.encoder(images(of))
    q = Normal(mu[:, None], model.head(mu, log_sigma).log_sigma.exp()[:, None])
    z = q.mean + q.stddev * given
    pixels = Normal(model.decoder(z.flatten(0, 1)).reshape(20, 7, -1), sigma)
    log_p = pixels.log_prob(images(of).flatten(1)[:, None]).sum(2) + Normal(0, 1).log_prob(z).sum(2)
    expected = -(log_p - q.log_prob(z).sum(2)).exp().mean(1).log().mean()
    for gradient in ("plain", "dreg"):
        assert float(loss_under(of, given, gradient)) == pytest.approx(float(expected), rel=1e-6)


def loss_under(of: Setup, given: Tensor, gradient: str) -> Tensor:
    with torch.enable_grad():
        return loss(setup("cure.samples=7", f"cure.gradient={gradient}"), given)


@pytest.mark.parametrize("gradient", ["plain", "dreg"])
def test_one_code_is_the_elbo(gradient: str) -> None:
    of = setup("cure.samples=1", f"cure.gradient={gradient}")
    with torch.no_grad():
        mu, raw = of.subject.model.encoder(images(of))
        kl = float(of.subject.model.head(mu, raw).kl().sum(1).mean())
    assert isinstance(of.subject.likelihood, FixedGaussian)
    constant = 0.5 * 8 * math.log(2 * math.pi * 0.5)

    def beyond_the_elbo(seed: int) -> Tensor:
        given = noise(seed, 1)
        found = loss(of, given).detach()
        z = of.subject.model.head(mu, raw).sample(given)
        return found - of.subject.likelihood(images(of), of.subject.model.decoder(z)).loss.detach() - kl - constant

    mean, error = mean_of(beyond_the_elbo, 200)
    assert abs(float(mean)) < 4 * float(error)


def test_the_plain_gradient_is_that_of_finite_differences() -> None:
    of, given = setup("cure.samples=4", "cure.gradient=plain"), noise(1, 4)
    found = gradients(of, given)
    for name, parameter in of.subject.model.named_parameters():
        place = (0,) * parameter.dim()
        with torch.no_grad():
            values = []
            for step in (1e-5, -1e-5):
                parameter[place] += step
                values.append(float(loss(of, given)))
                parameter[place] -= step
        assert float(found[name][place]) == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-4, abs=1e-7), name


def test_dreg_has_the_plain_gradient_s_mean_and_the_decoder_s_to_the_digit() -> None:
    plain, dreg = (setup("cure.samples=4", f"cure.gradient={name}") for name in ("plain", "dreg"))
    given = noise(2, 4)
    one, other = gradients(plain, given), gradients(dreg, given)
    for name in one:
        if name.startswith("decoder"):
            assert torch.allclose(one[name], other[name], rtol=1e-6)

    def difference(seed: int) -> Tensor:
        first, second = (gradients(of, noise(seed, 4)) for of in (plain, dreg))
        return torch.stack([(first[name] - second[name]).flatten()[0] for name in first if name.startswith("encoder")])

    mean, error = mean_of(difference, 250)
    assert bool((mean.abs() < 4 * error).all())
    assert float(error.max()) > 1e-4  # they differ draw by draw


def test_dreg_is_silent_where_q_is_the_posterior() -> None:
    """At the linear VAE's optimum log w is the same for all codes: the encoder gets no gradient, whatever the noise."""
    found = prepare(composed(*LINEAR, "cure=iwae", "model.start=spectral"))
    found.subject.model.double(), found.subject.likelihood.double()
    slopes = gradients(found, noise(3, 5))
    encoder = [float(slope.abs().max()) for name, slope in slopes.items() if name.startswith("encoder")]
    assert max(encoder) < 1e-4
    plain = prepare(composed(*LINEAR, "cure=iwae", "cure.gradient=plain", "model.start=spectral"))
    plain.subject.model.double(), plain.subject.likelihood.double()
    assert max(float(slope.abs().max()) for slope in gradients(plain, noise(3, 5)).values()) > 1e-2
