"""Whole runs whose answer is known: what is said of them, and that following the advice helps. None is MNIST."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import trained
from sklearn.datasets import load_digits, load_sample_images

import vae
from vae.runtime import commands
from vae.runtime import directory as names

Program = Callable[..., tuple[int, str, str]]
Ask = Callable[..., dict[str, Any]]

FAST = [
    "train.threads=1",
    "train.device=cpu",
    "pictures.gif_every=0",
    "pictures.report=false",
    "evaluation.iw_samples=2",
    "evaluation.probe_images=64",
    "evaluation.quality_images=0",
]
LINEAR = ["dataset=gaussian", "model=linear_vae", "objective=gaussian", "train.lr=0.003", "train.lr_schedule=cosine"]
MLP = ["model=mlp_vae", "model.encoder_widths=[128]", "model.decoder_widths=[128]"]
SHORT = ["dataset.train_size=4000", "dataset.test_size=1000"]


@pytest.fixture
def ask(program: Program, tmp_path: Path) -> Ask:
    """Train in a directory of this name: the record, with what was said on the terminal under `out`."""

    def call(name: str, *overrides: str) -> dict[str, Any]:
        status, out, err = program(*FAST, *overrides, f"hydra.run.dir={name}")
        assert status == 0, err
        record: dict[str, Any] = json.loads((tmp_path / name / names.RESULT).read_text())
        return record | {"out": " ".join(out.split()), "err": err}

    return call


@pytest.fixture
def follow(program: Program, tmp_path: Path) -> Ask:
    """Run a command that a run was advised, word for word: the record of what it gave."""

    def call(name: str, which: int = 0) -> dict[str, Any]:
        directory = tmp_path / name
        _, command = commands.advised(json.loads((directory / names.RESULT).read_text()), directory)[which]
        python, script, *arguments = shlex.split(command)
        assert (python, script) == ("python", "run.py")
        resumes = any(argument.startswith("resume=") for argument in arguments)
        place = name if resumes else f"{name}_advised"
        status, _, err = program(*arguments, *([] if resumes else [f"hydra.run.dir={place}"]))
        assert status == 0, err
        record: dict[str, Any] = json.loads((tmp_path / place / names.RESULT).read_text())
        return record

    return call


def arrays(directory: Path, name: str, images: np.ndarray, test: np.ndarray | None = None) -> list[str]:
    """Overrides for images that are saved here."""
    np.savez(directory / f"{name}.npz", images=images)
    if test is None:
        return ["dataset=arrays", f"dataset.train={name}.npz"]
    np.savez(directory / f"{name}_test.npz", images=test)
    return ["dataset=arrays", f"dataset.train={name}.npz", f"dataset.test={name}_test.npz"]


def digits_8x8(directory: Path) -> list[str]:
    return arrays(directory, "digits", (load_digits().images / 16).astype(np.float32))


def bright_blobs(directory: Path, count: int = 1200) -> list[str]:
    """White images with a dark blob somewhere."""
    rng = np.random.default_rng(0)
    place = np.arange(16)
    x, y = rng.uniform(3, 13, (2, count, 1, 1))
    dark = np.exp(-((place - x) ** 2 + (place[:, None] - y) ** 2) / 8)
    return arrays(directory, "bright", (1 - dark).astype(np.float32))


def spectrum(*values: float) -> str:
    return f"dataset.spectrum=[{','.join(map(str, values))}]"


@pytest.mark.slow
def test_case_2_a_small_part_of_a_squared_error_is_a_live_code(ask: Ask) -> None:
    """KL 1.32 nats as predicted, and 3.8 nats lost with another's code, in a squared error of 1,000."""
    given = spectrum(2.5, 2.5, 2, *[1] * 1000)
    found = ask(
        "case",
        *LINEAR,
        given,
        "dataset.train_size=20000",
        "objective.sigma2=1",
        "model.latent_dim=3",
        "train.steps=2000",
    )
    assert found["verdict"] == "alive"
    assert found["kld"] == pytest.approx(1.32, abs=0.15)
    assert found["swap_gap"] == pytest.approx(3.8, abs=0.4)
    assert found["reconstruction_gap"] < 0.01 * found["sse"]


@pytest.mark.slow
def test_case_3_a_kl_that_is_as_predicted_is_not_stuck(ask: Ask) -> None:
    given = spectrum(1.15, *[0.9] * 40)
    found = ask("case", *LINEAR, given, "objective.sigma2=1", "model.latent_dim=2", "train.steps=2500")
    assert found["predicted_kld"] == pytest.approx(0.0705, abs=0.005)
    assert found["kld"] == pytest.approx(found["predicted_kld"], abs=0.015)
    assert found["cause"] != "optimiser"
    assert "stuck" not in found["explanation"]


@pytest.mark.parametrize(
    "overrides",
    [
        [*MLP, "model.posterior=dirac", "anneal=no_kl"],
        ["model=linear_vae", "anneal=no_kl"],
        pytest.param(
            ["model=mlp_vae", "anneal=delayed", "anneal.threshold=1e-6", "anneal.patience=null"], marks=pytest.mark.slow
        ),
    ],
)
def test_case_4_without_a_kl_term_it_is_an_autoencoder(
    overrides: list[str], ask: Ask, follow: Ask, tmp_path: Path
) -> None:
    found = ask("case", *digits_8x8(tmp_path), *overrides, "train.steps=300", "model.latent_dim=8")
    assert found["verdict"] == "deterministic"
    assert found["max_kl_weight"] == 0
    if "anneal=delayed" in overrides:
        assert found["explanation"].startswith("The KL term never began")
    assert follow("case")["max_kl_weight"] > 0


@pytest.mark.slow
def test_case_5_one_factor_and_a_small_variance(ask: Ask, tmp_path: Path) -> None:
    """A bar that moves: sigma is tiny beside mu, and q(z) is the prior all the same."""
    place = np.arange(16) + 0.5
    centre = np.random.default_rng(0).uniform(2, 14, (1500, 1))
    bars = np.repeat(np.clip(1.5 - np.abs(place - centre), 0, 1)[:, None], 16, 1).astype(np.float32)
    small = ["objective=gaussian", "objective.sigma2=0.001", "model=mlp_vae", "model.latent_dim=4"]
    found = ask("case", *arrays(tmp_path, "bars", bars), *small, "train.steps=800", "train.lr_schedule=cosine")
    assert found["verdict"] == "alive"


def test_case_6_the_weight_that_killed_it_is_named(ask: Ask, tmp_path: Path) -> None:
    """It stops at the start of a cycle, at KL weight 0."""
    cycles = ["anneal=cyclical", "anneal.weight=20", "anneal.cycles=4", "anneal.steps=800", "train.steps=601"]
    found = ask("case", *digits_8x8(tmp_path), *cycles, *MLP, "model.latent_dim=8")
    assert (found["verdict"], found["cause"], found["cause_rests_on"]) == ("collapsed", "objective", "predicted")
    assert found["kl_weight"] == 0
    assert "at KL weight 20, which the schedule reached before it went back to 0" in found["explanation"]
    assert found["collapsed_at_weight"] > 0
    digits = (load_digits().images[:500] / 16).astype(np.float32)
    for given in ([], [digits]):  # and of other images the same is said
        again = vae.diagnose(tmp_path / "case", *given)
        assert (again.verdict, again.cause) == ("collapsed", "objective")
        assert "at KL weight 20, which the schedule reached before it went back to 0" in again.explanation
    other = vae.diagnose(tmp_path / "case", digits, kl_weight=0.1)
    assert other.to_dict()["max_kl_weight"] == 0.1


def crops(directory: Path, count: int, side: int = 16) -> list[str]:
    rng, photos, found = np.random.default_rng(0), load_sample_images().images, []
    for _ in range(count):
        photo = photos[rng.integers(2)]
        y, x = (rng.integers(size - side) for size in photo.shape[:2])
        found.append(photo[y : y + side, x : x + side])
    return arrays(directory, "crops", np.stack(found))


@pytest.mark.parametrize(
    "kind",
    ["a weight that jumps", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("bright images", "photographs"))],
)
def test_case_7_a_live_code_is_never_said_to_be_out(kind: str, ask: Ask, tmp_path: Path) -> None:
    data = crops(tmp_path, 1500) if kind == "photographs" else bright_blobs(tmp_path)
    jump = ["anneal=delayed", "anneal.rate=1"] if kind == "a weight that jumps" else []
    found = ask("case", *data, *jump, *MLP, "model.latent_dim=8", "train.steps=900")
    assert found["verdict"] == "alive"
    assert found["collapsed_at_step"] is None or found["recovered_at_step"] is not None
    assert "not recovered" not in found["explanation"]


@pytest.mark.slow
def test_a_decoder_that_needs_no_code_is_told_from_the_other_causes(program: Program, tmp_path: Path) -> None:
    """Some 2 minutes: a dead code, alive where the decoder sees no pixels and, a little, as a map."""
    assert program("experiment=expressive", "pictures.gif_every=0", "hydra.run.dir=case")[0] == 0
    before = json.loads((tmp_path / "case" / names.RESULT).read_text())
    assert before["verdict"] == "collapsed"
    assert before["swap_gap"] < 1
    assert before["kld"] < 0.6
    assert program("explain=case")[0] == 0
    found = json.loads((tmp_path / "case" / names.EXPLANATION).read_text())
    assert found["cause"] == "decoder"
    assert found["factorised_kld"] > 15
    assert 1 < found["as_map_pays"] < 5
    assert 1.5 < found["residual_eigenvalue"] < 10
    assert found["residual_kld"] == pytest.approx(found["as_map_kld"], rel=1)  # to within a factor of two


@pytest.mark.slow
def test_case_8_a_run_that_has_not_learnt_is_unfinished(ask: Ask, follow: Ask, tmp_path: Path) -> None:
    data = [*digits_8x8(tmp_path), "model=mlp_vae", "objective=optimal_gaussian"]
    slow = ask("slow", *data, "train.lr=1e-6", "train.steps=300")
    assert (slow["verdict"], slow["cause"]) == ("unfinished", None)
    assert follow("slow")["mse"] < slow["mse"] / 2
    short = ask("short", *data, "train.steps=20")
    assert (short["verdict"], short["cause"]) == ("unfinished", None)
    assert follow("short")["verdict"] == "alive"  # resumed, and trained longer


def test_case_9_a_fitted_variance(ask: Ask, tmp_path: Path) -> None:
    """Three factors without noise have no interior optimum; [8, .2, .2, .2] and ten times .01 keep four dimensions."""
    rng = np.random.default_rng(0)
    factors = 0.5 + 0.1 * np.tanh(rng.normal(size=(800, 3))) @ rng.normal(size=(3, 64)) / 5
    fitted = ["model=linear_vae", "objective=optimal_gaussian", "model.latent_dim=6"]
    found = ask("factors", *arrays(tmp_path, "factors", factors.reshape(-1, 8, 8)), *fitted, "train.steps=150")
    assert "no interior optimum" in found["err"]
    noisy = spectrum(8, 0.2, 0.2, 0.2, *[0.01] * 10)
    found = ask("noisy", "dataset=gaussian", noisy, *SHORT, *fitted, "train.steps=300", "train.lr=0.01")
    assert found["effective_t"] == pytest.approx(0.01, rel=0.03)
    assert found["predicted_kld"] == pytest.approx(0.5 * np.log(800) + 1.5 * np.log(20), abs=0.15)
    assert f"t = KL weight * sigma^2 = {found['effective_t']:.4g}" in found["err"]


@pytest.mark.slow
def test_case_10_eight_by_eight_digits(ask: Ask, follow: Ask, tmp_path: Path) -> None:
    data = digits_8x8(tmp_path)
    plain = ask("plain", *data)
    assert plain["predicted_kld"] == pytest.approx(0.34, abs=0.02)
    assert plain["advice"][0]["command"].endswith("objective=optimal_gaussian")
    advised = follow("plain")
    assert advised["mse"] < 0.02
    assert advised["verdict"] == "alive"
    blank = ask("blank", *data, "anneal=delayed", "train.lr=0.1")  # so fast that every image is the same
    assert blank["explained_variance"] < 0.1
    assert blank["verdict"] in ("collapsed", "decoder_ignores_code")


def blocks(directory: Path) -> list[str]:
    """56 equiprobable images, each a block of 14 pixels of its own."""
    images = np.kron(np.eye(56), np.ones(14)).reshape(56, 28, 28).astype(np.float32)
    return arrays(directory, "blocks", np.tile(images, (40, 1, 1)), images)


@pytest.mark.slow
def test_case_1_a_better_state_far_from_the_collapsed_one(
    ask: Ask, follow: Ask, program: Program, tmp_path: Path
) -> None:
    """The collapsed state is stable, and yet not the optimum: only a test tells. What is advised then works."""
    found = ask("case", *blocks(tmp_path), "model=mlp_vae", "train.steps=1500")
    assert (found["verdict"], found["cause"], found["cause_rests_on"]) == ("collapsed", "objective", "predicted")
    assert "no schedule" not in found["explanation"].lower()
    assert "only a test can tell" in found["explanation"]
    status, out, err = program("explain=case")
    assert status == 0, err
    assert "Tested: the optimiser" in out
    explained = json.loads((tmp_path / "case" / names.EXPLANATION).read_text())
    assert explained["cause"] == "optimiser"
    assert explained["loss"] == pytest.approx(462.49, abs=0.05)
    assert explained["kind_start_loss"] < explained["loss"] - 2
    assert explained["code_saves"] > explained["code_costs"]
    record = json.loads((tmp_path / "case" / names.RESULT).read_text())
    assert (record["cause"], record["cause_rests_on"]) == ("optimiser", "tested")
    assert "462.49" in record["explanation"]
    assert "Predicted" not in record["explanation"]
    assert "anneal=sigmoid anneal.weight=1.0 " in record["advice"][0]["command"]
    assert follow("case")["verdict"] == "alive"


@pytest.mark.slow
def test_a_collapse_that_the_objective_asks_for_is_tested_as_well(ask: Ask, program: Program, tmp_path: Path) -> None:
    """The twin with the kind start is dead too; it is not trained again when asked again."""
    found = ask("case", *digits_8x8(tmp_path), "model=mlp_vae", "objective=pixel_mse", "train.steps=800")
    assert (found["verdict"], found["cause"]) == ("collapsed", "objective")
    assert program("explain=case", "explain.steps=400")[0] == 0
    twin = tmp_path / "case" / "explain" / "kind_start"
    before = (twin / names.RESULT).read_bytes()
    explained = json.loads((tmp_path / "case" / names.EXPLANATION).read_text())
    assert explained["cause"] == "objective"
    assert json.loads(before)["verdict"] == "collapsed"
    assert program("explain=case", "explain.steps=400")[0] == 0
    assert (twin / names.RESULT).read_bytes() == before
    assert program("explain=case", "explain.steps=300")[0] == 0  # twins of another length replace them
    assert json.loads((twin / names.RESULT).read_text())["steps"] == 300


@pytest.mark.slow
def test_the_runs_of_a_sweep_are_each_other_s_twins(program: Program, tmp_path: Path) -> None:
    data = blocks(tmp_path)
    settings = [*FAST, *data, "model=mlp_vae", "train.steps=1500"]
    status, _, err = program("-m", *settings, "anneal=constant,delayed", "hydra.sweep.dir=sweep")
    assert status == 0, err
    status, out, err = program("explain=sweep")
    assert status == 0, err
    (dead,) = (tmp_path / "sweep").glob("0_*")
    explained = json.loads((dead / names.EXPLANATION).read_text())
    assert explained["kind_start"].startswith("../1_")
    assert explained["cause"] == "optimiser"
    assert not (dead / "explain" / "kind_start").exists()
    assert "report" in out


@pytest.mark.parametrize("cure", ["delta", "batch_norm_mu"])
def test_a_kl_that_its_layer_forces_is_no_learning_left_undone(cure: str, tmp_path: Path) -> None:
    """Where no code pays the loss ends above that of a constant image, by the KL that is forced."""
    data = ["dataset=gaussian", "dataset.train_size=400", "dataset.test_size=100"]
    weak = ["model=linear_vae", "model.latent_dim=4", "objective=gaussian", "objective.sigma2=100"]
    quick = [
        "train.steps=300",
        "train.eval_every=300",
        "train.lr=0.003",
        "train.log_every=5",
        "train.device=cpu",
        "train.threads=1",
    ]
    found = trained(tmp_path, *data, *weak, *quick, "pictures.report=false", "pictures.gif_every=0", f"cure={cure}")
    assert found["verdict"] in ("decoder_ignores_code", "collapsed", "alive_on_paper")
    assert found["kld"] > 0.4
    assert abs(found["loss_excess"]) < 0.1
