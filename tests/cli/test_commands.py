"""The commands of the README, as a user types them."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import QUICK, ROOT

from vae.cli import callbacks
from vae.runtime import files

Program = Callable[..., tuple[int, str, str]]
Finished = Callable[..., Path]


def python(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_help_is_readable_and_complete(tmp_path: Path) -> None:
    done = python("-X", "importtime", str(ROOT / "run.py"), "--help", cwd=tmp_path)
    assert done.returncode == 0
    for group in (path for path in (ROOT / "conf").iterdir() if path.is_dir() and path.name != "hydra"):
        (entry,) = re.findall(rf"^  +{group.name} .*(?:\n {{14,}}.*)*", done.stdout, re.MULTILINE)
        named = {str(path.relative_to(group).with_suffix("")) for path in group.rglob("*.yaml")}
        assert named <= set(entry.replace(",", " ").split()), group.name
    examples = [line for line in done.stdout.splitlines() if line.strip().startswith("python run.py")]
    assert len(examples) >= 5
    assert " torch\n" not in done.stderr, "torch takes longer to import than help may take in all"


def test_the_config_is_shown_without_torch(tmp_path: Path) -> None:
    done = python("-X", "importtime", str(ROOT / "run.py"), "--cfg", "job", cwd=tmp_path)
    assert done.returncode == 0
    assert "latent_dim: 32" in done.stdout
    assert " torch\n" not in done.stderr


def test_one_run_in_its_own_process(digits: list[str], tmp_path: Path) -> None:
    program = ["-X", "importtime", str(ROOT / "run.py")]
    done = python(*program, *QUICK, *digits, "model=mlp_vae", "anneal=delayed", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (directory,) = (tmp_path / "outputs").glob("*/*")
    assert directory.name.endswith("_mlp_vae_delayed")
    assert "test MSE" in done.stdout
    assert f"tensorboard --logdir {directory.relative_to(tmp_path)}" in done.stdout
    assert (directory / ".hydra" / "config.yaml").exists()
    everything = done.stderr.splitlines()
    lines = [line for line in everything if not line.startswith("import time:")]
    # Plain ones: what is trained, the prediction, events, one an evaluation.
    assert lines[0].startswith("Training mlp_vae_delayed: ")
    assert f"into {directory.relative_to(tmp_path)}" in lines[0]
    assert lines[1].startswith("Prediction: a code pays")
    assert lines[0] in (directory / "run.log").read_text()
    assert sum("mlp_vae_delayed  step" in line and "mse" in line for line in lines) == 2
    names = [line.split("|")[-1].strip() for line in everything if line.startswith("import time:")]
    assert "torch" in names
    assert "torch._dynamo" not in names  # torch's compiler: as long as importing torch
    before = [line.split("|")[-1].strip() for line in everything[: everything.index(lines[0])]]
    assert not {"matplotlib", "sklearn", "torchvision"} & set(before)  # until the first step


def test_multirun(digits: list[str], program: Program, tmp_path: Path) -> None:
    status, _, err = program("-m", *QUICK, *digits, "model=ae,conv_vae,mlp_vae")
    assert status == 0, err
    (sweep,) = (tmp_path / "multirun_sweeps").iterdir()
    results = [json.loads(path.read_text()) for path in sorted(sweep.glob("*/result.json"))]
    assert [result["run_name"] for result in results] == ["ae_no_kl", "conv_vae_constant", "mlp_vae_constant"]


def test_a_job_that_breaks_leaves_its_traceback(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*anything: object) -> None:
        raise ZeroDivisionError("of all things")

    monkeypatch.setattr("vae.cli.train.train", broken)
    with pytest.raises(ZeroDivisionError):
        program("-m", "seed=0", "hydra.sweep.dir=sweep")
    said = next((tmp_path / "sweep").glob("0_*/error.txt")).read_text().splitlines()
    assert said[0] == "Traceback (most recent call last):"
    assert said[-1] == "ZeroDivisionError: of all things"
    assert "failed: ZeroDivisionError: of all things" in (tmp_path / "sweep" / "report.html").read_text()


def test_other_jobs_go_on_when_one_fails(digits: list[str], program: Program, tmp_path: Path) -> None:
    status, _, err = program("-m", *QUICK, *digits, "train.batch_size=9999,8")
    assert status == 1
    assert "9999" in err
    (result,) = (tmp_path / "multirun_sweeps").glob("*/*/result.json")
    assert result.parent.name == "1_batch_size=8"


def test_a_value_that_is_wrong_in_any_job_is_said_before_the_first(
    digits: list[str], program: Program, tmp_path: Path
) -> None:
    """One that does not fit some of the others is its jobs' own business."""
    status, _, err = program("-m", *QUICK, *digits, "model=mlp_vae,linear_vae", "model.latent_dim=2,4,0")
    assert status == 1
    assert err.splitlines()[-1].startswith("model.latent_dim=0: must be at least 1")
    assert not list(tmp_path.rglob("config.yaml"))
    status, _, err = program(
        "-m", *QUICK, *digits, "model=mlp_vae", "train.lr=0.1,fast", "hydra.sweep.subdir=n_${hydra:job.num}"
    )
    assert status == 1
    assert err.splitlines()[-1] == "train.lr=fast: must be a number, above 0"
    status, _, err = program("-m", *QUICK, *digits, "model=mlp_vae,nosuch", "hydra.sweep.dir=sweep")
    assert (status, "model=nosuch: no such option" in err.splitlines()[-1]) == (1, True)
    status, _, err = program("-m", *QUICK, *digits, "model=mlp_vae", "anneal=glob(cu*)", "hydra.sweep.dir=sweep")
    assert (status, err.strip()) == (1, "anneal.schedule._target_: needs a value, as in anneal.schedule._target_=...")
    assert not (tmp_path / "sweep").exists()


def test_values_of_one_option_that_fit_in_other_jobs(digits: list[str], program: Program, tmp_path: Path) -> None:
    grid = ["cure=mmd", "cure.alpha=0,0.9", "cure.lam=0.5"]
    status, _, err = program("-m", *QUICK, *digits, "model=mlp_vae", *grid, "seed=${hydra:job.num}")
    assert (status, "would have weight" in err.splitlines()[-1]) == (1, True)
    (result,) = (tmp_path / "multirun_sweeps").glob("*/*/result.json")
    assert "alpha=0.9" in result.parent.name
    assert json.loads(result.read_text())["seed"] == 1  # the job's own number


def test_tab_completion_is_offered(tmp_path: Path) -> None:
    done = python(str(ROOT / "run.py"), "-sc", "install=bash", cwd=tmp_path)
    assert done.returncode == 0
    assert "complete" in done.stdout
    query = python(
        str(ROOT / "run.py"), "-sc", "query=bash", cwd=tmp_path, COMP_LINE="python run.py anneal=", COMP_POINT="21"
    )
    assert "anneal=delayed" in query.stdout


@pytest.mark.parametrize("wanted", ["0", "1"])
def test_a_traceback_is_there_for_those_who_want_it(wanted: str, tmp_path: Path) -> None:
    done = python(str(ROOT / "run.py"), "train.lr=x", cwd=tmp_path, HYDRA_FULL_ERROR=wanted)
    assert done.returncode == 1
    assert ("Traceback" in done.stderr) is (wanted == "1")


def test_a_finished_run_is_measured_again(finished: Finished, program: Program, tmp_path: Path) -> None:
    finished("mine")
    before = {path: path.read_bytes() for path in (tmp_path / "mine").rglob("*") if path.is_file()}
    status, out, err = program("evaluate=mine", "evaluation.iw_samples=3", "evaluation.thresholds.unfinished_steps=9")
    assert status == 0, err
    assert "4 steps are too few to judge by (from 9 on)" in " ".join(out.split())
    assert re.search(r"^ELBO of a constant image, training images, nats  -?\d", out, re.MULTILINE)
    after = {path: path.read_bytes() for path in (tmp_path / "mine").rglob("*") if path.is_file()}
    new = tmp_path / "mine" / "evaluation.json"
    measured = json.loads(after.pop(new))
    assert after == before  # nothing else was touched, nothing else was made
    assert not (tmp_path / "outputs").exists()
    result = json.loads((tmp_path / "mine" / "result.json").read_text())
    assert measured["mse"] == pytest.approx(result["mse"], rel=1e-6)
    assert measured["run_name"] == result["run_name"] == "mlp_vae_constant"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["evaluate=absent"], "absent"),
        (["evaluate=empty"], "empty: is no run's directory"),
        (["evaluate=mine", "model.latent_dim=3"], "model.latent_dim: cannot be changed"),
        (["evaluate=mine", "dataset=mnist5k"], "trained on images of shape"),
    ],
)
def test_measuring_again_refuses(
    arguments: list[str], says: str, finished: Finished, program: Program, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    finished("mine")
    status, _, err = program(*arguments)
    assert status == 1
    assert says in err
    assert err.count("\n") == 1
    assert not list((tmp_path / "empty").iterdir())


def test_an_interrupted_run_is_measured_too(finished: Finished, program: Program, tmp_path: Path) -> None:
    finished("mine")
    (tmp_path / "mine" / "result.json").unlink()
    status, out, err = program("evaluate=mine")
    assert status == 0, err
    assert "images/s" not in out


def test_sweeps_that_begin_in_the_same_second_have_directories_of_their_own(
    digits: list[str], program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = callbacks.made
    monkeypatch.setattr(callbacks, "made", lambda path, *key: made(path.parent / "now", *key))
    monkeypatch.setattr("vae.cli.callbacks.write_report", lambda directory: None)
    for seed in (0, 1):
        assert program("-m", *QUICK, *digits, "model=mlp_vae", "train.lr=1e-3,2e-3", f"seed={seed}")[0] == 0
    found = {path.parent.parent.name: path for path in (tmp_path / "multirun_sweeps").glob("*/0_*/result.json")}
    assert {name: json.loads(path.read_text())["seed"] for name, path in found.items()} == {"now": 0, "now_2": 1}


def test_a_sweep_is_not_mixed_into_another(digits: list[str], program: Program, tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "report.html").write_text("mine")
    status, _, err = program("-m", *QUICK, *digits, "seed=0,1", "hydra.sweep.dir=sweep")
    assert status == 1
    assert "holds something already" in err
    assert [path.name for path in (tmp_path / "sweep").iterdir()] == ["report.html"]


def test_a_job_with_a_wrong_config_is_named(digits: list[str], program: Program, tmp_path: Path) -> None:
    status, _, _ = program("-m", *QUICK, *digits, "model=ae,mlp_vae", "anneal=delayed", "hydra.sweep.dir=sweep")
    assert status == 1
    assert "no KL term" in next((tmp_path / "sweep").glob("0_*/error.txt")).read_text()
    assert len(list((tmp_path / "sweep").glob("1_*/result.json"))) == 1
    assert "no KL term" in (tmp_path / "sweep" / "report.html").read_text()


@pytest.mark.parametrize(
    "name", ["compare", "anneal", "weight", "learning_rate", "cures", "phase", "phase_latent_dim", "phase_decoder"]
)
def test_sweeps_compose(name: str, program: Program) -> None:
    status, out, err = program(f"sweep={name}", "--cfg", "all")
    assert status == 0, err
    assert f"multirun_sweeps/{name}_" in out
    assert "mode: MULTIRUN" in out


@pytest.mark.slow
def test_the_comparison_runs_without_m_and_takes_overrides(digits: list[str], tmp_path: Path) -> None:
    command = [str(ROOT / "run.py"), "sweep=compare", *QUICK, *digits, "train.lr=1e-3", "seed=1,2"]
    done = python(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (sweep,) = (tmp_path / "multirun_sweeps").iterdir()
    assert sweep.name.startswith("compare_")
    assert len(list(sweep.glob("*/result.json"))) == 8
    assert "8 of 8 runs done" in done.stderr
    assert (sweep / "report.html").exists()


def test_a_directory_in_which_another_run_has_just_begun_is_left_alone(
    digits: list[str], program: Program, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    with files.locked(tmp_path / "mine"):
        status, _, err = program(*QUICK, *digits, "hydra.run.dir=mine")
    assert status == 1
    assert "another process is training" in err
    assert (tmp_path / "mine").is_dir()
