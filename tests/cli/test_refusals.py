"""Combinations of sweep=cures that cannot go together: said at the start, left on the disk, and no failure."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import QUICK, composed

from vae.config.errors import Misfit
from vae.runtime import directory as names

Program = Callable[..., tuple[int, str, str]]
SWEEP = ["sweep=cures", "hydra.sweep.dir=sweep"]
REASON = "cure=skip with model=linear_vae: its decoder has no layers that are known here to skip to; take another model"


def test_what_cannot_go_together_is_said_first_and_is_no_failure(digits: list[str], program: Program) -> None:
    chosen = [*SWEEP, "cause=optimiser", "model=linear_vae", "cure=none,skip", "seed=0,1", *QUICK, *digits]
    status, out, err = program(*chosen)
    assert status == 0, err
    first, *others = err.splitlines()
    assert first == "sweep: 2 of 4 combinations cannot go together: skip"
    assert [line for line in others if "runs done" in line][-1].startswith("sweep: 2 of 2 runs done")
    assert "skip  cannot go together" in " ".join(out.split("verdict")[-1].split(" " * 3))
    refused = {path.parent.name: path.read_text() for path in Path("sweep").glob(f"*/{names.REFUSED}")}
    assert refused == dict.fromkeys(["2_skip,seed=0", "3_skip,seed=1"], REASON + "\n")
    assert {path.parent.name for path in Path("sweep").glob(f"*/{names.RESULT}")} == {"0_none,seed=0", "1_none,seed=1"}
    rows = {row["cure"]: row["refused"] for row in csv.DictReader(Path("sweep/cures.csv").read_text().splitlines())}
    assert rows == {"none": "", "skip": REASON}
    page = Path("sweep/report.html").read_text()
    assert "Of 4 runs 2 are unfinished (none), 2 cannot go together (skip)." in page
    before = {path: path.stat().st_mtime_ns for path in Path("sweep").glob("*/*")}
    status, _, err = program("resume=sweep")
    assert status == 0
    assert "resuming" not in err
    assert {path: path.stat().st_mtime_ns for path in Path("sweep").glob("*/*")} == before


MISTAKES = {
    "nothing is left": (["cure=skip", "model=linear_vae"], REASON),
    "a value, with every cure": (["cure=none,skip", "train.lr=-1"], "train.lr=-1.0: must be above 0"),
    "a value of one cure": (["cure=none", "cause=decoder", "model.kernels=[3],[4]"], "4 is even"),
    "what no cure helps": (["cure=none,mmd", "model=ae"], "the autoencoder has no KL term to weigh"),
    "a value of the cure": (["cure=mmd", "cure.alpha=0.5,7"], "cure.alpha=7.0: must be at most 1"),
    "no such option": (["cure=none,free_bit"], "cure=free_bit: no such option; did you mean cure=free_bits?"),
}


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ("kind: inverse_lipschitz\nname: mine\nbound: 0.5\nwidths: []", "cure.widths=[]: must be 1 to 100 numbers"),
        ("kind: mmd\nname: mine\nalpha: 0.5\nlam: 0.5", "cure.lam=0.5 with alpha=0.5: the MMD would have weight"),
    ],
)
def test_a_mistake_in_an_option_of_ones_own_is_no_combination(
    values: str, says: str, program: Program, tmp_path: Path
) -> None:
    """Without it the rest would go together."""
    (tmp_path / "mine" / "cure").mkdir(parents=True)
    (tmp_path / "mine" / "cure" / "mine.yaml").write_text(values)
    status, _, err = program("--config-dir", "mine", *SWEEP, "cause=optimiser", "cure=none,mine")
    assert status == 1
    assert err.count("\n") == 1
    assert says in err
    assert not list(Path().rglob(names.CONFIG))


def test_a_sweep_that_never_began_has_no_report(program: Program, digits: list[str]) -> None:
    status, out, err = program("-m", *QUICK, *digits, "model=mlp_vae,nope", "hydra.sweep.dir=sweep")
    assert status == 1
    assert err.splitlines()[-1].startswith("model=nope: no such option")
    assert "report" not in out
    assert not Path("sweep/report.html").exists()


@pytest.mark.parametrize("start", ["model.start=spectral", "cure=spectral_start"])
@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["model=pixelcnn_vae", "model.kernels=[3]"], r"model.kernels=\[3\]: no linear optimum"),
        (["model.output=sigmoid"], "model.output=sigmoid: the optimum is of a linear output"),
        (["objective=categorical"], "objective=categorical: no linear optimum is known"),
        (["objective=discretised_logistic"], "objective=discretised_logistic: no linear optimum is known"),
    ],
)
def test_a_start_that_is_not_known_is_a_combination(start: str, overrides: list[str], says: str) -> None:
    with pytest.raises(Misfit, match=f"^model.start=spectral with {says}"):
        composed(*overrides, start)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_sweep_that_is_composed_wrongly_fails_before_it_trains(mistake: str, program: Program) -> None:
    overrides, says = MISTAKES[mistake]
    status, _, err = program(*SWEEP, "cause=optimiser", *overrides)
    assert status == 1
    assert err.count("\n") == 1
    assert says in err
    assert not list(Path().rglob(names.CONFIG))
