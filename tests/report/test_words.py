"""What a page says of runs, from records written by hand."""

from pathlib import Path
from typing import Any

import pytest

from vae.report import over_time, words
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
    assert f"went out at step {out} and was back by step {out + 140}." in told
    assert (told.index("fell to") < told.index("went out")) == (dip < out)


def test_causes_of_many_runs_are_sentences() -> None:
    dead = [run(f"dead {i}", "collapsed", cause="optimiser", cause_rests_on="predicted") for i in range(2)]
    unknown = run("unknown", "decoder_ignores_code", cause=None)
    alive = [run(f"alive {i}", "alive") for i in range(7)]
    first, second, *_ = answer(together([*dead, unknown, *alive]))
    assert first == "Of 10 runs 7 are alive, 2 collapsed, 1 has a decoder that ignores the code."
    assert second == (
        f"Why codes are not used, as predicted or tested: in 2 runs {words.CAUSES['optimiser']}; in 1 run it cannot be "
        "told yet."
    )


def test_one_run_is_not_spoken_of_as_several() -> None:
    several = over_time.curves(together([run("a", "alive"), run("b", "alive")]))
    single = over_time.curves(together([run("a", "alive")]))
    assert (single.title, several.title) == ("While it trained", "While they trained")
    assert "band" not in single.caption
