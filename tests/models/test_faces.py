from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import composed
from torch import Tensor, nn

import vae
from vae.config.errors import InputError
from vae.models import foreign
from vae.models import likelihood as likelihoods
from vae.models.faces import face_of
from vae.models.foreign import encoded, networks_of, undisturbed
from vae.models.vae import VAE


class Pair(nn.Module):
    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.flatten(1), x.flatten(1)

    def decode(self, z: Tensor) -> Tensor:
        return z


class ForwardAlone(nn.Module):
    def __init__(self, outputs: int = 3) -> None:
        super().__init__()
        self.decoder, self.outputs = nn.Linear(4, 4), outputs

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (x, x.flatten(1) + 1, x.flatten(1) + 2)[: self.outputs]


def pythae(loss: str, **more: Any) -> SimpleNamespace:
    config = SimpleNamespace(reconstruction_loss=loss)
    return SimpleNamespace(model_config=config, encoder=nn.Identity(), decoder=nn.Identity(), **more)


def test_what_a_model_says_of_itself() -> None:
    assert face_of(Pair()).log_variance
    assert (found := face_of(pythae("mse"))).likelihood == "gaussian"
    assert (found.sigma2, found.kl_weight, found.log_variance) == (1.0, 1.0, True)
    assert (found := face_of(pythae("bce", beta=4.0))).likelihood == "bernoulli"
    assert (found.sigma2, found.kl_weight) == (None, 4.0)
    diffusers = SimpleNamespace(quant_conv=nn.Identity(), encode=lambda x: x, decode=lambda z: z)
    assert face_of(diffusers).name == "AutoencoderKL"


@pytest.mark.parametrize(
    ("kind", "weight"),
    [("CIWAE", 1.0), ("INFOVAE_MMD", 0.75), ("BetaTCVAE", None), ("MSSSIM_VAE", None), ("VAE_IAF", InputError)],
)
def test_what_the_kl_weighs_in_each_loss_of_pythae(kind: str, weight: Any) -> None:
    """Of the weighted IWAE bound beta is the ELBO's part; of InfoVAE alpha is what the KL lacks; in others it weighs
    another term. A subclass has the loss of its parent."""
    parent = type(kind, (SimpleNamespace,), {})
    model = type("Mine", (parent,), {})(**vars(pythae("mse", beta=4.0, alpha=0.25)))
    if weight is InputError:
        with pytest.raises(InputError, match=r"Mine: its code is not of N\(mu, sigma\^2\) with the prior"):
            face_of(model)
        return
    found = face_of(model)
    assert (found.kl_weight, found.unknown) == (weight, weight is None)
    if weight is None:
        with pytest.raises(InputError, match="say kl_weight="):  # a Lightning module is asked before its training
            found.said_weight()
    assert found.likelihood == (None if kind == "MSSSIM_VAE" else "gaussian")
    images = torch.rand(8, 1, 2, 2)
    model.encoder = lambda x: (x.flatten(1), x.flatten(1))
    model.decoder = lambda z: z.view(-1, 1, 2, 2)
    if weight is None:
        with pytest.raises(InputError, match=r"Mine: its loss does not tell what the KL weighs in it; say kl_weight="):
            vae.diagnose(model, images, likelihood="gaussian", sigma2=1.0)
    else:
        assert vae.diagnose(model, images, iw_samples=1, probe_images=4).record.identity.kl_weight == weight


def test_a_forward_that_gives_three() -> None:
    mu, logvar = face_of(ForwardAlone()).encode(torch.zeros(2, 1, 2, 2))
    assert (float(mu.mean()), float(logvar.mean())) == (1, 2)
    with pytest.raises(InputError, match=r"forward gives no \(reconstruction, mu, logvar\)"):
        face_of(ForwardAlone(2)).encode(torch.zeros(2, 1, 2, 2))


def test_a_model_inside_another() -> None:
    class Holder(nn.Module):
        def __init__(self, **parts: nn.Module) -> None:
            super().__init__()
            for name, part in parts.items():
                setattr(self, name, part)

    assert face_of(Holder(vae=Pair(), head=nn.Linear(2, 2))).name == "Pair"
    with pytest.raises(InputError, match=r"has several models in it \(one, two\)"):
        face_of(Holder(one=Pair(), two=Pair()))
    with pytest.raises(InputError, match="Holder: has no encode and decode that are known"):
        face_of(Holder(head=nn.Linear(2, 2)))
    with pytest.raises(InputError, match="str: has no encode and decode"):
        face_of("model")


def test_a_model_of_ours_that_sees_pixels_is_measured_elsewhere() -> None:
    config = composed("model=pixelcnn_vae", "model.channels=4", "objective=bernoulli")
    likelihood = likelihoods.build(config.objective, None, (1, 8, 8))
    with pytest.raises(InputError, match="evaluate=DIR"):
        face_of(VAE(config.model, likelihood, (1, 8, 8)))


def test_networks_are_found_behind_functions() -> None:
    one, two, three = Pair(), nn.Linear(2, 2), nn.Linear(2, 2)

    def inner(x: Tensor) -> Tensor:
        return two(x)

    assert networks_of(one.encode) == (one,)
    assert set(networks_of(lambda x: one.encode(inner(x)), three)) == {one, two, three}
    assert networks_of(torch.sin) == ()


def test_each_part_gets_its_own_mode_back() -> None:
    network = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2))
    network[1].eval()
    before = torch.get_rng_state()
    with pytest.raises(KeyError), undisturbed([network]):
        assert not network[0].training
        torch.rand(3)
        raise KeyError
    assert [network.training, network[0].training, network[1].training] == [True, True, False]
    assert torch.equal(torch.get_rng_state(), before)


def test_large_images_go_through_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign, "MAX_VALUES", 3 * 16)
    sizes = []

    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        sizes.append(len(x))
        return x.flatten(1), 0 * x.flatten(1)

    def decode(z: Tensor) -> Tensor:
        sizes.append(len(z))
        return z.reshape(-1, 1, 4, 4)

    images = torch.rand(20, 1, 4, 4)
    objective = composed("objective=gaussian").objective
    model = foreign.tried(encode, decode, likelihoods.build(objective, None, (1, 4, 4)), images)
    sizes.clear()
    posterior = model.encode(images)
    assert torch.equal(model.raw(posterior.mu), images)
    assert max(sizes) == 3
    assert sum(sizes) == 40


def test_sigma_by_each_of_its_names() -> None:
    """The same q(z|x), sigma = 0.5, however it is given."""
    mu, sigma = torch.zeros(3, 2), torch.full((3, 2), 0.5)
    given: list[tuple[Any, bool]] = [
        ((mu, sigma.log()), False),
        ([mu, 2 * sigma.log()], True),
        (torch.distributions.Normal(mu, sigma), True),
        (SimpleNamespace(mu=mu, log_sigma=sigma.log()), True),
        (SimpleNamespace(mean=mu, std=sigma), False),
        ({"z_mean": mu, "z_log_var": 2 * sigma.log()}, False),
        (SimpleNamespace(latent_dist=SimpleNamespace(mean=mu, logvar=2 * sigma.log())), False),
    ]
    for one, log_variance in given:
        assert torch.allclose(encoded(one, log_variance).log_sigma(), sigma.log())
    assert bool((encoded(mu, False).log_sigma() == -torch.inf).all())
    with pytest.raises(InputError, match="gave a MultivariateNormal"):
        encoded(torch.distributions.MultivariateNormal(mu, torch.eye(2)), False)
    with pytest.raises(InputError, match="gave a SimpleNamespace"):
        encoded(SimpleNamespace(mean=mu), False)
