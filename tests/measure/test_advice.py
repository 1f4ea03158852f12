"""Which advice a run gets, and that each piece helps when its command is run as it is printed. The pieces that are not
followed here are in test_answers.py: longer, a higher rate, the end of waiting, a KL term, anneal=delayed."""

import re
import shlex
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, composed
from omegaconf import OmegaConf
from test_answers import LINEAR, MLP, SHORT, Ask, ask, bright_blobs, digits_8x8, follow, spectrum

from vae.config.load import flat
from vae.measure import cured
from vae.measure.advice import advise, wants_dimensions
from vae.measure.setting import Elsewhere
from vae.measure.verdict import DEAD, VERDICTS
from vae.runtime import commands
from vae.runtime import directory as names

__all__ = ["ask", "follow"]

CURES = [(f"cure={cell.cure}",) for cell in cured.measured() if cell.cure != "none"]

RECORD: dict[str, Any] = {
    "steps": 2000,
    "best_step": None,
    "latent_dim": 32,
    "train_images": 4000,
    "test_images": 1000,
    "kl_weight": 1.0,
    "kld": 10.0,
    "mse": 0.03,
    "explained_variance": 0.5,
    "effective_t": 0.05,
    "pca_mse": 0.017,
    "final_kl_weight": 1.0,
    "max_kl_weight": 1.0,
    "predicted_active_units": 23,
    "predicted_kld": 10.3,
    "predicted_mse": 0.036,
    "predicted_gain": 20.0,
    "predicted_gain_wider": 20.0,
    "predicted_collapse_weight": 10.3,
    "gain": 22.0,
    "sse": 23.5,
    "largest_eigenvalue": 5.15,
    "used_dimensions": 20,
    "elbo": -486.0,
    "constant_elbo": -510.0,
    "train_elbo": -485.0,
    "train_constant_elbo": -510.0,
    "loss_fall_before": 50.0,
    "loss_excess": -20.0,
}


def advised(*overrides: str, verdict: str = "alive", cause: str | None = None, **changes: Any) -> list[tuple[str, ...]]:
    """Without the cures of the matrix, of which tests/measure/test_cured.py speaks."""
    found = advise(composed(*overrides), RECORD | changes, verdict, cause)
    return [item.overrides for item in found if item.overrides[:1] not in CURES]


def test_where_nothing_is_wrong_nothing_is_advised() -> None:
    assert advised() == []


@pytest.mark.parametrize("verdict", ["collapsed", "decoder_ignores_code", "partly_collapsed"])
def test_a_kinder_start(verdict: str) -> None:
    """A schedule's own weight stays; what has waited already, or has no KL term, gets smaller steps."""
    assert advised(verdict=verdict, cause="optimiser") == [("anneal=delayed",)]
    assert advised("anneal=linear", "anneal.weight=0.3", verdict=verdict) == [("anneal=delayed", "anneal.weight=0.3")]
    gentle = [("train.lr=0.001", "train.warmup_steps=100", "train.momentum=0.9")]
    assert advised("anneal=delayed", "train.lr=0.004", "train.momentum=0.99", verdict=verdict) == gentle
    off = {"final_kl_weight": 0.0, "max_kl_weight": 0.0, "cause": "optimiser"}
    for without in ("anneal=no_kl", "anneal.weight=0"):
        assert advised(without, "train.lr=0.004", verdict=verdict, **off) == gentle
        found = advise(composed(without), RECORD | off, verdict, "optimiser")
        assert not any(word.startswith("cure=") for item in found for word in item.overrides)


@pytest.mark.parametrize("dead", [{"verdict": "collapsed", "cause": "optimiser"}, {"verdict": "partly_collapsed"}])
def test_a_kl_term_that_is_too_slight_to_hold_anything_back(dead: dict[str, Any]) -> None:
    """At a KL weight of 1e-6 nobody gains by waiting for it, or by raising a weight to 1e-6."""
    slight = {"max_kl_weight": 1e-6, "final_kl_weight": 1e-6, "effective_t": 5e-7}
    gentle = ("train.lr=0.00025", "train.warmup_steps=100", "train.momentum=0.9")
    assert gentle in advised("anneal.weight=1e-6", **dead, **slight)
    assert gentle in advised("anneal.weight=1e-6", **dead, **slight | {"effective_t": None})  # a Bernoulli likelihood
    settled = slight | {"mse": 1e-6}  # as good as that weight asks for
    assert ("anneal=delayed", "anneal.weight=1e-06") in advised("anneal.weight=1e-6", **dead, **settled)
    found = advise(composed("anneal.weight=1e-6"), RECORD | slight, dead["verdict"], dead.get("cause"))
    assert not any("{weight}" in item.elsewhere for item in found)
    off = {"max_kl_weight": 0.0, "final_kl_weight": 0.0, "effective_t": 0.0}
    without = advise(composed("anneal=no_kl"), RECORD | off, dead["verdict"], dead.get("cause"))
    assert not any("too slight" in item.why for item in without), "there is no KL term"


def test_the_scale_of_the_objective() -> None:
    dead = {"verdict": "collapsed", "cause": "objective", "predicted_kld": 0.0}
    assert advised("objective=pixel_mse", **dead, predicted_collapse_weight=0.013) == [("objective=optimal_gaussian",)]
    assert advised("anneal.weight=20", **dead, max_kl_weight=20.0) == [("anneal.weight=1",)]
    both = [("anneal.weight=1", "objective=optimal_gaussian")]
    assert advised("anneal.weight=20", **dead, max_kl_weight=20.0, predicted_collapse_weight=1.4) == both
    assert advised("objective=bernoulli", **dead, predicted_collapse_weight=0.5) == [("anneal.weight=0.05",)]
    assert advised("objective=bernoulli", **dead, predicted_collapse_weight=31.0) == [("anneal.weight=0.1",)]  # no more
    assert advised("objective=bernoulli", **dead, predicted_collapse_weight=None) == []
    assert advised(predicted_kld=0.3, kld=0.2, predicted_collapse_weight=1.4) == [("objective=optimal_gaussian",)]


@pytest.mark.parametrize("objective", ["objective=sse", "objective=pixel_mse", "objective=bernoulli"])
@pytest.mark.parametrize("verdict", VERDICTS)
def test_all_advice_can_be_said_of_a_model_from_elsewhere(objective: str, verdict: str) -> None:
    """Without a PCA, a prediction or a KL weight as well: in words, or as a KL weight to write, at which a code pays
    where that is known. Also of a run of this program, whose cure is known."""
    for cure, weight, edge, pca in product(("none", "free_bits"), (0, 0.1, 20), (None, 0.013, 1.4, 31), (None, 0.017)):
        own = composed(objective, f"cure={cure}")
        config = Elsewhere(own.model, own.objective, own.anneal, own.evaluation, 0, cure=own.cure)
        changes = {"pca_mse": pca, "max_kl_weight": weight, "predicted_collapse_weight": edge, "mse": 0.01, "gain": 5.0}
        changes |= {"effective_t": None if objective == "objective=bernoulli" else 0.5 * weight}
        for cause in (None, "objective", "optimiser", "decoder"):
            found = advise(config, RECORD | changes, verdict, cause)
            for item in found:
                assert item.kl_weight is not None or (item.elsewhere and "{" not in item.elsewhere), item
            if cause == "objective" and verdict in DEAD and weight and edge and not pca:
                assert (found[0].kl_weight or edge) < edge


def test_a_kl_term_that_never_began() -> None:
    """A threshold within reach, steps enough for the smoothed MSE to get there, and an objective that leaves a code."""
    never = {"max_kl_weight": 0.0, "verdict": "deterministic", "explained_variance": 0.76}
    threshold = ["anneal.threshold_of=variance", "anneal.threshold=0.48"]
    assert advised("anneal=delayed", "anneal.threshold=0.1", **never) == [tuple(threshold)]
    short = advised("anneal=delayed", "anneal.threshold=0.1", **never, steps=300)
    assert short == [(*threshold, "train.steps=1000")]
    assert advised("anneal=delayed", "train.steps=300", **never, steps=300) == [("train.steps=1000",)]  # it lags
    wide = advised("anneal=delayed", "anneal.threshold=0.1", "objective=pixel_mse", **never)
    assert wide == [(*threshold, "objective=optimal_gaussian")]
    none = {"verdict": "deterministic", "max_kl_weight": 0.0, "final_kl_weight": 0.0}
    fitted = ("anneal=constant", "objective=optimal_gaussian")
    assert advised("objective=pixel_mse", "anneal=no_kl", **none) == [fitted]
    heavier = [("anneal.weight=1", "objective=optimal_gaussian")]
    assert advised("objective=pixel_mse", "anneal.weight=0", **none) == heavier
    assert advised("objective=pixel_mse", "anneal.weight=0.1", **none | {"max_kl_weight": 0.1}) == heavier
    assert advised("anneal.weight=0.1", **none | {"max_kl_weight": 0.1}) == [("anneal.weight=1",)]


def test_an_unfinished_run() -> None:
    assert advised(verdict="unfinished") == [("train.steps=6000",)]
    assert advise(composed(), RECORD, "unfinished", None)[0].verb == "resume"
    blown_up = {"steps": 20, "explained_variance": -1e9, "loss_fall_before": None}  # too short for its loss to tell
    gentle = ("train.lr=0.025", "train.warmup_steps=2", "train.momentum=0.9")
    assert advised("train.lr=0.1", "train.steps=20", verdict="unfinished", **blown_up) == [gentle]
    assert not advise(composed("train.lr_schedule=cosine"), RECORD, "unfinished", None)[0].verb
    delayed = {"final_kl_weight": 1.0, "max_kl_weight": 0.0}
    assert advised("anneal=delayed", verdict="unfinished", **delayed) == [("train.steps=6000",)]
    interrupted = advise(composed(), RECORD | {"steps": 150}, "unfinished", None)[0]
    assert (interrupted.overrides, interrupted.verb) == ((), "resume")
    stopped = composed("train.patience=5", "train.eval_every=3")  # by its validation images, which resume= cannot undo
    early = advise(stopped, RECORD | {"steps": 36, "best_step": 21}, "unfinished", None)[0]
    assert (early.overrides, early.verb) == (("train.steps=2000", "train.eval_every=100"), "")
    all_made = advise(composed("train.patience=5"), RECORD | {"best_step": 2000}, "unfinished", None)[0]
    assert (all_made.overrides, all_made.verb) == (("train.steps=6000",), "")  # nor can resume= continue from its best
    planned = composed("train.patience=5", "train.eval_every=100", "train.steps=5000")
    assert advise(planned, RECORD | {"steps": 600, "best_step": 100}, "unfinished", None)[0].overrides == (
        "train.steps=5000",
        "train.eval_every=250",
    )
    lags = delayed | {"explained_variance": 0.9, "steps": 900, "best_step": 400}  # below the threshold, stopped before
    often = advised("anneal=delayed", "train.patience=5", "train.eval_every=200", **lags)
    assert often == [("train.steps=2700", "train.eval_every=400")]
    pretrained = advise(composed("cure=pretrain", "train.steps=80"), RECORD | {"steps": 80}, "unfinished", None)[0]
    assert (pretrained.overrides, pretrained.verb) == (("train.steps=1000",), "")  # its phases are fractions of them
    worse = advised(verdict="unfinished", loss_fall_before=-20.0, loss_excess=30.0)
    assert worse == [("train.lr=0.00025", "train.warmup_steps=100", "train.momentum=0.9")]
    assert advised("train.lr=1e-6", verdict="unfinished", loss_fall_before=1.0, loss_excess=60.0) == [
        ("train.lr=0.001",)
    ]


def test_a_run_with_a_cure() -> None:
    """What is advised goes with it, or takes it away."""
    gentle = [("train.lr=0.00025", "train.warmup_steps=100", "train.momentum=0.9")]
    assert advised("cure=geco", verdict="collapsed", cause="optimiser") == gentle  # no second schedule
    assert advised("cure=free_bits", verdict="collapsed", cause="optimiser") == [("anneal=delayed",)]
    assert advised("cure=free_bits", verdict="alive_on_paper") == [("cure=none",)]
    # where nobody knows the cause, the loss of the cure is the first to be asked
    assert advised("cure=geco", verdict="collapsed", cause=None) == [("cure=none",)]
    assert advised("cure=capacity", verdict="partly_collapsed", cause=None)[0] == ("cure=none",)
    assert ("cure=none",) not in advised("cure=pretrain", verdict="partly_collapsed", cause=None)  # it ends plain
    pixels = ["model=pixelcnn_vae", "objective=bernoulli"]
    both = [("model.kernels=[]",), ("cure=none",)]
    assert advised(*pixels, "cure=free_bits", verdict="alive_on_paper") == both
    assert advised(*pixels, "cure=skip", verdict="collapsed", cause="decoder") == [("model.kernels=[]", "cure=none")]
    never = {"max_kl_weight": 0.0, "verdict": "deterministic", "explained_variance": 0.76}
    found = advised("cure=delayed", "cure.schedule.threshold=0.1", **never)
    assert found == [("cure.schedule.threshold_of=variance", "cure.schedule.threshold=0.48")]


def test_images_that_are_learnt_by_heart() -> None:
    """Training images have gained 25 nats, test images 2: the code is not worth its KL, and no cure asks for it."""
    heart = {"verdict": "alive_on_paper", "elbo": -508.0}
    assert advised(**heart) == [("train.patience=5", "train.eval_every=100")]
    assert advised("train.eval_every=1000", **heart) == [("train.patience=5", "train.eval_every=100")]
    assert advised("train.patience=3", **heart) == []
    assert advised("cure=free_bits", **heart) == [("cure=none",)]
    assert advised("cure=batch_norm_mu", **heart) == [("cure=none",)]  # its layer asks for KL
    few = heart | {"train_images": 70}  # of which 7 are held out
    assert advised(**few) == [("train.patience=5", "train.eval_every=100", "train.batch_size=63")]
    assert advised(verdict="alive_on_paper") == []
    assert advised(**heart | {"constant_elbo": None}) == []  # not known of a likelihood of one's own


def test_where_nothing_can_be_advised() -> None:
    """A decoder that needs no code, and one that was to get none."""
    assert advised(verdict="collapsed", cause="decoder") == []
    assert advised("model.posterior=none", verdict="collapsed") == []


def test_images_that_could_be_sharper() -> None:
    """sigma^2 = 1/2 where .03 is left, and a PCA of as many dimensions leaves less."""
    blurred = {"effective_t": 0.5, "mse": 0.03, "pca_mse": 0.017}
    assert advised(**blurred) == [("objective=optimal_gaussian",)]
    assert advised(**blurred | {"pca_mse": 0.028}) == []
    assert advised("objective=gaussian", "objective.sigma2=0.05", **blurred | {"effective_t": 0.05}) == []


def test_what_was_advised_takes_the_place_of_what_was_asked_for(tmp_path: Path) -> None:
    own = ["model=mlp_vae", "model.latent_dim=8", "anneal=linear", "anneal.steps=50", "seed=3"]
    assert commands.changed(own, ["anneal=delayed"]) == [*own[:2], "anneal=delayed", "seed=3"]
    assert commands.changed(own, ["model.latent_dim=16"]) == [own[0], "model.latent_dim=16", *own[2:]]
    assert commands.changed(own, ["objective=sse"]) == [*own, "objective=sse"]
    added = ["+anneal.schedule.rate=3", "seed=1", "++model.encoder.width=4"]  # to parts of the user's own
    assert commands.changed(added, ["anneal.schedule.rate=5", "seed=2"]) == [
        "+anneal.schedule.rate=5",
        "seed=2",
        "++model.encoder.width=4",
    ]
    assert commands.changed(["seed=1"], ["+anneal.schedule.rate=5"]) == ["seed=1", "+anneal.schedule.rate=5"]
    (tmp_path / names.OVERRIDES).parent.mkdir()
    (tmp_path / names.OVERRIDES).write_text("[seed=1, train.steps=4, seed=2]")
    assert commands.overrides(tmp_path) == ["train.steps=4", "seed=2"]
    assert commands.run(["sweep=compare", "a=b c"]) == "python run.py sweep=compare 'a=b c' hydra.mode=RUN"


def test_more_dimensions_of_few_images_are_their_noise() -> None:
    wants = {
        "used_dimensions": 30,
        "latent_dim": 32,
        "predicted_active_units": 32,
        "predicted_gain": 10.0,
        "gain": 12.0,
    }
    found = RECORD | wants | {"predicted_gain_wider": 20.0}
    wide = found | {"latent_dim": 128, "used_dimensions": 128, "predicted_active_units": 128}
    (more,) = advise(composed("model.latent_dim=128"), wide, "alive", None)
    assert more.overrides == ("model.latent_dim=192",)  # of which the gain is
    assert wants_dimensions(found)  # how many images there were is not known of runs of earlier versions
    assert wants_dimensions(found | {"train_images": 640})
    assert not wants_dimensions(found | {"train_images": 639})
    assert not wants_dimensions(found | {"gain": 20.5})  # a network that has more already
    assert not wants_dimensions(
        found | {"predicted_gain": 0.2, "predicted_gain_wider": 0.9, "gain": 0.1}
    )  # of next to nothing


def test_noise_needs_no_other_weight() -> None:
    """Where a PCA leaves about the pixel variance that is given, with that fitted the code stays dead."""
    asks: dict[str, Any] = {"verdict": "collapsed", "cause": "objective", "predicted_collapse_weight": 0.9}
    gaussian = ("objective=gaussian", "objective.sigma2=0.05")
    assert advised(*gaussian, **asks, effective_t=0.05, pca_mse=0.048) == []
    assert advised(*gaussian, **asks, effective_t=0.05, pca_mse=0.017) == [("objective=optimal_gaussian",)]
    high = asks | {"max_kl_weight": 30.0}
    assert advised(*gaussian, "anneal.weight=30", **high, effective_t=1.5, pca_mse=0.048) == [("anneal.weight=1",)]
    narrow = advised(
        "objective=gaussian",
        "objective.sigma2=0.001",
        "anneal.weight=9000",
        **asks | {"max_kl_weight": 9000.0},
        effective_t=9.0,
        pca_mse=0.017,
    )
    assert narrow == [("anneal.weight=1", "objective=optimal_gaussian")]


def test_more_dimensions_help(ask: Ask, follow: Ask) -> None:
    given = spectrum(8, 7, 6, 5, 4, 3, 2, 1)
    found = ask("case", *LINEAR, *SHORT, given, "objective.sigma2=0.5", "model.latent_dim=2", "train.steps=500")
    assert " model.latent_dim=4 " in found["advice"][0]["command"]
    assert follow("case")["gain"] > 1.2 * found["gain"]


def test_a_linear_vae_helps_where_the_network_is_worse(ask: Ask, follow: Ask, tmp_path: Path) -> None:
    """All that the encoder knows goes through one unit; the advice keeps the number of dimensions."""
    narrow = ["model=mlp_vae", "model.encoder_widths=[1]", "model.latent_dim=6", "objective=optimal_gaussian"]
    found = ask("case", *digits_8x8(tmp_path), *narrow, "train.steps=800", "train.lr_schedule=cosine")
    assert "worse than a linear VAE" in found["explanation"]
    assert " model=linear_vae model.latent_dim=6 " in found["advice"][-1]["command"]
    assert follow("case", which=-1)["gain"] > found["gain"] + 1


def test_a_lower_weight_and_a_fitted_variance_help(ask: Ask, follow: Ask, tmp_path: Path) -> None:
    heavy = [*MLP, "model.latent_dim=8", "anneal.weight=20", "train.steps=500"]
    found = ask("case", *digits_8x8(tmp_path), *heavy)
    assert (found["verdict"], found["cause"]) == ("collapsed", "objective")
    advised = follow("case")
    assert advised["verdict"] == "alive"
    assert advised["explained_variance"] > 0.5


def test_smaller_steps_help_a_network_that_died(ask: Ask, follow: Ask, tmp_path: Path) -> None:
    """Without a KL term, at a learning rate that silences its rectifiers."""
    small = ["model.encoder_widths=[128,128]", "model.decoder_widths=[128]", "model.latent_dim=8"]
    wild = ["model=mlp_vae", *small, "anneal=no_kl", "train.lr=0.06", "train.steps=400"]
    found = ask("case", *bright_blobs(tmp_path), *wild)
    assert found["verdict"] in ("collapsed", "decoder_ignores_code")
    assert "the network itself is stuck" in found["explanation"]
    assert follow("case")["verdict"] == "deterministic"


def test_a_better_sampler() -> None:
    """Advised where images of prior codes leave much out that a mixture's bring back, and the run has a live code."""
    near = {"sample_coverage": 0.3, "mixture_coverage": 0.8, "real_coverage": 0.96}
    (found,) = advise(composed(), RECORD | near, "alive", None)[-1:]
    assert (found.verb, found.overrides) == ("sample", ("sampler=mixture",))
    for other in ({}, near | {"mixture_coverage": 0.5}, near | {"sample_coverage": 0.9}, dict.fromkeys(near)):
        assert not any(item.verb for item in advise(composed(), RECORD | other, "alive", None))
    assert not any(item.verb == "sample" for item in advise(composed(), RECORD | near, "collapsed", "optimiser"))


# Records that between them get every piece of advice that chooses an option of a group.
ASKING: list[tuple[str, str | None, dict[str, Any]]] = [
    ("collapsed", "objective", {"predicted_collapse_weight": 1.4, "max_kl_weight": 20.0}),
    ("partly_collapsed", None, {}),
    ("deterministic", None, {"max_kl_weight": 0.0, "final_kl_weight": 0.0}),
    ("alive", None, {"gain": 2.0}),
]
# What sets values of an option of a group, which may not be the one that is advised: one for each set of them.
WITH_VALUES = {
    str([flat(values).keys()]): f"{group}={path.relative_to(ROOT / 'conf' / group).with_suffix('')}"
    for group in ("sweep", "cause", "experiment")
    for path in sorted((ROOT / "conf" / group).rglob("*.yaml"))
    for given in [OmegaConf.to_container(OmegaConf.load(path))]
    if (values := {key: given[key] for key in ("model", "objective", "anneal") if key in given})
}


@pytest.mark.parametrize("shipped", WITH_VALUES.values())
def test_what_is_advised_of_an_experiment_composes(shipped: str, tmp_path: Path) -> None:
    """Also where it sets a value that the option has not: of each group all that is advised, several at once."""
    config = composed(shipped)
    found = [item for verdict, *asks in ASKING for item in advise(config, RECORD | asks[1], verdict, asks[0])]
    options = [word.split("=") for item in found for word in item.overrides if not re.match(r"cure|\w+\.", word)]
    together = [dict(options), dict(options[::-1])]
    (tmp_path / names.OVERRIDES).parent.mkdir()
    (tmp_path / names.OVERRIDES).write_text(f"[{shipped}]")
    for group in together if together[0] != together[1] else together[:1]:
        line = commands.another(tmp_path, [f"{key}={option}" for key, option in group.items()])
        assert line is not None
        composed(*shlex.split(line)[2:])


def test_a_command_takes_out_what_is_in_the_way_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / names.OVERRIDES).parent.mkdir()

    def another(own: str, *new: str) -> str | None:
        (tmp_path / names.OVERRIDES).write_text(f"[{own}]")
        return commands.another(tmp_path, new)

    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    hydras_own = "hydra.searchpath=[pkg://evil]"  # in a directory that somebody else has made
    assert "~objective.sigma2" in str(another(f"experiment=vae, '{hydras_own}'", "objective=optimal_gaussian"))
    once = another("experiment=vae", "objective=optimal_gaussian")
    assert once == "python run.py experiment=vae objective=optimal_gaussian '~objective.sigma2'"
    assert another("experiment=vae, objective=optimal_gaussian, ~objective.sigma2", "seed=1") == f"{once} seed=1"
    assert another("experiment=vae, objective=sse, ~objective.sigma2", "objective=gaussian") == (
        "python run.py experiment=vae objective=gaussian"
    )
    assert another("seed=1", "objective=optimal_gaussian") == "python run.py seed=1 objective=optimal_gaussian"
    named_by_its_variance = another("sweep=phase, objective.sigma2=8", "objective=optimal_gaussian")
    assert named_by_its_variance == (
        "python run.py sweep=phase objective=optimal_gaussian run_name=advised hydra.mode=RUN"
    )
