"""What a process takes of its machine: threads, and the precision that it computes in."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from conftest import ROOT
from joblib import cpu_count
from omegaconf import OmegaConf

from vae.cli.callbacks import SweepReport
from vae.runtime import machine
from vae.runtime.torchrun import World

CORES = cpu_count(only_physical_cores=True)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, CORES),
        ({"OMP_NUM_THREADS": "1"}, 1),
        ({"OMP_NUM_THREADS": "9999"}, CORES),
        ({"SLURM_CPUS_PER_TASK": "1"}, 1),
        ({"OMP_NUM_THREADS": "4,2"}, CORES),  # OpenMP's list, one number a nesting level
        ({"OMP_NUM_THREADS": "0"}, CORES),
    ],
)
def test_a_launcher_says_how_many(given: dict[str, str], expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert machine.own_threads() == expected


def test_processes_of_torchrun_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as torchrun sets it
    monkeypatch.setattr("joblib.cpu_count", lambda only_physical_cores: 8)
    monkeypatch.setattr(machine, "world", lambda: World(rank=0, size=2, local_rank=0, local_size=2))
    assert machine.own_threads() == 4


@pytest.mark.slow
def test_joblib_s_workers_have_their_share() -> None:
    """What they are told is what is taken: two workers share the cores."""
    code = (
        "import json, joblib; from vae.runtime.machine import own_threads;"
        "print(json.dumps(joblib.Parallel(2)(joblib.delayed(own_threads)() for _ in range(2))))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, check=True)
    assert json.loads(done.stdout) == [max(1, CORES // 2)] * 2


@pytest.mark.parametrize("there", [2, 8])
def test_what_is_asked_for_is_taken(
    there: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And said, where it is more than there is."""
    monkeypatch.setattr(os, "cpu_count", lambda: there)
    before = torch.get_num_threads()
    try:
        machine.configure_process(3)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    said = ["train.threads=3: more than the 2 cores of this machine, so each step takes longer"]
    assert caplog.messages == (said if there == 2 else [])


EMULATED = {"avx2": True, "avx512_f": True, "avx512_bf16": False, "amx_bf16": False, "architecture": "x86_64"}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (EMULATED, False),
        (EMULATED | {"avx512_bf16": True}, True),
        ({"neon": True, "bf16": True}, True),
        ({"neon": True, "bf16": False}, False),
    ],
)
def test_auto_is_the_precision_that_the_processor_computes_in(
    found: dict[str, Any], expected: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One that emulates bfloat16 says so, where that is asked for by name."""
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: found, raising=False)
    monkeypatch.setattr(machine, "computes_bfloat16", machine.computes_bfloat16.__wrapped__)
    device = torch.device("cpu")
    assert machine.choose_precision("auto", device) == ("bf16" if expected else "fp32")
    assert [machine.choose_precision(name, device) for name in ("fp32", "bf16")] == ["fp32", "bf16"]
    for name in ("fp32", "auto", "bf16"):
        machine.check_precision(name, device)
    assert len(caplog.messages) == (not expected)
    assert all("emulates bfloat16" in said for said in caplog.messages)


def test_a_torch_that_does_not_know_the_processor_leaves_the_precision_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr("torch.cpu.get_capabilities", raising=False)
    monkeypatch.setattr(machine, "computes_bfloat16", machine.computes_bfloat16.__wrapped__)
    assert machine.choose_precision("auto", torch.device("cpu")) == "fp32"
    machine.check_precision("bf16", torch.device("cpu"))
    assert not caplog.messages


@pytest.mark.parametrize(
    ("launcher", "expected"), [("LocalLauncher", str(max(1, CORES // 3))), ("SlurmLauncher", None)]
)
def test_submitit_s_local_jobs_share_the_cores(
    launcher: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It starts them all at once."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    target = f"hydra_plugins.hydra_submitit_launcher.submitit_launcher.{launcher}"
    report = SweepReport()
    report.total = 3
    try:
        report.on_job_start(OmegaConf.create({"hydra": {"launcher": {"_target_": target}}}))
        assert os.environ.get("OMP_NUM_THREADS") == expected
    finally:
        os.environ.pop("OMP_NUM_THREADS", None)


def test_a_run_on_the_cpu_has_the_host_s_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """An earlier run of the process may have been on a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device=None: 2**20)
    assert (machine.peak_memory_mib(torch.device("cpu")) or 0) > 10
    assert machine.peak_memory_mib(torch.device("cuda:1")) == 1
