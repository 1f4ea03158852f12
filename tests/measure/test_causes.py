"""Which cause twins tell, on what they may show."""

import dataclasses
import json
from typing import Any

import pytest
from conftest import composed

from vae.measure.causes import Comparison, KindStart, OtherDecoder, cause_of, sentences
from vae.measure.diagnostics import Paired

LIMITS = composed().evaluation.thresholds
ALIVE = KindStart("explain/kind_start", "anneal=sigmoid", ("anneal=sigmoid",), "alive", 1.0, 459.6, Paired(2.9, 0.1))
FOUND = Comparison(
    verdict="collapsed",
    kl_weight=1.0,
    steps=1000,
    images=2000,
    loss=462.5,
    without_code="explain/without_code",
    code_saves=Paired(8.7, 0.1),
    code_costs=5.8,
    encoder_gains=Paired(0.0, 0.01),
    inference_gap=Paired(0.5, 0.1),
    kind_start=ALIVE,
)


def told(kind: dict[str, Any] | None = None, **changes: Any) -> tuple[str | None, str]:
    found = dataclasses.replace(FOUND, kind_start=dataclasses.replace(ALIVE, **(kind or {})), **changes)
    cause = cause_of(found)
    return cause, " ".join(sentences(found, cause, LIMITS))


def test_alive_with_a_lower_loss_is_the_optimiser() -> None:
    cause, said = told()
    assert cause == "optimiser"
    assert said == (
        "Tested: the optimiser. A twin with anneal=sigmoid, at KL weight 1 at its end, is alive, with a loss of 459.60 "
        "against 462.50 nats, 2.9 ± 0.1 lower. The kind start's code saves 8.7 ± 0.1 nats of log p(x|z) on training "
        "images, against a decoder that gets none (explain/without_code), and costs 5.8. Inference: training the "
        "encoder on, with the decoder fixed, gains nothing that can be measured; fitting q to each image by itself "
        "gains 0.5 ± 0.1 nats. Look at explain/kind_start."
    )


@pytest.mark.parametrize(
    "kind",
    [
        {"verdict": "collapsed", "lower_by": Paired(0.0, 0.1)},
        {"verdict": "collapsed", "lower_by": Paired(2.0, 0.1)},
        {"lower_by": Paired(-3.0, 0.1)},  # alive, and worse for it
        {"lower_by": Paired(0.2, 0.1)},  # lower by chance
    ],
)
def test_dead_as_well_or_no_better_is_the_objective(kind: dict[str, Any]) -> None:
    assert told(kind)[0] == "objective"


BLIND = OtherDecoder("explain/factorised", ("model.kernels=[]",), "alive", 20.7, 370.0, Paired(89.7, 0.5))
MAP = OtherDecoder("explain/as_map", ("model.z_as=map",), "alive", 2.35, 12.1, Paired(2.13, 0.06))
STUCK = {"verdict": "collapsed", "lower_by": Paired(-0.7, 0.05)}


def decoders(blind: dict[str, Any] | None = None, as_map: dict[str, Any] | None = None) -> tuple[str | None, str]:
    """What is told of a decoder that predicts pixels from pixels, whose kind start is dead."""
    other = None if as_map is None else dataclasses.replace(MAP, **as_map)
    return told(STUCK, factorised=dataclasses.replace(BLIND, **(blind or {})), as_map=other)


def test_a_decoder_that_needs_a_code_and_cannot_use_it() -> None:
    cause, said = decoders(as_map={})
    assert cause == "decoder"
    assert "the code is alive, with a KL of 20.7 nats, and the loss lies 89.7 ± 0.5 nats below that of a const" in said
    assert "would use a code, and cannot read one from a bias" in said
    assert "needs none" not in said


@pytest.mark.parametrize(
    "as_map",
    [
        {"verdict": "collapsed", "pays": Paired(0.0, 0.1)},
        {"pays": Paired(0.4, 0.01)},
        {"pays": Paired(2.0, 0.9)},
    ],
)
def test_a_decoder_that_needs_no_code_even_as_a_map(as_map: dict[str, Any]) -> None:
    cause, said = decoders(as_map=as_map)
    assert cause == "decoder"
    assert "the decoder needs none" in said
    assert "cannot read" not in said


@pytest.mark.parametrize("as_map", [{"verdict": "collapsed", "pays": Paired(22.1, 0.2)}, {"verdict": "unfinished"}])
def test_twins_that_have_not_learnt_alike_say_nothing_of_the_way_in(as_map: dict[str, Any]) -> None:
    said = decoders(as_map=as_map)[1]
    assert "raise explain.steps" in said
    assert "needs none" not in said


def test_a_decoder_whose_code_is_a_map_already() -> None:
    cause, said = decoders()
    assert cause == "decoder"
    assert "The code enters as a map" in said


def test_an_objective_that_kills_the_code_of_any_decoder() -> None:
    cause, said = decoders({"verdict": "collapsed", "kld": 0.0, "pays": Paired(0.0, 0.1)}, {"verdict": "collapsed"})
    assert cause == "objective"
    assert "the objective keeps it small" in said
    cause, said = decoders({"verdict": "unfinished"})
    assert cause is None
    assert "Raise explain.steps." in said
    assert "the network itself" not in said


def test_what_the_residuals_predict_is_said() -> None:
    found = told(STUCK, factorised=BLIND, residual_eigenvalue=3.28, residual_kld=4.08)[1]
    assert "its largest eigenvalue is 3.28" in found
    assert "4.08 nats are to be had" in found


@pytest.mark.parametrize(
    ("kind", "changes", "says"),
    [
        ({"verdict": "unfinished"}, {}, "raise explain.steps"),
        ({"verdict": "deterministic", "kl_weight": 0.3}, {}, "at KL weight 0.3 at its end"),
        ({"verdict": "collapsed"}, {"kl_weight": 0.0}, "the network itself"),
        ({"lower_by": Paired(0.0, 0.1)}, {"verdict": "partly_collapsed"}, "the network itself"),
    ],
)
def test_what_cannot_be_told(kind: dict[str, Any], changes: dict[str, Any], says: str) -> None:
    cause, said = told(kind, **changes)
    assert cause is None
    assert said.startswith("Tested, cause not told")
    assert says in said


def test_a_live_code_and_a_point() -> None:
    alive = dataclasses.replace(FOUND, verdict="deterministic", kind_start=None, encoder_gains=None, inference_gap=None)
    assert cause_of(alive) is None
    first, bits, inferred = sentences(alive, None, LIMITS)
    assert first == "The code is deterministic, so no cause is sought."
    assert bits.startswith("Its code saves 8.7")
    assert inferred == ""


def test_the_evidence_is_flat_and_has_its_errors() -> None:
    found = FOUND.to_dict()
    assert json.loads(json.dumps(found)) == found
    assert found["kind_start"] == "explain/kind_start"
    assert (found["kind_start_lower_by"], found["kind_start_lower_by_error"]) == (2.9, 0.1)
    assert (found["code_saves"], found["code_saves_error"]) == (8.7, 0.1)
    more = dataclasses.replace(FOUND, factorised=BLIND, as_map=MAP).to_dict()
    assert json.loads(json.dumps(more)) == more
    assert (more["factorised"], more["factorised_kld"], more["as_map_pays_error"]) == ("explain/factorised", 20.7, 0.06)
