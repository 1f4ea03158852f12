"""Faults of the machine: each ends in one clear line, or the run continues; and what was reached is never lost."""

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import QUICK, ROOT, composed
from twins import assert_twins, scalars

import vae
from vae.config.errors import RunFailed
from vae.output.events import EventFile
from vae.runtime import directory as names
from vae.runtime import records, terminal
from vae.training import checkpoint
from vae.training.loop import train

Program = Callable[..., tuple[int, str, str]]
MLP = [
    "model=mlp_vae",
    "model.encoder_widths=[8]",
    "model.decoder_widths=[8]",
    "train.steps=8",
    "evaluation.iw_samples=2",
]


@pytest.mark.slow  # `make test-faults` has very many
def test_a_few_kills_and_a_full_disk() -> None:
    """What `make test-faults` does at length."""
    command = [sys.executable, str(ROOT / "tests" / "faults.py"), "--runs=1", "--ends=4", "--disks=1"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "all bit-identical" in done.stdout


@pytest.mark.parametrize("target", ["vae.measure.evaluation.evaluate", "vae.measure.evaluation.examine"])
def test_out_of_memory_while_measuring(
    target: str, digits: list[str], program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert program(*QUICK, *digits, *MLP, "hydra.run.dir=whole")[0] == 0
    for error in (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9"), MemoryError()):
        name = type(error).__name__

        def exhausted(*args: Any, error: Exception = error) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(target, exhausted)
            status, _, err = program(*QUICK, *digits, *MLP, f"hydra.run.dir={name}")
        assert status == 1
        assert "evaluation.batch_size (now 200)" in err.splitlines()[-1]
        assert "Traceback" not in err
        status, _, err = program(f"resume={name}")
        assert status == 0, err
        assert_twins(tmp_path / "whole", tmp_path / name)
    assert program("resume=whole", "evaluation.batch_size=7", "train.steps=9")[0] == 0


def test_out_of_memory_in_a_step(digits: list[str], program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*args: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("vae.models.vae.VAE.encode", exhausted)
    status, _, err = program(*QUICK, *digits, *MLP, "pictures.gif_every=0", "hydra.run.dir=mine")
    assert status == 1
    assert "lower train.batch_size" in err.splitlines()[-1]


def test_a_model_larger_than_memory(digits: list[str], program: Program, tmp_path: Path) -> None:
    status, _, err = program(*QUICK, *digits, *MLP, "model.encoder_widths=[100000000,100000000]")
    assert status == 1
    assert err.count("\n") == 1
    assert "out of memory" in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", ["/proc/mine", "/proc/self/mine"])
def test_a_directory_that_nobody_can_write_to(place: str, digits: list[str], program: Program) -> None:
    status, _, err = program(*QUICK, *digits, *MLP, f"hydra.run.dir={place}")
    assert status == 1
    assert err.count("\n") == 1
    assert place in err


def test_files_that_cannot_be_written(
    digits: list[str], program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the first thing that a run brings to the disk for good, wherever the system says it."""
    assert program(*QUICK, *digits, *MLP, "hydra.run.dir=whole")[0] == 0
    for code in (errno.ENOSPC, errno.EROFS, errno.EIO):
        directory, left = tmp_path / errno.errorcode[code], [1]

        def failing(number: int, code: int = code, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(code, os.strerror(code))

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", failing)
            status, _, err = program(*QUICK, *digits, *MLP, f"hydra.run.dir={directory}")
        assert status == 1
        assert err.splitlines()[-1].startswith(f"{directory}: {os.strerror(code)}")
        assert "Traceback" not in err
        assert program(f"resume={directory}")[0] == 0
        assert_twins(tmp_path / "whole", directory)


def changed(path: Path) -> None:
    with np.load(path) as arrays:
        images = arrays["images"].copy()
        images[3, 2, 1] ^= 1
        np.savez(path, images=images, labels=arrays["labels"])


def halved(path: Path) -> None:
    with np.load(path) as arrays:
        np.savez(path, images=arrays["images"][:48], labels=arrays["labels"][:48])


@pytest.mark.parametrize(
    ("change", "says"),
    [(changed, "other content"), (halved, "images was 72, is 36"), (Path.unlink, "not a readable file of arrays")],
)
def test_data_that_change_after_a_run_has_begun(
    change: Callable[[Path], None], says: str, digits: list[str], program: Program, tmp_path: Path
) -> None:
    path = tmp_path / "mine.npz"
    path.write_bytes(Path(digits[1].split("=")[1]).read_bytes())
    mine = ["dataset=arrays", f"dataset.train={path}", *digits[2:]]
    assert program(*QUICK, *mine, *MLP, "hydra.run.dir=run")[0] == 0
    before = {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()}
    change(path)
    status, _, err = program("resume=run", "train.steps=12")
    assert status == 1
    assert err.count("\n") == 1
    assert says in err
    for file in ("config.yaml", "overrides.yaml"):  # train.steps is noted there
        del before[tmp_path / "run" / ".hydra" / file]
    assert {file: file.read_bytes() for file in before} == before
    status, _, err = program("evaluate=run")  # of the images as they are, others would be its test images
    assert (status, err.count("\n")) == (1, 1)
    assert says in err
    run = vae.load_run("run")
    for use in (vae.diagnose, lambda run: run.sample(2, sampler="gaussian")):
        with pytest.raises(vae.InputError, match=says):
            use(run)
    if path.exists():
        assert program("evaluate=run", f"dataset.train={path}")[0] == 0, "others, on purpose"


def test_a_clock_that_goes_back(
    digits: list[str], program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert program(*QUICK, *digits, *MLP, "hydra.run.dir=mine")[0] == 0
    clock = time.time
    monkeypatch.setattr("time.time", lambda: clock() - 1e6)
    assert program("resume=mine", "train.steps=10")[0] == 0
    steps = [step for step, _ in scalars(tmp_path / "mine")["train/mse"]]
    assert steps == [2, 4, 6, 8, 10]
    assert json.loads((tmp_path / "mine" / "result.json").read_text())["seconds"] > 0


def ended(shell: str, digits: list[str], cwd: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = " ".join(f"'{word}'" for word in (sys.executable, str(ROOT / "run.py"), *QUICK, *digits, *MLP, *more))
    return subprocess.run(
        ["bash", "-c", "set -o pipefail; " + shell.format(command)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_messages_that_cannot_be_written_end_no_run(
    digits: list[str], program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stderr", full)
        status, out, _ = program(*QUICK, *digits, *MLP, "hydra.run.dir=mine")
    assert status == 0
    assert "test MSE" in out
    assert (tmp_path / "mine" / "result.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    "shell",
    [
        *("{} 2>/dev/full", "{} 2>&1 | head -1", "{} 2>&-", "{} >&- 2>&- <&-", "{} 2> >(exec true)", "{} | true"),
    ],
)
def test_nobody_listens(shell: str, digits: list[str], tmp_path: Path) -> None:
    """The run continues and ends well."""
    done = ended(shell, digits, tmp_path, "hydra.run.dir=mine")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "mine" / "result.json").is_file()
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


@pytest.mark.slow
def test_a_summary_that_cannot_be_written(digits: list[str], tmp_path: Path) -> None:
    done = ended("{} >/dev/full", digits, tmp_path, "hydra.run.dir=mine")
    assert done.returncode == 1
    assert "No space left on device" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert (tmp_path / "mine" / "result.json").is_file()


@pytest.mark.parametrize("lost", [1, 50, 5000])
def test_event_files_that_lost_their_end(
    lost: int, digits: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = composed(*QUICK, *digits, *MLP)
    train(config, tmp_path)
    (path,) = tmp_path.glob(names.EVENTS)
    path.write_bytes(path.read_bytes()[:-lost])
    written = checkpoint.read(tmp_path).recorder["written"]
    written[path.name] = path.stat().st_size + lost
    EventFile(tmp_path, written).close()
    assert f"{lost} bytes have been lost" in caplog.text
    with open(path, "rb") as file:
        assert records.whole(file) == path.stat().st_size > 0
    assert "train/mse" in scalars(tmp_path)


def test_what_is_left_of_a_kill_is_removed(digits: list[str], program: Program, tmp_path: Path) -> None:
    assert program(*QUICK, *digits, *MLP, "hydra.run.dir=mine")[0] == 0
    (tmp_path / "mine" / ".checkpoint.pt.1.tmp").write_bytes(b"half")
    (tmp_path / "mine" / ".hydra" / ".config.yaml.1.tmp").write_bytes(b"half")
    assert program("resume=mine", "train.steps=9")[0] == 0
    assert not list((tmp_path / "mine").rglob("*.tmp"))


def test_a_run_that_ended_before_it_had_its_configuration(program: Program, tmp_path: Path) -> None:
    (tmp_path / "mine" / ".hydra").mkdir(parents=True)
    (tmp_path / "mine" / ".hydra" / "config.yaml").write_text("")
    status, _, err = program("resume=mine")
    assert status == 1
    assert err.count("\n") == 1
    assert "start again" in err


def test_an_extension_is_not_forgotten(
    digits: list[str], program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """train.steps=12, ended before its first checkpoint: the next resume= knows of it."""
    assert program(*QUICK, *digits, *MLP, "hydra.run.dir=mine")[0] == 0

    def exhausted(*args: Any) -> None:
        raise RunFailed("the end")

    with monkeypatch.context() as patch:
        patch.setattr("vae.data.binarize.training_batches", exhausted)
        assert program("resume=mine", "train.steps=12")[0] == 1
    status, out, err = program("resume=mine")
    assert status == 0, err
    assert "finished after 12 steps" in out


def test_nothing_that_is_said_drives_the_terminal() -> None:
    assert terminal.printable("a\x1b[2J\r\n\u202eb\udc80é") == "a\\x1b[2J\\r\\n\\u202eb\\udc80é"
    assert len(terminal.printable("x" * 10**6)) < terminal.MAX_LINE
