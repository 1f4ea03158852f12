"""Several processes train the run that one would."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import QUICK, ROOT
from twins import left_behind

from vae.runtime import parallel
from vae.runtime.torchrun import World, world

Program = Callable[..., tuple[int, str, str]]
Weights = Callable[[Path], dict[str, torch.Tensor]]
LINE = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]

# Adam makes whole steps of gradients that are rounding alone: where some are 0, as that of a bias before batch
# normalisation.
PLAIN = ["train.optimizer=sgd", "train.lr=1e-4"]
# A batch's own variance, a mean MSE that decides, a gradient's norm, what a cure says of a batch: each must be of the
# whole batch.
KINDS = {
    "fitted variance": ["model=mlp_vae", "objective=optimal_gaussian", "train.max_grad_norm=1"],
    "delayed": ["model=conv_vae", "anneal=delayed", "anneal.threshold=0.14", "anneal.observe_every=2"],
    "a point for a posterior": ["model=mlp_vae", "model.posterior=dirac", "anneal=no_kl"],
    "free bits": ["model=mlp_vae", "cure=free_bits"],
    "capacity": ["model=mlp_vae", "cure=capacity", "cure.gamma=3"],
    "mu-forcing": ["model=mlp_vae", "cure=mu_forcing", "cure.floor=100"],
    "MMD": ["model=mlp_vae", "cure=mmd"],
    "ControlVAE": ["model=mlp_vae", "cure=controlvae", "cure.integral=0.05", "cure.target=1"],
    "GECO": ["model=mlp_vae", "cure=geco", "cure.rate=1"],
    "batch norm": ["model=mlp_vae", "cure=batch_norm_mu", *PLAIN],
    "scale": ["model=mlp_vae", "cure=scale"],
    "aggressive": ["model=mlp_vae", "cure=aggressive", "cure.max_inner=2", *PLAIN],
    "pretrain": ["model=mlp_vae", "cure=pretrain", "cure.autoencoder=0.5", *PLAIN],
    "IWAE": ["model=mlp_vae", "cure=iwae", "cure.samples=3"],
}
NORMED = """
from math import prod

from torch import nn


class encoder(nn.Module):
    def __init__(self, shape, latent_dim):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(prod(shape), 2 * latent_dim), nn.BatchNorm1d(2 * latent_dim))

    def forward(self, images):
        return self.body(images).chunk(2, 1)


def decoder(shape, latent_dim):
    return nn.Sequential(nn.Linear(latent_dim, prod(shape)), nn.BatchNorm1d(prod(shape)), nn.Unflatten(1, shape))
"""


def run(processes: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = LINE if processes > 1 else []
    command = [sys.executable, *line, str(ROOT / "run.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_agree_with_one(kind: str, digits: list[str], tmp_path: Path, weights: Weights) -> None:
    settings = [*QUICK, *digits, *KINDS[kind], "train.log_every=1", "evaluation.batch_size=7"]
    two = run(2, *settings, f"hydra.run.dir={tmp_path}/several")
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("finished after 4 steps") == 1
    assert run(1, *settings, f"hydra.run.dir={tmp_path}/one").returncode == 0
    compare(tmp_path / "several", tmp_path / "one", weights)
    assert left_behind(tmp_path / "several") == left_behind(tmp_path / "one")


@pytest.mark.slow
def test_a_run_is_resumed_with_another_number_of_processes(
    digits: list[str], program: Program, tmp_path: Path, weights: Weights
) -> None:
    settings = [*QUICK, *digits, *KINDS["fitted variance"]]
    assert run(2, *settings, f"hydra.run.dir={tmp_path}/changing").returncode == 0
    assert program("resume=changing", "train.steps=8")[0] == 0
    assert program(*settings, "train.steps=8", "hydra.run.dir=one")[0] == 0
    compare(tmp_path / "changing", tmp_path / "one", weights)


def compare(first: Path, second: Path, weights: Weights) -> None:
    one, other = weights(first), weights(second)
    assert all(torch.allclose(one[key], other[key], rtol=1e-3, atol=1e-5) for key in one)
    records = [json.loads((directory / "result.json").read_text()) for directory in (first, second)]
    for key in ("mse", "kld", "elbo", "kl_weight", "mutual_information", "reconstruction_gap", "sigma_mean"):
        a, b = (record[key] for record in records)
        assert a == b or a == pytest.approx(b, rel=1e-4, abs=1e-5), key  # the KL of a point is null


@pytest.mark.slow
def test_running_statistics_are_the_saved_ones_in_all_processes(
    digits: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each process gathers its own, of its rows; what measures a half of the test images is what the checkpoint has."""
    (tmp_path / "normed.py").write_text(NORMED)
    monkeypatch.chdir(tmp_path)
    own = ["model=custom", "model.latent_dim=3", "model.encoder._target_=normed.encoder"]
    own += ["model.decoder._target_=normed.decoder", "evaluation.batch_size=7"]
    assert (done := run(2, *QUICK, *digits, *own, "hydra.run.dir=several")).returncode == 0, done.stderr
    before = json.loads(Path("several/result.json").read_text())
    assert (done := run(1, "evaluate=several", "allow=normed")).returncode == 0, done.stderr
    after = json.loads(Path("several/evaluation.json").read_text())
    for key in ("mse", "mse_mu", "kld", "elbo"):
        assert before[key] == pytest.approx(after[key], rel=1e-5), key


@pytest.mark.slow
def test_a_mistake_ends_all_processes(digits: list[str], tmp_path: Path) -> None:
    done = run(2, *QUICK, *digits, "model=mlp_vae", "train.batch_size=9", f"hydra.run.dir={tmp_path}/run")
    assert done.returncode != 0
    assert "must be divisible by 2" in done.stderr
    assert not (tmp_path / "run").exists()


def test_sweeps_are_refused(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "29500")
    status, _, err = program("-m", "seed=0,1")
    assert (status, err.count("\n")) == (1, 1)
    assert "torchrun is for one run" in err


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"WORLD_SIZE": "2", "RANK": "0"}, "WORLD_SIZE=2 without MASTER_ADDR, MASTER_PORT"),
        ({"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}, "without RANK"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE=two: must be a whole number"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE=0"),
        (
            {"WORLD_SIZE": "2", "RANK": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"},
            "RANK=2: must be from 0 to 1",
        ),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "x"}, "MASTER_PORT=x"),
    ],
)
def test_an_environment_that_is_none_of_torchrun(
    environment: dict[str, str], says: str, program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    status, out, err = program()
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert says in err
    assert not list(tmp_path.iterdir())


def test_a_lone_process_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    for size in ("", "1"):
        monkeypatch.setenv("WORLD_SIZE", size)
        assert world() == World(size=1, rank=0)
        assert world().is_leader
        assert parallel.is_leader()
