"""The report: read from the disk, complete or not, one page that needs nothing beside it."""

import io
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pandas as pd
import pytest
from conftest import QUICK, ROOT
from filelock import FileLock
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from twins import scalars

import run
from vae.cli import launch
from vae.report import contents, drawing, groups, measures, over_time, page, points, runs, words
from vae.runtime.naming import split

Program = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def sweep(tmp_path_factory: pytest.TempPathFactory, digits: list[str]) -> Path:
    """Two models with two seeds each, trained for a few steps: once, whichever worker of the tests comes first."""
    place = tmp_path_factory.getbasetemp()
    place = place.parent if "PYTEST_XDIST_WORKER" in os.environ else place
    directory = place / "sweep"
    settings = [*QUICK, *digits, "model=mlp_vae,ae", "seed=0,1", f"hydra.sweep.dir={directory}"]
    out, err = io.StringIO(), io.StringIO()
    with FileLock(place / "sweep.lock"), pytest.MonkeyPatch.context() as patch:
        if directory.exists():
            return directory
        patch.chdir(place)
        patch.setattr(sys, "argv", [str(ROOT / "run.py"), "-m", *settings])
        with redirect_stdout(out), redirect_stderr(err):
            launch.run(run.main)
    assert "sweep: 4 of 4 runs done" in err.getvalue()
    assert "report:" in out.getvalue()
    return directory


def copied(sweep: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sweep, tmp_path / "copy"))


def written(directory: Path, *more: Path) -> str:
    found = runs.find([directory, *more])
    return page.write(found, directory / "report", page.heading(found)).read_text()


def test_a_sweep_ends_with_its_report(sweep: Path) -> None:
    names = {path.name for path in sweep.iterdir() if path.is_file()}
    assert {"report.html", "summary.csv", "curves.png", "curves.svg", "dimensions.png", "rate_distortion.svg"} <= names
    table = pd.read_csv(sweep / "summary.csv")
    assert len(table) == 4
    result = json.loads((sweep / "0_mlp_vae,seed=0" / "result.json").read_text())
    assert set(result) - {"null_reasons"} <= set(table.columns)
    assert table["mse"][0] == pytest.approx(result["mse"])


def test_the_page_needs_nothing_beside_it(sweep: Path) -> None:
    text = (sweep / "report.html").read_text()
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", text)
    assert not re.findall(r"""url\((?!data:|#)""", text)
    assert "http" not in re.sub(r"data:[^\"')]+", "", text)
    assert not re.findall(r"<script[^>]+src", text)
    assert len(text) < 3_000_000
    assert 'name="viewport"' in text
    assert "prefers-color-scheme: dark" in text


def test_sentences_of_the_page_are_apart(sweep: Path) -> None:
    text = re.sub(r"<(style|script|pre|code).*?</\1>|<[^>]+>", "", (sweep / "report.html").read_text(), flags=re.DOTALL)
    assert re.findall(r"\w+[.;:!?][A-Z]\w+ \w+", text) == []
    assert "one stands for them. Test images" in text


def test_what_the_page_says(sweep: Path) -> None:
    text = (sweep / "report.html").read_text()
    order = ["question", "pictures", "findings", "curves", "measures", "information", "latent", "codes", "dimensions"]
    places = [text.index(f'id="{section}"') for section in order]
    assert places == sorted(places)
    assert "mlp_vae,seed=1" in text
    assert text.count("image/webp") == 2, "a film a group"
    assert "The runs differ in:" in text
    for word in words.GLOSSARY:
        assert f"<dt>{word}</dt>" in text
    for word in ("code", "prior", "posterior", "KL", "nats", "active unit", "t"):
        assert f"<dfn>{word}</dfn>" in text
    assert "python run.py" in text
    assert "torch 2" in text
    assert 'id="problems"' not in text


def test_seeds_share_a_row_with_mean_and_deviation(sweep: Path) -> None:
    found = runs.find([sweep])
    together = groups.together(found)
    assert [(group.name, len(group.runs)) for group in together] == [("mlp_vae", 2), ("ae", 2)]
    table = measures.rows(together, measures.columns(together))
    mses = [run.number("mse") for run in found[:2]]
    assert table[0].cells[0] == f"{measures.digits(sum(mses) / 2)} ± {abs(mses[0] - mses[1]) / 2**0.5:.2g}"
    assert "2 of 2" in together[0].fate


def test_what_a_run_is_tracked_with_tells_no_groups_apart(sweep: Path, tmp_path: Path) -> None:
    """Runs of an earlier version say nothing of it."""
    directory = copied(sweep, tmp_path)
    path = directory / "0_mlp_vae,seed=0" / ".hydra" / "config.yaml"
    config = OmegaConf.load(path)
    del config["tracking"]
    OmegaConf.save(config, path)
    found = runs.find([directory])
    assert [(group.name, len(group.runs)) for group in groups.together(found)] == [("mlp_vae", 2), ("ae", 2)]
    assert not [key for key in groups.differences(found).index if "tracking" in key]


def test_a_run_that_was_changed_on_its_way_is_not_said_to_be_made_again(sweep: Path, tmp_path: Path) -> None:
    directory = copied(sweep, tmp_path)
    path = directory / "0_mlp_vae,seed=0" / "result.json"
    assert "was changed on its way" not in written(directory)
    changed = json.loads(path.read_text()) | {"changes": ["from step 2 on: train.lr 0.1 -> 0.2"]}
    path.write_text(json.dumps(changed))
    told = "mlp_vae,seed=0 was changed on its way (from step 2 on: train.lr 0.1 -&gt; 0.2)."
    assert told in written(directory)


def test_the_film_of_a_long_run_is_shown(sweep: Path, tmp_path: Path) -> None:
    """61 frames of noisy digits, what experiment=vae makes by default, take 7 million bytes."""
    directory = copied(sweep, tmp_path)
    film = next(directory.glob("0_*/training.gif"))
    with open(film, "ab") as file:
        file.write(bytes(7_000_000))
    assert written(directory).count("image/webp") == 2


def test_only_differences_are_listed(sweep: Path) -> None:
    keys = set(groups.differences(runs.find([sweep])).index)
    assert {"model.name", "anneal.name", "seed"} <= keys
    assert not {"train.lr", "run_name", "model.latent_dim"} & keys


@pytest.mark.slow
def test_the_same_files_give_the_same_plots(sweep: Path, tmp_path: Path) -> None:
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
    (killed / "history.npz").write_bytes(b"PK\x03\x04 nothing")  # of the run that its group shows
    (failed / "result.json").unlink()
    (failed / "error.txt").write_text("Traceback (most recent call last):\n  ...\nMemoryError: no memory left\n")
    events = next(killed.glob("events.out.tfevents*"))
    events.write_bytes(events.read_bytes()[:-100])  # cut off in the middle of a record
    text = written(directory)
    assert "no result.json: still running, or interrupted" in text
    assert "record unreadable" in text
    assert "history unreadable" in text
    assert "failed: MemoryError: no memory left" in text
    assert text.split('id="problems"')[1].split("</section>")[0].count("<li>") == 3
    assert "ae_no_kl" in text, "a run whose overrides are gone has its own name"


def test_curves_and_pictures_are_those_that_tensorboard_reads(sweep: Path) -> None:
    directory = sweep / "0_mlp_vae,seed=0"
    found, there = runs.read(directory), scalars(directory)
    assert found.curves.keys() >= {"train/mse", "latent/mu_mean", "collapse/active_units"}
    for tag, rows in there.items():
        assert isinstance(rows[0][1], bytes) or found.curves[tag].to_dict() == dict(rows)
    assert found.images == {tag: there[tag][-1][1] for tag in ("reconstructions", "prior_samples", "traversal")}


def test_curves_end_where_their_file_is_damaged(sweep: Path, tmp_path: Path) -> None:
    directory = copied(sweep, tmp_path) / "0_mlp_vae,seed=0"
    events = next(directory.glob("events.out.tfevents*"))
    content = bytearray(events.read_bytes())
    content[content.rindex(b"train/mse")] ^= 1
    events.write_bytes(content)
    whole, damaged = runs.read(sweep / directory.name), runs.read(directory)
    assert len(damaged.curves["train/mse"]) == len(whole.curves["train/mse"]) - 1
    assert damaged.problem is not None
    assert damaged.problem.startswith("events damaged, what follows in this file is missing: events.out.tfevents")
    assert "events damaged" in written(directory.parent)


def test_a_picture_that_was_changed_is_told(sweep: Path, tmp_path: Path) -> None:
    directory = copied(sweep, tmp_path) / "0_mlp_vae,seed=0"
    name, (start, length) = contents.events(directory).pictures["traversal"]
    events = directory / name
    content = bytearray(events.read_bytes())
    content[start + length // 2] ^= 1
    events.write_bytes(content)
    text = written(directory.parent)
    assert "traversal unreadable: Damaged" in text
    assert set(runs.read(directory).images) == {"reconstructions", "prior_samples"}, "the others are shown"


def test_a_name_that_is_no_text_and_labels_that_are_none(sweep: Path, tmp_path: Path) -> None:
    directory = copied(sweep, tmp_path) / "0_mlp_vae,seed=0"
    events = next(directory.glob("events.out.tfevents*"))
    os.rename(events, os.fsencode(events) + b"\xff")
    (moved,) = directory.glob("events.out.tfevents*")
    moved.write_bytes(moved.read_bytes()[:1000] + b"x" * 1000)
    next(directory.glob("*/latents/metadata.tsv")).write_bytes(b"\xff\xfe\n")
    text = written(directory.parent)
    assert "events damaged" in text
    assert "labels unreadable" in text
    assert "Where the codes lie" in text


def test_directories_of_any_name(sweep: Path, tmp_path: Path) -> None:
    """Digits that are no decimals, and bytes that are no text."""
    place = tmp_path / os.fsdecode(b"\xff")
    place.mkdir()
    shutil.copytree(sweep / "0_mlp_vae,seed=0", place / "\u2461_b")
    shutil.copytree(sweep / "1_mlp_vae,seed=1", place / "2_b")
    text = written(place)
    assert "2_b" in text
    assert "\u2461_b" in (place / "report" / "summary.csv").read_text()


def test_there_are_no_more_labels_than_codes(sweep: Path, tmp_path: Path) -> None:
    directory = copied(sweep, tmp_path) / "0_mlp_vae,seed=0"
    whole = runs.read(directory)
    with open(next(directory.glob("*/latents/metadata.tsv")), "a") as file:
        file.write("one more\n")
    longer = runs.read(directory)
    assert whole.codes is not None
    assert longer.labels == whole.labels
    assert len(whole.labels) == len(whole.codes)
    next(directory.glob("*/latents/tensors.tsv")).write_text("no number\n")
    assert runs.read(directory).labels == []


def test_runs_that_began_and_failed_leave_their_places_to_others(sweep: Path, tmp_path: Path) -> None:
    """Of 13 the first, the fifth, the ninth and the last are those that a page of four pictures would show."""
    directory = copied(sweep, tmp_path)
    whole = directory / "0_mlp_vae,seed=0"
    for path in [path for path in directory.iterdir() if path.is_dir() and path != whole]:
        shutil.rmtree(path)
    whole = whole.rename(tmp_path / "whole")
    for number in range(13):
        made = Path(shutil.copytree(whole, directory / f"{number}_lr={number}"))
        (made / ".hydra" / "overrides.yaml").write_text(f"- train.lr={number}\n")
        config = made / ".hydra" / "config.yaml"
        config.write_text(re.sub(r"^  lr: .*$", f"  lr: {number}", config.read_text(), flags=re.MULTILINE))
        if number % 4 == 0:
            (made / "result.json").unlink()
            (made / "error.txt").write_text("MemoryError: no memory left\n")
            next(made.glob("events.out.tfevents*")).write_bytes(b"")
            for path in ("training.gif", "history.npz"):
                (made / path).unlink()
            shutil.rmtree(next(made.glob("*/latents")))
    text = written(directory)
    assert text.count("image/webp") == 4
    for section in ("traversals", "latent", "codes", "dimensions", "curves"):
        assert f'id="{section}"' in text, section


def test_of_runs_that_are_not_shown_only_the_result_is_read(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in ("events", "history", "codes", "film"):
        monkeypatch.setattr(contents, part, lambda _: pytest.fail("read"))
    found = runs.find([sweep])
    assert all(run.record and run.config and run.problem is None for run in found)


def test_names_and_values_are_escaped(sweep: Path, tmp_path: Path) -> None:
    directory = copied(sweep, tmp_path)
    hostile = "<script>alert(1)</script>$x^{$日本"  # which the font of plots lacks
    (directory / "multirun.yaml").unlink()  # so that runs have their own names
    first = min(path for path in directory.iterdir() if path.is_dir())
    record = json.loads((first / "result.json").read_text())
    (first / "result.json").write_text(
        json.dumps(record | {"run_name": hostile, "reason": "<img src=x>", "versions": "<b>"})
    )
    config = first / ".hydra" / "config.yaml"
    config.write_text(config.read_text().replace("optimizer: adam", "optimizer: '<i>adam'"))
    text = written(directory)
    assert "<script>alert" not in text
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
    assert len(groups.differences(found).columns) == 8


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
    done = command(str(sweep / "0_mlp_vae,seed=0"), "--output", "out", cwd=tmp_path)
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


def test_failing_jobs_are_reported_and_the_others_go_on(digits: list[str], program: Program, tmp_path: Path) -> None:
    """Two that cannot begin, one whose loss stops being a number, one that is fine."""
    settings = [*QUICK, *digits, "model=mlp_vae", "train.optimizer=sgd", "train.steps=20", "hydra.sweep.dir=sweep"]
    status, _, err = program("-m", *settings, "train.batch_size=9999,8", "train.lr=1e7,1e-5")
    assert status == 1
    assert "sweep: 4 of 4 runs done" in err
    failed = sorted((tmp_path / "sweep").glob("*/error.txt"))
    assert len(failed) == 3
    assert "the training split has" in failed[0].read_text()
    assert "not finite" in failed[-1].read_text()
    text = (tmp_path / "sweep" / "report.html").read_text()
    assert text.split('id="problems"')[1].split("</section>")[0].count("<li>") == 3
    assert "failed: step" in text


def invented(directory: Path, jobs: dict[str, tuple[list[str], dict[str, object]]]) -> list[runs.Run]:
    """Runs of a sweep as they might lie on the disk: for each directory its overrides, and what its record holds."""
    (directory / "multirun.yaml").parent.mkdir(parents=True, exist_ok=True)
    (directory / "multirun.yaml").write_text("")
    for name, (overrides, record) in jobs.items():
        (directory / name / ".hydra").mkdir(parents=True)
        (directory / name / ".hydra" / "overrides.yaml").write_text(json.dumps(overrides))
        config = {key if "." in key or key == "seed" else f"{key}.name": value for key, value in map(split, overrides)}
        nested = OmegaConf.to_container(OmegaConf.from_dotlist([f"{key}={value}" for key, value in config.items()]))
        (directory / name / ".hydra" / "config.yaml").write_text(json.dumps(nested))
        if record:
            (directory / name / "result.json").write_text(json.dumps(record))
    return runs.find([directory])


def test_a_fraction_is_of_runs_that_differ_in_their_seed_alone(tmp_path: Path) -> None:
    """Of two experiments with a seed each nothing is a fraction; latent sizes are no seeds; a failure is counted."""
    jobs = {
        f"{i}": ([f"train.lr={lr}", f"model.latent_dim={d}", f"seed={seed}"], {"verdict": verdict, "seed": seed})
        for i, (lr, d, seed, verdict) in enumerate(
            [(0.1, 8, 0, "alive"), (0.1, 8, 1, "collapsed"), (0.1, 16, 0, "collapsed"), (0.2, 8, 0, "collapsed")]
        )
    }
    found = invented(tmp_path, jobs | {"9": (["train.lr=0.1", "model.latent_dim=8", "seed=2"], {})})
    (tmp_path / "9" / "error.txt").write_text("MemoryError: no memory left\n")
    found = runs.find([tmp_path])
    assert [run.name for run in found][:2] == ["lr=0.1,latent_dim=8,seed=0", "lr=0.1,latent_dim=8,seed=1"]
    fates = {group.name: group.fate for group in groups.together(found)}
    assert fates == {
        "lr=0.1,latent_dim=8": "1 of 3 alive, 1 of 3 collapsed, 1 failed",
        "lr=0.1,latent_dim=16,seed=0": "collapsed",
        "lr=0.2,latent_dim=8,seed=0": "collapsed",
    }


def test_elbos_of_different_likelihoods_have_a_column_each(tmp_path: Path) -> None:
    jobs = {
        name: ([f"objective={name}"], {"verdict": "alive", "elbo": elbo, "mse": 0.02})
        for name, elbo in (("sse", -300.0), ("bernoulli", -90.0))
    }
    together = groups.together(invented(tmp_path, jobs))
    shown = measures.columns(together)
    elbos = [i for i, column in enumerate(shown) if column.key == "elbo"]
    assert [shown[i].title for i in elbos] == ["ELBO, nats, of bernoulli", "ELBO, nats, of sse"]
    cells = [[row.cells[i] for i in elbos] for row in measures.rows(together, shown)]
    assert cells == [["-90", ""], ["", "-300"]]


def test_elbos_of_different_images_have_a_column_each(tmp_path: Path) -> None:
    """Of other pixels an ELBO is another number."""
    jobs = {
        str(i): ([f"dataset.binarize={binarize}", *more], {"verdict": "alive", "elbo": elbo})
        for i, (binarize, more, elbo) in enumerate(
            [("none", [], -90.0), ("static", [], -100.0), ("static", ["model.latent_dim=3"], -110.0)]
        )
    }
    together = groups.together(invented(tmp_path, jobs))
    shown = measures.columns(together)
    elbos = [i for i, column in enumerate(shown) if column.key == "elbo"]
    assert [shown[i].title.partition(", of ")[2] for i in elbos] == [
        "binarize none",
        "binarize static",
    ]
    cells = [[row.cells[i] for i in elbos] for row in measures.rows(together, shown)]
    assert cells == [["-90", ""], ["", "-100"], ["", "-110"]]


def test_elbos_after_fewer_training_images_compare(tmp_path: Path) -> None:
    jobs = {
        str(size): (["dataset=mnist", f"dataset.train_size={size}"], {"verdict": "alive", "elbo": -float(size)})
        for size in (100, 200)
    }
    shown = measures.columns(groups.together(invented(tmp_path, jobs)))
    assert [column.title for column in shown if column.key == "elbo"] == ["ELBO, nats"]


def test_what_is_left_of_a_comparison_that_is_none(tmp_path: Path) -> None:
    """Runs that differ in two things are not said to differ in one."""
    two = invented(tmp_path / "a", {"0": (["model=ae", "train.lr=1"], {}), "1": (["model=mlp_vae", "train.lr=2"], {})})
    assert page.comparison(groups.together(two))[0] == "The runs differ in:"
    one = invented(tmp_path / "b", {"0": (["model=ae", "train.lr=1"], {}), "1": (["model=mlp_vae", "train.lr=1"], {})})
    assert "in one thing" in page.comparison(groups.together(one))[0]


@pytest.mark.parametrize(
    ("value", "text"),
    [(-1e-12, "-1e-12"), (-0.0, "0"), (2.26e-5, "< 0.0001"), (12345678.0, "1.235e+07"), (250, "250")],
)
def test_numbers_are_readable(value: float, text: str) -> None:
    assert measures.digits(value) == text


def test_one_closed_form_is_not_drawn_for_several(tmp_path: Path) -> None:
    """Beside another pixel variance the same weight keeps another number of dimensions, and collapses elsewhere."""
    jobs = {
        f"{i}_": (
            [f"anneal.weight={weight}", f"objective.sigma2={sigma2}"],
            {"verdict": "alive", "kl_weight": weight, "predicted_collapse_weight": 5 / sigma2}
            | {"active_units": 1, "predicted_active_units": 2, "mse": 0.1, "predicted_mse": 0.1, "predicted_kld": 1},
        )
        for i, (weight, sigma2) in enumerate((weight, sigma2) for weight in (1, 2, 4) for sigma2 in (0.5, 5))
    }
    invented(tmp_path, jobs)
    assert 'id="boundary"' not in written(tmp_path)
    (tmp_path / "one").mkdir()
    invented(tmp_path / "one", {name: job for name, job in jobs.items() if "0.5" in job[0][1]})
    assert 'id="boundary"' in written(tmp_path / "one")


def test_plots_of_the_boundary_have_a_line_for_each_setting(tmp_path: Path) -> None:
    jobs = {
        f"{i}_": (
            [f"anneal.weight={weight}", f"train.lr={lr}", f"seed={seed}"],
            {"kl_weight": weight, "predicted_collapse_weight": 5, "predicted_active_units": 2, "active_units": 10 * lr},
        )
        for i, (weight, lr, seed) in enumerate(itertools.product((1, 2, 4), (0.1, 0.3), (0, 1)))
    }
    axes = Figure().subplots()
    points.boundary(groups.together(invented(tmp_path, jobs))).panels[0].draw(axes)
    drawn = {line.get_label(): list(line.get_ydata()) for line in axes.lines if len(line.get_xdata()) == 3}  # type: ignore[arg-type]
    assert drawn == {"0.1": [1, 1, 1], "0.3": [3, 3, 3], "linear VAE, closed form": [2, 2, 2]}


def test_many_runs_answer_what_the_sweep_asks_first(tmp_path: Path) -> None:
    jobs = {
        f"{i}_": (
            [f"anneal.weight={weight}", f"seed={seed}"],
            {"verdict": "collapsed" if weight > 6 else "alive", "kl_weight": weight, "seed": seed, "kld": 1 / weight}
            | {"active_units": 1, "predicted_active_units": 2, "mse": 0.1, "predicted_mse": 0.1, "predicted_kld": 1},
        )
        for i, (weight, seed) in enumerate((weight, seed) for weight in range(1, 13) for seed in range(2))
    }
    invented(tmp_path, jobs)
    text = written(tmp_path)
    places = [text.index(f'id="{key}"') for key in ("boundary", "collapse_fraction", "measures", "findings")]
    assert places == sorted(places)
    assert "12 are alive, 12 collapsed" in text


def test_plots_of_a_page_stay_in_their_boxes_and_take_its_colours(sweep: Path) -> None:
    """A panel by itself: no ink outside, no colour that would vanish in the dark, marks that can be lit up."""
    together = groups.together(runs.find([sweep]))
    with drawing.style():
        svg = drawing.on_page(drawing.drawn(over_time.curves(together).panels[0]))
    assert svg.startswith("<svg viewBox")
    assert "currentColor" in svg
    assert "#000000" not in svg
    assert {f'data-mark="mark-{group.index}"' for group in together} <= set(re.findall(r'data-mark="[^"]+"', svg))
    width, height = map(float, re.findall(r'viewBox="0 0 (\d+) (\d+)"', svg)[0])
    places = re.findall(r'<text[^>]*?x="([\d.-]+)" y="([\d.-]+)"', svg)
    assert places
    assert all(0 <= float(x) <= width and 0 <= float(y) <= height for x, y in places)
