"""Sweeps on several workers give what they give one after the other."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from conftest import QUICK, ROOT, until

from vae.cli.failures import what_ended
from vae.runtime import directory as names
from vae.training import checkpoint

Weights = Callable[[Path], dict[str, torch.Tensor]]


def sweep(directory: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "run.py"), "-m", *overrides, f"hydra.sweep.dir={directory}"],
        cwd=directory.parent,
        capture_output=True,
        text=True,
        check=False,
    )


def launched(launcher: str, digits: list[str], tmp_path: Path, weights: Weights, *more: str) -> None:
    settings = [*QUICK, *digits, "train.threads=2", "model=mlp_vae,conv_vae"]
    basic = sweep(tmp_path / "basic", *settings)
    other = sweep(tmp_path / "other", *settings, f"hydra/launcher={launcher}", *more)
    assert basic.returncode == other.returncode == 0, other.stderr
    runs = sorted(path.name for path in (tmp_path / "basic").iterdir() if path.is_dir())
    assert len(runs) == 2
    for name in runs:
        first, second = weights(tmp_path / "basic" / name), weights(tmp_path / "other" / name)
        assert all(torch.equal(first[key], second[key]) for key in first), name
    assert (tmp_path / "other" / "report.html").exists()
    assert other.stdout.count("report:") == 1


@pytest.mark.slow
def test_joblib(digits: list[str], tmp_path: Path, weights: Weights) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs the extra joblib")
    launched("joblib", digits, tmp_path, weights)


@pytest.mark.slow
def test_submitit_on_this_machine(digits: list[str], tmp_path: Path, weights: Weights) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs the extra slurm")
    launched("submitit_local", digits, tmp_path, weights)


@pytest.mark.slow
def test_ray_on_this_machine(digits: list[str], tmp_path: Path, weights: Weights) -> None:
    pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="needs the extra ray")
    launched("ray", digits, tmp_path, weights, "+hydra.launcher.ray.init.num_cpus=2")


def holder(directory: Path) -> int:
    """The process that trains in `directory`, once there is one: it holds the lock on it."""
    for _ in range(1200):
        if directory.exists():
            for line in Path("/proc/locks").read_text().splitlines():
                pid, inode = line.split()[4:6]
                if inode.endswith(f":{directory.stat().st_ino}"):
                    return int(pid)
        time.sleep(0.05)
    raise AssertionError(f"nothing trains in {directory}")


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["submitit_local", "joblib"])
@pytest.mark.parametrize(
    ("number", "send"), [(signal.SIGTERM, os.kill), (signal.SIGTERM, os.killpg), (signal.SIGINT, os.killpg)]
)
def test_a_sweep_that_is_stopped_saves_its_runs_and_leaves_none(
    number: int, send: Callable[[int, int], None], launcher: str, digits: list[str], tmp_path: Path
) -> None:
    """By a SIGTERM to the call, or to all of its processes, as a cluster sends it, or by the terminal's Ctrl-C, which
    goes to all as well. And so does its resumption, which is as parallel."""
    package = launcher.partition("_")[0]
    pytest.importorskip(f"hydra_plugins.hydra_{package}_launcher", reason="needs its extra")
    grid = ["model=mlp_vae", "train.steps=1000000", "seed=0,1", "hydra.sweep.dir=sweep", f"hydra/launcher={launcher}"]
    runs = [tmp_path / "sweep" / f"{seed}_seed={seed}" for seed in (0, 1)]
    step, said = [0, 0], tmp_path / "said"
    for arguments in (["-m", *QUICK, *digits, *grid], ["resume=sweep"]):
        command = [sys.executable, str(ROOT / "run.py"), *arguments]
        with said.open("w") as stream:
            call = subprocess.Popen(command, cwd=tmp_path, stdout=stream, stderr=stream, process_group=0)
        workers = [holder(run) for run in runs]
        begun = time.time()
        until(lambda begun=begun: min(map(saved, runs)) > begun)
        send(call.pid, number)
        assert call.wait(timeout=60) == 128 + number, said.read_text()
        assert re.search(r"^stopped(, and its runs saved)?; python run.py resume=sweep$", said.read_text(), re.M)
        until(lambda workers=workers: not any(map(trains, workers)))
        before, step = step, [checkpoint.read(run).step for run in runs]
        assert all(now > then for then, now in zip(before, step, strict=True))
        assert not [run for run in runs if (run / names.RESULT).exists() or (run / names.ERROR).exists()]


def test_what_ended_a_worker_is_said() -> None:
    submitit = pytest.importorskip("submitit", reason="needs the extra slurm")
    rule = "-" * 22
    trace = 'Traceback (most recent call last):\n  File "a.py", line 1, in main\nImportError: no module named x\n'
    own = submitit.core.utils.FailedJobError(f"Job failed during processing with trace:\n{rule}\n{trace}\n{rule}\nSee")
    assert what_ended(own) == "a job failed (ImportError: no module named x)"
    assert what_ended(submitit.core.utils.UncompletedJobError("Job not requeued")).startswith("a job was killed")


def saved(run: Path) -> float:
    path = run / names.CHECKPOINT
    return path.stat().st_mtime if path.exists() else 0.0


def trains(pid: int) -> bool:
    """Whether it holds the lock on a run's directory."""
    return any(line.split()[4] == str(pid) for line in Path("/proc/locks").read_text().splitlines())


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="looks into Linux's list of locks")
def test_one_failed_one_killed_one_not_finite(digits: list[str], tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs the extra joblib")
    settings = [*QUICK, *digits, "model=mlp_vae", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    grid = ["train.batch_size=9999,8", "train.lr=1e30,1e-3", "train.steps=1000000", "hydra.sweep.dir=sweep"]
    command = [sys.executable, str(ROOT / "run.py"), "-m", *settings, *grid]
    sweep = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    jobs = [(9999, "1e+30"), (9999, "0.001"), (8, "1e+30"), (8, "0.001")]
    failed, _, not_finite, killed = (
        tmp_path / "sweep" / f"{number}_batch_size={size},lr={rate}" for number, (size, rate) in enumerate(jobs)
    )
    worker = holder(killed)
    while not (not_finite / "error.txt").exists():
        time.sleep(0.05)
    os.kill(worker, signal.SIGKILL)
    _, err = sweep.communicate(timeout=60)
    assert sweep.returncode == 1
    assert "a job was killed, or ran out of memory or time; resume=" in err
    assert "Traceback" not in err
    report = (tmp_path / "sweep" / "report.html").read_text()
    assert "train.batch_size=9999" in report
    assert "the reconstruction term is not finite" in report
    assert "still running, or interrupted" in report
    assert all(directory.name.partition("_")[2] in report for directory in (failed, not_finite, killed))


@pytest.mark.slow
def test_optuna_is_given_the_metric_that_it_asks_for(digits: list[str], tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="needs the extra optuna")
    search = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", "hydra.sweeper.direction=maximize", "metric=elbo"]
    done = sweep(tmp_path / "sweep", *QUICK, *digits, "model=mlp_vae", *search, "train.lr=interval(1e-4,1e-2)")
    assert done.returncode == 0, done.stderr
    assert "3 of 3 runs done" in done.stderr
    results = [json.loads(path.read_text()) for path in (tmp_path / "sweep").glob("*/result.json")]
    best = yaml.safe_load((tmp_path / "sweep" / "optimization_results.yaml").read_text())
    assert best["best_value"] == pytest.approx(max(result["elbo"] for result in results))
