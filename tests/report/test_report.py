"""The report: read from the disk, complete or not, one page that needs nothing beside it."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from conftest import QUICK, ROOT

from vae.report import page, runs


@pytest.fixture(scope="session")
def sweep(tmp_path_factory: pytest.TempPathFactory, digits: list[str]) -> Path:
    """Two models with two seeds each, trained for a few steps."""
    directory = tmp_path_factory.mktemp("sweep")
    command = [sys.executable, str(ROOT / "run.py"), "-m", *QUICK, *digits, "model=mlp_vae,ae", "seed=0,1"]
    done = subprocess.run(
        [*command, f"hydra.sweep.dir={directory}"], cwd=directory, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "sweep: 4 of 4 runs done" in done.stderr
    assert "report:" in done.stdout
    return directory


def copied(sweep: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sweep, tmp_path / "copy"))


def written(directory: Path, *more: Path) -> str:
    found = runs.find([directory, *more])
    return page.write(found, directory / "report", page.heading(found)).read_text()


def test_a_sweep_ends_with_its_report(sweep: Path) -> None:
    names = {path.name for path in sweep.iterdir() if path.is_file()}
    assert {"report.html", "summary.csv", "curves.png", "curves.svg", "heatmaps.png", "rate_distortion.svg"} <= names
    table = pd.read_csv(sweep / "summary.csv")
    assert len(table) == 4
    result = json.loads((sweep / "0_mlp_vae_constant_seed0" / "result.json").read_text())
    assert set(result) - {"null_reasons"} <= set(table.columns)
    assert table["mse"][0] == pytest.approx(result["mse"])


def test_the_page_needs_nothing_beside_it(sweep: Path) -> None:
    text = (sweep / "report.html").read_text()
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", text)
    assert "http" not in re.sub(r"data:[^\"']+", "", text)
    assert "<script" not in text
    assert 'name="viewport"' in text
    assert "prefers-color-scheme: dark" in text


def test_what_the_page_says(sweep: Path) -> None:
    text = (sweep / "report.html").read_text()
    for section in (
        "verdicts",
        "summary",
        "curves",
        "bands",
        "information",
        "heatmaps",
        "images",
        "films",
        "differences",
    ):
        assert f'id="{section}"' in text, section
    assert "mlp_vae_constant, seed 1" in text
    assert text.count("image/gif") == 4
    assert "python run.py" in text
    assert "torch 2" in text
    assert 'id="problems"' not in text


def test_seeds_share_a_row_with_mean_and_deviation(sweep: Path) -> None:
    found = runs.find([sweep])
    table = page.rows(found)
    assert [(row.name, len(row.runs)) for row in table] == [("mlp_vae_constant", 2), ("ae_no_kl", 2)]
    mses = [run.number("mse") for run in found[:2]]
    assert table[0].cells[0] == f"{sum(mses) / 2:.4g} ± {abs(mses[0] - mses[1]) / 2**0.5:.2g}"
    assert table[0].collapsed.endswith("of 2")


def test_only_differences_are_listed(sweep: Path) -> None:
    keys = set(page.differences(runs.find([sweep])).index)
    assert {"model.name", "anneal.name", "seed"} <= keys
    assert not {"train.lr", "run_name", "model.latent_dim"} & keys


@pytest.mark.slow
def test_the_same_files_give_the_same_figures(sweep: Path, tmp_path: Path) -> None:
    found = runs.find([sweep])
    for name in ("a", "b"):
        page.write(found, tmp_path / name, "title")
    for file in ("curves.svg", "curves.png", "summary.csv"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_incomplete_and_damaged_runs_are_named(sweep: Path, tmp_path: Path) -> None:
    directory = copied(sweep, tmp_path)
    killed, damaged, failed, whole = sorted(path for path in directory.iterdir() if path.is_dir())
    (whole / ".hydra" / "overrides.yaml").write_text("")
    (killed / "result.json").unlink()
    (damaged / "result.json").write_text('{"mse": 0.1')
    (damaged / "history.npz").write_bytes(b"PK\x03\x04 nothing")
    (failed / "result.json").unlink()
    (failed / "error.txt").write_text("Traceback (most recent call last):\n  ...\nMemoryError: no memory left\n")
    events = next(killed.glob("events.out.tfevents*"))
    events.write_bytes(events.read_bytes()[:-100])  # cut off in the middle of a record
    text = written(directory)
    assert "no result.json: still running, or interrupted" in text
    assert "record unreadable" in text
    assert "history unreadable" in text
    assert "failed: MemoryError: no memory left" in text
    assert text.count("<li>") == 3
    assert whole.name.split("_seed")[0].split("_", 1)[1] in text


def test_names_and_values_are_escaped(sweep: Path, tmp_path: Path) -> None:
    directory = copied(sweep, tmp_path)
    hostile = "<script>alert(1)</script>$x^{$"
    first = min(path for path in directory.iterdir() if path.is_dir())
    record = json.loads((first / "result.json").read_text())
    (first / "result.json").write_text(
        json.dumps(record | {"run_name": hostile, "reason": "<img src=x>", "versions": "<b>"})
    )
    config = first / ".hydra" / "config.yaml"
    config.write_text(config.read_text().replace("optimizer: adam", "optimizer: '<i>adam'"))
    text = written(directory)
    assert "<script" not in text
    assert "<img src=x" not in text
    assert "<i>adam" not in text
    assert "&lt;script&gt;" in text


def test_files_that_are_empty_or_something_else(sweep: Path, tmp_path: Path) -> None:
    directory = copied(sweep, tmp_path)
    first, second, third, fourth = sorted(path for path in directory.iterdir() if path.is_dir())
    (first / "history.npz").write_bytes(b"")
    (second / ".hydra" / "config.yaml").write_text("[1, 2]")
    record = json.loads((third / "result.json").read_text())
    (third / "result.json").write_text(json.dumps(record | {"reason": "", "kl_weight": 0, "cause": "objective"}))
    (fourth / "result.json").write_text("[]")
    text = written(directory)
    assert "history unreadable" in text
    assert "config unreadable" in text
    assert "record unreadable" in text


def test_runs_of_two_sweeps_are_not_mixed_up(sweep: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(sweep, tmp_path / "other"))
    found = runs.find([sweep, other])
    assert len({run.name for run in found}) == len(found) == 8
    assert len(page.differences(found).columns) == 8


def test_runs_of_different_datasets_and_a_single_one(sweep: Path, tmp_path: Path) -> None:
    directory = copied(sweep, tmp_path)
    first, *_ = sorted(path for path in directory.iterdir() if path.is_dir())
    record = json.loads((first / "result.json").read_text())
    (first / "result.json").write_text(json.dumps(record | {"dataset": "elsewhere"}))
    assert "on arrays, elsewhere" in written(directory)
    assert "1 run on elsewhere" in written(first)


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "vae.report", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_needs_no_torch(sweep: Path, tmp_path: Path) -> None:
    done = command(str(sweep), "--output", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "report.html").exists()
    assert not re.search(r"\| +torch$", done.stderr, re.MULTILINE)


@pytest.mark.parametrize(("argument", "says"), [("absent", "no such directory"), (".", "no run in it")])
def test_the_command_refuses_in_one_line(argument: str, says: str, tmp_path: Path) -> None:
    done = command(argument, cwd=tmp_path)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert done.returncode == 1
    assert len(lines) == 1
    assert says in lines[0]


def test_failing_jobs_are_reported_and_the_others_go_on(digits: list[str], tmp_path: Path) -> None:
    """Two that cannot begin, one whose loss stops being a number, one that is fine."""
    settings = [*QUICK, *digits, "model=mlp_vae", "train.optimizer=sgd", "train.steps=20", "hydra.sweep.dir=sweep"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), "-m", *settings, "train.batch_size=9999,8", "train.lr=1e7,1e-5"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "sweep: 4 of 4 runs done" in done.stderr
    failed = sorted((tmp_path / "sweep").glob("*/error.txt"))
    assert len(failed) == 3
    assert "the training split has" in failed[0].read_text()
    assert "not finite" in failed[-1].read_text()
    text = (tmp_path / "sweep" / "report.html").read_text()
    assert text.count("<li>") == 3
    assert "failed: step" in text
