"""The state machine of a training, on sequences of KL whose story is known, and whether a loss still falls."""

import numpy as np
import pytest
from conftest import composed

from vae.measure.watch import Rows, Trajectory, Watch, settled

LIMITS = composed().evaluation.thresholds


def watch(*klds: float, weight: float = 1.0) -> tuple[Watch, list[str | None]]:
    seen = Watch(LIMITS)
    return seen, [seen.training(10 * (i + 1), 0.1, kld, weight) for i, kld in enumerate(klds)]


def test_collapse_for_good() -> None:
    seen, events = watch(0.5, 0.05, 0.001, 0.001)
    found = seen.found
    assert (found.collapsed_at_step, found.recovered_at_step) == (20, None)
    assert (found.collapsed_from_kld, found.collapsed_at_weight) == (0.5, 1.0)
    assert events == [None, "step 20: the code has collapsed (KL fell from 0.5 nats (step 10) to 0.05)", None, None]


@pytest.mark.parametrize("weights", [[1.0] * 7, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]], ids=["constant", "rising"])
def test_a_code_that_is_out_from_the_start_and_grows_is_back_before_an_evaluation(weights: list[float]) -> None:
    seen = Watch(LIMITS)
    klds = [0.014, 0.002, 0.004, 0.098, 0.24, 0.485, 0.691]
    told = [
        seen.training(10 * i, 0.1, kld, weight)
        for i, (kld, weight) in enumerate(zip(klds, weights, strict=True), start=1)
    ]
    assert [event for event in told if event] == [
        "step 10: the code has collapsed (KL is 0.014 nats from the start)",
        "step 50: the code has recovered (KL 0.24 nats)",
    ]


def test_a_dip_is_known_when_it_is_over() -> None:
    seen, events = watch(7.5, 4.3, 1.9, 1.3, 1.7, 3.0, 4.7, 5.2, 6.0)
    found = seen.found
    assert (found.dipped_at_step, found.dipped_from_kld, found.dipped_to_kld) == (40, 7.5, 1.3)
    assert (found.dip_over_at_step, found.dip_over_kld) == (60, 3.0)
    assert (found.recovered_at_step, found.collapsed_at_step) == (None, None)
    assert [event for event in events if event] == [
        "step 60: KL is back at 3 nats after a dip from 7.5 nats (step 10) to 1.3 (step 40)"
    ]


def test_a_kl_that_starts_too_high_and_settles_is_no_event() -> None:
    """As on bright digits and on photographs: 50 nats at first, 10 in the end."""
    seen, events = watch(50, 30, 14, 9, 9.5, 10, 10.5, 10.2)
    assert events == [None] * 8
    assert seen.found == Trajectory(max_kl_weight=0.0, kl_began_at_step=10)


def test_a_fall_that_the_weight_causes_is_no_event() -> None:
    seen = Watch(LIMITS)
    for step, (kld, weight) in enumerate([(160, 0.1), (60, 0.3), (20, 0.7), (11, 1.0), (10.5, 1.0)], start=1):
        assert seen.training(step, 0.1, kld, weight) is None


def test_a_kl_that_a_controller_brings_back_is_no_event() -> None:
    """It moves the weight at every step."""
    seen = Watch(LIMITS)
    for step, (kld, weight) in enumerate([(10, 1.0), (4, 1.1), (1, 0.8), (5, 0.4), (10, 0.3)], start=1):
        assert seen.training(step, 0.1, kld, weight) is None


def test_the_highest_weight_is_the_schedule_s() -> None:
    seen = Watch(LIMITS)
    seen.weighed(1.0)
    seen.training(1, 0.1, 10, 1e10)
    assert seen.found.max_kl_weight == 1.0


def test_the_end_of_waiting() -> None:
    """The weight jumps from 0 to 1: KL falls from 200 to 10 because of that."""
    seen = Watch(LIMITS)
    assert [seen.training(step, 0.02, 200, 0.0) for step in (10, 20)] == [None, None]
    assert (
        seen.training(30, 0.07, 150, 1.0)
        == "step 30: the wait is over, the KL term has begun; the training MSE was 0.02"
    )
    assert [seen.training(step, 0.04, kld, 1.0) for step, kld in ((40, 60), (50, 12), (60, 10), (70, 11))] == [None] * 4
    assert (seen.found.kl_began_at_step, seen.found.collapsed_at_step) == (30, None)


def test_a_code_that_was_never_there_has_not_gone() -> None:
    seen, events = watch(0.01, 0.001)
    assert events == ["step 10: the code has collapsed (KL is 0.01 nats from the start)", None]
    assert (seen.found.collapsed_at_step, seen.found.collapsed_from_kld) == (10, None)


def test_what_a_code_had_before_the_kl_term_began() -> None:
    seen = Watch(LIMITS)
    seen.training(10, 0.02, 185.0, 0.0)
    assert (
        seen.training(20, 0.07, 0.02, 0.04)
        == "step 20: the wait is over, the KL term has begun; the training MSE was 0.02"
    )
    gone = seen.training(30, 0.07, 0.01, 0.08)
    assert gone == "step 30: the code has collapsed (KL fell from 185 nats, before the KL term began, to 0.01)"
    assert (seen.found.collapsed_at_step, seen.found.collapsed_from_kld) == (30, 185.0)


def test_a_point_has_an_infinite_kl() -> None:
    seen, events = watch(np.inf, np.inf, weight=0.0)
    assert events == [None, None]
    assert seen.evaluation(20, used=True, kld=np.inf) is None
    seen.evaluation(30, used=False, kld=np.inf)
    assert seen.evaluation(40, used=True, kld=np.inf) == "step 40: the code has recovered"
    assert (seen.found.recovered_at_step, seen.found.recovered_to_kld) == (40, None)
    assert all(np.isfinite(value) for value in seen.state_dict().values() if value is not None)


def test_an_autoencoder_has_no_kl_to_watch() -> None:
    seen, events = watch(0.05, 0.01, 40, 1, weight=0.0)
    assert events == [None] * 4
    assert seen.found == Trajectory()


def test_an_evaluation_notices_a_decoder_that_stops_reading() -> None:
    seen, _ = watch(10.0)
    assert "the decoder does not use it, at a KL of 77 nats" in (seen.evaluation(50, used=False, kld=77) or "")
    assert seen.training(60, 0.1, 77, 1.0) is None
    assert seen.evaluation(100, used=True, kld=80) == "step 100: the code has recovered (KL 80 nats)"
    assert (seen.found.collapsed_at_step, seen.found.recovered_at_step) == (50, 100)


def test_the_last_evaluation_and_the_story_agree() -> None:
    """Whatever KL has done, a code that is used is not out, and a small KL that is used stays so."""
    seen, _ = watch(5.0, 0.09)
    assert seen.out
    assert seen.evaluation(20, used=True, kld=0.09) is not None
    assert seen.training(30, 0.1, 0.08, 1.0) is None
    assert not seen.out


def test_a_kl_that_was_predicted_is_no_collapse() -> None:
    seen = Watch(LIMITS, low=0.0354)  # half of what is predicted
    assert [seen.training(step, 0.1, kld, 1.0) for step, kld in ((10, 0.5), (20, 0.09), (30, 0.07))] == [None] * 3


def test_the_watch_goes_on_from_its_state() -> None:
    klds = [7.5, 4.0, 1.0, 0.05, 0.04, 0.5, 3.0, 9.0, 2.0, 6.0]
    whole, _ = watch(*klds)
    for cut in range(len(klds)):
        first, _ = watch(*klds[:cut])
        second = Watch(LIMITS)
        second.load_state_dict(first.state_dict())
        assert second == first
        for i, kld in enumerate(klds[cut:], start=cut):
            second.training(10 * (i + 1), 0.1, kld, 1.0)
        assert second == whole


def fall(loss: np.ndarray, weight: float = 1.0, constant: float | None = 50.0) -> Trajectory:
    step = 10 * np.arange(1, len(loss) + 1)
    kld = np.full(len(loss), 2.0)
    return settled(
        Trajectory(),
        Rows(step.tolist(), (loss - weight * kld).tolist(), kld.tolist()),
        10 * len(loss),
        weight,
        constant,
    )


def test_the_fall_of_a_loss_against_numpy() -> None:
    rng = np.random.default_rng(0)
    loss = 100 * np.exp(-np.arange(60) / 20) + 30 + rng.normal(0, 0.5, 60)
    found = fall(loss)
    x = 10.0 * np.arange(41, 61)
    (slope, intercept), covariance = np.polyfit(x, loss[40:], 1, cov=True)
    assert found.loss_fall == pytest.approx(-slope * 200)
    assert found.loss_fall_error == pytest.approx(covariance[0, 0] ** 0.5 * 200)
    end = slope * 600 + intercept
    assert found.loss_fall_before == pytest.approx(loss[0] - end)
    assert found.loss_excess == pytest.approx(end - 50)


def test_the_rise_of_a_kl_against_numpy() -> None:
    rng = np.random.default_rng(0)
    kld = np.linspace(0.1, 2, 60) + rng.normal(0, 0.05, 60)
    step = 10 * np.arange(1, 61)
    found = settled(Trajectory(), Rows(step.tolist(), [50.0] * 60, kld.tolist()), 600, 1.0, None)
    (slope, _), covariance = np.polyfit(step[40:], kld[40:], 1, cov=True)
    assert found.kld_rise == pytest.approx(slope * 200)
    assert found.kld_rise_error == pytest.approx(covariance[0, 0] ** 0.5 * 200)
    assert settled(Trajectory(), Rows(step.tolist(), [50.0] * 60, kld.tolist()), 600, 0.0, None).kld_rise is None


def test_losses_that_still_fall_and_losses_that_do_not() -> None:
    rng = np.random.default_rng(1)
    noise, step = rng.normal(0, 0.3, 90), np.arange(90)
    assert fall(100 - 0.5 * step + noise).unfinished(900, LIMITS) is not None
    assert fall(100 * np.exp(-step / 10) + 30 + noise).unfinished(900, LIMITS) is None
    assert fall(52.7 + 50 * (step < 2) + noise).unfinished(900, LIMITS) is None  # collapsed at once
    assert fall(105 - 0.01 * step + noise).unfinished(900, LIMITS) is not None  # has not got anywhere


def test_a_training_that_begins_dead_is_not_unfinished_by_chance() -> None:
    """At the loss of a constant image from the first row to the last, give or take the chance in the batches."""
    rng = np.random.default_rng(2)
    for count in (30, 90):
        for _ in range(50):
            assert "of a constant image" not in (fall(50 + rng.normal(0, 1, count)).unfinished(900, LIMITS) or "")
        assert "of a constant image" in (fall(60 + rng.normal(0, 1, count)).unfinished(900, LIMITS) or "")
    found = Trajectory(1.0, loss_fall=0.0, loss_fall_error=0.3, loss_fall_before=0.02, loss_excess=0.1)
    assert found.unfinished(900, LIMITS) is None


def test_too_few_rows_cannot_tell() -> None:
    assert fall(np.array([100.0, 50.0, 40.0])) == Trajectory()
    assert fall(np.array([100.0, np.nan, 40.0, 39.0] * 8)) == Trajectory()
    resumed = fall(np.array([np.nan] * 20 + [90.0] + [40.0] * 60))  # an earlier version did not keep all of it
    assert resumed.loss_fall_before == pytest.approx(50)
    step = list(range(10, 910, 10))  # the KL of a point is infinite, and has no weight
    assert settled(Trajectory(), Rows(step, [1.0] * 90, [np.inf] * 90), 900, 0.0, None).loss_fall == pytest.approx(0)
