import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from elsewhere import LinearVAE, gaussian_images
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import vae
from vae.diagnose.monitor import Monitor

IMAGES = gaussian_images(600)
TOLD: dict[str, Any] = {"likelihood": "gaussian", "sigma2": 0.5}
LOSS = vae.scale("mse", "mean", (1, 2, 3), kl_weight=0.1, pixel_range=(-10, 10))
FAST = {"iw_samples": 2, "probe_images": 32}


def dies_and_lives(monitor: Monitor) -> None:
    """A KL of five nats, at a constant weight, that goes out and comes back."""
    for step in range(1, 151):
        kl = 0.001 if 60 <= step < 100 else 2.5
        monitor.step(10.0 - step / 100, torch.full((2,), kl), 1.0)


def test_events_are_told_and_logged(tmp_path: Path) -> None:
    with Monitor(tmp_path) as monitor:
        dies_and_lives(monitor)
    assert [event.split(" (")[0] for event in monitor.events] == [
        "step 70: the code has collapsed",
        "step 100: the code has recovered",
    ]
    events = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0}).Reload()
    assert {"train/loss", "train/kld", "train/kl_weight"} <= set(events.Tags()["scalars"])
    rows = events.Scalars("train/kld")
    assert [row.step for row in rows] == list(range(10, 151, 10))
    assert rows[0].value == pytest.approx(5)
    assert events.Scalars("train/loss")[0].value == pytest.approx(15 - 0.055)


def test_the_highest_weight_is_of_all_steps(tmp_path: Path) -> None:
    with Monitor(tmp_path) as monitor:
        for step in range(1, 21):
            monitor.step(10.0, torch.ones(2), 3.0 if step == 13 else 1.0)
    assert monitor.watch.found.max_kl_weight == 3


def test_the_warning_comes_before_the_first_step(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """At t = 392 no code of digits can pay; at t = 0.5 three of these dimensions do."""
    with caplog.at_level(logging.INFO, "vae"):
        monitor = Monitor(tmp_path / "a", images=IMAGES, latent_dim=4, likelihood="gaussian", sigma2=7.0)
        assert monitor.warning is not None
        assert "expect a collapse, which the objective asks for" in caplog.text
        fine = Monitor(tmp_path / "b", images=IMAGES, latent_dim=4, **TOLD)
    assert fine.warning is None
    assert "a linear VAE would keep 3 of 4 dimensions" in caplog.text
    loss = vae.scale("mse", "mean", (1, 2, 3), kl_weight=4.0, pixel_range=(-10, 10))
    assert Monitor(tmp_path / "c", images=IMAGES, latent_dim=4, loss=loss).warning is not None  # t = 12


def test_few_images_of_noise_are_predicted_as_they_are_diagnosed(tmp_path: Path) -> None:
    """Their largest eigenvalues are chance: t lies above all true ones."""
    noise = 0.1**0.5 * torch.randn(120, 1, 14, 14, generator=torch.Generator().manual_seed(0))
    told = {"likelihood": "gaussian", "sigma2": 0.25}
    with Monitor(tmp_path, images=noise, latent_dim=4, **told) as monitor:
        assert monitor.warning is not None
    dead = (lambda x: (torch.zeros(len(x), 4), torch.zeros(len(x), 4)), lambda z: torch.zeros(len(z), 1, 14, 14))
    found = vae.diagnose(*dead, noise, **told, **FAST).to_dict()
    events = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0}).Reload()
    (edge,) = events.Scalars("prediction/predicted_collapse_weight")
    assert edge.value == pytest.approx(found["predicted_collapse_weight"], rel=1e-5)


def test_an_evaluation_knows_how_the_training_went(tmp_path: Path) -> None:
    best = LinearVAE(IMAGES, 4, 0.5)
    monitor = Monitor(tmp_path, images=IMAGES, latent_dim=4, **TOLD)
    for _ in range(20):
        monitor.step(3.0, torch.ones(8, 4), 1.0)  # of each image
    early = monitor.evaluate((best.encode, best.decode), **FAST)
    assert early.verdict == "unfinished"
    assert "20 steps are too few" in early.reason
    for _ in range(200):
        monitor.step(3.0, torch.ones(4), 1.0)
    found = monitor.evaluate((best.encode, best.decode), **FAST)
    assert (found.verdict, found.to_dict()["steps"]) == ("alive", 220)
    monitor.close()
    events = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0, "images": 0}).Reload()
    assert [row.step for row in events.Scalars("test/kld")] == [20, 220]
    assert {"reconstructions", "prior_samples", "traversal"} <= set(events.Tags()["images"])
    assert {"prediction/effective_t", "collapse/swap_gap", "test/negative_elbo"} <= set(events.Tags()["scalars"])


def test_a_kl_term_that_has_not_begun_is_said(tmp_path: Path) -> None:
    best = LinearVAE(IMAGES, 4, 0.5)
    with Monitor(tmp_path, images=IMAGES, latent_dim=4, kl_weight=1.0, **TOLD) as monitor:
        for _ in range(200):
            monitor.step(3.0, torch.ones(4), 0.0)
        found = monitor.evaluate((best.encode, best.decode), **FAST)
    assert "The KL term never began" in str(found)


@pytest.mark.parametrize("told", [{}, {"kl_weight": 1.0}, {"loss": LOSS}])
def test_where_the_schedule_ends_is_not_said_where_nobody_has(told: dict[str, Any], tmp_path: Path) -> None:
    """A constant weight of 0.1 has not to be raised to 1."""
    best = LinearVAE(IMAGES, 4, 0.05)
    given = told if "loss" in told else TOLD | told
    with Monitor(tmp_path, images=IMAGES, latent_dim=4, **given) as monitor:
        for _ in range(200):
            monitor.step(0.3, torch.ones(4), 0.1)
        found = monitor.evaluate((best.encode, best.decode), **FAST)
    assert ("The schedule has reached KL weight 0.1 of 1." in found.explanation) == ("kl_weight" in told)
    assert found.to_dict()["final_kl_weight"] == (1.0 if "kl_weight" in told else pytest.approx(0.1))


@pytest.mark.parametrize(("told", "weight"), [(TOLD, 1.0), (TOLD | {"kl_weight": 0.3}, 0.3), ({"loss": LOSS}, 0.1)])
def test_a_step_has_the_weight_of_the_loss_unless_it_says_another(
    told: dict[str, Any], weight: float, tmp_path: Path
) -> None:
    with Monitor(tmp_path, **told) as monitor:
        monitor.step(0.3, torch.ones(4))
        assert monitor.watch.found.max_kl_weight == pytest.approx(weight)
        monitor.step(0.3, torch.ones(4), 2.0)
        assert (monitor.watch.found.max_kl_weight, monitor.weight) == (2, 2)


@pytest.mark.parametrize(("constant", "doubted"), [(True, False), (False, True)])
def test_a_fitted_variance_has_its_logarithm_in_the_loss(constant: bool, doubted: bool, tmp_path: Path) -> None:
    """Without it the term is n/2 at every step."""
    images = 0.01 * IMAGES
    best = LinearVAE(images, 4, 5e-6)
    left = float((images - best.decode(best.encode(images)[0])).square().mean())
    term = 3 * (1 + (math.log(2 * math.pi * left) if constant else 0))
    with Monitor(tmp_path, images=images, latent_dim=4, likelihood="optimal_gaussian") as monitor:
        for _ in range(10):
            monitor.step(term, torch.ones(4))
        found = monitor.evaluate((best.encode, best.decode), **FAST)
    assert any("n/2 log(2 pi sigma^2) in it" in doubt for doubt in found.doubts) == doubted


@pytest.mark.parametrize(("more", "doubted"), [(0.0, False), (1.0, False), (9.0, True)])
def test_a_given_variance_may_have_its_logarithm_in_the_loss(more: float, doubted: bool, tmp_path: Path) -> None:
    best, sigma2 = LinearVAE(0.01 * IMAGES, 4, 5e-6), 5e-6
    images = 0.01 * IMAGES
    term = float((images - best.decode(best.encode(images)[0])).square().sum() / len(images)) / (2 * sigma2)
    with Monitor(tmp_path, images=images, latent_dim=4, likelihood="gaussian", sigma2=sigma2) as monitor:
        for _ in range(10):
            monitor.step(term + more * 3 * math.log(2 * math.pi * sigma2), torch.ones(4))
        found = monitor.evaluate((best.encode, best.decode), **FAST)
    assert any("reconstruction term of" in doubt for doubt in found.doubts) == doubted


def test_numbers_that_no_training_should_show_are_told_once(tmp_path: Path) -> None:
    with Monitor(tmp_path) as monitor:
        for step in range(40):
            monitor.step(torch.nan if step > 20 else 1.0, torch.tensor([-0.5, -0.9]))
    assert [event.partition(":")[2].partition(" nats")[0] for event in monitor.events] == [
        " the KL of a dimension is -0.9",
        " the reconstruction term is no finite number",
    ]  # and no collapse, of what is no KL


def test_steps_that_tell_another_loss_than_is_measured_are_doubted(tmp_path: Path) -> None:
    """A mean over pixels, where a sum is meant."""
    best = LinearVAE(IMAGES, 4, 0.5)
    for factor, doubted in ((1.0, False), (1 / 60, True)):
        with Monitor(tmp_path / f"{factor:g}", images=IMAGES, latent_dim=4, **TOLD) as monitor:
            right = float((IMAGES - best.decode(best.encode(IMAGES)[0])).square().sum() / len(IMAGES))
            for _ in range(10):
                monitor.step(factor * max(right, 1.5), torch.ones(4), 1.0)
            found = monitor.evaluate((best.encode, best.decode), **FAST)
        assert any("reconstruction term of" in doubt for doubt in found.doubts) == doubted


@pytest.mark.parametrize(("factor", "doubted"), [(1.0, False), (1 / 64, True), (20.0, True)])
def test_steps_that_tell_another_kl_than_is_measured_are_doubted(factor: float, doubted: bool, tmp_path: Path) -> None:
    best = LinearVAE(IMAGES, 4, 0.5)
    mu, log_sigma = best.encode(IMAGES)
    kl = 0.5 * (mu**2 + (2 * log_sigma).exp() - 1) - log_sigma
    with Monitor(tmp_path, images=IMAGES, latent_dim=4, **TOLD) as monitor:
        for _ in range(10):
            monitor.step(3.0, factor * kl, 1.0)
        found = monitor.evaluate((best.encode, best.decode), **FAST)
    assert any("told of a KL of" in doubt for doubt in found.doubts) == doubted


def test_an_evaluation_before_a_row_goes_by_the_weight_of_the_steps(tmp_path: Path) -> None:
    best = LinearVAE(IMAGES, 4, 0.5)
    with Monitor(tmp_path, images=IMAGES, latent_dim=4, log_every=1000, **TOLD) as monitor:
        before = monitor.evaluate((best.encode, best.decode), **FAST)
        for _ in range(200):
            monitor.step(3.0, torch.ones(4), 1.0)
        found = monitor.evaluate((best.encode, best.decode), **FAST)
    for answer in (before, found):
        assert (answer.verdict, answer.to_dict()["kl_weight"]) == ("alive", 1.0)
    assert "which the schedule reached" not in str(found)


def test_a_variance_that_is_told_at_the_evaluation_is_the_one_that_is_held_against(tmp_path: Path) -> None:
    best = LinearVAE(IMAGES, 4, 2.0)
    right = float((IMAGES - best.decode(best.encode(IMAGES)[0])).square().sum() / len(IMAGES)) / (2 * 2.0)
    with Monitor(tmp_path) as monitor:
        for _ in range(10):
            monitor.step(right, torch.ones(4), 1.0)
        found = monitor.evaluate((best.encode, best.decode), IMAGES, likelihood="gaussian", sigma2=2.0, **FAST)
    assert not any("reconstruction term of" in doubt for doubt in found.doubts)


def test_event_files_of_others_stay(tmp_path: Path) -> None:
    other = tmp_path / "events.out.tfevents.5.other"
    other.write_bytes(b"theirs")
    Monitor(tmp_path).close()
    assert other.read_bytes() == b"theirs"


def test_what_is_no_row_is_refused(tmp_path: Path) -> None:
    with Monitor(tmp_path) as monitor, pytest.raises(vae.InputError, match="kl_per_dimension: has shape"):
        monitor.step(1.0, torch.tensor(3.0))
    with pytest.raises(vae.InputError, match=r"monitor.step: the monitor is closed"):
        monitor.step(1.0, torch.ones(3))
    with pytest.raises(vae.InputError, match=r"monitor.evaluate: the monitor is closed"):
        monitor.evaluate((None, None), IMAGES)
    with Monitor(tmp_path, images=IMAGES, latent_dim=4, **TOLD) as monitor:
        with pytest.raises(vae.InputError, match=r"has shape \(128,\); must be \(4,\)"):
            monitor.step(1.0, torch.ones(128))  # of each image, where one of each dimension is wanted
        with pytest.raises(vae.InputError, match=r"loss_reconstruction: has shape \(8,\)"):
            monitor.step(torch.ones(8), torch.ones(4))
    for wrong in ({"log_every": 0}, {"latent_dim": "x"}, {"kl_weight": "x"}, {"loss": 3}, {"directory": 3}):
        (name, value) = next(iter(wrong.items()))
        with pytest.raises(vae.InputError, match=f"^{name}={value}: must be"):
            Monitor(**({"directory": tmp_path} | wrong))  # type: ignore[arg-type]
    with Monitor(tmp_path) as monitor:
        for row, said in (
            (("a", torch.ones(3)), "loss_reconstruction=a: must be a number"),
            ((1.0, [1.0, 2.0]), "kl_per_dimension: is a list; must be a tensor"),
            ((1.0, torch.ones(3), "a"), "kl_weight=a: must be a number"),
        ):
            with pytest.raises(vae.InputError, match=said):
                monitor.step(*row)  # type: ignore[arg-type]
