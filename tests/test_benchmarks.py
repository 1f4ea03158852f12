"""The benchmarks compare like with like, keep what they measured, and every section of them works."""

import contextlib
import io
import json
import math
import os
import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import ROOT, composed

from benchmarks import (
    adam,
    growth,
    handover,
    plain,
    process,
    render,
    rounds,
    stopwatch,
    sweep,
    turns,
)
from benchmarks.options import RESULTS, Options
from benchmarks.ours import MODELS, program
from benchmarks.process import Failed, Finished
from benchmarks.rounds import Goal, Record
from vae.models import likelihood as likelihoods
from vae.models.likelihood import FixedGaussian
from vae.models.links import identity
from vae.models.vae import VAE


@pytest.mark.parametrize("name", ["conv_vae", "mlp_vae", "deep"])
def test_the_plain_network_is_the_lab_s(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = composed(*MODELS[name])
    shape = (3, 64, 64) if name == "deep" else (1, 28, 28)
    lab = VAE(config.model, FixedGaussian(identity, math.prod(shape), 1.0), shape)
    other = plain.PlainVAE(name)
    other.load_state_dict(lab.state_dict())
    images, noise = torch.rand(5, *shape), torch.randn(5, 32)
    monkeypatch.setattr(torch, "randn_like", lambda mu: noise)
    posterior = lab.encode(images)
    raw = lab.raw(posterior.sample(noise))
    output, mu, log_sigma = other(images)
    torch.testing.assert_close(mu, posterior.mu)
    torch.testing.assert_close(log_sigma, posterior.log_sigma)
    torch.testing.assert_close(output, raw)
    likelihood = likelihoods.build(config.objective, config.model.output, shape)
    for weight in (0.0, 1.0):
        loss = likelihood(images, raw).loss + weight * posterior.kl().mean(0).sum()
        torch.testing.assert_close(plain.loss_function(output, images, mu, log_sigma, weight), loss)


@pytest.mark.parametrize("name", ["conv_vae", "mlp_vae"])
def test_both_start_from_the_same_law(name: str) -> None:
    lab, other = (
        VAE(composed(f"model={name}").model, FixedGaussian(identity, 784, 1.0), (1, 28, 28)),
        plain.PlainVAE(name),
    )
    for (key, ours), theirs in zip(lab.named_parameters(), other.parameters(), strict=True):
        assert ours.shape == theirs.shape, key
        torch.testing.assert_close(ours.std(correction=0), theirs.std(correction=0), rtol=0.2, atol=1e-3)
        torch.testing.assert_close(ours.abs().max(), theirs.abs().max(), rtol=0.2, atol=1e-3)


def test_both_optimizers_are_adam() -> None:
    config = composed("model=mlp_vae")
    lab, other = adam.weights(config), adam.weights(config)
    for ours, theirs in zip(lab, other, strict=True):
        theirs.grad = ours.grad
    before = [weight.detach().clone() for weight in lab]
    steps = adam.stepper("lab", config.train, lab), adam.stepper("torch.optim", config.train, other)
    for _ in range(3):
        for step in steps:
            step()
    for ours, theirs, weight in zip(lab, other, before, strict=True):
        torch.testing.assert_close(ours, theirs)
        assert not torch.equal(ours, weight)


@pytest.fixture
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would be a process of its own runs in this one, where torch is loaded already."""

    def python(*arguments: str, cwd: Path, **_: object) -> Finished:
        flag, *rest = arguments[2:] if arguments[0] == "-X" else arguments
        said, started = io.StringIO(), time.time()
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", [flag, *rest[1:]] if flag == "-m" else [flag, *rest])
        os.environ["HYDRA_FULL_ERROR"] = "0"
        with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
            if flag == "-m":
                monkeypatch.delitem(sys.modules, rest[0], raising=False)
                runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
            elif flag == "-c":
                exec(rest[0])
            else:
                import run
                from vae.cli import launch

                launch.run(run.main)
        monkeypatch.chdir(ROOT)
        return Finished(said.getvalue(), "", started, time.time() - started, peak_rss_mib=1.0, peak_anon_mib=1.0)

    for module in (process, *render.SECTIONS.values(), sys.modules["benchmarks.ours"]):
        monkeypatch.setattr(module, "python", python, raising=False)


SLOW = ("sweep", "growth", "throughput", "time_to_quality", "observing", "processes", "answer", "turns")


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in render.SECTIONS],
)
def test_every_section_measures_and_tells(name: str, tmp_path: Path) -> None:
    options = Options(results=tmp_path, scratch=tmp_path, threads=1, rounds=1, smoke=True, before=ROOT)
    render.SECTIONS[name].measure(options)
    if name == "gpu" and not torch.cuda.is_available():
        return  # it says so
    content = json.loads((tmp_path / f"{name}.json").read_text())
    assert content["done"]
    assert content["machine"]["packages"]["torch"] == torch.__version__.split("+")[0]
    for found in content["measured"].values():
        assert len(found) == 1
        assert rounds.FAILED not in found[0]
    assert "| --- |" in render.section(name, content)
    goals = render.SECTIONS[name].goals(content)
    assert not goals or any(goal.reached is not None for goal in goals)


def test_rounds_alternate_and_resume(tmp_path: Path) -> None:
    order: list[str] = []

    def contestant(name: str, broken: bool = False) -> Callable[[], dict[str, Any]]:
        def measure() -> dict[str, Any]:
            order.append(name)
            if broken:
                raise Failed("no luck")
            if len(order) == 3:
                raise KeyboardInterrupt
            return {"seconds": float(len(order))}

        return measure

    record = Record("section", tmp_path, {"steps": 1})
    with pytest.raises(KeyboardInterrupt):
        record.alternate({"a": contestant("a"), "b": contestant("b", broken=True)}, 2)
    record = Record("section", tmp_path, {"steps": 1})
    record.alternate({"a": contestant("a"), "b": contestant("b")}, 2)
    assert order == ["a", "b", "a", "b", "a", "b"]  # the failure again, then where it was interrupted
    measured = record.finish()["measured"]
    assert {name: rounds.values(found, "seconds") for name, found in measured.items()} == {"a": [1, 5], "b": [4, 6]}
    assert Record("section", tmp_path, {"steps": 1}).content["done"]
    assert not Record("section", tmp_path, {"steps": 2}).content["measured"]


def test_a_failure_is_tried_again_and_later_rounds_stay(tmp_path: Path) -> None:
    outcomes = iter([1.0, None, 3.0, 2.0])

    def measure() -> dict[str, Any]:
        if (found := next(outcomes)) is None:
            raise Failed("no luck")
        return {"seconds": found}

    record = Record("section", tmp_path, {})
    record.alternate({"a": measure}, 3)
    record.alternate({"a": measure}, 3)
    assert rounds.values(record.content["measured"]["a"], "seconds") == [1, 2, 3]


def test_what_was_measured_while_the_cores_were_apart_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before and after each measurement; at once, so that a round stays one."""
    turns = iter([170.0, 180.0, 170.0, 340.0, 200.0, 190.0, *[350.0] * 6])
    monkeypatch.setattr("benchmarks.handover.nanoseconds", lambda: next(turns))
    order: list[str] = []

    def contestant(name: str) -> Callable[[], dict[str, Any]]:
        return lambda: order.append(name) or {"seconds": float(len(order))}  # type: ignore[func-returns-value]

    record = Record("section", tmp_path, {})
    record.alternate({name: contestant(name) for name in "abc"}, rounds=1, attempts=3)
    assert order == [*"abbccc"]
    measured = {name: rounds.values(found, "seconds") for name, found in record.content["measured"].items()}
    assert measured == {"a": [1], "b": [3], "c": [6]}
    assert "170 ns at best" in rounds.apart(record.content)
    assert rounds.apart(record.content).endswith("it was measured again at once; in 1 of 3 measurements it still did.")
    record.alternate({name: contestant(name) for name in "abc"}, rounds=1, attempts=3)
    assert not list(turns)


def test_a_distance_that_is_not_known_calls_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it count as the best of the record, which all others would then be far from."""
    turns = iter([170.0, None, 190.0, 200.0, None, None])
    monkeypatch.setattr("benchmarks.handover.nanoseconds", lambda: next(turns))
    record = Record("section", tmp_path, {})
    record.alternate({"a": lambda: {"seconds": 1.0}}, rounds=3, attempts=3)
    assert [found.get(rounds.HANDOVER) for found in record.content["measured"]["a"]] == [170, 200, None]
    assert "170 ns at best" in rounds.apart(record.content)
    assert not list(turns)


@pytest.mark.skipif(not handover.is_possible(), reason="needs two cores that a process can be bound to")
def test_the_cores_hand_a_byte_over() -> None:
    cores = os.sched_getaffinity(0)
    found = handover.nanoseconds()
    assert found is not None
    assert 10 < found < 1e6
    assert os.sched_getaffinity(0) == cores


def test_ratios_are_within_a_round() -> None:
    found = {"a": [{"s": 2.0}, {"s": 30.0}, {"s": 4.0}], "b": [{"s": 1.0}, {"failed": "so"}, {"s": 1.0}]}
    assert rounds.ratios(found, "a", "b", "s") == [2.0, 4.0]
    assert rounds.spread([2.0, 4.0, 3.0], unit="x") == "3x (2–4)"
    assert rounds.spread([]) == "–"
    assert Goal.at_least("", 1.3, 1.3).reached
    assert not Goal.at_most("", 1.31, 1.3).reached
    assert Goal.at_most("", None, 1.3).reached is None


def test_a_turn_is_timed_after_its_lead(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Two steps that are not timed, then as many as were asked for; the process ends with those that ask it."""
    now = 0.0
    monkeypatch.setattr(stopwatch, "crossing", lambda: 3.5)
    monkeypatch.setattr("sys.stdin", io.StringIO("3\n1\n"))
    monkeypatch.setattr(stopwatch, "time", SimpleNamespace(perf_counter=lambda: now))
    watch = stopwatch.InTurn()
    with pytest.raises(SystemExit):
        for step in range(100):
            now += 1 if step in (2, 3, 4, 7) else 100  # seconds that the step took
            watch.tick(64)
    assert step == 2 + 3 + 2 + 1 - 1
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line]
    assert said == [{"images_per_second": 64.0, "crossing": [3.5, 3.5]}] * 2


def test_turns_are_told_apart_by_where_the_cores_were() -> None:
    """A ratio is of one cycle, and of one place; a turn in which that changed, or was neither, is left out."""
    cycles = {
        "lab fp32": [[300, 3, 3], [100, 6, 6], [900, 3, 6], [200, 3.1, 3], [900, 4, 4]] + [[100, 3, 3]] * 5,
        "lab bf16": [[400, 3, 3], [400, 6, 6], [400, 3, 3], [400, 3, 3], [400, 3, 3]] + [[400, 3, 3]] * 5,
        "plain": [[100, 3, 3.1], [100, 6, 5], [100, 3, 3], [100, 3, 3], [100, 3, 3]] + [[100, 3, 3]] * 5,
    }
    settings = {"batch_size": 64, "threads": 2, "cycles": 10, "steps": {"mlp_vae": 50}}
    said = turns.tables({"settings": settings, "measured": {"mlp_vae": [{"turns": cycles}, {"failed": "no luck"}]}})
    assert "the usual shortest, 3.0 µs" in said
    assert "2 of 30 turns are left out" in said
    assert "| mlp_vae | near | lab fp32 | 7 | 100 (100–100) |  |  |" in said
    assert (
        "| mlp_vae | near | plain | 9 | 100 (100–100) | 1.00x (1.00x–1.00x) of 7 | 4.00x (4.00x–4.00x) of 9 |" in said
    )
    assert "| mlp_vae | apart | plain | 1 | 100 | 1.00x of 1 | 4.00x of 1 |" in said
    assert said.count("| mlp_vae |") == 6
    assert turns.tables({"settings": settings, "measured": {"mlp_vae": [{"failed": "no luck"}]}})


def test_a_player_that_ends_says_why() -> None:
    with (
        turns.Player(["benchmarks.plain", "--threads=none"]) as player,
        pytest.raises(Failed, match=r"exit status 2: .*invalid int"),
    ):
        player.turn(1)


def test_a_sweep_is_held_against_the_code_before() -> None:
    def reached(**seconds: float) -> bool | None:
        measured = {name: [{"seconds": found, "training_seconds": 50.0}] for name, found in seconds.items()}
        content = {"settings": {"steps": 1, "before": "abc"}, "code": "def", "measured": measured}
        sweep.tables(content)
        (goal,) = sweep.goals(content)
        return goal.reached

    assert reached(**{sweep.BEFORE: 100, sweep.NOW: 59})
    assert reached(**{sweep.BEFORE: 100, sweep.NOW: 61}) is False
    assert reached(**{sweep.NOW: 59}) is None


def test_growth_is_an_exponent() -> None:
    assert growth.exponent([(1, 3.0), (2, 6.0), (8, 24.0)]) == pytest.approx(1)
    assert growth.exponent([(1, 3.0), (8, 3.0)]) == pytest.approx(0)


def test_a_process_is_measured_from_outside(tmp_path: Path) -> None:
    done = process.python("-c", "import time; a = bytearray(2**28); time.sleep(.3); print('[1]')", cwd=tmp_path)
    assert done.answer() == [1]
    assert done.seconds >= 0.3
    assert done.peak_anon_mib >= 256
    assert 256 <= done.peak_rss_mib < 400  # not what this process has, which loaded torch
    with pytest.raises(Failed, match=r"exit status 1: .*no luck"):
        process.python("-c", "raise OSError('no luck')", cwd=tmp_path)


def test_each_version_imports_its_own_package(tmp_path: Path) -> None:
    for speed in (1, 2):
        checkout = tmp_path / str(speed)
        (checkout / "vae").mkdir(parents=True)
        (checkout / "vae" / "__init__.py").write_text(f"SPEED = {speed}")
        (checkout / "run.py").write_text("from vae import SPEED\nprint([SPEED])")
        done = process.python(program(checkout), cwd=tmp_path, checkout=checkout)
        assert done.answer() == [speed]


def test_the_memory_limit_holds(tmp_path: Path) -> None:
    prefix, limit, _ = growth.memory_limit()
    with pytest.raises(Failed):
        process.python("-c", "b'1' * 2**32", cwd=tmp_path, prefix=prefix, limit=limit)


def test_the_page_says_what_the_records_say() -> None:
    for path in render.PAGES:
        text = path.read_text()
        assert render.page(text, RESULTS) == text
