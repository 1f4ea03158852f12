import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import vae
from vae.config.schema import CyclicalKL, LinearKL
from vae.scale.audit import Audit
from vae.training.schedule import build


def test_a_warm_up_that_ends() -> None:
    found = vae.audit_schedule(lambda step: min(1.0, step / 400), steps=1000)
    assert (found.first, found.last, found.ends_at, found.problems) == (1 / 400, 1.0, 400, ())
    assert vae.audit_schedule(0.5, 10).ends_at == 1
    assert vae.audit_schedule([0.1, 0.2, 0.3, 0.3], 4).ends_at == 3


def test_a_warm_up_that_never_ends_within_the_training() -> None:
    """As in scvi-tools' tracker, #1569: a warm-up of 400 epochs, of which a large dataset trains 80."""
    found = vae.audit_schedule(lambda epoch: min(1.0, epoch / 400), steps=80)
    assert (found.last, found.ends_at) == (0.2, None)
    assert "0.2" in found.problems[0]
    assert "would end at 1, at step 400: 5 times the training" in found.problems[0]
    cycles = vae.audit_schedule(lambda step: (step % 1000) / 1000, steps=5500)
    assert "it goes up and down, and the training ends in between" in cycles.problems[0]
    endless = vae.audit_schedule(lambda step: step / 1e6, steps=100)
    assert "still does" in endless.problems[0]


def test_a_warm_up_that_arrives_with_the_last_step() -> None:
    for steps in (2, 100, 20_000, 1_000_000):
        found = vae.audit_schedule(lambda step, end=steps: min(1.0, step / end), steps)  # type: ignore[misc]
        assert (found.last, found.ends_at, found.problems) == (1, steps, ())
        assert vae.audit_schedule(lambda step, end=steps: step / end, steps).problems  # type: ignore[misc]
    # The steps that are not looked at hide no end.
    for end in (999_950, 400_000, 17):
        assert vae.audit_schedule(lambda step, end=end: min(1.0, step / end), 1_000_000).ends_at == end  # type: ignore[misc]


def test_schedules_of_ours() -> None:
    linear = build(LinearKL(name="linear", weight=2.0, steps=50))
    assert vae.audit_schedule(linear, 100).ends_at == 50  # type: ignore[arg-type]
    cyclical = build(CyclicalKL(name="cyclical", weight=1.0, steps=100, cycles=4, rising=0.5))
    assert vae.audit_schedule(cyclical, 100).last == 1  # type: ignore[arg-type]


def test_a_weight_of_zero_and_one_that_falls() -> None:
    assert "0 throughout" in vae.audit_schedule(0.0, 10).problems[0]
    assert "below its highest" in vae.audit_schedule([1.0, 1.0, 0.5, 0.5], 4).problems[0]


class Terms:
    """A loss of two parameters with known parts."""

    def __init__(self) -> None:
        self.a, self.b = torch.tensor(2.0, requires_grad=True), torch.tensor([1.0, -3.0], requires_grad=True)

    def reconstruction(self) -> torch.Tensor:
        return self.a.square() + (self.a * self.b).sum() + torch.randn(()) * 5  # the same draw at each weight

    def kl(self) -> torch.Tensor:
        return self.b.square().sum()  # 10


def test_a_knob_that_reaches_the_loss() -> None:
    terms = Terms()
    found = vae.audit_schedule(0.5, 1, lambda weight: terms.reconstruction() + weight * terms.kl())
    assert found.reaches_loss
    assert not found.problems
    assert "In the loss it multiplies 10: the KL, as the loss reduces it" in str(found)
    assert found.kld == pytest.approx(10, rel=1e-5)
    # Where the term is left out at weight 0.
    found = vae.audit_schedule(
        0.5, 1, lambda w: terms.reconstruction() + w * terms.kl() if w else terms.reconstruction()
    )
    assert found.reaches_loss


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (lambda terms, weight: terms.reconstruction() + terms.kl(), "does not reach it"),
        (lambda terms, weight: terms.reconstruction() + weight * terms.kl().item(), "the KL is detached"),
        (lambda terms, weight: terms.reconstruction() + weight**2 * terms.kl(), "not change in proportion"),
        (lambda terms, weight: terms.reconstruction() + min(weight, 0.3) * terms.kl(), "not change in proportion"),
        (lambda terms, weight: (terms.reconstruction() + weight * terms.kl()).detach(), "has no gradient"),
        (
            # The value is right, the gradient is that of another weight for a part of it.
            lambda terms, weight: (
                terms.reconstruction() + weight * terms.kl() + weight**2 * (terms.b - terms.b.detach()).sum()
            ),
            "gradient of the loss does not change in proportion",
        ),
    ],
)
def test_knobs_that_do_not(loss: object, said: str) -> None:
    terms = Terms()
    found = vae.audit_schedule(0.5, 1, lambda weight: loss(terms, weight))  # type: ignore[operator]
    assert not found.reaches_loss
    assert said in found.problems[0]
    assert "does not reach" in str(found)


class Small(Terms):
    """A KL of 5e4, or less, at diffusers' weight, 1e-6, beside a squared error of 4,900 in float32, of which a rounding
    is 5e-4."""

    def __init__(self, kl: float, slope: float = 0.1) -> None:
        rng = torch.Generator().manual_seed(0)
        self.a = torch.randn(1000, generator=rng, requires_grad=True)
        self.x, self.size = torch.randn(5, 1000, generator=rng), kl / 1000
        self.slope = slope

    def reconstruction(self) -> torch.Tensor:
        return (self.x - self.slope * (self.a - self.a.detach())).square().sum()

    def kl(self) -> torch.Tensor:
        return self.a.square().sum() * self.size


def test_a_small_kl_is_told_from_the_rounding_of_the_loss() -> None:
    def audited(terms: Small, kl: Callable[[], Any]) -> Audit:
        return vae.audit_schedule(1e-6, 1, lambda weight: terms.reconstruction() + weight * kl())

    large, small = Small(5e4), Small(100)
    assert audited(large, large.kl).reaches_loss
    assert audited(large, large.kl).kld == pytest.approx(float(large.kl().detach()), rel=0.01)
    found = audited(small, small.kl)  # which the value does not show, and the gradient does
    assert (found.reaches_loss, found.kld, found.problems) == (True, None, ())
    assert "multiplies" not in str(found)
    assert "is detached" in audited(large, lambda: large.kl().item()).problems[0]
    assert "does not reach it" in audited(large, lambda: 0.0).problems[0]
    untold = Small(100, slope=10)
    found = audited(untold, untold.kl)
    assert found.reaches_loss is None
    assert "cannot be told: what it changes is below the rounding of float32" in found.problems[0]
    assert "does not reach" not in str(found)


def test_the_caller_s_random_numbers_stay() -> None:
    before = torch.get_rng_state()
    vae.audit_schedule(0.5, 1, lambda weight: weight * Terms().kl() + torch.randn(()))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "schedule",
    [np.linspace(0, 1, 100), torch.linspace(0, 1, 100), lambda step: torch.tensor([(step - 1) / 99])],
)
def test_arrays_are_schedules(schedule: Any) -> None:
    found = vae.audit_schedule(schedule, 100)
    assert (found.first, found.last) == (0, pytest.approx(1))
    assert vae.audit_schedule(np.float32(1)).last == 1


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        (lambda step: -1.0, "is -1.0 at step 1"),
        (lambda step: float("nan"), "is nan at step 1"),
        ([1.0], "has 1 weights for 3 steps"),
        ("linear", "schedule: is a str; must be a function of the step"),
        (lambda step: "a", "schedule at step 1=a: must be a number"),
    ],
)
def test_what_is_no_schedule(schedule: object, said: str) -> None:
    with pytest.raises(vae.InputError, match=said):
        vae.audit_schedule(schedule, 3)  # type: ignore[arg-type]
    with pytest.raises(vae.InputError, match="steps=x: must be a whole number, at least 1"):
        vae.audit_schedule(1.0, "x")  # type: ignore[arg-type]
    with pytest.raises(vae.InputError, match="loss: is a int; must be a function"):
        vae.audit_schedule(1.0, 1, 3)  # type: ignore[arg-type]
    with pytest.raises(vae.InputError, match="must give one number"):
        vae.audit_schedule(1.0, 1, lambda weight: 3.0)  # type: ignore[arg-type, return-value]


def test_a_loss_that_is_not_finite_is_no_answer() -> None:
    """Neither that the weight reaches it, nor that it does not."""
    terms = Terms()
    with pytest.raises(vae.InputError, match=r"loss: at KL weight 0\.5 it is not finite"):
        vae.audit_schedule(0.5, 1, lambda weight: terms.reconstruction() * (math.inf if weight == 0.5 else 1))
    root = torch.zeros(1, requires_grad=True)
    with pytest.raises(vae.InputError, match="at KL weight 0 it has a gradient that is not finite"):
        vae.audit_schedule(0.5, 1, lambda weight: terms.reconstruction() + root.sqrt().sum() + weight * terms.kl())


def test_a_code_that_costs_nothing_yet_is_no_knob_that_does_not_reach() -> None:
    """As where the last layer of an encoder begins with zeros: mu 0 and sigma 1 exactly."""
    terms, zero = Terms(), torch.zeros(3, requires_grad=True)
    found = vae.audit_schedule(0.5, 1, lambda weight: terms.reconstruction() + weight * zero.square().sum())
    assert found.reaches_loss is None
    assert "what it multiplies is 0" in found.problems[0]
    found = vae.audit_schedule(0.5, 1, lambda weight: terms.reconstruction() + zero.square().sum())
    assert found.reaches_loss is False
    # Of a function that takes no tensor it cannot be asked.
    found = vae.audit_schedule(0.5, 1, lambda w: terms.reconstruction() + float(f"{w:.3f}") * zero.square().sum())
    assert found.reaches_loss is False
