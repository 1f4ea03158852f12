"""`python run.py explain=DIR` on small runs; test_answers.py has those whose cause is known."""

import json
import math
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import QUICK, composed
from omegaconf import OmegaConf

from vae.cli.twins import Twins
from vae.config.schema import RunConfig
from vae.data import readers
from vae.runtime import commands
from vae.runtime import directory as names
from vae.runtime.signals import Interruption
from vae.training import checkpoint
from vae.training.loop import Due, due_after

Program = Callable[..., tuple[int, str, str]]
Finished = Callable[..., Path]
# A mean over pixels beside a sum over dimensions: collapsed, whatever the start.
DOOMED = ["model=mlp_vae", "objective=pixel_mse", "anneal.weight=10", "train.lr=0.003", "train.steps=80"]
SELDOM = ["train.eval_every=20", "pictures.gif_every=0"]
JUDGED = ["evaluation.thresholds.unfinished_steps=0", "evaluation.thresholds.unfinished_fall=1"]


def record(directory: Path, file: str = names.RESULT) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / file).read_text())
    return found


def test_twins_tell_the_cause(digits: list[str], program: Program, tmp_path: Path) -> None:
    assert program(*QUICK, *digits, *DOOMED, *SELDOM, *JUDGED, "hydra.run.dir=mine")[0] == 0
    before = record(tmp_path / "mine")
    assert (before["verdict"], before["cause"], before["cause_rests_on"]) == ("collapsed", "objective", "predicted")
    (tmp_path / "mine" / names.REPORT).write_text("predicted")
    status, out, err = program("explain=mine")
    assert status == 0, err
    assert "Tested: the objective" in (tmp_path / "mine" / names.REPORT).read_text()
    assert out.startswith("mine: Tested: the objective. A twin with anneal=sigmoid, at KL weight 10 at its end")
    found, after = record(tmp_path / "mine", names.EXPLANATION), record(tmp_path / "mine")
    assert found["cause"] == after["cause"] == "objective"
    assert after["cause_rests_on"] == "tested"
    assert found["said"][0] in after["explanation"]
    assert "Predicted" not in after["explanation"]
    changed = {key for key in before if before[key] != after[key]}
    assert changed <= {"cause_rests_on", "explanation", "advice"}
    for twin in ("kind_start", "without_code"):
        assert record(tmp_path / "mine" / "explain" / twin)["steps"] == 80
    assert found["kind_start"] == found["look_at"] == "explain/kind_start"
    assert record(tmp_path / "mine" / "explain" / "without_code")["kld"] == 0
    assert found["code_costs"] == pytest.approx(
        10 * record(tmp_path / "mine" / "explain" / "kind_start")["kld"], abs=0.05
    )


def test_what_twins_have_not_had_is_said(digits: list[str], program: Program, tmp_path: Path) -> None:
    """Settings that were changed on the way, and weights that the run began with."""
    settings = [*QUICK, *digits, *JUDGED, *DOOMED, *SELDOM]
    assert program(*settings, "train.steps=4", "hydra.run.dir=first")[0] == 0
    assert program(*settings, "init=first", "train.steps=20", "hydra.run.dir=mine")[0] == 0
    assert program("resume=mine", "train.steps=30", "train.lr=0.002")[0] == 0
    status, _, err = program("explain=mine", "explain.steps=30")
    assert status == 0, err
    said = record(tmp_path / "mine", names.EXPLANATION)["said"]
    changed = "The run's settings were changed on its way (from step 20 on: train.lr 0.003 -> 0.002); its twins"
    began = f"The run began with the weights of {tmp_path / 'first'}, as its twin"
    assert [len([line for line in said if line.startswith(start)]) for start in (changed, began)] == [1, 1]
    assert "changed on its way" in record(tmp_path / "mine")["explanation"]
    twins = {name: tmp_path / "mine" / names.TWINS / name for name in ("kind_start", "without_code")}
    anew = {name: "init=null" in (commands.overrides(place) or []) for name, place in twins.items()}
    assert anew == {"kind_start": False, "without_code": True}


def test_a_decoder_that_sees_pixels_has_twins_of_its_own(digits: list[str], program: Program, tmp_path: Path) -> None:
    small = [
        "pictures.gif_every=0",
        "train.eval_every=60",
        "model.channels=4",
        "model.kernels=[3,3]",
        "model.encoder_widths=[16]",
        "model.map_hidden=8",
    ]
    binary = [
        "model=pixelcnn_vae",
        "objective=bernoulli",
        "dataset.binarize=dynamic",
        "train.steps=60",
        "train.lr=0.01",
    ]
    assert program(*QUICK, *digits, *JUDGED, *binary, *small, "anneal.weight=3", "hydra.run.dir=mine")[0] == 0
    before = record(tmp_path / "mine")
    assert (before["verdict"], before["cause"], before["one_step"]) == ("collapsed", None, True)
    assert before["predicted_kld"] is None
    assert "explain= tells" in before["explanation"]
    assert "'model.kernels=[]'" in before["advice"][0]["command"]
    status, out, err = program("explain=mine")
    assert status == 0, err
    found, after = record(tmp_path / "mine", names.EXPLANATION), record(tmp_path / "mine")
    for twin in ("kind_start", "without_code", "factorised", "as_map", "map_without_code"):
        assert record(tmp_path / "mine" / "explain" / twin)["steps"] == 60
    assert record(tmp_path / "mine" / "explain" / "factorised")["one_step"] is False
    assert found["factorised_kld"] == record(tmp_path / "mine" / "explain" / "factorised")["kld"]
    assert found["residual_eigenvalue"] > 0
    assert "With a decoder that sees no pixels (explain/factorised)" in out
    assert "As a map (explain/as_map)" in out
    assert found["cause"] == after["cause"] != "optimiser"


def test_twins_with_other_steps_have_a_schedule_of_their_length(
    digits: list[str], program: Program, tmp_path: Path
) -> None:
    settings = [*QUICK, *digits, *JUDGED, *SELDOM, "model=mlp_vae", "train.steps=40", "anneal=cyclical"]
    assert program(*settings, "hydra.run.dir=mine")[0] == 0
    assert program("explain=mine", "explain.steps=20")[0] == 0
    twin = checkpoint.read(tmp_path / "mine" / "explain" / "without_code").config
    assert (twin.train.steps, twin.anneal.steps) == (20, 20)  # type: ignore[attr-defined]


def test_what_is_interrupted_is_asked_for_again(
    digits: list[str], program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal in a twin's training, which is resumed by the same call."""
    assert program(*QUICK, *digits, *JUDGED, *SELDOM, "model=mlp_vae", "hydra.run.dir=mine")[0] == 0

    def asked(step: int, config: RunConfig, interruption: Interruption) -> Due:
        return due_after(step, config, interruption)._replace(checkpoint=True, stop=signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr("vae.training.loop.due_after", asked)
        status, _, err = program("explain=mine", "explain.steps=6")
    said = "stopped after step 1 and saved; python run.py explain=mine explain.steps=6"
    assert (status, err.splitlines()[-1]) == (130, said)
    (twin,) = (tmp_path / "mine" / "explain").iterdir()
    assert checkpoint.read(twin).step == 1
    log = (twin / names.LOG).read_text()
    status, _, err = program("explain=mine", "explain.steps=6")
    assert status == 0, err
    assert (twin / names.LOG).read_text().startswith(log)
    assert checkpoint.read(twin).step == 6


def test_a_code_is_not_held_against_a_twin_that_broke(digits: list[str], program: Program, tmp_path: Path) -> None:
    """One step makes no decoder; one image for all does better, and has its NLL in closed form."""
    settings = [*QUICK, *digits, *JUDGED, *SELDOM, "model=mlp_vae", "objective=gaussian", "objective.sigma2=0.01"]
    assert program(*settings, "train.steps=60", "hydra.run.dir=mine")[0] == 0
    status, out, err = program("explain=mine", "explain.steps=1")
    assert status == 0, err
    assert "against one image for all, which does better than a decoder that gets none (explain/without_code)" in out
    found = record(tmp_path / "mine", names.EXPLANATION)
    images = readers.load(composed(*digits).dataset).train.images.double() / 255
    away = ((images - images.mean(0)) ** 2).sum() / len(images)
    constant = 0.5 * (float(away) / 0.01 + 256 * math.log(2 * math.pi * 0.01))
    assert found["code_saves"] == pytest.approx(constant - (found["loss"] - found["code_costs"]), abs=0.01)


def test_a_live_code_has_no_cause(digits: list[str], program: Program, tmp_path: Path) -> None:
    settings = [*QUICK, *digits, *JUDGED, *SELDOM, "model=mlp_vae", "objective=optimal_gaussian", "train.steps=60"]
    assert program(*settings, "hydra.run.dir=mine")[0] == 0
    before = (tmp_path / "mine" / names.RESULT).read_bytes()
    status, out, err = program("explain=mine", "explain.steps=20")
    assert status == 0, err
    assert "The code is alive, so no cause is sought." in out
    found = record(tmp_path / "mine", names.EXPLANATION)
    assert found["cause"] is None
    assert found["code_saves"] > found["code_costs"] > 0
    assert (tmp_path / "mine" / names.RESULT).read_bytes() == before
    assert not (tmp_path / "mine" / "explain" / "kind_start").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["explain=absent"], "explain=absent: no such directory"),
        (["explain="], "explain=: names no directory"),
        (["resume="], "resume=: names no directory"),
        (["evaluate= "], "evaluate=: names no directory"),
        (["explain=empty"], "empty: is no run's directory; name a run's"),
        (["explain=short"], "the run is unfinished, and there is nothing to explain yet"),
        (["explain=short", "explain.steps=0"], "explain.steps=0: must be at least 1"),
        (["explain.steps=5"], "explain.steps=5: goes with explain=DIR"),
        (["-m", "explain=short", "seed=1,2"], "explain= takes one directory; leave -m out"),
    ],
)
def test_what_cannot_be_explained(
    arguments: list[str], says: str, finished: Finished, program: Program, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    if "explain=short" in arguments:
        finished("short")
    status, out, err = program(*arguments)
    assert (status, out) == (1, "")
    assert says in err.splitlines()[-1]
    assert "Traceback" not in err
    assert not list(tmp_path.rglob("explanation.json"))


def test_what_a_call_may_not_ask_for(digits: list[str], program: Program, tmp_path: Path) -> None:
    assert program(*QUICK, *digits, *JUDGED, "model=mlp_vae", "model.posterior=none", "hydra.run.dir=mine")[0] == 0
    for arguments, says in (
        (["explain=mine", "train.steps=9"], "train.steps: cannot be changed by explain="),
        (["explain=mine", "resume=mine"], "one at a time"),
        (["explain=mine"], "has no code"),
    ):
        status, _, err = program(*arguments)
        assert status == 1
        assert says in err.splitlines()[-1]


def test_a_record_that_is_none(finished: Finished, program: Program) -> None:
    mine = finished("mine")
    for content in ('{"verdict": "collapsed"}', '{"verdict": 3}', "[]", "{", '{"verdict": "alive", "kl_weight": "x"}'):
        (mine / names.RESULT).write_text(content)
        status, _, err = program("explain=mine")
        assert status == 1
        last = err.splitlines()[-1]
        assert "result.json" in last or "not come to its end" in last, content


def test_twins_are_no_runs_of_their_own(tmp_path: Path) -> None:
    for place in ("a", "a/explain/kind_start", "explain/b"):
        (tmp_path / place / names.CONFIG).parent.mkdir(parents=True)
        (tmp_path / place / names.CONFIG).touch()
    assert names.runs_below(tmp_path) == {tmp_path / "a", tmp_path / "explain" / "b"}
    assert names.runs_below(tmp_path / "a" / "explain") == {tmp_path / "a" / "explain" / "kind_start"}


def test_points_can_be_resumed_and_measured_again(digits: list[str], program: Program) -> None:
    """Their KL is infinite."""
    point = ["model=mlp_vae", "model.posterior=dirac", "anneal=no_kl"]
    assert program(*QUICK, *digits, *point, "hydra.run.dir=mine")[0] == 0
    for arguments in (["evaluate=mine"], ["resume=mine", "train.steps=6"]):
        status, _, err = program(*arguments)
        assert status == 0, err


def test_a_twin_that_a_cure_cannot_go_with_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr(Twins, "_made", lambda twins, config, what, changes: made.append((config, changes)))
    Twins(tmp_path, composed("model=pixelcnn_vae", "objective=bernoulli", "cure=skip"), 10, []).without_code()
    (config, changes), *_ = made
    assert (config.cure.name, changes) == ("none", ("model.posterior=none", "cure=none"))
    Twins(tmp_path, composed("model=pixelcnn_vae", "cure=free_bits"), 10, []).factorised()
    assert made[1][0].cure.name == "free_bits"
    Twins(tmp_path, composed("cure=geco"), 10, []).kind_start(1.0)
    assert made[2][1][0].startswith("train.lr=")  # no second schedule beside a controlled weight


def test_a_twin_beside_a_run_of_a_sweep_is_followed_with_all_its_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its schedule's weight and steps too: those of the run may be others, or none."""
    config, *others = (
        composed("anneal.weight=0.5", *own)
        for own in ([], ["anneal=linear", "anneal.steps=300"], ["anneal=linear", "seed=1"])
    )
    for number, run in enumerate((config, *others)):
        (tmp_path / str(number) / names.CONFIG).parent.mkdir(parents=True)
        (tmp_path / str(number) / names.CONFIG).write_text(OmegaConf.to_yaml(OmegaConf.structured(run)))
        (tmp_path / str(number) / names.RESULT).write_text('{"verdict": "alive", "kl_weight": 0.5}')
    (tmp_path / names.SWEEP).touch()
    monkeypatch.setattr(Twins, "_read", lambda twins, *found: found)
    found: Any = Twins(tmp_path / "0", config, config.train.steps, []).kind_start(0.5)
    assert found == (tmp_path / "1", "anneal=linear", ("anneal=linear", "anneal.weight=0.5", "anneal.steps=300"))
