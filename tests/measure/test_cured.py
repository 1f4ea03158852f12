"""What sweep=cures has measured, and who is advised a cure for it."""

import dataclasses
import math

import pytest
from conftest import PUBLISHED_CURES, ROOT, composed, options
from test_advice import RECORD

from vae.config import load
from vae.config.errors import InputError
from vae.measure import cured
from vae.measure.advice import advise


def advised(*overrides: str, cause: str, **changes: object) -> list[str]:
    found = advise(composed(*overrides), RECORD | changes, "collapsed", cause)
    names = {f"cure={name}" for name in PUBLISHED_CURES} - {"cure=none"}
    return [item.overrides[0] for item in found if item.overrides[0] in names]


def test_the_matrix_is_whole() -> None:
    """Every cure on every cause, each with its seeds, or said not to go together."""
    cells = {(cell.cause, cell.cure): cell for cell in cured.measured()}
    assert set(cells) == {(cause, cure) for cause in options("cause") for cure in PUBLISHED_CURES}
    apart = {("decoder", "inverse_lipschitz"), ("decoder", "spectral_start")}
    assert {key for key, cell in cells.items() if not cell.runs} == apart
    for cell in cells.values():
        assert 0 <= cell.alive <= cell.alive + cell.on_paper <= cell.runs
        assert math.isfinite(cell.elbo_gain) == (cell.runs > 0)


def test_the_table_of_the_page_is_the_matrix_s() -> None:
    text = (ROOT / "docs" / "cures.md").read_text()
    assert f"<!-- cured -->\n\n{cured.table()}\n\n<!-- end -->" in text, "vae.measure.cured.table()"


def test_only_what_brought_all_to_life_at_no_loss_is_said_to_have_helped() -> None:
    for cause in options("cause"):
        found = cured.helped(cause)
        assert all(cell.alive == cell.runs > 0 and cell.elbo_gain > 0 for cell in found)
        assert [cell.elbo_gain for cell in found] == sorted((cell.elbo_gain for cell in found), reverse=True)
    assert cured.helped("objective") == []  # what the objective asks for no cure prevents
    assert {cell.cure for cell in cured.helped("optimiser")} >= {"spectral_start", "linear"}


def test_a_cure_is_advised_where_it_can_go() -> None:
    dead = {"cause": "optimiser"}
    best, *_ = (cell.cure for cell in cured.helped("optimiser"))
    assert advised(**dead) == [f"cure={best}"]
    assert advised("model=mlp_vae", **dead) == [f"cure={best}"]
    assert advised("objective=bernoulli", **dead, predicted_kld=None) == ["cure=batch_norm_mu"]  # no optimum is known
    assert advised("model.start=spectral", **dead) == ["cure=linear"]
    assert advised("model.start=spectral", "anneal=cyclical", **dead) == []  # it has a schedule
    assert advised("cure=free_bits", **dead) == []
    assert advised("model.output=sigmoid", **dead) == ["cure=batch_norm_mu"]  # whose optimum is no linear one
    assert advised(cause="objective") == []


def test_no_cure_is_advised_that_costs_more_than_a_code_gains() -> None:
    """batch_norm_mu makes each dimension pay 1/8 nat at least. experiment=vae has 4.4 nats to be had, which gain 3.7:
    with 64 dimensions the cure made its ELBO better by 3.3 nats, with 128 worse by 1.8."""
    blobs = {"cause": "optimiser", "predicted_kld": 4.39, "predicted_gain": 3.71}
    assert advised(**blobs, latent_dim=64) == ["cure=batch_norm_mu"]
    assert advised(**blobs, latent_dim=128) == ["cure=spectral_start"]
    assert advised(**blobs, latent_dim=128, max_kl_weight=0.3) == ["cure=batch_norm_mu"]
    assert advised(**blobs | {"predicted_gain": None}, latent_dim=128) == ["cure=batch_norm_mu"]


@pytest.mark.parametrize("name", PUBLISHED_CURES)
def test_what_a_cure_s_file_chooses_is_what_is_composed(name: str) -> None:
    config = composed(f"cure={name}")
    found, of_model = load.cure(name)
    assert type(found) is type(config.cure)
    theirs, ours = dataclasses.asdict(config.cure), dataclasses.asdict(found)
    computed = {key for key, value in ours.items() if str(value).startswith("${")} | {"schedule"}
    assert {key: ours[key] for key in ours.keys() - computed} == {key: theirs[key] for key in theirs.keys() - computed}
    assert dataclasses.replace(composed().model, **of_model) == config.model


SETTINGS = [
    *([f"model={model}", f"anneal={anneal}"] for model in ("conv_vae", "linear_vae") for anneal in ("linear", "no_kl")),
    *([f"model={model}"] for model in ("ae", "conv_vae", "mlp_vae", "linear_vae", "pixelcnn_vae")),
    *(["model=pixelcnn_vae", f"model.kernels={kernels}"] for kernels in ("[]", "[3]")),
    *([f"model={model}", "model.start=spectral"] for model in ("mlp_vae", "linear_vae")),
    ["model.posterior=dirac", "anneal=no_kl"],
    ["model=custom", "model.encoder._target_=a.B", "model.decoder._target_=a.B"],
    ["model.latent_dim=5", "anneal=delayed"],
    ["anneal.weight=0"],
    ["train.batch_size=1"],
    ["model=mlp_vae", "model.decoder_widths=[]"],
    ["model.output=sigmoid"],
    ["objective=bernoulli", "model.output=sigmoid"],
    ["objective=categorical"],
]


@pytest.mark.parametrize("overrides", SETTINGS, ids=" ".join)
def test_a_cure_fits_where_the_configuration_takes_it(overrides: list[str]) -> None:
    """As it is checked when it is composed, for every cure."""
    config = composed(*overrides)
    for name in PUBLISHED_CURES:
        found, of_model = load.cure(name)
        model = dataclasses.replace(config.model, **of_model)
        try:
            model.check()
            load._check_together(dataclasses.replace(config, model=model, cure=found))
        except (ValueError, InputError):
            is_taken = False
        else:
            is_taken = True
        has_it = name == "spectral_start" and model == config.model
        assert cured.fits(name, config, True) == (is_taken and not has_it), name


def test_every_advised_cure_composes() -> None:
    for model in ("conv_vae", "mlp_vae", "linear_vae", "pixelcnn_vae"):
        objective = "bernoulli" if model == "pixelcnn_vae" else "sse"
        predicted = None if model == "pixelcnn_vae" else 10.0
        for cause in options("cause"):
            for cure in advised(f"model={model}", f"objective={objective}", cause=cause, predicted_kld=predicted):
                composed(f"model={model}", f"objective={objective}", cure)


def test_a_sentence_names_what_helped() -> None:
    assert cured.said("objective").startswith("With none of ")
    names = [cell.cure for cell in cured.helped("optimiser")]
    assert f"the best first: {', '.join(names)} (without a cure " in cured.said("optimiser")
    assert cured.said(None) == ""
