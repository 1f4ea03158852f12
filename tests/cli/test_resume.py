"""A run that was interrupted is resumed as if nothing had happened, to the bit."""

import importlib.util
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import QUICK, ROOT, composed
from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.utils import JobReturn
from joblib import cpu_count
from omegaconf import OmegaConf
from twins import SETTINGS, PowerCut, assert_twins, interrupted, power_cut, resumed, timeless

from vae.cli import failures
from vae.cli.callbacks import SweepReport
from vae.cli.session import Job
from vae.cli.train import train_new
from vae.config.errors import InputError, RunFailed
from vae.output import record as records
from vae.runtime import children, files
from vae.runtime import directory as names
from vae.runtime.signals import Interrupted
from vae.training import checkpoint
from vae.training.loop import train

Program = Callable[..., tuple[int, str, str]]
Finished = Callable[..., Path]
BASIC = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
JOBLIB = "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher\n    n_jobs: 2"
CONV = ["model.channels=[4,8]", "model.hidden=16"]
MLP = ["model.encoder_widths=[16]", "model.decoder_widths=[16]"]
KINDS = {
    "conv, delayed": ["model=conv_vae", *CONV, "anneal=delayed", "anneal.threshold=10", "anneal.observe_every=3"],
    "mlp, spectral, cyclical": ["model=mlp_vae", *MLP, "model.start=spectral", "anneal=cyclical"],
    "linear, optimal sigma": ["model=linear_vae", "objective=optimal_gaussian", "anneal=sigmoid"],
    "autoencoder, cosine, bf16": ["model=ae", *CONV, "train.lr_schedule=cosine", "train.precision=bf16"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_wherever_it_was_cut(kind: str, digits: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first checkpoint, between two, and after the last step."""
    settings = [*SETTINGS, *KINDS[kind], *digits]
    train(composed(*settings), tmp_path / "whole")
    for at in (3, 9, 11):
        directory = tmp_path / f"cut at {at}"
        interrupted(directory, at, monkeypatch, *settings)
        assert names.has_checkpoint(directory) == (at > 4)
        resumed(directory, *settings)
        assert_twins(tmp_path / "whole", directory)


def test_cut_twice_and_with_checkpoints_of_its_own(
    digits: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [*SETTINGS, *digits, "model=mlp_vae", "train.checkpoint_every=3"]
    train(composed(*settings), tmp_path / "whole")
    interrupted(tmp_path / "cut", 7, monkeypatch, *settings)
    saved = checkpoint.read(tmp_path / "cut")
    assert saved.step == 6
    with monkeypatch.context() as patch, pytest.raises(PowerCut):
        patch.setattr("vae.output.recorder.Recorder.finish", power_cut)
        train(composed(*settings), tmp_path / "cut", saved)
    resumed(tmp_path / "cut", *settings)
    assert_twins(tmp_path / "whole", tmp_path / "cut")


def test_a_run_that_is_cut_at_its_record_is_whole_with_it(
    digits: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, save = [*SETTINGS, *digits, "model=mlp_vae"], records.RunRecord.save
    train(composed(*settings), tmp_path / "whole")

    def cut_after(record: records.RunRecord, directory: Path) -> None:
        save(record, directory)
        raise PowerCut

    for place, cut in (("before", power_cut), ("after", cut_after)):
        with monkeypatch.context() as patch, pytest.raises(PowerCut):
            patch.setattr(records.RunRecord, "save", cut)
            train(composed(*settings), tmp_path / place)
    resumed(tmp_path / "before", *settings)
    assert_twins(tmp_path / "whole", tmp_path / "before")
    assert_twins(tmp_path / "whole", tmp_path / "after")


def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    digits: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = [*SETTINGS, *digits, "model=mlp_vae"]
    train(composed(*settings), tmp_path / "whole")
    interrupted(tmp_path / "cut", 9, monkeypatch, *settings)
    newest = tmp_path / "cut" / names.CHECKPOINT
    newest.write_bytes(newest.read_bytes()[:-1000])
    resumed(tmp_path / "cut", *settings)
    assert "continuing from checkpoint.previous.pt, step 4" in caplog.text
    assert_twins(tmp_path / "whole", tmp_path / "cut")


def test_a_job_that_its_cluster_begins_again_goes_on(
    digits: list[str], program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was preempted, as Slurm and submitit requeue it: the same call, in the same directory."""
    settings = [*SETTINGS, *digits, "model=mlp_vae"]
    assert program("-m", *settings, "hydra.sweep.dir=sweep")[0] == 0
    (whole,) = (tmp_path / "sweep").glob("*/")
    interrupted(tmp_path / "cut", 9, monkeypatch, *settings)
    shutil.copytree(whole / ".hydra", tmp_path / "cut" / ".hydra", dirs_exist_ok=True)
    job = Job(tmp_path / "cut", [], is_single=False)
    train_new(job, composed(*settings))
    assert_twins(whole, tmp_path / "cut")
    assert train_new(job, composed(*settings)) == records.read(tmp_path / "cut")
    with pytest.raises(InputError, match="holds a run with other settings"):
        train_new(job, composed(*settings, "train.lr=0.5"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_behind_the_last_step_is_answered_at_once(
    number: int, digits: list[str], program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep begins no other run, and what is measured at the end is measured when it is resumed."""
    settings = [*SETTINGS, *digits, "model=mlp_vae"]
    assert program("-m", *settings, "seed=0", "hydra.sweep.dir=undisturbed")[0] == 0

    def stop(*arguments: Any, **named: Any) -> None:
        os.kill(os.getpid(), number)
        raise AssertionError("measured nevertheless")

    with monkeypatch.context() as patch:
        patch.setattr("vae.output.recorder.conclude", stop)
        status, _, err = program("-m", *settings, "seed=0,1", "hydra.sweep.dir=sweep")
    assert status == 128 + number, err
    assert err.splitlines()[-1] == "stopped after step 11 and saved; python run.py resume=sweep"
    (run,) = (tmp_path / "sweep").glob("*/")
    assert checkpoint.read(run).step == 11
    assert not (run / names.RESULT).exists()
    resumed(run, *settings)
    assert_twins(*(tmp_path / "undisturbed").glob("*/"), run)


def test_the_line_that_continues_a_sweep_names_the_modules_of_its_runs(
    digits: list[str], program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = ["model=custom", "model.encoder._target_=my_parts.Encoder", "model.decoder._target_=my_parts.Decoder"]
    monkeypatch.syspath_prepend(ROOT / "examples")
    with monkeypatch.context() as patch:
        patch.setattr("vae.output.recorder.Recorder.finish", interrupt)
        status, _, err = program("-m", *SETTINGS, *digits, *own, "seed=0,1", "hydra.sweep.dir=sweep")
    assert status == 130
    assert err.splitlines()[-1].endswith("; python run.py resume=sweep allow=my_parts")


def interrupt(*arguments: Any, **named: Any) -> None:
    raise KeyboardInterrupt


def started(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, str(ROOT / "run.py"), *arguments], stderr=subprocess.PIPE, text=True)


def wait_for_checkpoint(directory: Path, process: subprocess.Popen[str] | None = None) -> None:
    """Until the run in `directory`, of that process or of this one, has saved once more, which it does in its loop
    alone."""

    def newest() -> int:
        path = directory / names.CHECKPOINT
        return path.stat().st_mtime_ns if path.exists() else 0

    before, deadline = newest(), time.monotonic() + 120
    while newest() == before:
        assert process is None or process.poll() is None, process and process.communicate()[1]
        assert time.monotonic() < deadline, "no checkpoint"
        time.sleep(0.01)


def test_kill_and_sigterm(digits: list[str], program: Program, tmp_path: Path) -> None:
    """A run of more steps than anybody waits for is killed, in a process of its own, resumed and terminated, both in
    its loop, and then resumed to an end ten steps on."""
    settings = [*QUICK, *digits, "model=mlp_vae", "train.eval_every=50", "train.log_every=10", "pictures.gif_every=50"]
    cut = tmp_path / "cut"
    first = started(*settings, "train.steps=1000000", f"hydra.run.dir={cut}")
    wait_for_checkpoint(cut, first)
    first.kill()
    first.communicate(timeout=60)
    assert first.returncode == -signal.SIGKILL

    def terminate() -> None:
        wait_for_checkpoint(cut)
        os.kill(os.getpid(), signal.SIGTERM)

    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(terminate)
        status, _, err = program(f"resume={cut}")
        sent.result()
    step = checkpoint.read(cut).step
    assert status == 128 + signal.SIGTERM, err
    assert err.splitlines()[-1] == f"stopped after step {step} and saved; python run.py resume={os.path.relpath(cut)}"
    assert 50 < step < 1_000_000
    assert not (cut / names.RESULT).exists()
    status, _, err = program(f"resume={cut}", f"train.steps={step + 10}")
    assert status == 0, err
    assert program(*settings, f"train.steps={step + 10}", "hydra.run.dir=whole")[0] == 0
    assert_twins(tmp_path / "whole", cut)


def test_two_processes_do_not_train_in_one_directory(finished: Finished, program: Program, tmp_path: Path) -> None:
    finished("mine")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "mine").rglob("*")}
    with files.locked(tmp_path / "mine"):
        status, _, err = program("resume=mine", "train.steps=9")
    assert status == 1
    assert "another process" in err
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "mine").rglob("*")} == before
    with pytest.raises(files.DirectoryInUse), failures.noted(Job(tmp_path / "mine", [], is_single=False)):
        raise files.DirectoryInUse("of a sweep's job")
    assert not (tmp_path / "mine" / names.ERROR).exists()


def test_an_extended_run_is_the_longer_run(digits: list[str], program: Program, tmp_path: Path) -> None:
    settings = [*QUICK, *digits, "model=mlp_vae"]
    assert program(*settings, "train.steps=8", "hydra.run.dir=long")[0] == 0
    assert program(*settings, "train.steps=4", "hydra.run.dir=short")[0] == 0
    status, out, err = program("resume=short", "train.steps=8")
    assert status == 0, err
    assert "finished after 8 steps" in out
    a, b = (checkpoint.read(tmp_path / name).parts["model"] for name in ("long", "short"))
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert "steps: 8" in (tmp_path / "short" / ".hydra" / "config.yaml").read_text()


def test_resuming_refuses(digits: list[str], program: Program, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    settings = [*QUICK, *digits, "model=mlp_vae"]
    assert program(*settings, "hydra.run.dir=mine")[0] == 0
    assert program(*settings, "hydra.run.dir=cosine", "train.lr_schedule=cosine")[0] == 0
    for arguments, says in (
        (["resume=absent"], "no such directory"),
        (["resume=empty"], "no run's directory"),
        (["resume=mine"], "has finished its 4 steps"),
        (["resume=mine", "train.steps=2"], "has finished its 4 steps"),
        (["resume=mine", "model.latent_dim=3"], "model.latent_dim: cannot be changed"),
        (["resume=cosine", "train.steps=9"], "lr_schedule=cosine"),
        (["-m", "resume=mine,cosine"], "resume="),
    ):
        status, _, err = program(*arguments)
        assert status == 1, arguments
        assert says in err
        assert err.count("\n") == 1, err
        assert not list((tmp_path / "empty").iterdir())


def test_a_run_that_was_cut_before_its_report_gets_it(
    digits: list[str], program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(directory: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vae.cli.train.write_report", cut)
    status, _, err = program(*QUICK, *digits, "model=mlp_vae", "pictures.report=true", "hydra.run.dir=mine")
    assert (status, err.splitlines()[-1]) == (130, "interrupted; python run.py resume=mine")
    before = (tmp_path / "mine" / names.RESULT).read_bytes()
    monkeypatch.setattr("vae.cli.train.write_report", lambda directory: (directory / names.REPORT).touch())
    status, out, err = program("resume=mine")
    assert status == 0, err
    assert "finished after 4 steps" in out
    assert "mine/report.html" in out
    assert json.loads(before)["verdict"] in out
    assert (tmp_path / "mine" / names.RESULT).read_bytes() == before
    assert "has finished its 4 steps" in program("resume=mine")[2]


@pytest.mark.parametrize(
    ("stop", "says"),
    [(KeyboardInterrupt(), "interrupted"), (Interrupted("stopped after step 2 and saved", "resume=0", 2), "stopped")],
)
def test_a_sweep_that_is_stopped_is_continued_as_a_whole(
    stop: BaseException, says: str, digits: list[str], program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(*given: Any) -> None:
        raise stop

    monkeypatch.setattr("vae.cli.train.train", train)
    monkeypatch.setattr("vae.cli.callbacks.write_report", lambda directory: None)
    status, _, err = program("-m", *QUICK, *digits, "seed=0,1", "hydra.sweep.dir=sweep")
    assert status == 130
    assert err.splitlines()[-1].startswith(says)
    assert err.splitlines()[-1].endswith("; python run.py resume=sweep")


@pytest.mark.slow
def test_a_sweep_is_resumed_where_it_is_unfinished_or_never_began(
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


def test_a_sweep_is_resumed_as_parallel_as_it_was(
    digits: list[str], program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two at a time, each with its share of the cores, where joblib had two workers; one where nothing did."""
    settings = [*QUICK, *digits, "model=mlp_vae", *MLP, "seed=0,1,2", "hydra.sweep.dir=sweep"]
    monkeypatch.setattr("vae.cli.callbacks.write_report", lambda directory: None)
    assert program("-m", *settings)[0] == 0
    left = list((tmp_path / "sweep").glob(f"*/{names.RESULT}"))
    for result in left:
        result.unlink()
    asked: list[tuple[int, str | None]] = []  # runs at a time, threads of each

    def pretend(calls: list[list[str]], at_once: int, environment: dict[str, str], begins: Any) -> children.Ended:
        assert len(calls) == len(left)
        asked.append((at_once, environment.get("OMP_NUM_THREADS")))
        return children.Ended([0] * len(calls), 0)

    share = str(max(1, cpu_count(only_physical_cores=True) // 2))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("vae.runtime.children.run_all", pretend)
    monkeypatch.setattr("vae.cli.resume_sweep.write_report", lambda directory: None)
    assert program("resume=sweep")[0] == 0
    path = tmp_path / "sweep" / names.SWEEP
    path.write_text(path.read_text().replace(BASIC, JOBLIB))
    assert program("resume=sweep")[0] == 0
    assert program("resume=sweep", "hydra/launcher=basic")[0] == 0
    path.write_text(path.read_text().replace("n_jobs: 2", "n_jobs: 1000"))
    monkeypatch.setattr("vae.cli.resume_sweep.cpu_count", lambda: 2)
    assert program("resume=sweep")[0] == 0
    if all(map(importlib.util.find_spec, ("hydra_plugins", "hydra_plugins.hydra_joblib_launcher"))):
        assert program("resume=sweep", "hydra/launcher=joblib", "hydra.launcher.n_jobs=1000")[0] == 0
        assert asked.pop() == (1000, "1"), "this call asks for it"
    path.write_text(path.read_text().replace("n_jobs: 1000", "n_jobs: [many]"))
    assert program("resume=sweep")[0] == 0
    assert asked == [(1, None), (2, share), (1, None), (2, share), (1, None)]
    path.write_text(path.read_text().replace("n_jobs: [many]", "n_jobs: 2"))
    left.pop().write_text('{"verdict": "alive"}'), left.pop().write_text('{"verdict": "alive"}')
    assert program("resume=sweep")[0] == 0
    assert asked.pop() == (2, share), "the last one has the threads that it had"


@pytest.mark.parametrize(
    ("statuses", "says"),
    [
        ([143, 0, 130], "stopped, and its runs saved; python run.py resume=sweep"),
        ([1, 143, -9], "stopped; 2 of 3 runs did not save themselves; python run.py resume=sweep"),
    ],
)
def test_what_became_of_the_runs_of_a_sweep_that_is_stopped(
    statuses: list[int], says: str, program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sweep").mkdir()
    sweep = {"hydra": {"launcher": {"_target_": BASIC}, "sweeper": {"_target_": "Searcher"}}}
    (tmp_path / "sweep" / names.SWEEP).write_text(json.dumps(sweep))
    monkeypatch.setattr(children, "run_all", lambda *arguments: children.Ended(statuses, signal.SIGINT))
    status, _, err = program("resume=sweep", "train.steps=900")
    assert (status, err.count("\n")) == (1, 1)
    assert "train.steps: cannot be changed for a sweep that exists" in err
    assert "resume=sweep/RUN takes values" in err
    status, _, err = program("resume=sweep")
    assert (status, err.splitlines()[-1]) == (130, says)


def test_what_is_done_of_a_resumed_sweep(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of four runs one has ended before and two have failed: three are resumed, of which one ends, one fails again and
    one, that has left a result too, has begun."""
    runs = [tmp_path / f"{number}" for number in range(4)]
    for run, left in zip(
        runs, ([names.RESULT], [names.ERROR], [names.ERROR], [names.RESULT, names.ERROR]), strict=True
    ):
        run.mkdir()
        for name in left:
            (run / name).touch()
            os.utime(run / name, (1, 1))
    report = SweepReport()
    report.begin(tmp_path, 3)
    for run in runs[1:]:
        (run / names.ERROR).unlink()
    (runs[1] / names.RESULT).touch()
    (runs[2] / names.ERROR).touch()
    with caplog.at_level(logging.INFO):
        report.on_job_end(OmegaConf.create({"hydra": {"runtime": {"output_dir": str(runs[1])}}}), JobReturn())
    assert "sweep: 2 of 3 runs done" in caplog.text


@pytest.mark.parametrize("name", ["LocalLauncher", pytest.param("SlurmLauncher", marks=pytest.mark.slow)])
def test_a_sweep_is_resumed_by_the_launcher_that_it_had(
    name: str, digits: list[str], program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is given what is unfinished and what never began, with the numbers that it had; its jobs run here."""
    submitit = pytest.importorskip("hydra_plugins.hydra_submitit_launcher.submitit_launcher")
    launched: list[dict[str, Any]] = []

    def launch(self: Any, jobs: list[list[str]], first: int) -> Any:
        launched.append(self.params)
        return BasicLauncher.launch(self, jobs, first)

    monkeypatch.setattr(getattr(submitit, name), "launch", launch)
    settings = [*QUICK, *digits, "model=mlp_vae", *MLP, "seed=0,1,2", "hydra.sweep.dir=sweep"]
    assert program("-m", *settings)[0] == 0
    whole, unfinished, missing = sorted((tmp_path / "sweep").glob("*/result.json"))
    kept = {path: path.read_text() for path in (unfinished, missing)}
    finished = whole.stat().st_mtime_ns
    unfinished.unlink()
    shutil.rmtree(missing.parent)
    path = tmp_path / "sweep" / names.SWEEP
    given = "\n    timeout_min: 7" + ("\n    partition: gpu,long" if name == "SlurmLauncher" else "")
    path.write_text(path.read_text().replace(BASIC, f"{submitit.__name__}.{name}{given}"))
    status, _, err = program("resume=sweep")
    assert status == 0, err
    (params,) = launched
    assert (params["timeout_min"], params.get("partition")) == (7, "gpu,long" if name == "SlurmLauncher" else None)
    for path, content in kept.items():
        assert timeless(json.loads(path.read_text())) == timeless(json.loads(content))
    assert whole.stat().st_mtime_ns == finished
    assert not list((tmp_path / "sweep").glob(f"*/{names.REPORT}"))  # the sweep has one


def test_a_launcher_that_fails_is_not_there_or_may_run_something(
    finished: Finished, digits: list[str], program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitit = pytest.importorskip("hydra_plugins.hydra_submitit_launcher.submitit_launcher")
    monkeypatch.setattr(submitit.LocalLauncher, "launch", BasicLauncher.launch)
    assert program("-m", *QUICK, *digits, "model=mlp_vae", "train.batch_size=5000", "hydra.sweep.dir=sweep")[0] == 1
    path = tmp_path / "sweep" / names.SWEEP
    whole = path.read_text()
    ray = "hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher"
    slurm, local = f"{submitit.__name__}.SlurmLauncher", f"{submitit.__name__}.LocalLauncher"
    cases = {
        f"{slurm}\n    setup: [touch harmed]": "hydra.launcher.setup may run something",
        f'{slurm}\n    partition: "a\\ntouch harmed"': "hydra.launcher.partition may run something",
        f"{slurm}\n    submitit_folder: /elsewhere": "hydra.launcher.submitit_folder may run something",
        f"{slurm}\n    python: touch": "hydra.launcher.python may run something",
        f"{local}\n    tasks_per_node: 1000": "hydra.launcher.tasks_per_node may run something",
        local: "1 of its runs failed",
    }
    if importlib.util.find_spec("hydra_plugins.hydra_ray_launcher") is None:
        cases[ray] = "hydra/launcher=ray, which is not installed here; pip install '.[ray]' brings it"
    for launcher, says in cases.items():
        path.write_text(whole.replace(BASIC, launcher))
        status, _, err = program("resume=sweep")
        assert status == 1
        assert says in err.splitlines()[-1], err
        if launcher == local:
            assert "train.batch_size=5000: the training split has 72 images" in err
        else:
            assert err.count("\n") == 1, err


@pytest.mark.slow
def test_a_failed_run_of_a_sweep_is_tried_again_each_time(digits: list[str], program: Program, tmp_path: Path) -> None:
    settings = [*QUICK, *digits, "model=mlp_vae", *MLP, "train.optimizer=sgd", "pictures.report=false"]
    assert program("-m", *settings, "train.lr=1e-3,1e30", "hydra.sweep.dir=sweep")[0] == 1
    for _ in range(2):
        status, _, err = program("resume=sweep")
        assert status == 1
        assert "1 of its runs failed" in err.splitlines()[-1]


def test_an_extension_that_is_interrupted_is_not_taken_for_finished(
    digits: list[str], program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While its last measures are taken, result.json is that of the run before it was extended."""
    settings = [*QUICK, *digits, "model=mlp_vae", *MLP, "hydra.run.dir=mine"]
    assert program(*settings)[0] == 0
    steps = json.loads(Path("mine/result.json").read_text())["steps"]
    with monkeypatch.context() as patch, pytest.raises(PowerCut):
        patch.setattr("vae.output.recorder.conclude", power_cut)
        program("resume=mine", f"train.steps={2 * steps}")
    assert program("resume=mine")[0] == 0
    assert json.loads(Path("mine/result.json").read_text())["steps"] == 2 * steps
    assert "has finished" in program("resume=mine")[2]


def test_a_failed_run_of_a_sweep_that_ends_well_has_not_failed(
    digits: list[str], program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*args: Any) -> None:
        raise RunFailed("the end")

    with monkeypatch.context() as patch:
        patch.setattr("vae.data.binarize.training_batches", exhausted)
        assert program("-m", *QUICK, *digits, "model=mlp_vae", "hydra.sweep.dir=sweep")[0] == 1
    (noted,) = (tmp_path / "sweep").glob(f"*/{names.ERROR}")
    assert noted.read_text() == "the end\n"
    status, _, err = program(f"resume={noted.parent}")
    assert status == 0, err
    assert not noted.exists()


@pytest.mark.parametrize("wanted", [None, "1"])
def test_the_runs_of_a_sweep_are_told_the_users_own_wish_for_tracebacks(
    wanted: str | None, digits: list[str], program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hydra is told to raise (HYDRA_FULL_ERROR=1) in the process that resumes the sweep. That must not reach the
    processes that it starts; what one that is told 0 or 1 says: test_commands.py."""
    settings = [*QUICK, *digits, "model=mlp_vae", "train.batch_size=5000", "hydra.sweep.dir=sweep"]
    assert program("-m", *settings)[0] == 1
    told = []

    def pretend(calls: list[list[str]], workers: int, environment: dict[str, str], begins: object) -> children.Ended:
        told.append(environment["HYDRA_FULL_ERROR"])
        return children.Ended([1] * len(calls), 0)

    monkeypatch.setattr(children, "run_all", pretend)
    if wanted is not None:
        monkeypatch.setenv("HYDRA_FULL_ERROR", wanted)
    with pytest.raises(InputError, match="1 of its runs failed") if wanted == "1" else nullcontext():
        program("resume=sweep")
    assert told == [wanted or "0"]


@pytest.mark.slow
@pytest.mark.parametrize("wanted", [None, "1"])
def test_the_runs_of_a_sweep_have_the_users_own_wish_for_tracebacks(
    wanted: str | None, digits: list[str], program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hydra is told to raise (HYDRA_FULL_ERROR=1) in the process that resumes the sweep. That must not reach the
    processes that it starts: a run that fails ends in one line, unless its user asks for more."""
    settings = [*QUICK, *digits, "model=mlp_vae", "train.batch_size=5000", "hydra.sweep.dir=sweep"]
    assert program("-m", *settings)[0] == 1
    assert len(list((tmp_path / "sweep").glob(f"*/{names.CONFIG}"))) == 1
    start = subprocess.Popen

    def recorded(command: list[str], **kwargs: Any) -> subprocess.Popen[bytes]:
        with (tmp_path / "said").open("wb") as said:
            return start(command, stderr=said, **kwargs)

    monkeypatch.setattr("vae.runtime.children.subprocess.Popen", recorded)
    if wanted is not None:
        monkeypatch.setenv("HYDRA_FULL_ERROR", wanted)
    with pytest.raises(InputError, match="1 of its runs failed") if wanted == "1" else nullcontext():
        status, _, err = program("resume=sweep")
        assert (status, err.splitlines()[-1]) == (1, f"{tmp_path / 'sweep'}: 1 of its runs failed")
    assert os.environ.get("HYDRA_FULL_ERROR") == wanted
    last = (tmp_path / "said").read_text()
    assert "train.batch_size=5000: the training split has 72 images" in last.splitlines()[-1]
    assert ("Traceback" in last) == (wanted == "1")
    assert (last.count("\n") == 1) == (wanted != "1")


def test_writing_a_file_is_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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

    torch.save({"format": checkpoint.FORMAT, "model": Attack()}, tmp_path / names.CHECKPOINT)
    with pytest.raises(InputError, match="not a readable checkpoint"):
        checkpoint.read(tmp_path)
    assert not (tmp_path / "harmed").exists()


def test_what_lies_ahead_may_be_changed(finished: Finished, program: Program, tmp_path: Path) -> None:
    """Another learning rate and another schedule, from the next step on; noted, and kept at the next call."""
    run = tmp_path / "run"
    finished("run")
    assert records.read(run)["changes"] is None
    status, _, err = program("resume=run", "train.steps=8", "train.lr=0.5", "anneal=linear", "anneal.steps=16")
    assert status == 0, err
    assert "from step 4 on" in err
    record = records.read(run)
    (said,) = record["changes"]
    for part in ("train.lr 0.001 -> 0.5", "anneal.name constant -> linear", "anneal.steps unset -> 16"):
        assert part in said
    assert record["kl_weight"] == pytest.approx(8 / 16)
    assert program("resume=run", "train.steps=10")[0] == 0
    record = records.read(run)
    assert record["kl_weight"] == pytest.approx(10 / 16)
    assert record["changes"] == [said]
    assert checkpoint.read(run).config.train.lr == 0.5
    status, _, err = program("resume=run", "train.steps=12", "train.batch_size=4")
    assert status == 1
    assert "train.batch_size: cannot be changed for a run that exists" in err


def test_a_value_of_the_runs_own_schedule_may_be_changed(digits: list[str], program: Program, tmp_path: Path) -> None:
    """It keeps what its schedule has seen."""
    own = ["anneal=delayed", "anneal.threshold=100", "anneal.rate=0.01", "anneal.observe_every=1"]
    assert program(*QUICK, *digits, "model=mlp_vae", *own, "hydra.run.dir=run")[0] == 0
    before = records.read(tmp_path / "run")["kl_weight"]
    status, _, err = program("resume=run", "train.steps=6", "anneal.weight=0.02")
    assert status == 0, err
    assert before > 0.02
    assert records.read(tmp_path / "run")["kl_weight"] == 0.02


def test_rows_may_be_logged_at_another_pace(finished: Finished, program: Program, tmp_path: Path) -> None:
    finished("run")
    for pace, steps in ((4, 8), (1, 10)):
        status, _, err = program("resume=run", f"train.log_every={pace}", f"train.steps={steps}")
        assert status == 0, err
    with np.load(tmp_path / "run" / "history.npz") as history:
        assert history["step"].tolist() == [2, 4, 6, 8, 9, 10]  # evaluations log too


def test_a_schedule_is_changed_twice(finished: Finished, program: Program, tmp_path: Path) -> None:
    finished("run")
    assert program("resume=run", "train.steps=6", "anneal=linear", "anneal.steps=16")[0] == 0
    status, _, err = program("resume=run", "train.steps=8", "anneal.weight=0.5")
    assert status == 0, err
    assert records.read(tmp_path / "run")["kl_weight"] == pytest.approx(0.5 * 8 / 16)


def test_a_change_that_is_refused_leaves_the_run_as_it_was(
    finished: Finished, program: Program, tmp_path: Path
) -> None:
    finished("run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    for change in ("train.device=cuda:7", "dataset.train=nowhere.npz"):
        status, _, _ = program("resume=run", "train.steps=6", change)
        assert status == 1
        after = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
        assert {path for path in before if after[path] != before[path]} <= {tmp_path / "run" / names.LOG}
        assert not (tmp_path / "run" / names.CHANGES).exists()
    assert program("resume=run", "train.steps=6")[0] == 0


def test_what_a_saved_configuration_allows_does_not_count(finished: Finished, program: Program, tmp_path: Path) -> None:
    """A run that names other weights, and allows itself the module of their parts."""
    finished("run")
    saved = tmp_path / "run" / names.CONFIG
    saved.write_text(saved.read_text().replace("allow: null", "allow: [subprocess]"))
    for path in (tmp_path / "run").glob("checkpoint*"):
        path.unlink()
    (tmp_path / "run" / names.RESULT).unlink()
    assert program("resume=run")[0] == 0
    assert checkpoint.read(tmp_path / "run").config.allow is None
