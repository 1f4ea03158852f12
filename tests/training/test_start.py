"""model.start=spectral: before the first step the model is the linear VAE at its closed form."""

import logging
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import QUICK, composed, trained

from vae.config.errors import InputError
from vae.measure.evaluation import encode_split
from vae.training.setup import Setup, prepare

CPU = ["train.device=cpu", "train.threads=1", "model.start=spectral"]
SMALL = ["model.encoder_widths=[16]", "model.decoder_widths=[16]"]
GAUSSIAN = ["dataset=gaussian", "dataset.train_size=2000", "model.latent_dim=5"]


def at_start(*overrides: str) -> Setup:
    return prepare(composed(*CPU, *overrides))


@torch.no_grad()
def exact(setup: Setup) -> tuple[float, float, float]:
    """KL, SSE and ELBO (KL weight 1) of the training split, the expectation over z taken exactly: the decoder is
    linear. In double precision."""
    model, split, sigma2 = setup.subject.model, setup.subject.data.train, setup.subject.likelihood.sigma2()
    assert sigma2 is not None
    model.double().eval()
    images = split.batch(slice(None)).double()
    posterior = model.encode(images)
    d = posterior.mu.shape[1]
    mean = model.decoder(torch.zeros(1, d).double())
    columns = (model.decoder(torch.eye(d).double()) - mean).flatten(1).square().sum(1)
    error = (images - model.decoder(posterior.mu.double())).square().flatten(1).sum(1)
    sse = float((error + (2 * posterior.log_sigma.double()).exp() @ columns).mean())
    kld = float(posterior.kl().double().sum(1).mean())
    pixels = images[0].numel()
    nll = 0.5 * pixels * math.log(2 * math.pi * float(sigma2)) + sse / (2 * float(sigma2))
    return kld, sse, -nll - kld


OBJECTIVES = [
    ["objective=sse"],
    ["objective=gaussian", "objective.sigma2=0.1", "anneal.weight=3"],
    ["objective=optimal_gaussian"],
    ["objective=gaussian", "objective.sigma2=0.5", "anneal=delayed", "anneal.weight=0.5"],
]


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize(
    "model", [["model=mlp_vae", *SMALL], ["model=conv_vae"], ["model=linear_vae", "train=default"]]
)
def test_the_first_step_is_at_the_closed_form(model: list[str], objective: list[str]) -> None:
    setup = at_start(*model, *GAUSSIAN, *objective)
    optimum = setup.subject.optimum(setup.schedule.final)
    assert optimum is not None
    assert optimum.kept > 1
    kld, sse, elbo = exact(setup)
    assert kld == pytest.approx(optimum.kld, rel=1e-4)
    assert sse == pytest.approx(optimum.sse, rel=1e-4)
    assert elbo == pytest.approx(optimum.elbo, rel=1e-4)


def test_own_networks_start_there_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "starting.py").write_text(
        "from torch import nn\n"
        "class Encoder(nn.Module):\n"
        "    def __init__(self, shape, latent_dim):\n"
        "        super().__init__()\n"
        "        self.mu, self.s = nn.Linear(8, latent_dim), nn.Linear(8, latent_dim)\n"
        "    def forward(self, x):\n"
        "        return self.mu(x.flatten(1)).tanh(), self.s(x.flatten(1))\n"
        "class Decoder(nn.Module):\n"
        "    def __init__(self, shape, latent_dim):\n"
        "        super().__init__()\n"
        "        self.layer = nn.Linear(latent_dim, 8)\n"
        "    def forward(self, z):\n"
        "        return self.layer(z).sin().view(-1, 1, 1, 8)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    own = ["model=custom", "model.encoder._target_=starting.Encoder", "model.decoder._target_=starting.Decoder"]
    setup = at_start(*own, *GAUSSIAN, "objective=sse")
    optimum = setup.subject.optimum(1.0)
    assert optimum is not None
    assert exact(setup) == pytest.approx((optimum.kld, optimum.sse, optimum.elbo), rel=1e-4)
    # The gates let a gradient through to the networks once they have moved.
    found = trained(tmp_path / "run", *QUICK, *CPU, *own, *GAUSSIAN, "train.steps=60", "train.lr=0.01")
    assert math.isfinite(found["mse"])


def test_images_beyond_the_exact_limit(tmp_path: Path) -> None:
    """40x40 pixels of which a dozen factors make most: the leading dimensions by a block Krylov method."""
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(1500, 12)) * np.linspace(3, 1, 12)
    images = factors @ rng.normal(size=(12, 1600)) / 40 + 0.01 * rng.normal(size=(1500, 1600))
    images = (images - images.min()) / (images.max() - images.min())
    np.save(tmp_path / "images.npy", images.reshape(-1, 40, 40).astype(np.float32))
    setup = at_start(
        "dataset=arrays",
        f"dataset.train={tmp_path}/images.npy",
        "model=mlp_vae",
        "model.latent_dim=8",
        "objective=gaussian",
        "objective.sigma2=0.001",
    )
    optimum = setup.subject.optimum(1.0)
    assert optimum is not None
    assert optimum.kept == 8
    assert exact(setup) == pytest.approx((optimum.kld, optimum.sse, optimum.elbo), rel=1e-3)


@pytest.mark.parametrize("objective", ["bernoulli", "continuous_bernoulli"])
def test_another_likelihood_starts_far_above_a_constant_image(
    objective: str, digits: list[str], tmp_path: Path
) -> None:
    setup = at_start(*digits, "model=mlp_vae", f"objective={objective}")
    subject = setup.subject
    found = subject.evaluate(thorough=True).measures
    dead = prepare(composed(*CPU[:2], *digits, "model=mlp_vae", f"objective={objective}")).subject
    raw = subject.likelihood.raw_near(subject.spectrum.mean)
    assert raw is not None
    images = subject.data.test.batch(slice(None))
    constant = -float(
        subject.likelihood.nll(images, raw.float().reshape(1, *images.shape[1:]).expand_as(images)).mean()
    )
    assert found.kld > 1
    assert found.elbo > constant + 1
    assert found.elbo > dead.evaluate(thorough=True).measures.elbo


def test_it_lives_where_the_objective_lets_it_and_says_so_where_not(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        setup = at_start("model=mlp_vae", *SMALL, *GAUSSIAN, "objective=gaussian", "objective.sigma2=20")
    assert "keeps no dimension" in caplog.text
    assert float(encode_split(setup.subject.model, setup.subject.data.test, 1000).kl().sum()) == 0


REFUSED: dict[str, tuple[list[str], str]] = {
    "a decoder that sees pixels": (["model=pixelcnn_vae", "objective=bernoulli"], "sees pixels"),
    "a sigmoid": (["model.output=sigmoid"], "model.output=sigmoid"),
    "256 levels": (["objective=categorical"], "linear optimum is known"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_closed_form_is_refused(name: str, digits: list[str]) -> None:
    overrides, said = REFUSED[name]
    with pytest.raises(InputError, match=said):
        at_start(*digits, *overrides)
