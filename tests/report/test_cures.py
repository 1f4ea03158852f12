"""The matrix of causes and cures, and phase diagrams, from records written by hand."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import QUICK, options
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import binomtest

from vae.cli.launch import ALL
from vae.report import cures, phase
from vae.report.drawing import Chart
from vae.report.groups import together
from vae.report.page import write
from vae.report.runs import Run


def run(cause: str, cure: str, seed: int, verdict: str | None, elbo: float = 0.0, **record: Any) -> Run:
    measured = {"elbo": elbo, "kld": 3.0, "cut_gap": 5.0, "swap_gap": 9.0, "seconds": 10.0, "active_units": 4} | record
    config = {"cause": cause, "cure.name": cure, "seed": seed}
    found = Run(Path(f"/nowhere/{cause}_{cure}_{seed}"), f"{cause}_{cure}, seed {seed}", config=config)
    found.record = {} if verdict is None else {"verdict": verdict, "seed": seed} | measured
    found.refused = "cure=skip with model=linear_vae: no layers" if verdict is None else None
    found.problems = [] if found.refused is None else [f"cannot go together: {found.refused}"]
    return found


RUNS = [
    *(run("optimiser", "none", seed, "collapsed", elbo=-100 - seed) for seed in range(3)),
    *(run("optimiser", "delayed", seed, "alive", elbo=-90 - 2 * seed) for seed in range(3)),
    run("optimiser", "free_bits", 0, "alive_on_paper", elbo=-101, kld=3.6, cut_gap=2.7),
    run("optimiser", "free_bits", 1, "partly_collapsed", elbo=-101),
    run("optimiser", "free_bits", 2, "unfinished", elbo=-500),
    run("optimiser", "skip", 0, None),
    *(run("decoder", "none", seed, "collapsed") for seed in range(3)),
    *(run("decoder", "delayed", seed, "decoder_ignores_code", elbo=-1) for seed in range(3)),
]


@pytest.mark.parametrize(("alive", "count"), [(0, 3), (3, 3), (1, 3), (2, 10), (17, 20)])
def test_the_interval_is_wilson_s(alive: int, count: int) -> None:
    expected = binomtest(alive, count).proportion_ci(method="wilson")
    assert cures.wilson(alive, count) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_each_cure_is_held_against_none_seed_by_seed() -> None:
    rows = {(cause, name): row for cause, cells in cures.cells(RUNS).items() for name, row in cures.rows(cells)}
    alive, interval, paper, gain, tighter, saved, *_, seconds = rows["optimiser", "delayed"]
    assert (alive, interval, paper) == ("3 of 3", "44% to 100%", "")
    assert (gain, tighter) == ("9 ± 1", "")  # 10, 9, 8; no bound was measured
    assert (saved, seconds) == ("2 ± 0", "10 ± 0")  # the smaller gap less the KL
    alive, _, paper, gain, _, saved, *_ = rows["optimiser", "free_bits"]
    assert (alive, paper) == ("1 of 2, 1 unfinished", "1")
    assert gain == "-0.5 ± 0.71"  # seeds 0 and 1: -1, 0
    assert saved.startswith("0.55")
    assert rows["optimiser", "none"][3] == ""
    assert rows["optimiser", "skip"][0] == "cure=skip with model=linear_vae: no layers"
    assert rows["decoder", "delayed"][0] == "0 of 3"


def test_a_run_that_failed_is_not_alive() -> None:
    broken = run("optimiser", "capacity", 1, None)
    broken.refused, broken.failed, broken.problems = None, True, ["failed: the loss is no number"]
    runs = [run("optimiser", "none", 0, "collapsed"), run("optimiser", "capacity", 0, "alive"), broken]
    cell = cures.cells(runs)["optimiser"][1]
    assert cell.row()[:2] == ["1 of 2, 1 failed", "9% to 91%"]
    assert "alive with every seed: none; with some: capacity" in cures.what_follows(runs)[0]
    assert cures.table(runs).iloc[1][["runs", "failed", "alive"]].tolist() == [2, 1, 1]
    assert (
        "alive with every seed: none"
        in cures.what_follows([*runs[:2], run("optimiser", "capacity", 2, "unfinished")])[0]
    )


def test_runs_are_held_against_none_of_the_same_setting_and_sweep() -> None:
    def with_rate(cure: str, lr: float, elbo: float, sweep: str = "one") -> Run:
        found = run("optimiser", cure, 0, "alive", elbo=elbo)
        found.overrides = ["cause=optimiser", f"cure={cure}", "seed=0", f"train.lr={lr}", f"train.threads={len(sweep)}"]
        found.directory = Path("/nowhere") / sweep / f"{cure}{lr}"
        return found

    swept = [with_rate(cure, lr, -100 * lr + (cure == "linear")) for lr in (1, 2) for cure in ("none", "linear")]
    found = cures.table(swept).set_index(["cause", "cure"])["elbo_gain"]
    assert found.to_dict() == {
        ("optimiser, lr=1", "none"): 0,
        ("optimiser, lr=1", "linear"): 1,
        ("optimiser, lr=2", "none"): 0,
        ("optimiser, lr=2", "linear"): 1,
    }
    again = [with_rate(cure, 1, -50 + 3 * (cure == "linear"), "other") for cure in ("none", "linear")]
    together = cures.table(swept[:2] + again).set_index("cure")
    assert together["elbo_gain"].to_dict() == {"none": 0, "linear": 2}  # 1 in one sweep, 3 in the other
    assert together["runs"].to_dict() == {"none": 2, "linear": 2}


def test_values_of_a_cure_are_told_apart() -> None:
    """free_bits lives with one floor of two: with none of its seeds, and with all."""

    def with_floor(floor: float, seed: int, verdict: str) -> Run:
        found = run("optimiser", "free_bits", seed, verdict)
        found.overrides = ["cause=optimiser", "cure=free_bits", f"cure.floor={floor}", f"seed={seed}"]
        return found

    runs = [with_floor(floor, seed, "alive" if floor > 1 else "collapsed") for floor in (0.1, 2) for seed in range(3)]
    rows = {name: row[0] for name, row in cures.rows(cures.cells(runs)["optimiser"])}
    assert rows == {"free_bits, floor=0.1": "0 of 3", "free_bits, floor=2": "3 of 3"}
    assert "alive with every seed: free_bits, floor=2; with some: none" in cures.what_follows(runs)[0]


def test_what_follows_is_said_with_what_it_rests_on() -> None:
    optimiser, decoder = cures.what_follows(RUNS)
    assert "where without a cure 0 of 3 runs live" in optimiser
    assert "alive with every seed: delayed; with some: free_bits; with none: none." in optimiser
    assert "Paid for and not worth it: free_bits." in optimiser
    assert "The best ELBO has delayed, 9 nats above none's." in optimiser
    assert "all alive still means 34% to 100%" in optimiser
    assert "alive with every seed: none; with some: none; with none: delayed." in decoder


def test_the_page_has_the_matrix(tmp_path: Path) -> None:
    page = write(RUNS, tmp_path, "cures").read_text()
    assert "Which cure helps which cause?" in page
    assert "44% to 100%" in page
    table = (tmp_path / "cures.csv").read_text().splitlines()
    assert table[0].startswith("cause,cure,runs,failed,unfinished,alive,on_paper")
    assert len(table) == 1 + 6
    assert write([run("", "none", 0, "alive")], tmp_path / "other", "none").exists()
    assert not (tmp_path / "other" / "cures.csv").exists()


def drawn(chart: Chart) -> Axes:
    """The axes of its first panel."""
    axes = Figure().subplots()
    chart.panels[0].draw(axes)
    return axes


def test_the_plots_of_cures(tmp_path: Path) -> None:
    axes = drawn(cures.matrix(together(RUNS)))
    texts = {text.get_text() for text in axes.texts}
    assert {"3 of 3", "0 of 3", "1 of 2\n1 on paper"} <= texts
    assert not cures.matrix(together([RUNS[0]])).panels


def test_all_causes_are_swept() -> None:
    assert sorted(ALL["cause=all"].removeprefix("cause=").split(",")) == options("cause")


@pytest.mark.slow
def test_the_sweep_says_what_it_refuses(digits: list[str], program: Callable[..., tuple[int, str, str]]) -> None:
    small = ["model.kernels=[3,3]", "model.encoder_widths=[8]", "model.channels=2", *QUICK, *digits]
    chosen = ["sweep=cures", "cause=decoder", "cure=none,skip,spectral_start", "hydra.sweep.dir=sweep"]
    status, _, err = program(*chosen, *small)
    assert status == 0, err
    rows = {row["cure"]: row for row in csv.DictReader(Path("sweep/cures.csv").read_text().splitlines())}
    assert [rows[name]["unfinished"] for name in ("none", "skip", "spectral_start")] == ["1", "1", "0"]
    assert "sees pixels" in rows["spectral_start"]["refused"]
    before = {path: path.stat().st_mtime_ns for path in Path("sweep").glob("*/result.json")}
    program("resume=sweep")
    assert {path: path.stat().st_mtime_ns for path in Path("sweep").glob("*/result.json")} == before  # not run again


def swept(lr: float, t: float, seed: int, verdict: str, kept: int | None) -> Run:
    found = Run(Path("/nowhere"), "a", overrides=[f"train.lr={lr}", f"objective.sigma2={t}", f"seed={seed}"])
    found.record = {"verdict": verdict, "predicted_active_units": kept}
    return found


GRID = [
    swept(lr, t, seed, "collapsed" if t > 4 or (lr > 0.01 and seed) else "alive", 0 if t > 5 else 3)
    for lr in (0.001, 0.1)
    for t in (10, 1, 5)
    for seed in (0, 1)
]


def test_plots_of_phases_count_collapses_and_draw_the_boundary() -> None:
    axes = drawn(phase.diagram(together(GRID)))
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("train.lr", "objective.sigma2")
    assert [label.get_text() for label in axes.get_yticklabels()] == ["1", "5", "10"]  # as numbers
    cells = {text.xy: text.get_text() for text in axes.texts}  # type: ignore[attr-defined]
    assert cells == {
        (0, 0): "0 of 2",
        (1, 0): "1 of 2",
        (0, 1): "2 of 2",
        (1, 1): "2 of 2",
        (0, 2): "2 of 2",
        (1, 2): "2 of 2",
    }
    lines = [tuple(map(tuple, line.get_xydata())) for line in axes.lines]  # type: ignore[union-attr, arg-type]
    assert sorted(lines) == [((-0.5, 1.5), (0.5, 1.5)), ((0.5, 1.5), (1.5, 1.5))]


def test_the_boundary_lies_between_cells() -> None:
    kept = np.array([[2.0, 2.0, 0.0], [2.0, np.nan, 0.0]])
    assert phase.boundary(kept) == [((1.5, -0.5), (1.5, 0.5))]


def test_plots_of_phases_need_two_axes() -> None:
    assert not phase.diagram(together([run for run in GRID if "train.lr=0.1" in run.overrides])).panels
    one_more = [swept(0.1, 1, 0, "alive", 1)]
    one_more[0].overrides.append("model.latent_dim=3")
    assert not phase.diagram(together([*GRID, *one_more])).panels
    unfinished = [swept(lr, t, 0, "unfinished", 1) for lr in (1, 2) for t in (1, 2)]
    assert not phase.diagram(together(unfinished)).panels


def test_plots_of_phases_do_not_count_cures_as_seeds() -> None:
    grid = [swept(lr, t, 0, "alive", 1) for lr in (1, 2) for t in (1, 2)]
    assert phase.diagram(together(grid)).panels
    for cure in ("none", "linear"):
        for point in list(grid[:4]):
            grid.append(swept(1, 1, 0, "collapsed", 1))
            grid[-1].overrides = [*point.overrides, f"cure={cure}"]
    assert not phase.diagram(together(grid)).panels
