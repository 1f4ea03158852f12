"""A run that was interrupted goes on as if nothing had happened, to the bit."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import QUICK, ROOT, composed
from twins import assert_twins, timeless

from vae import checkpoint, data, files
from vae.config import InputError
from vae.train import train

Program = Callable[..., tuple[int, str, str]]
SETTINGS = [*QUICK, "train.steps=11", "train.log_every=2", "train.eval_every=4", "pictures.gif_every=3"]


class PowerCut(BaseException):
    """Stands for the end of the process: nothing in the program catches it."""


def power_cut(*args: Any) -> None:
    raise PowerCut


def interrupted(directory: Path, at: int, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> None:
    """Train, and cut the power when batch number `at` is asked for (11: after the last one)."""
    whole = data.training_batches

    def cut(split: data.Split, batch_size: int, seed: int, start: int = 0) -> Any:
        for number, batch in enumerate(whole(split, batch_size, seed, start), start=start):
            if number == at:
                raise PowerCut
            yield batch

    directory.mkdir(parents=True)
    (directory / ".hydra").mkdir()
    config = composed(*overrides)
    with monkeypatch.context() as patch, pytest.raises(PowerCut):
        patch.setattr("vae.train.training_batches", cut)
        if at >= config.train.steps:
            patch.setattr("vae.recorder.Recorder.finish", power_cut)
        train(config, directory)


def resumed(directory: Path, *overrides: str) -> None:
    saved = checkpoint.read(directory) if (directory / checkpoint.FILE).exists() else None
    train(composed(*overrides), directory, saved)


KINDS = {
    "conv, delayed": ["model=conv_vae", "anneal=delayed", "anneal.threshold=10", "anneal.observe_every=3"],
    "mlp, cyclical": ["model=mlp_vae", "anneal=cyclical"],
    "linear, optimal sigma": ["model=linear_vae", "objective=optimal_gaussian", "anneal=sigmoid"],
    "autoencoder, cosine, bf16": ["model=ae", "train.lr_schedule=cosine", "train.precision=bf16"],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at", [3, 9, 11])
def test_wherever_it_was_cut(
    kind: str, at: int, digits: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [*SETTINGS, *KINDS[kind], *digits]
    train(composed(*settings), tmp_path / "whole")
    interrupted(tmp_path / "cut", at, monkeypatch, *settings)
    resumed(tmp_path / "cut", *settings)
    assert_twins(tmp_path / "whole", tmp_path / "cut")


def test_cut_twice_and_with_checkpoints_of_its_own(
    digits: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [*SETTINGS, *digits, "model=mlp_vae", "train.checkpoint_every=3"]
    train(composed(*settings), tmp_path / "whole")
    interrupted(tmp_path / "cut", 7, monkeypatch, *settings)
    assert checkpoint.read(tmp_path / "cut")["step"] == 6
    saved = checkpoint.read(tmp_path / "cut")
    with monkeypatch.context() as patch, pytest.raises(PowerCut):
        patch.setattr("vae.recorder.Recorder.finish", power_cut)
        train(composed(*settings), tmp_path / "cut", saved)
    resumed(tmp_path / "cut", *settings)
    assert_twins(tmp_path / "whole", tmp_path / "cut")


def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    digits: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [*SETTINGS, *digits, "model=mlp_vae"]
    train(composed(*settings), tmp_path / "whole")
    interrupted(tmp_path / "cut", 9, monkeypatch, *settings)
    newest = tmp_path / "cut" / checkpoint.FILE
    newest.write_bytes(newest.read_bytes()[:-1000])
    resumed(tmp_path / "cut", *settings)
    assert "going on from checkpoint.previous.pt, step 4" in capsys.readouterr().err
    assert_twins(tmp_path / "whole", tmp_path / "cut")


def started(directory: Path, *overrides: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(ROOT / "run.py"), *overrides, f"hydra.run.dir={directory}"]
    return subprocess.Popen(command, cwd=directory.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_for(path: Path) -> None:
    for _ in range(600):
        if path.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} never appeared")


LONG = ["model=mlp_vae", "train.steps=400", "train.eval_every=50", "train.log_every=10", "evaluation.iw_samples=2"]


def test_kill_and_sigterm_in_their_own_processes(digits: list[str], tmp_path: Path) -> None:
    settings = [*QUICK, *digits, *LONG]
    whole = started(tmp_path / "whole", *settings)
    assert whole.wait(120) == 0
    cut = started(tmp_path / "cut", *settings)
    wait_for(tmp_path / "cut" / checkpoint.FILE)
    time.sleep(random.uniform(0, 0.3))
    cut.kill()
    cut.wait(20)
    again = subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), f"resume={tmp_path / 'cut'}"], stderr=subprocess.PIPE, text=True
    )
    time.sleep(random.uniform(3, 4))
    if again.poll() is None:
        again.send_signal(signal.SIGTERM)
    _, err = again.communicate(timeout=60)
    assert again.returncode in (0, 128 + signal.SIGTERM, -signal.SIGTERM), err  # the last: before it trained
    if again.returncode:
        last = subprocess.run([sys.executable, str(ROOT / "run.py"), f"resume={tmp_path / 'cut'}"], check=False)
        assert last.returncode == 0
    assert_twins(tmp_path / "whole", tmp_path / "cut")


def test_two_processes_do_not_train_in_one_directory(digits: list[str], program: Program, tmp_path: Path) -> None:
    assert program(*QUICK, *digits, "model=mlp_vae", "hydra.run.dir=mine")[0] == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "mine").rglob("*")}
    with files.locked(tmp_path / "mine"):
        status, _, err = program("resume=mine", "train.steps=9")
    assert status == 1
    assert "another process" in err
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "mine").rglob("*")} == before


def test_an_extended_run_is_the_longer_run(digits: list[str], program: Program, tmp_path: Path) -> None:
    settings = [*QUICK, *digits, "model=mlp_vae"]
    assert program(*settings, "train.steps=8", "hydra.run.dir=long")[0] == 0
    assert program(*settings, "train.steps=4", "hydra.run.dir=short")[0] == 0
    status, out, err = program("resume=short", "train.steps=8")
    assert status == 0, err
    assert "finished after 8 steps" in out
    a, b = (checkpoint.read(tmp_path / name)["model"] for name in ("long", "short"))
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert "steps: 8" in (tmp_path / "short" / ".hydra" / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["resume=absent"], "no such directory"),
        (["resume=empty"], "no run's directory"),
        (["resume=mine"], "has finished its 4 steps"),
        (["resume=mine", "train.steps=2"], "has finished its 4 steps"),
        (["resume=mine", "model.latent_dim=3"], "model.latent_dim: cannot be changed"),
        (["resume=cosine", "train.steps=9"], "lr_schedule=cosine"),
        (["-m", "resume=mine,cosine"], "resume="),
    ],
)
def test_resuming_refuses(arguments: list[str], says: str, digits: list[str], program: Program, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    settings = [*QUICK, *digits, "model=mlp_vae"]
    assert program(*settings, "hydra.run.dir=mine")[0] == 0
    assert program(*settings, "hydra.run.dir=cosine", "train.lr_schedule=cosine")[0] == 0
    status, _, err = program(*arguments)
    assert status == 1
    assert says in err
    assert err.count("\n") == 1
    assert not list((tmp_path / "empty").iterdir())


def test_a_sweep_goes_on_with_what_is_unfinished_or_never_began(
    digits: list[str], program: Program, tmp_path: Path
) -> None:
    settings = [*QUICK, *digits, "model=mlp_vae", "hydra.sweep.dir=sweep", "run_name=${anneal.name}"]
    assert program("-m", *settings, "anneal=constant,delayed,linear")[0] == 0
    whole, unfinished, missing = sorted((tmp_path / "sweep").glob("*/result.json"))
    finished = whole.stat().st_mtime_ns
    kept = {path: path.read_text() for path in (unfinished, missing)}
    unfinished.unlink()
    shutil.rmtree(missing.parent)
    status, out, err = program("resume=sweep")
    assert status == 0, err
    assert "report:" in out
    for path, content in kept.items():
        assert timeless(json.loads(path.read_text())) == timeless(json.loads(content))
    assert whole.stat().st_mtime_ns == finished
    assert sorted((tmp_path / "sweep").glob("*/result.json")) == [whole, unfinished, missing]


def test_files_are_the_old_ones_or_the_new_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    files.replace(path, b"old")

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(os, "fsync", full)
        files.replace(path, b"new", keep=tmp_path / "before")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    files.replace(path, b"new", keep=tmp_path / "before")
    assert (path.read_bytes(), (tmp_path / "before").read_bytes()) == (b"new", b"old")


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {tmp_path}/harmed",)

    torch.save({"format": checkpoint.FORMAT, "model": Attack()}, tmp_path / checkpoint.FILE)
    with pytest.raises(InputError, match="not a readable checkpoint"):
        checkpoint.read(tmp_path)
    assert not (tmp_path / "harmed").exists()
