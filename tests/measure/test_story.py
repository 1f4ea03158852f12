"""What is said of a run: each sentence beside the right number, and none against another."""

import dataclasses
import itertools
from typing import Any

import pytest
from conftest import composed
from test_advice import RECORD

from vae.measure.advice import advise
from vae.measure.story import explain
from vae.measure.verdict import DEAD, VERDICTS
from vae.measure.watch import Trajectory

TOLD: dict[str, Any] = {
    **dataclasses.asdict(Trajectory(max_kl_weight=1.0, kl_began_at_step=10)),
    **RECORD,
    "anneal": "constant",
    "mu_min": -3.0,
    "mu_max": 3.0,
}
COLLAPSE = {"collapsed_at_step": 40, "collapsed_from_kld": 7.0, "collapsed_at_weight": 1.0}
BACK = {"recovered_at_step": 80, "recovered_to_kld": 3.0}
DIP = {"dipped_at_step": 30, "dipped_from_kld": 7.5, "dipped_to_kld": 1.3, "dip_over_at_step": 60, "dip_over_kld": 3.0}


def told(verdict: str = "alive", cause: str | None = None, *overrides: str, **changes: Any) -> str:
    return explain(composed(*overrides), TOLD | changes, verdict, "the reason", cause)


def test_dip_and_collapse_in_their_order() -> None:
    assert told(**DIP).endswith("KL dipped from 7.5 to 1.3 nats at step 30, and was back at 3 by step 60.")
    both = told(**DIP, **COLLAPSE, **BACK)
    assert both.index("dipped") < both.index("collapsed at step 40, at KL weight 1, and recovered by step 80")
    later = told(**DIP | {"dipped_at_step": 900}, **COLLAPSE, **BACK)
    assert later.index("collapsed at") < later.index("dipped")
    assert "recovered by step 80" in later


def test_a_collapse_that_stayed_and_one_from_the_start() -> None:
    stayed = told("collapsed", "optimiser", **COLLAPSE)
    assert stayed.endswith("The code collapsed at step 40, at KL weight 1 (KL before: 7 nats), and has not recovered.")
    never = told("collapsed", "optimiser", **COLLAPSE | {"collapsed_from_kld": None})
    assert never.endswith("The code was collapsed from the start, and has not recovered.")


def test_context() -> None:
    assert (
        "It explains 50.0% of the variance (MSE 0.03); a PCA of 32 dimensions, which pays no KL, has MSE 0.017"
        in told()
    )
    assert "worse than a linear VAE" in told(gain=10.0)
    assert "worse than a linear VAE" not in told("alive", None, "model=linear_vae", gain=10.0)
    lost = told(train_elbo=-470.0, elbo=-490.0)
    assert "It overfits: training images have gained 40 nats over a constant image, test images 20" in lost
    assert "overfits" not in told(train_elbo=-470.0, elbo=-490.0, constant_elbo=-530.0)  # brighter test images
    assert "on 2 test images, which are few" in told(test_images=2)
    assert "overfits" in told(train_elbo=-470.0, elbo=-490.0, elbo_error=4.0)
    assert "overfits" not in told(train_elbo=-470.0, elbo=-490.0, elbo_error=5.0)  # a chance of few images
    assert "overfits" in told(train_elbo=-470.0, elbo=-490.0, elbo_error=5.0, overfit_error=6.0)  # of bright and dark
    assert "overfits" not in told(train_elbo=-470.0, elbo=-490.0, elbo_error=0.1, overfit_error=7.0)
    over = "No cure asks for this code: what it says of training images does not carry over to others."
    assert told("alive_on_paper", elbo=-508.0).endswith(over)
    assert over not in told(elbo=-508.0)
    assert over not in told("alive_on_paper", None, "cure=free_bits", elbo=-508.0)


def test_a_schedule_that_never_began_is_the_first_thing_said() -> None:
    began = told("alive", None, "anneal=delayed")
    assert "The KL term began at step 10." in began
    said = told("deterministic", None, "anneal=delayed", max_kl_weight=0.0, kl_weight=0.0, kl_began_at_step=None)
    assert said.startswith(
        "The KL term never began: anneal=delayed gave it no weight in 2000 steps, at whose end 50.0%"
    )
    cured = told("deterministic", None, "cure=delayed", max_kl_weight=0.0, kl_weight=0.0, kl_began_at_step=None)
    assert cured.startswith("The KL term never began: cure=delayed gave it no weight")
    assert "The KL term began" not in said


@pytest.mark.parametrize("verdict", ["collapsed", "partly_collapsed"])
def test_a_cure_s_own_loss_may_ask_for_it(verdict: str) -> None:
    said = told(verdict, None, "cure=capacity", predicted_kld=4.5)
    assert "Predicted: without the cure 4.5 nats are to be had" in said
    assert "cure=capacity minimises a loss of its own" in said
    assert "does not ask for this" not in said


@pytest.mark.parametrize("cure", ["geco", "controlvae"])
@pytest.mark.parametrize("nats", [{"predicted_kld": 0.0}, {"predicted_test_kld": 0.2, "kld": 0.1}])
def test_a_cure_with_a_weight_of_its_own_wants_no_images(cure: str, nats: dict[str, float]) -> None:
    """No cause is named, whatever is predicted: the run without it tells, and not more images."""
    said = told("collapsed", None, f"cure={cure}", **nats)
    assert f"cure={cure} minimises a loss of its own" in said
    assert "images, as train=" not in said
    assert "Train on more images" not in said
    advice = advise(composed(f"cure={cure}"), TOLD | nats, "collapsed", None)
    assert [item.overrides for item in advice] == [("cure=none",)]


def test_no_code_is_no_collapse() -> None:
    said = told("collapsed", None, "model.posterior=none", **COLLAPSE)
    assert said.startswith("There is no code to judge")
    assert "collapsed at" not in said


@pytest.mark.parametrize("verdict", VERDICTS)
def test_no_sentence_contradicts_another(verdict: str) -> None:
    """Whatever a run went through, its weights, its predictions, with and without what could not be measured."""
    events = [{}, DIP, COLLAPSE, COLLAPSE | BACK, COLLAPSE | BACK | DIP]
    weights = [(1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.3, 0.3, 1.0), (0.0, 20.0, 20.0)]  # now, max, end
    unpredicted = {name: None for name in TOLD if name.startswith("predicted_")} | {"effective_t": None, "gain": None}
    predictions = [
        {},
        {"predicted_kld": 0.0, "predicted_active_units": 0, "predicted_gain": 0.0, "predicted_collapse_weight": 0.5},
        {"predicted_kld": 0.3, "predicted_active_units": 1, "predicted_gain": 0.1},
        unpredicted
        | {"constant_elbo": None, "train_constant_elbo": None, "loss_fall_before": None, "loss_excess": None},
    ]
    configs = {schedule: composed(schedule) for schedule in ("anneal=no_kl", "anneal=delayed", "anneal=constant")}
    for event, weight, prediction in itertools.product(events, weights, predictions):
        now, highest, end = weight
        schedule = "anneal=no_kl" if end == 0 else "anneal=delayed" if highest < end else "anneal=constant"
        record = TOLD | event | prediction | {"kl_weight": now, "max_kl_weight": highest, "final_kl_weight": end}
        record["kl_began_at_step"] = 10 if highest else None
        if verdict == "partly_collapsed" and record["predicted_kld"] is None:
            continue  # it is held against a prediction
        for cause in (None, "optimiser", "objective") if verdict in DEAD else (None,):
            if cause is not None and record["predicted_kld"] is None and highest > 0:
                continue  # no prediction has no predicted cause
            said = explain(configs[schedule], record, verdict, "the reason", cause)
            for found in advise(configs[schedule], record, verdict, cause):
                assert found.verb or found.overrides
            assert "None" not in said
            assert not ("not recovered" in said and verdict not in DEAD)
            assert not ("stuck" in said and verdict not in DEAD and "only a test" not in said)
            assert not (verdict == "unfinished" and ("Predicted" in said or "collapsed at" in said))
            assert not ("never began" in said and "The KL term began" in said)
            assert said.count("Predicted") <= 1


def test_prior_samples_that_leave_much_out() -> None:
    covered = {"sample_coverage": 0.3, "mixture_coverage": 0.8, "real_coverage": 0.96}
    said = (
        "near to 30% of the test images, those of a mixture that is fitted to the codes to 80% (training images: 96%)"
    )
    assert said in told(**covered)
    assert said not in told("collapsed", **covered)
    assert "mixture" not in told(**covered | {"mixture_coverage": 0.35})
