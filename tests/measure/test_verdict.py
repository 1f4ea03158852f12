import dataclasses
from typing import Any

import pytest
from conftest import composed

from vae.measure.verdict import Evidence, Verdict, Watch, explain, judge

LIMITS = composed().evaluation.thresholds
ALIVE = Evidence(
    kld=10,
    sse=20,
    reconstruction_gap=15,
    active_units=20,
    latent_dim=32,
    active_sigma=0.4,
    active_spread=1.0,
    predicted=23,
)


def verdict(**changes: Any) -> Verdict:
    return judge(dataclasses.replace(ALIVE, **changes), LIMITS)


def test_alive() -> None:
    found = verdict()
    assert (found.name, found.cause) == ("alive", None)
    assert "20 of 32" in found.reason


@pytest.mark.parametrize(("predicted", "cause"), [(23, "optimiser"), (0, "objective"), (None, None)])
def test_collapsed_and_its_cause(predicted: int | None, cause: str | None) -> None:
    found = verdict(kld=0.001, sse=50, reconstruction_gap=0.01, active_units=0, active_sigma=1, predicted=predicted)
    assert (found.name, found.cause) == ("collapsed", cause)


def test_kl_alone_is_no_verdict() -> None:
    """KL 77, sigma small, no active unit: a dead network. And KL 30 with active units that nobody reads."""
    assert (
        verdict(kld=77, sse=52, reconstruction_gap=0.0, active_units=0, active_sigma=0.01).name
        == "decoder_ignores_code"
    )
    assert verdict(kld=30, sse=52, reconstruction_gap=0.1, active_units=32).name == "decoder_ignores_code"


def test_deterministic() -> None:
    assert verdict(kld=400, active_sigma=0.02, active_spread=30, predicted=None).name == "deterministic"


def test_small_sigma_is_healthy_where_codes_fit_the_prior() -> None:
    """The exact optimum for a small pixel variance has small sigma, and q(z) = p(z) all the same."""
    assert verdict(kld=60, active_sigma=0.02, active_spread=1.0).name == "alive"


def test_partly_collapsed_is_held_against_what_can_be_expected() -> None:
    assert verdict(active_units=5).name == "partly_collapsed"  # of 23
    assert verdict(active_units=5, predicted=12).name == "alive"
    assert verdict(active_units=7, predicted=None).name == "partly_collapsed"  # of 32
    assert "5 of 32" in verdict(active_units=5).reason


def test_thresholds_are_said() -> None:
    assert "used from 1.0%" in verdict(kld=0.001, reconstruction_gap=0).reason
    assert "below 0.1" in verdict(kld=0.001, reconstruction_gap=0).reason
    assert "below 0.1" in verdict(active_sigma=0.02, active_spread=30).reason


def test_a_perfect_reconstruction_is_no_division_by_zero() -> None:
    assert verdict(sse=0.0).name == "alive"


def watch(*klds: float, weight: float = 1.0) -> tuple[Watch, list[str | None]]:
    seen = Watch(LIMITS)
    return seen, [seen.training(10 * (i + 1), kld, weight) for i, kld in enumerate(klds)]


def test_collapse_for_good() -> None:
    seen, events = watch(0.5, 0.05, 0.001, 0.001)
    assert (seen.collapsed_at, seen.recovered_at) == (20, None)
    assert [event is not None for event in events] == [False, True, False, False]


def test_a_dip_and_its_recovery() -> None:
    seen, _ = watch(7.5, 4.3, 1.9, 1.3, 1.7, 3.0, 4.7, 5.2, 6.0)
    assert (seen.collapsed_at, seen.recovered_at) == (30, 60)


def test_recovery_is_measured_from_the_lowest_point() -> None:
    """A code that settles below its first peak is alive all the same."""
    seen, _ = watch(14.0, 2.0, 5.0, 9.0, 9.0)
    assert (seen.collapsed_at, seen.recovered_at) == (20, 30)


def test_a_fall_that_the_weight_causes_is_no_collapse() -> None:
    seen = Watch(LIMITS)
    for step, (kld, weight) in enumerate([(160, 0.1), (60, 0.3), (20, 0.7), (11, 1.0), (10.5, 1.0)], start=1):
        assert seen.training(step, kld, weight) is None


def test_an_autoencoder_has_no_kl_to_watch() -> None:
    _, events = watch(0.05, 0.01, 40, 1, weight=0.0)
    assert events == [None] * 4


def test_an_evaluation_notices_a_decoder_that_stops_reading() -> None:
    seen, _ = watch(10.0)
    dead = verdict(kld=77, reconstruction_gap=0)
    assert "decoder_ignores_code" in (seen.evaluation(50, dead) or "")
    assert seen.training(60, 77, 1.0) is None
    assert seen.evaluation(100, verdict()) is not None
    assert (seen.collapsed_at, seen.recovered_at) == (50, 100)


def test_the_watch_goes_on_from_its_state() -> None:
    first, _ = watch(7.5, 1.0)
    second = Watch(LIMITS)
    second.load_state_dict(first.state_dict())
    assert second == first


RECORD = {
    "mu_min": -9.0,
    "mu_max": 8.0,
    "effective_t": 0.5,
    "largest_eigenvalue": 5.15,
    "kl_weight": 1.0,
    "predicted_active_units": 23,
    "predicted_collapse_weight": 10.3,
    "collapsed_at_step": None,
    "recovered_at_step": None,
}


def explained(found: Verdict, **changes: Any) -> str:
    return explain(RECORD | {"verdict": found.name, "reason": found.reason, "cause": found.cause} | changes)


def test_the_explanation_names_cause_and_cure() -> None:
    dead = {"kld": 0.001, "reconstruction_gap": 0.0}
    stuck = explained(verdict(**dead), collapsed_at_step=40)
    assert "optimiser got stuck" in stuck
    assert "anneal=delayed" in stuck
    assert "step 40 and is so still" in stuck
    asked = explained(verdict(**dead, predicted=0), effective_t=392.0, predicted_collapse_weight=0.0131)
    assert "objective asks for this" in asked
    assert "below KL weight 0.0131" in asked
    assert "closed form does not cover" in explained(verdict(**dead, predicted=None), predicted_active_units=None)
    assert "autoencoder" in explained(verdict(active_sigma=0.01, active_spread=30))
    assert "No KL term can have caused this" in explained(verdict(**dead, predicted=None), kl_weight=0.0)
    assert "reached KL weight 0.5 of 1." in explained(verdict(), kl_weight=0.5, final_kl_weight=1.0)
    assert "alive again by step 80" in explained(verdict(), collapsed_at_step=30, recovered_at_step=80)
    for text in (stuck, asked):
        assert 3 <= text.count(". ") + 1 <= 6
