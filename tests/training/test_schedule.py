import math

import pytest
from conftest import composed

from vae.training import schedule as schedules
from vae.training.schedule import Schedule


def build(*overrides: str) -> Schedule:
    return schedules.build(composed(*overrides).anneal)


def weights(schedule: Schedule, steps: int) -> list[float]:
    return [schedule.weight(step) for step in range(1, steps + 1)]


def test_constant() -> None:
    assert weights(build("anneal=constant", "anneal.weight=0.3"), 5) == [0.3] * 5


def test_no_kl() -> None:
    assert weights(build("anneal=no_kl"), 5) == [0.0] * 5


def test_linear_reaches_exactly_one() -> None:
    schedule = weights(build("anneal=linear", "anneal.steps=7"), 9)
    assert schedule == pytest.approx([1 / 7, 2 / 7, 3 / 7, 4 / 7, 5 / 7, 6 / 7, 1, 1, 1])
    assert schedule[6:] == [1.0] * 3


def test_sigmoid_is_the_logistic_function() -> None:
    schedule = build("anneal=sigmoid", "anneal.midpoint=10", "anneal.steepness=0.5", "anneal.weight=2")
    for step in range(1, 30):
        assert schedule.weight(step) == pytest.approx(2 / (1 + math.exp(-0.5 * (step - 10))))
    assert schedule.weight(10**9) == 2.0  # no overflow


def test_cyclical_as_its_paper_says() -> None:
    steps, cycles, rising = 103, 4, 0.4
    schedule = build("anneal=cyclical", f"anneal.steps={steps}", f"anneal.cycles={cycles}", f"anneal.rising={rising}")
    for t in range(1, steps + 1):
        tau = ((t - 1) % math.ceil(steps / cycles)) / (steps / cycles)
        expected = tau / rising if tau <= rising else 1
        assert schedule.weight(t) == pytest.approx(expected)
    assert weights(schedule, steps).count(0.0) == cycles
    assert schedule.weight(steps + 50) == 1.0


def test_cyclical_takes_the_run_s_length() -> None:
    config = composed("anneal=cyclical", "train.steps=777").anneal
    assert config.steps == 777  # type: ignore[attr-defined]


VARIANCE = 0.05
PER_PIXEL = ["anneal=delayed", "anneal.threshold_of=mse", "anneal.threshold=0.02", "anneal.patience=null"]


def run_delayed(schedule: Schedule, mses: list[float], start: int = 0) -> list[float]:
    seen = []
    for step, mse in enumerate(mses, start=start + 1):
        seen.append(schedule.weight(step))
        if schedule.observe_every and step % schedule.observe_every == 0:
            schedule.observe(step, mse, VARIANCE)
    return seen


def test_delayed_waits_latches_and_rises_by_its_rate() -> None:
    schedule = build(*PER_PIXEL, "anneal.rate=0.4", "anneal.smoothing=0.5", "anneal.observe_every=1")
    # Smoothed: .04, .03, .02 -> latched at step 3; what comes later does not unlatch it.
    seen = run_delayed(schedule, [0.04, 0.02, 0.01, 0.9, 0.9, 0.9, 0.9])
    assert seen == pytest.approx([0, 0, 0, 0.4, 0.8, 1.0, 1.0])
    assert seen[-1] == 1.0


def test_delayed_smooths_over_steps_however_often_it_looks() -> None:
    each = build(*PER_PIXEL, "anneal.observe_every=1", "anneal.smoothing=0.9")
    seldom = build(*PER_PIXEL, "anneal.observe_every=5", "anneal.smoothing=0.9")
    mses = [0.1] * 10 + [0.05] * 10
    run_delayed(each, mses)
    run_delayed(seldom, mses)
    assert seldom.state_dict()["smoothed"] == pytest.approx(each.state_dict()["smoothed"])


def test_delayed_goes_on_from_its_state() -> None:
    mses = [0.03, 0.025, 0.021, 0.015, 0.012, 0.01, 0.01, 0.01]
    overrides = [*PER_PIXEL, "anneal.observe_every=1", "anneal.smoothing=0.5", "anneal.rate=0.1"]
    through = run_delayed(build(*overrides), mses)
    for cut in range(len(mses)):
        first = build(*overrides)
        head = run_delayed(first, mses[:cut])
        second = build(*overrides)
        second.load_state_dict(first.state_dict())
        assert head + run_delayed(second, mses[cut:], start=cut) == through
    assert through[-1] > 0


def test_delayed_waits_for_a_fraction_of_the_variance() -> None:
    """The same in images of any scale."""
    for scale in (1.0, 0.01, 300.0):
        schedule = build("anneal=delayed", "anneal.smoothing=0", "anneal.observe_every=1")
        for step, left in enumerate([1.0, 0.5, 0.31, 0.3, 0.6], start=1):
            schedule.observe(step, left * VARIANCE * scale, VARIANCE * scale)
        assert schedule.state_dict()["latched_at"] == 4


def test_delayed_waits_no_longer_than_there_is_progress() -> None:
    schedule = build(
        "anneal=delayed", "anneal.patience=30", "anneal.smoothing=0", "anneal.observe_every=10", "anneal.rate=0.1"
    )
    for step, mse in zip(range(10, 80, 10), [0.05, 0.045, 0.0448, 0.0449, 0.0447, 0.03, 0.02], strict=True):
        assert schedule.weight(step) == (0 if step <= 50 else 1)
        if schedule.observe_every:
            schedule.observe(step, mse, VARIANCE)  # 0.045 at step 20 counts; no later one is lower by a hundredth
    assert schedule.state_dict()["latched_at"] == 50


@pytest.mark.parametrize("kind", ["no_kl", "constant", "linear", "sigmoid", "cyclical"])
def test_functions_of_the_step_have_no_state(kind: str) -> None:
    schedule = build(f"anneal={kind}")
    assert schedule.state_dict() == {}
    schedule.load_state_dict({})
    with pytest.raises(ValueError, match="does not belong there"):
        schedule.load_state_dict({"smoothed": 0.1})
