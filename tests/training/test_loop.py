"""The loop: every option really runs, seeds decide everything, looking does not disturb."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import QUICK, ROOT, composed, options, trained
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import vae
from vae.measure.catalogue import LinearMeasures, measures
from vae.output.record import known_keys
from vae.runtime import machine
from vae.training.optimizer import learning_rate
from vae.training.recent import NotFinite

Weights = Callable[[Path], dict[str, torch.Tensor]]


def run(directory: Path, *overrides: str) -> dict[str, Any]:
    return trained(directory, *QUICK, *overrides)


OPTIONS = [
    *(
        f"{group}={name}"
        for group in ("model", "objective", "anneal", "experiment")
        for name in options(group)
        if name != "custom"  # tests/test_custom.py
    ),
    *(f"experiment=published/{path.stem}" for path in sorted((ROOT / "conf/experiment/published").glob("*.yaml"))),
    *(f"train.optimizer={name}" for name in ("adam", "adamw", "sgd", "rmsprop")),
    *(f"train.precision={name}" for name in ("fp32", "bf16", "auto")),
    "train.lr_schedule=cosine",
    "train.lr_schedule=steps train.milestones=[2]",
    "train.optimizer=rmsprop train.centered=true",
    "train.warmup_steps=3",
    "train.max_grad_norm=1",
    "model.output=sigmoid",
    "model=ae model.posterior=dirac",
    "pictures.gamma=2",
    "pictures.gif_every=0",
]


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_trains(option: str, digits: list[str], tmp_path: Path) -> None:
    record = run(tmp_path, *option.split(), *digits, *QUICK, "train.lr=1e-4")
    assert record["steps"] == 4
    assert math.isfinite(record["mse"])
    assert json.loads((tmp_path / "result.json").read_text())["mse"] == record["mse"]
    assert vae.load_run(tmp_path).sample(2).isfinite().all()


def test_auto_trains_in_what_the_processor_computes_in(
    digits: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def losses(precision: str, computes: bool = False) -> tuple[float, str]:
        monkeypatch.setattr(machine, "computes_bfloat16", lambda device: computes)
        directory = tmp_path / f"{precision}{computes}"
        record = run(directory, "model=mlp_vae", *digits, *QUICK, f"train.precision={precision}", "train.device=cpu")
        return record["training_loss"], record["precision"]

    fp32, bf16 = losses("fp32"), losses("bf16")
    assert (fp32[1], bf16[1]) == ("fp32", "bf16")
    assert fp32[0] != bf16[0]
    assert losses("auto") == fp32
    assert losses("auto", computes=True) == bf16


SMALL_GAUSSIAN = ["dataset=gaussian", "model=linear_vae", "dataset.train_size=600", "dataset.test_size=100"]


@pytest.mark.parametrize("overrides", [["dataset=mnist5k"], [*SMALL_GAUSSIAN, "evaluation.quality_images=100"]])
def test_datasets_that_need_no_files_train(overrides: list[str], tmp_path: Path) -> None:
    record = run(tmp_path, *overrides)
    assert math.isfinite(record["mse"])
    assert (record["quality_images"] == 100) == (record["mixture_kid"] is not None) == (SMALL_GAUSSIAN[0] in overrides)


def test_colour_images_train(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.random.default_rng(0).integers(0, 255, (40, 8, 12, 3), dtype=np.uint8))
    run(tmp_path, "dataset=arrays", f"dataset.train={tmp_path / 'a.npy'}")
    assert vae.load_run(tmp_path).shape == (3, 8, 12)


@pytest.mark.parametrize("shape", [(24, 12, 8), (24, 40, 36), (24, 4, 40)])
def test_images_of_any_form_train(shape: tuple[int, ...], tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8))
    run(tmp_path, "dataset=arrays", f"dataset.train={tmp_path / 'a.npy'}", "model.latent_dim=1")
    assert (tmp_path / "result.json").exists()


def test_a_schedule_that_never_began_is_explained(digits: list[str], tmp_path: Path) -> None:
    record = run(tmp_path, *digits, "objective=pixel_mse", "anneal=delayed", "anneal.threshold=1e-9")
    assert (record["kl_weight"], record["final_kl_weight"], record["cause"]) == (0, 1, None)
    assert record["explanation"].startswith("The KL term never began: anneal=delayed gave it no weight in 4 steps")


@pytest.mark.parametrize("model", ["conv_vae", "mlp_vae"])
def test_same_seed_same_bits(model: str, digits: list[str], tmp_path: Path, weights: Weights) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        torch.manual_seed(len(list(tmp_path.iterdir())))  # torch's own stream must not matter
        run(tmp_path / name, *digits, f"model={model}", f"seed={seed}", "anneal=delayed")
    a, b, c = (weights(tmp_path / name) for name in "abc")
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not all(torch.equal(a[key], c[key]) for key in a)


def test_looking_does_not_disturb(digits: list[str], tmp_path: Path, weights: Weights) -> None:
    seldom = ["train.log_every=100", "train.eval_every=100", "pictures.gif_every=0", "evaluation.batch_size=24"]
    often = ["train.log_every=1", "train.eval_every=1", "pictures.gif_every=1", "evaluation.batch_size=24"]
    delayed = ["anneal=delayed", "anneal.observe_every=2", "anneal.threshold=10"]
    run(tmp_path / "seldom", *digits, *seldom, *delayed)
    run(tmp_path / "often", *digits, *often, *delayed)
    a, b = weights(tmp_path / "seldom"), weights(tmp_path / "often")
    assert all(torch.equal(a[key], b[key]) for key in a)
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("seldom", "often")]
    assert results[0]["mse"] == results[1]["mse"]


def test_the_schedule_looks_at_the_training_mse(digits: list[str], tmp_path: Path) -> None:
    overrides = ["anneal=delayed", "anneal.threshold=10", "anneal.observe_every=1", "anneal.rate=0.25"]
    assert run(tmp_path, *digits, *overrides)["kl_weight"] == 0.75  # latched after step 1, three rises


def test_what_is_logged(digits: list[str], tmp_path: Path) -> None:
    record = run(tmp_path, *digits, "anneal=linear", "anneal.steps=8")
    events = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0, "images": 0, "tensors": 0}).Reload()
    scalars = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}
    train_tags = {f"train/{name}" for name in ("loss", "mse", "kld", "kl_weight", "images_per_second")}
    test_tags = {f"test/{name}" for name in ("mse", "mse_mu", "sse", "kld", "elbo", "negative_elbo")}
    latent_tags = {f"latent/{name}_{bound}" for name in ("mu", "sigma") for bound in ("min", "mean", "max")}
    assert train_tags | test_tags | latent_tags <= set(scalars)
    for tag in train_tags | test_tags | latent_tags:
        assert [event.step for event in scalars[tag]] == [2, 4], tag
    assert [event.value for event in scalars["train/kl_weight"]] == [0.25, 0.5]
    assert scalars["test/mse"][-1].value == pytest.approx(record["mse"])
    for loss, mse, kl, weight in zip(
        *(scalars[f"train/{name}"] for name in ("loss", "mse", "kld", "kl_weight")), strict=True
    ):
        # Means over two steps; with sse the loss is 256 squared errors a pixel and the weighted KL, whose weight rises.
        assert loss.value == pytest.approx(256 * mse.value + (weight.value - 0.0625) * kl.value, rel=0.03)
        assert loss.value > 256 * mse.value
    images = events.Tags()["images"]
    drawn = {"reconstructions", "prior_samples", "traversal", "training"}
    assert drawn | {"spectrum", "kl_per_dimension", "aggregate_posterior"} <= set(images)
    assert {"collapse/active_units", "collapse/mutual_information", "collapse/swap_gap"} <= set(scalars)
    assert all(len(rows) > 1 for rows in scalars.values()), "a single point is text, no chart"
    eigenvalues = scalars["prediction/eigenvalue"]
    assert [event.step for event in eigenvalues] == [*range(1, 101)]
    assert eigenvalues[0].value == pytest.approx(record["largest_eigenvalue"])
    histograms = {f"collapse/{name}" for name in ("kl_per_dimension", "mu_variance", "dimension_gap", "sensitivity")}
    assert histograms <= set(events.Tags()["histograms"])
    assert events.Images("training")[0].encoded_image_string == (tmp_path / "training.gif").read_bytes()
    assert "config/text_summary" in events.Tags()["tensors"]
    assert "custom_scalars__config__" in events.Tags()["tensors"]
    plugins = events.summary_metadata
    assert {"_hparams_/experiment", "_hparams_/session_start_info"} <= set(plugins)
    with Image.open(tmp_path / "training.gif") as gif:
        assert gif.n_frames == 3  # type: ignore[attr-defined]


def test_what_is_left_on_disk(digits: list[str], tmp_path: Path) -> None:
    run(tmp_path, *digits)
    names = {path.name for path in tmp_path.iterdir()}
    events = {name for name in names if name.startswith("events.out.tfevents")}
    projector = {"projector_config.pbtxt", "00004"}
    grids = {f"{name}.png" for name in ("reconstructions", "prior_samples", "traversal", "aggregate_posterior")}
    files = {"checkpoint.pt", "result.json", "training.gif", "history.npz"}
    assert names - events == files | grids | projector
    assert len(events) == 1
    record = json.loads((tmp_path / "result.json").read_text())
    assert record["null_reasons"].startswith("sample quality: not asked for")
    for_others = {"failure", *(item.name for item in measures(LinearMeasures))}
    assert set(record) == set(known_keys()) - for_others


def test_a_point_posterior_has_no_kl_and_says_so(digits: list[str], tmp_path: Path) -> None:
    run(tmp_path, *digits, "model=ae", "model.posterior=dirac")
    record = json.loads((tmp_path / "result.json").read_text(), parse_constant=pytest.fail)
    assert record["kld"] is None
    assert record["elbo"] is None
    assert "kld was inf" in record["null_reasons"]
    assert record["sigma_max"] == 0


def test_the_highest_weight_is_of_all_steps(digits: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not of the steps alone that a row is logged at."""
    monkeypatch.setattr("vae.training.schedule.Constant.weight", lambda self, step: 3.0 if step == 3 else 1.0)
    assert run(tmp_path, *digits, "train.log_every=2")["max_kl_weight"] == 3


def test_a_loss_that_is_no_number_stops_the_run(digits: list[str], tmp_path: Path) -> None:
    overrides = ["train.optimizer=sgd", "train.lr=1e6", "train.steps=40", "train.log_every=20", "train.eval_every=20"]
    with pytest.raises(NotFinite, match=r"^step [2-9]: the (KL|reconstruction) term is not finite.*train.lr") as stop:
        run(tmp_path, *digits, *overrides)
    record = json.loads((tmp_path / "result.json").read_text(), parse_constant=pytest.fail)
    assert record["failure"] == str(stop.value)
    assert (tmp_path / "training.gif").exists()
    assert (tmp_path / "history.npz").exists() is False  # it broke before the first figures were read
    assert not (tmp_path / "checkpoint.pt").exists()  # never one that holds NaN


def test_a_model_that_is_no_number_is_not_saved(digits: list[str], tmp_path: Path) -> None:
    """One step from a good loss to weights that are none, which only the next loss would tell."""
    overrides = ["train.optimizer=sgd", "train.lr=3e38", "train.steps=9", "train.checkpoint_every=1"]
    with pytest.raises(NotFinite, match=r"^step 1: the model is not finite any more; lower train.lr=3e\+38"):
        run(tmp_path, *digits, *overrides, "model=mlp_vae")
    assert not (tmp_path / "checkpoint.pt").exists()


def test_the_last_good_checkpoint_survives_a_failure(digits: list[str], tmp_path: Path, weights: Weights) -> None:
    overrides = ["train.steps=30", "train.eval_every=1", "train.log_every=1", "train.optimizer=sgd", "train.lr=10"]
    with pytest.raises(NotFinite):
        run(tmp_path, *digits, *overrides)
    assert all(value.isfinite().all() for value in weights(tmp_path).values())


@pytest.mark.parametrize("model", ["conv_vae", "mlp_vae", "linear_vae"])
def test_load_run_gives_the_model_back(model: str, digits: list[str], tmp_path: Path) -> None:
    objective = "sse" if model == "linear_vae" else "continuous_bernoulli"
    record = run(tmp_path, *digits, f"model={model}", f"objective={objective}")
    loaded = vae.load_run(tmp_path).model
    assert sum(p.numel() for p in loaded.parameters()) == record["parameters"]
    from vae.data import readers

    images = readers.load(composed(*QUICK, *digits).dataset).test.batch(slice(None))
    posterior = loaded.encode(images)
    assert float(posterior.mu.mean()) == pytest.approx(record["mu_mean"], abs=1e-6)
    assert float((loaded.decode(posterior.mu) - images).square().mean()) == pytest.approx(record["mse_mu"], rel=1e-5)


def test_learning_rate() -> None:
    settings = composed("train.steps=100", "train.lr=2", "train.lr_schedule=cosine", "train.warmup_steps=10").train
    assert learning_rate(settings, 1) == pytest.approx(0.2)
    assert learning_rate(settings, 51) == pytest.approx(1.0)
    assert learning_rate(settings, 100) < 0.001
    falling = composed("train.lr=2", "train.lr_schedule=steps", "train.milestones=[10,20]", "train.decay=0.5").train
    assert [learning_rate(falling, step) for step in (1, 10, 11, 20, 21, 99)] == [2, 2, 1, 1, 0.5, 0.5]
    constant = composed("train.lr=2").train
    assert {learning_rate(constant, step) for step in (1, 1000, 2000)} == {2}


def test_training_brings_the_loss_down(digits: list[str], tmp_path: Path) -> None:
    short = run(tmp_path / "short", *digits, "model=mlp_vae", "train.lr=1e-3")
    long = run(tmp_path / "long", *digits, "model=mlp_vae", "train.lr=1e-3", "train.steps=100", "train.eval_every=100")
    assert long["mse"] < 0.5 * short["mse"]
    assert long["elbo"] > short["elbo"]


@pytest.mark.parametrize("channels", [2, 4, 16])
def test_images_of_any_number_of_channels_train_and_are_drawn(channels: int, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (24, 12, 10, channels), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", images=images, labels=np.array(["ant", "bee"])[np.arange(24) % 2])
    data = ["dataset=arrays", f"dataset.train={tmp_path}/images.npz", "dataset.layout=channels_last"]
    record = run(tmp_path / "run", *data, "model=conv_vae", "model.channels=[4,8]", "model.hidden=8")
    assert math.isfinite(record["mse"])
    assert record["classes"] == ["ant", "bee"]
    assert vae.load_run(tmp_path / "run").sample(2).shape == (2, channels, 12, 10)
    names = next((tmp_path / "run").rglob("metadata.tsv")).read_text().split()
    assert set(names) == {"ant", "bee"}
