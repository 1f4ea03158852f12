"""Cures that control the KL weight reach what they are set to, on the linear VAE's rate-distortion curve."""

from pathlib import Path

import pytest
import torch
from conftest import composed, trained
from test_terms import LINEAR, SMALL, batch, eigenvalues, water_filling

from vae.models.likelihood import Reconstruction
from vae.training.cure import Cure
from vae.training.setup import prepare


def cure(*overrides: str) -> Cure:
    return prepare(composed(*SMALL, "model=mlp_vae", "model.latent_dim=4", *overrides)).cure


def learn(of: Cure, kl: float = 0.0, squared_error: float = 1.0) -> float:
    """One step with these means; the KL weight for the next one."""
    given = batch(torch.tensor([kl, 0.0, 0.0, 0.0]))
    given = given._replace(reconstruction=Reconstruction(torch.tensor(7.0), torch.tensor([squared_error])))
    of.learn(given, torch.tensor(0.0))
    return of.measures()["beta"]


def test_controlvae_holds_its_set_point_on_the_curve(tmp_path: Path) -> None:
    overrides = ["cure=controlvae", "cure.target=3", "cure.integral=0.01", "cure.max_weight=20"]
    record = trained(tmp_path, *LINEAR, *overrides, "train.lr_schedule=cosine")
    assert record["linear_kld"] == pytest.approx(3.0, rel=0.05)
    assert record["linear_sse"] == pytest.approx(water_filling(eigenvalues(), record["linear_kld"]), rel=0.03)


def test_controlvae_is_its_formula() -> None:
    found = cure("cure=controlvae", "cure.target=5", "cure.proportional=0.01", "cure.integral=0.001")
    integral = 0.0
    for kl in (9.0, 7.0, 5.5, 8.0):  # above the target: nothing saturates
        integral -= 0.001 * (5 - kl)
        expected = 0.01 / (1 + torch.tensor(5 - kl).exp()) + integral
        assert learn(found, kl=kl) == pytest.approx(float(expected), abs=1e-7)


def test_controlvae_leaves_a_bound_at_once() -> None:
    """However long it was there. An integral that had gone on would have to unwind for as long."""
    found = cure("cure=controlvae", "cure.target=5", "cure.integral=0.01", "cure.max_weight=0.5")
    for _ in range(300):
        beta = learn(found, kl=0.0)  # too little KL: the weight can be no lower than 0
    assert beta == 0
    assert learn(found, kl=15.0) > 0.05
    for _ in range(300):
        beta = learn(found, kl=50.0)
    assert beta == 0.5
    assert learn(found, kl=0.0) < 0.5


def test_geco_meets_its_constraint_with_the_least_kl(tmp_path: Path) -> None:
    values = eigenvalues()
    overrides = ["cure=geco", "cure.goal=0.25", "cure.rate=0.05", "cure.smoothing=0.9", "train.lr_schedule=cosine"]
    record = trained(tmp_path, *LINEAR, *overrides)
    assert record["linear_sse"] == pytest.approx(0.25 * float(values.sum()), rel=0.05)
    assert record["linear_sse"] == pytest.approx(water_filling(values, record["linear_kld"]), rel=0.03)


def test_geco_moves_the_weight_against_the_constraint() -> None:
    found = cure("cure=geco", "cure.goal=0.5", "cure.rate=0.1", "cure.smoothing=0")
    variance = float(found.scale)  # type: ignore[attr-defined]  (of an image)
    assert learn(found, squared_error=variance) == pytest.approx(torch.tensor(-0.1 * 0.5).exp().item())
    worse = learn(found, squared_error=2 * variance)
    assert learn(found, squared_error=0.1 * variance) > worse
