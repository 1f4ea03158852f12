import dataclasses
from typing import Any

import pytest
from conftest import composed

from vae.measure.catalogue import Prediction, SplitMeasures, measures
from vae.measure.verdict import Evidence, Verdict, is_used, judge
from vae.measure.watch import Trajectory

LIMITS = composed().evaluation.thresholds


def split(**values: Any) -> SplitMeasures:
    """A live code, with these values in the place of its own."""
    alive = {item.name: 1.0 for item in measures(SplitMeasures)} | {
        "kld": 10.0,
        "active_units": 20,
        "swap_gap": 15.0,
        "swap_gap_error": 0.2,
        "sigma_ratio": 0.8,
        "active_spread": 1.0,
    }
    return SplitMeasures(**(alive | values))  # type: ignore[arg-type]


def predicted(kept: int | None, kld: float | None, gain: float | None) -> Prediction:
    return Prediction(
        effective_t=0.5,
        largest_eigenvalue=5.0,
        predicted_active_units=kept,
        predicted_kld=kld,
        predicted_gain=gain,
        predicted_collapse_weight=10.0,
    )


ALIVE = Evidence(
    measured=split(),
    latent_dim=32,
    posterior="gaussian",
    weight=1.0,
    predicted=predicted(23, 10.3, 15.0),
    gain=16.0,
    steps=1000,
    trajectory=Trajectory(max_kl_weight=1.0),
)
NOTHING = predicted(0, 0.0, 0.0)
UNKNOWN = predicted(None, None, None)
DEAD = {"kld": 0.001, "swap_gap": 0.01, "swap_gap_error": 0.02, "active_units": 0}


def verdict(changes: dict[str, Any] | None = None, **measured: Any) -> Verdict:
    """Of the live code, with other measures and other evidence."""
    return judge(dataclasses.replace(ALIVE, measured=split(**measured), **(changes or {})), LIMITS)


def test_alive() -> None:
    found = verdict()
    assert (found.name, found.cause) == ("alive", None)
    assert "20 of 32" in found.reason
    assert "15 ± 0.2 nats" in found.reason
    assert "10.3 predicted" in found.reason


@pytest.mark.parametrize(("most", "cause"), [(None, "objective"), (0.5, "objective"), (1.9, None)])
def test_of_other_images_the_cause_is_named_where_both_bounds_agree(most: float | None, cause: str | None) -> None:
    assert verdict({"predicted": NOTHING, "most_kld": most}, **DEAD).cause == cause
    assert verdict({"most_kld": most}, **DEAD).cause == "optimiser"


def test_used_is_more_than_noise_and_more_than_a_threshold() -> None:
    assert is_used(split(swap_gap=0.2, swap_gap_error=0.05), 1.0, LIMITS)
    assert not is_used(split(swap_gap=0.2, swap_gap_error=0.1), 1.0, LIMITS)  # two standard errors
    assert not is_used(split(swap_gap=0.05, swap_gap_error=0.001), 1.0, LIMITS)  # certain, and next to nothing


def test_where_each_image_loses_a_mean_need_not_be_known() -> None:
    assert is_used(split(swap_gap=270.0, swap_gap_error=94.0, swap_gap_p=2**-10), 1.0, LIMITS)
    assert not is_used(split(swap_gap=270.0, swap_gap_error=94.0, swap_gap_p=2**-9), 1.0, LIMITS)
    assert not is_used(split(swap_gap=0.05, swap_gap_error=0.02, swap_gap_p=1e-9), 1.0, LIMITS)  # next to nothing


def test_few_images_leave_it_open() -> None:
    """No verdict where the code seems to be used; on many images the same numbers, or on few no gap, are an answer."""
    gap = {"kld": 30.0, "swap_gap": 2.0, "swap_gap_error": 1.0, "swap_gap_p": 0.01}
    few = verdict({"predicted": predicted(23, 80.0, 15.0)}, test_images=8, **gap)
    assert (few.name, few.cause) == ("undecided", None)
    assert "8 images are too few to tell" in few.reason
    many = verdict({"predicted": predicted(23, 80.0, 15.0)}, test_images=1000, **gap)
    assert (many.name, many.cause) == ("decoder_ignores_code", "optimiser")
    assert "too few" not in many.reason
    assert verdict(test_images=8, **DEAD).cause == "optimiser"
    assert verdict({"weight": 0.0}, test_images=8, **DEAD).cause == "optimiser"


@pytest.mark.parametrize(("least", "cause"), [(None, "optimiser"), (5.0, "optimiser"), (0.2, None)])
def test_what_training_images_alone_have_is_no_one_s_fault(least: float | None, cause: str | None) -> None:
    assert verdict({"least_kld": least}, **DEAD).cause == cause
    assert verdict({"least_kld": least, "predicted": NOTHING}, **DEAD).cause == "objective"


def test_a_loss_of_a_cure_s_own_is_not_the_one_that_is_predicted() -> None:
    """Too little KL may be what it asks for; and where it sets the weight as well, nothing is known of that weight."""
    own_loss, own_both = {"own_loss": True}, {"own_loss": True, "own_weight": True}
    assert [verdict(own, **DEAD).cause for own in ({}, own_loss, own_both)] == ["optimiser", None, None]
    dead = [verdict({"predicted": NOTHING, **own}, **DEAD).cause for own in ({}, own_loss, own_both)]
    assert dead == ["objective", "objective", None]


def test_a_decoder_that_sees_pixels_reads_a_little_code_that_its_fit_has_left_over() -> None:
    """Some tenths of a nat that another decoder's verdict would call alive."""
    little = {"kld": 0.3, "swap_gap": 0.5, "swap_gap_error": 0.08, "active_units": 9}
    seeing = {"autoregressive": True, "predicted": UNKNOWN}
    assert verdict({"predicted": UNKNOWN}, **little).name == "alive"
    found = verdict(seeing, **little)
    assert (found.name, found.cause) == ("collapsed", None)
    assert "used from 1 on" in found.reason
    assert verdict(seeing, **(little | {"kld": 3.5})).name == "decoder_ignores_code"
    assert verdict(seeing, **(little | {"kld": 2.4, "swap_gap": 12.0})).name == "alive"


def test_what_is_used_does_not_depend_on_the_scale_of_the_objective() -> None:
    """A loss with KL weight w and pixel variance s is, but for a factor w, the one with weight 1 and variance w s: the
    gap is then 1 / w times as large."""
    for weight in (0.001, 1.0, 20.0):
        assert is_used(split(swap_gap=0.2 * weight, swap_gap_error=0.01 * weight), weight, LIMITS)
        assert not is_used(split(swap_gap=0.05 * weight, swap_gap_error=0.01 * weight), weight, LIMITS)


@pytest.mark.parametrize(
    ("prediction", "cause"),
    [
        (ALIVE.predicted, "optimiser"),
        (NOTHING, "objective"),
        (predicted(3, 0.34, 0.1), "objective"),  # its scale: next to nothing is to be had
        (UNKNOWN, None),
    ],
)
def test_collapsed_and_its_cause(prediction: Prediction, cause: str | None) -> None:
    found = verdict({"predicted": prediction}, **DEAD)
    assert (found.name, found.cause) == ("collapsed", cause)


def test_a_kl_that_is_as_predicted_is_never_stuck() -> None:
    paid = verdict({"predicted": predicted(1, 1.2, 0.3)}, **DEAD | {"kld": 1.1})
    assert (paid.name, paid.cause) == ("decoder_ignores_code", None)
    assert verdict({"predicted": predicted(1, 1.2, 0.3)}, **DEAD).cause == "optimiser"


def test_a_dead_code_that_nothing_pulled_down_is_the_optimiser_s() -> None:
    assert verdict({"trajectory": Trajectory(), "weight": 0.0, "predicted": UNKNOWN}, **DEAD).cause == "optimiser"


def test_kl_alone_is_no_verdict() -> None:
    """KL 77, sigma small, no active unit: a dead network. And KL 30 with active units that nobody reads."""
    assert verdict(**DEAD | {"kld": 77}).name == "decoder_ignores_code"
    assert verdict(kld=30, swap_gap=0.01).name == "decoder_ignores_code"


def test_deterministic_is_what_never_had_a_kl_term() -> None:
    """Whatever sigma is, and however well its codes happen to fit the prior."""
    never = {"trajectory": Trajectory(max_kl_weight=0.0), "weight": 0.0, "predicted": UNKNOWN}
    for values in ({"sigma_ratio": 0.001, "active_spread": 0.3}, {"sigma_ratio": 0.25, "active_spread": 1.0}):
        assert verdict(never, kld=235, **values).name == "deterministic"
    assert verdict({"posterior": "dirac"}).name == "deterministic"


def test_deterministic_is_a_point_far_from_the_prior() -> None:
    assert verdict(kld=400, sigma_ratio=0.02, active_spread=30).name == "deterministic"
    one_wide = {"kld": 400, "swap_gap": 900, "sigma_ratio": 0.5, "active_spread": 30}
    assert verdict(**one_wide).name == "alive"  # one dimension is no point


def test_small_sigma_is_healthy_where_codes_fit_the_prior() -> None:
    """The exact optimum for a small pixel variance has small sigma, and q(z) = p(z) all the same."""
    assert verdict(kld=60, swap_gap=200, sigma_ratio=0.02, active_spread=1.0).name == "alive"
    assert verdict(kld=60, swap_gap=200, sigma_ratio=0.02, active_spread=0.3).name == "alive"


def test_partly_collapsed_is_held_against_what_can_be_had() -> None:
    found = verdict({"gain": 5.0}, kld=2.0)
    assert (found.name, found.cause) == ("partly_collapsed", None)  # the network may be the reason
    assert "below 25% of the 10.3 predicted" in found.reason
    assert "below 50% of the 15 predicted" in found.reason
    assert verdict({"gain": 5.0}, kld=3.0).name == "alive"
    assert verdict({"gain": 14.0}, kld=2.0).name == "alive"  # few factors, packed well: as much gained for less KL
    assert verdict({"gain": 5.0}, kld=2.0, active_units=1).name == "partly_collapsed"  # not by counting dimensions
    assert verdict({"predicted": UNKNOWN}, kld=2.0).name == "alive"


def test_unfinished_names_no_cause() -> None:
    falling = Trajectory(1.0, loss_fall=5.0, loss_fall_error=0.1, loss_fall_before=20.0, loss_excess=0.1)
    for measured in ({}, DEAD):
        found = verdict({"trajectory": falling}, **measured)
        assert (found.name, found.cause) == ("unfinished", None)
    assert "25.0% of its whole fall (finished below 10.0%)" in found.reason
    assert verdict({"steps": 20}).name == "unfinished"
    assert "from 100 on" in verdict({"steps": 20}).reason


@pytest.mark.parametrize(
    "values",
    [
        {"loss_fall": 1.0, "loss_fall_error": 0.1, "loss_fall_before": 20.0, "loss_excess": -5.0},  # 5 %
        {"loss_fall": 5.0, "loss_fall_error": 2.0, "loss_fall_before": 20.0, "loss_excess": -5.0},  # noise
        {"loss_fall": -5.0, "loss_fall_error": 0.1, "loss_fall_before": 20.0, "loss_excess": 3.0},
        {},  # not known
    ],
)
def test_finished(values: dict[str, float]) -> None:
    assert verdict({"trajectory": Trajectory(1.0, **values)}).name == "alive"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rise", "error", "name"),
    [(0.9, 0.1, "unfinished"), (0.3, 0.05, "partly_collapsed"), (0.9, 0.4, "partly_collapsed"), (None, None, None)],
)
def test_a_code_that_is_on_its_way_up_is_unfinished(rise: float | None, error: float | None, name: str | None) -> None:
    """More than a fifth of the 2 nats at the end, and no chance."""
    rising = {"trajectory": Trajectory(1.0, kld_rise=rise, kld_rise_error=error), "gain": 5.0}
    found = verdict(rising, kld=2.0)
    assert (found.name, found.cause) == (name or "partly_collapsed", None)
    assert verdict(rising | {"stopped": True}, kld=2.0).name == "partly_collapsed"  # it has come to its own end
    assert verdict(rising | {"gain": 16.0}, kld=2.0).name == "alive"
    if name == "unfinished":
        assert "KL is still rising: by 0.9 ± 0.1 nats over the last third of the steps, to 2" in found.reason


def test_a_loss_that_has_hardly_moved_is_unfinished() -> None:
    far = Trajectory(1.0, loss_fall=0.1, loss_fall_error=0.2, loss_fall_before=1.0, loss_excess=50.0)
    assert "50 nats above that of a constant image" in verdict({"trajectory": far}, **DEAD).reason


def test_without_a_code_there_is_nothing_to_judge() -> None:
    assert verdict({"posterior": "none"}, **DEAD).cause is None


def test_thresholds_are_said() -> None:
    assert "used from 0.1 on" in verdict(**DEAD | {"swap_gap_error": 0.001}).reason
    assert "less than three standard errors" in verdict(**DEAD | {"swap_gap_error": 0.1}).reason
    narrow = verdict(sigma_ratio=0.02, active_spread=30).reason
    assert "a point below 0.1" in narrow
    assert "from 10 on" in narrow


def test_a_code_that_costs_more_than_it_saves_is_alive_on_paper() -> None:
    """Free bits on a decoder that needs no code: 3.6 nats paid, 2.7 saved."""
    paid = {"kld": 3.6, "swap_gap": 2.7, "swap_gap_error": 0.1}
    found = verdict({"autoregressive": True, "predicted": UNKNOWN}, **paid)
    assert (found.name, found.cause) == ("alive_on_paper", None)
    assert "costs 3.6 nats and saves at most 2.7 ± 0.1 of log p(x|z)" in found.reason
    assert verdict(**(paid | {"swap_gap_error": 0.4})).name != "alive_on_paper"  # it could be noise
    assert verdict({"weight": 0.5}, **paid).name != "alive_on_paper"  # 1.8 nats paid


def test_the_smaller_gap_is_what_a_code_can_have_saved() -> None:
    wide = {"kld": 3.6, "swap_gap": 9.0, "swap_gap_error": 0.1}
    assert verdict({"cut_gap": 2.0, "cut_gap_error": 0.1}, **wide).name == "alive_on_paper"
    assert verdict({"cut_gap": 4.0, "cut_gap_error": 0.1}, **wide).name != "alive_on_paper"
    assert verdict(None, **wide).name != "alive_on_paper"
