"""Early stopping: on images that it was not trained on, with the best model kept, and resumed to the same bits."""

import dataclasses
import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import composed, trained
from twins import PowerCut, power_cut, resumed, timeless

import vae
from vae.data import readers
from vae.measure.catalogue import CATALOGUE
from vae.measure.watch import Trajectory
from vae.output.record import stopped
from vae.report.runs import read
from vae.training import checkpoint
from vae.training.checkpoint import Checkpoint
from vae.training.loop import train
from vae.training.setup import Setup, prepare
from vae.training.stopping import Stopping, with_validation

SETTINGS = [
    "model=mlp_vae",
    "model.encoder_widths=[64]",
    "model.decoder_widths=[64]",
    "model.latent_dim=8",
    "objective=optimal_gaussian",
    "train.threads=1",
    "train.device=cpu",
    "train.batch_size=16",
    "train.lr=0.01",
    "train.steps=2000",
    "train.eval_every=20",
    "train.patience=3",
    "pictures.gif_every=0",
    "evaluation.iw_samples=2",
    "evaluation.probe_images=16",
    "evaluation.quality_images=0",
]


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Few images and much noise: what is learnt by heart does not help others."""
    directory, rng = tmp_path_factory.mktemp("noise"), np.random.default_rng(0)
    factors = rng.normal(size=(80, 2)) @ rng.normal(size=(2, 64))
    images = 0.5 + 0.1 * factors + 0.1 * rng.normal(size=(80, 64))
    np.save(directory / "images.npy", images.clip(0, 1).reshape(-1, 8, 8))
    return ["dataset=arrays", f"dataset.train={directory}/images.npy", "dataset.test_fraction=0.2"]


@pytest.fixture(scope="module")
def undisturbed(noise: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("undisturbed")
    trained(directory, *noise, *SETTINGS)
    return directory


@pytest.fixture(scope="module")
def whole(undisturbed: Path) -> dict[str, Any]:
    """Its record."""
    found: dict[str, Any] = json.loads((undisturbed / "result.json").read_text())
    return found


def test_it_counts_from_the_best() -> None:
    stopping = Stopping(2)
    assert [stopping.observe(step, loss) for step, loss in ((1, 5.0), (2, 4.0), (3, 4.5))] == [True, True, False]
    assert not stopping.is_over
    again = Stopping(2)
    again.load_state_dict(stopping.state_dict())
    assert not again.observe(4, 4.0)  # as good is no better
    assert again.is_over
    assert (again.best, again.best_step) == (4.0, 2)
    assert not Stopping(None).is_over
    assert (
        "after step 4, 2 evaluations without a gain (train.patience=2); kept is the model of step 2"
        in again.sentence(4)
    )
    assert stopping.sentence(9).startswith("all 9 steps are made; kept is the model of step 2")


def test_losses_at_another_weight_are_not_compared() -> None:
    stopping = Stopping(2, weight=0.0)
    assert not stopping.observe(1, math.nan)
    assert not stopping.observe(2, math.inf)
    assert (stopping.best, stopping.waited) == (None, 0)
    assert stopping.observe(3, 7.0)
    assert "the loss at KL weight 0 of the validation images was lowest" in stopping.sentence(9)
    other = Stopping(2)
    other.load_state_dict(stopping.state_dict())
    assert (other.best, other.best_step) == (None, 0)


@pytest.mark.parametrize("overrides", [["anneal=no_kl"], ["anneal=no_kl", "model.posterior=dirac"]])
def test_an_autoencoder_stops_by_what_it_minimises(overrides: list[str], noise: list[str], tmp_path: Path) -> None:
    """Its KL grows while it learns, and a point's is infinite."""
    record = trained(tmp_path, *noise, *SETTINGS, "train.steps=100", "train.lr=0.001", *overrides)
    assert record["best_step"] == record["steps"] == 100


@pytest.mark.parametrize(
    ("overrides", "counted"),
    [
        (["anneal=no_kl"], range(1, 41)),
        (["cure=pretrain", "cure.autoencoder=0.5", "cure.rising=0.25"], range(30, 41)),
        (["anneal=linear", "anneal.steps=25", "anneal.weight=2"], range(25, 41)),
        (["cure=linear", "cure.schedule.steps=25", "anneal.weight=2"], range(25, 41)),
        (["anneal=sigmoid", "anneal.midpoint=20", "anneal.steepness=1"], range(27, 41)),  # 1 / (1 + exp(-7)) is 0.9991
        (["anneal=cyclical", "anneal.cycles=2"], [*range(11, 21), *range(31, 41)]),
        (["anneal=delayed", "anneal.threshold=1e-9", "anneal.patience=null"], []),
        (["cure=capacity", "cure.steps=30"], range(30, 41)),
        (["cure=geco"], []),
        (["cure=controlvae"], []),
    ],
)
def test_which_evaluations_count(
    overrides: list[str], counted: Sequence[int], noise: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those with the KL weight, and the cure, of the end."""
    monkeypatch.setattr("vae.measure.subject.Subject.validation_loss", lambda subject, weight: 0.0)
    setup = prepare(composed(*noise, *SETTINGS, "train.steps=40", *overrides))
    asked: list[int] = []
    monkeypatch.setattr(Stopping, "observe", lambda stopping, step, loss: asked.append(step))
    for step in range(1, 41):
        setup.is_best(step)
    assert asked == list(counted)


def test_a_weight_that_never_comes_to_its_end_leaves_the_last_model(noise: list[str], tmp_path: Path) -> None:
    record = trained(
        tmp_path, *noise, *SETTINGS, "train.steps=100", "train.patience=1", "anneal=linear", "anneal.steps=101"
    )
    assert (record["steps"], record["best_step"]) == (100, None)
    assert (checkpoint.read(tmp_path).step, record["max_kl_weight"]) == (100, record["kl_weight"])


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"best": "x", "best_step": 1, "waited": 1, "weight": 1.0},
        {"best": None, "best_step": -1, "waited": 0, "weight": 1.0},
    ],
)
def test_a_state_that_is_none(state: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="stopping"):
        Stopping(1).load_state_dict(state)


def test_validation_images_are_not_trained_on(noise: list[str]) -> None:
    config = composed(*noise, *SETTINGS, "train.validation_fraction=0.25", "dataset.binarize=dynamic")
    data = with_validation(readers.load(config.dataset), config.train)
    assert data.validation is not None
    assert data.grey is not None
    assert (len(data.train), len(data.validation), len(data.grey), len(data.test)) == (48, 16, 48, 16)
    both = torch.cat([data.train.images, data.validation.images]).flatten(1)
    whole = readers.load(config.dataset).train.images.flatten(1)
    assert torch.equal(both.sort(0).values, whole.sort(0).values)
    setup = prepare(config)
    assert len(setup.subject.data.train) == 48
    assert with_validation(data, config.train) is data  # a split of their own stays


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_too_few_images_for_a_validation_split(count: int, noise: list[str]) -> None:
    config = composed(*noise, "train.patience=5")
    data = readers.load(config.dataset)
    few = dataclasses.replace(data, train=data.train.take(torch.arange(count)))
    if count < 4:
        with pytest.raises(vae.InputError, match=rf"at least 4 training images, .*; there are {count}"):
            with_validation(few, config.train)
        return
    found = with_validation(few, config.train)
    assert found.validation is not None
    assert (len(found.train), len(found.validation)) == (count - 2, 2)


def test_it_stops_and_keeps_the_best_model(
    noise: list[str], undisturbed: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    record = whole
    assert record["best_step"] < record["steps"] < 2000
    assert record["steps"] == record["best_step"] + 3 * 20
    saved = checkpoint.read(undisturbed)
    assert saved.step == record["best_step"]
    assert not (undisturbed / "checkpoint.best.pt").exists()
    longer = trained(tmp_path / "longer", *noise, *SETTINGS, "train.patience=null", f"train.steps={record['steps']}")
    assert longer["best_step"] is None
    config = composed(*noise, *SETTINGS)
    data = with_validation(readers.load(config.dataset), config.train)
    images = data.test.batch(slice(None))
    model = vae.load_run(undisturbed).model
    mean = model.decode(model.encode(images).mu)
    assert float((mean - images).square().mean()) == pytest.approx(record["mse_mu"], rel=1e-4)
    assert record["verdict"] != "unfinished"


def test_what_is_shown_is_of_the_model_that_is_kept(undisturbed: Path, whole: dict[str, Any]) -> None:
    assert whole["best_step"] < whole["steps"]
    run = read(undisturbed)
    for tag in ("reconstructions", "prior_samples", "traversal"):
        assert run.images[tag] == (undisturbed / f"{tag}.png").read_bytes(), tag
    for name in ("mse", "mse_mu", "elbo", "swap_gap"):
        assert run.curves[CATALOGUE[name].tag].iloc[-1] == pytest.approx(whole[name], rel=1e-5), name


def test_a_run_that_nothing_stopped_may_be_unfinished(noise: list[str], tmp_path: Path) -> None:
    """It has made all its steps, with its best model the last one's, and was still learning."""
    brief = ["train.steps=120", "train.lr=0.0001", "train.log_every=4", "train.patience=50"]
    record = trained(tmp_path / "run", *noise, *SETTINGS, *brief)
    assert record["best_step"] == record["steps"] == 120
    assert record["verdict"] == "unfinished"


def test_a_training_that_has_come_to_its_own_end_is_finished() -> None:
    """Early, or by a learning rate of 0: that its loss was falling until then says nothing."""
    constant, cosine = (composed(f"train.lr_schedule={name}", "train.steps=500") for name in ("constant", "cosine"))
    assert not stopped(500, 500, constant.train)
    assert stopped(400, 300, constant.train)
    assert not stopped(400, None, cosine.train)  # interrupted
    assert stopped(500, None, cosine.train)
    falling = Trajectory(loss_fall=5.0, loss_fall_error=0.1, loss_fall_before=10.0)
    limits = constant.evaluation.thresholds
    assert "still falling" in str(falling.unfinished(500, limits))
    assert falling.unfinished(500, limits, stopped=True) is None
    assert "too few" in str(falling.unfinished(50, limits, stopped=True))


def assert_same_end(one: Path, other: Path) -> None:
    """One checkpoint, of the best step, and the same record."""
    records = [json.loads((place / "result.json").read_text()) for place in (one, other)]
    assert timeless(records[0]) == timeless(records[1])
    assert_same_model(one, other)
    assert checkpoint.read(other).step == records[0]["best_step"]


def assert_same_model(one: Path, other: Path) -> None:
    assert {path.name for path in other.glob("*.pt")} == {"checkpoint.pt"}
    a, b = (torch.load(place / "checkpoint.pt", weights_only=True)["model"] for place in (one, other))
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_resumed_to_the_same_bits(
    noise: list[str],
    undisturbed: Path,
    whole: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    observe = Stopping.observe

    def cut(self: Stopping, step: int, loss: float) -> bool:
        if step == whole["best_step"] + 20:
            raise PowerCut
        return observe(self, step, loss)

    with monkeypatch.context() as patch, pytest.raises(PowerCut):
        patch.setattr(Stopping, "observe", cut)
        train(composed(*noise, *SETTINGS), tmp_path)
    resumed(tmp_path, *noise, *SETTINGS)
    assert_same_end(undisturbed, tmp_path)


@pytest.mark.parametrize("place", ["vae.output.recorder.conclude", "vae.output.record.RunRecord.save"])
def test_cut_during_the_final_measures(
    place: str, noise: list[str], undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the best model is measured, and when its checkpoint is the run's already."""
    with monkeypatch.context() as patch, pytest.raises(PowerCut):
        patch.setattr(place, power_cut)
        train(composed(*noise, *SETTINGS), tmp_path)
    resumed(tmp_path, *noise, *SETTINGS)
    assert_same_end(undisturbed, tmp_path)


@pytest.mark.parametrize("more", [["train.steps=3000"], ["train.patience=2"]])
def test_more_steps_that_bring_nothing_keep_the_best(
    more: list[str], noise: list[str], undisturbed: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    again = Path(shutil.copytree(undisturbed, tmp_path / "again"))
    resumed(again, *noise, *SETTINGS, *more)
    record = json.loads((again / "result.json").read_text())
    assert record["best_step"] == whole["best_step"] < record["steps"]
    assert (record["kld"], record["mse"]) == (whole["kld"], whole["mse"])
    assert_same_model(undisturbed, again)


@pytest.mark.parametrize("learning", [[], ["train.steps=120", "train.lr=0.0001", "train.patience=50"]])
def test_whoever_is_asked_again_says_the_same(
    learning: list[str], noise: list[str], program: Callable[..., tuple[int, str, str]]
) -> None:
    """Of a run that was stopped early, and of one that made all its steps and was still learning."""
    assert program(*noise, *SETTINGS, "train.log_every=4", *learning, "hydra.run.dir=mine")[0] == 0
    assert program("evaluate=mine")[0] == 0
    record, again = (json.loads((Path("mine") / name).read_text()) for name in ("result.json", "evaluation.json"))
    assert (record["verdict"] == "unfinished") == bool(learning)
    assert again["verdict"] == record["verdict"] == vae.diagnose("mine").verdict
    assert again["steps"] == record["steps"]


def test_at_another_weight_the_best_is_looked_for_anew(
    noise: list[str], program: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No ELBO of a model that pays another price for its code is comparable."""
    with monkeypatch.context() as patch:
        patch.setattr("vae.training.setup.Setup.keep_best", power_cut)
        with pytest.raises(PowerCut):
            program(*noise, *SETTINGS, "train.steps=60", "hydra.run.dir=mine")
    assert program("resume=mine", "anneal.weight=0.01", "train.steps=120")[0] == 0
    record = json.loads(Path("mine/result.json").read_text())
    assert (record["kl_weight"], record["best_step"] > 60) == (0.01, True)


def test_a_run_that_kept_its_last_model_goes_on(noise: list[str], program: Callable[..., tuple[int, str, str]]) -> None:
    late = ["anneal=linear", "anneal.steps=60"]
    assert program(*noise, *SETTINGS, "train.steps=40", *late, "hydra.run.dir=mine")[0] == 0
    assert program("resume=mine", "train.steps=80")[0] == 0
    record = json.loads(Path("mine/result.json").read_text())
    assert record["steps"] == 80
    assert record["best_step"] in (60, 80)  # the evaluations at the weight of the end


def test_a_best_checkpoint_that_is_lost_is_not_claimed(
    noise: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_best = Setup.keep_best

    def lost(self: Setup, directory: Path, step: int) -> Checkpoint | None:
        (directory / "checkpoint.best.pt").unlink()
        return keep_best(self, directory, step)

    monkeypatch.setattr(Setup, "keep_best", lost)
    record = trained(tmp_path / "run", *noise, *SETTINGS, "train.steps=40")
    assert record["best_step"] is None
    assert checkpoint.read(tmp_path / "run").step == record["steps"]


def test_what_came_after_the_kept_model_is_not_said_of_it(
    noise: list[str], whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The highest KL weight is that up to the step whose model it is."""
    best = whole["best_step"]
    monkeypatch.setattr("vae.training.schedule.Constant.weight", lambda self, step: 1.0 if step <= best else 1.0005)
    record = trained(tmp_path / "run", *noise, *SETTINGS)
    assert record["best_step"] == best < record["steps"]
    assert (record["kl_weight"], record["max_kl_weight"]) == (1, 1)
    assert record["predicted_kld"] == whole["predicted_kld"]


def test_a_run_that_has_ended_with_its_best_model_keeps_it(
    noise: list[str], program: Callable[..., tuple[int, str, str]]
) -> None:
    assert program(*noise, *SETTINGS, "hydra.run.dir=mine")[0] == 0
    before = {path.name: path.read_bytes() for path in Path("mine").iterdir() if path.is_file()}
    for extra in ([], ["train.steps=5000"]):
        status, out, err = program("resume=mine", *extra)
        assert (status, out) == (1, "")
        assert "has ended with the best of its evaluations" in err
    assert {path.name: path.read_bytes() for path in Path("mine").iterdir() if path.is_file()} == before
