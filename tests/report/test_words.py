"""What a page says of runs, from records written by hand."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest

from vae.report import over_time, points, words
from vae.report.groups import together
from vae.report.page import answer
from vae.report.runs import Run


def run(name: str, verdict: str, **record: Any) -> Run:
    found = Run(Path(f"/nowhere/{name}"), name, name, config={"train.lr": name})
    found.record = {"verdict": verdict, "kld": 1.0, "active_units": 3, "latent_dim": 4, "swap_gap": 2.0} | record
    return found


@pytest.mark.parametrize(("dip", "out"), [(210, 10), (10, 210)])
def test_events_are_told_in_their_order(dip: int, out: int) -> None:
    told = words.on_the_way(
        run(
            "a",
            "alive",
            dipped_at_step=dip,
            dipped_to_kld=0.258,
            dip_over_at_step=dip + 40,
            collapsed_at_step=out,
            recovered_at_step=out + 140,
        )
    )
    assert f"fell to 0.258 nats at step {dip} and came back by itself by step {dip + 40}." in told
    assert f"collapsed at step {out} and had recovered by step {out + 140}." in told
    assert (told.index("fell to") < told.index("collapsed at")) == (dip < out)


@pytest.mark.parametrize("verdict", ["unfinished", "undecided"])
def test_where_nothing_is_said_of_the_code_its_past_is_not_told(verdict: str) -> None:
    """As in the explanation at the end of the run: story.explain."""
    assert words.on_the_way(run("a", verdict, collapsed_at_step=75, recovered_at_step=150)) == ""


@pytest.mark.parametrize("verdict", ["alive", "unfinished"])
def test_the_step_whose_model_is_kept_is_told(verdict: str) -> None:
    assert words.on_the_way(run("a", verdict, best_step=400, steps=500)) == (
        "Kept is the model of step 400 of 500, the best by its validation images."
    )
    assert words.on_the_way(run("a", verdict, best_step=500, steps=500)) == ""


def test_causes_of_many_runs_are_sentences() -> None:
    dead = [run(f"dead {i}", "collapsed", cause="optimiser", cause_rests_on="predicted") for i in range(2)]
    unknown = run("unknown", "decoder_ignores_code", cause=None)
    alive = [run(f"alive {i}", "alive") for i in range(7)]
    asked_for = run("no code", "collapsed", cause=None)  # there is nothing to tell
    asked_for.config["model.posterior"] = "none"
    first, second, *_ = answer(together([*dead, asked_for, unknown, *alive]))
    assert first == "Of 11 runs 7 are alive, 3 collapsed, 1 has a decoder that ignores the code."
    assert second == (
        f"Why codes are not used, as predicted or tested: in 2 runs {words.CAUSES['optimiser']}; in 1 run it cannot be "
        "told yet."
    )


def test_one_run_is_not_spoken_of_as_several() -> None:
    several = over_time.curves(together([run("a", "alive"), run("b", "alive")]))
    single = over_time.curves(together([run("a", "alive")]))
    assert (single.title, several.title) == ("While it trained", "While they trained")
    assert "band" not in single.caption


def test_few_groups_are_named_beside_what_became_of_them() -> None:
    runs = [run("a", "collapsed", cause="objective"), run("b", "alive"), run("c", "alive")]
    assert answer(together(runs))[0] == "Of 3 runs 2 are alive (b, c), 1 collapsed (a)."


def test_a_code_that_is_not_read_loses_nothing() -> None:
    noise = run("a", "decoder_ignores_code", swap_gap=-0.008, swap_gap_error=0.006)
    little = run("a", "decoder_ignores_code", swap_gap=0.08, swap_gap_error=0.006)
    assert "with another image's code it does as well, to within 0.018 nats." in words.sentence(noise)
    assert "with another image's code it loses 0.08 nats." in words.sentence(little)


def test_the_cause_of_a_run_without_a_kl_term_is_not_the_formula_s() -> None:
    """The explanation at the end of the run says so too: story.explain."""
    stuck = {"cause": "optimiser", "cause_rests_on": "predicted"}
    without, with_term = (run("a", "collapsed", **stuck, max_kl_weight=weight) for weight in (0.0, 1.0))
    assert "no KL term can have caused it, its weight was 0 throughout; python run.py explain=" in words.why(without)
    assert "formula" not in words.why(without)
    assert "This is predicted, by a formula for the simplest VAE; python run.py explain=" in words.why(with_term)
    assert words.why(with_term).endswith("nowhere/a tests it.")


def test_a_model_from_elsewhere_is_not_explained_by_a_command() -> None:
    found = run("a", "collapsed", cause="optimiser", cause_rests_on="predicted")
    found.config = {}
    assert "run.py" not in words.why(found)


def test_the_page_says_what_the_verdict_rests_on() -> None:
    """As result.json does: story.explain, and the verdict's reason."""
    pixels = run("a", "collapsed", one_step=True)
    assert "differ by the chance in their pixels alone" in words.sentence(pixels)
    assert "same average picture" not in words.sentence(pixels)
    assert "same average picture" in words.sentence(run("a", "collapsed"))
    none = run("a", "collapsed", cause=None)
    none.config["model.posterior"] = "none"
    assert words.sentence(none).startswith("There is no code to judge")
    assert words.why(none) == ""  # explain= refuses it
    paper = run("a", "alive_on_paper", kld=10.0, kl_weight=0.5, swap_gap=4.0, cut_gap=7.0)
    assert "it costs 5 nats at KL weight 0.5, and saves at most 4 of log p(x|z)." in words.sentence(paper)


def test_a_fraction_of_collapses_is_of_runs_that_can_be_judged() -> None:
    """As in the phase diagram."""
    runs = [
        run(f"{lr}{verdict}{seed}", verdict)
        for lr in ("0.1", "0.2")
        for seed, verdict in enumerate(("collapsed", "alive", "unfinished"))
    ]
    for each in runs:
        each.config, each.group = {"train.lr": each.name[:3]}, each.name[:3]
    axes = plt.figure().subplots()
    points.fraction(together(runs)).panels[0].draw(axes)
    assert axes.lines[0].get_xydata().tolist() == [[0.1, 0.5], [0.2, 0.5]]
    assert not points.fraction(together(runs[1:3] + runs[4:])).panels  # of each one run that can be judged
    plt.close("all")


def test_the_answer_says_what_to_try() -> None:
    tip = {"why": "smaller steps", "command": "python run.py train.lr=1e-4"}
    dead = run("a", "collapsed", cause="objective", cause_rests_on="predicted", advice=[tip])
    for runs in ([dead], [dead, run("b", "alive")]):
        told = [line for line in answer(together(runs)) if "To try: smaller steps; the command is below" in line]
        assert len(told) == 1
