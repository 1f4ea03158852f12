"""What a run says while it trains."""

import logging
from pathlib import Path

import pytest
from conftest import QUICK, trained
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (("objective=pixel_mse",), "so far collapsed (cause: objective)"),
        (("anneal=no_kl",), "so far deterministic"),
        (("model.posterior=none",), None),
    ],
)
def test_each_evaluation_on_the_way_says_the_verdict_so_far(
    overrides: tuple[str, ...],
    says: str | None,
    digits: list[str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO, "vae"):
        trained(tmp_path, *QUICK, *digits, "model=mlp_vae", "train.steps=60", "train.eval_every=30", *overrides)
    before, last = (line for line in caplog.text.splitlines() if "/60  mse" in line)
    assert "so far" not in last, "at the end there is the verdict itself"
    assert (says in before) if says else ("so far" not in before)


def test_hparams_have_the_cause_that_was_found(digits: list[str], tmp_path: Path) -> None:
    """Not the one that the run was made to show."""
    asked = ["cause=optimiser", "objective.sigma2=1000", "train.steps=200", "train.eval_every=200"]
    record = trained(tmp_path, *QUICK, *digits, *asked)
    events = EventAccumulator(str(tmp_path)).Reload()
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    shown = HParamsPluginData.FromString(content).session_start_info.hparams
    assert record["cause"] == "objective"
    assert (shown["8 cause"].string_value, shown["cause"].string_value) == ("objective", "optimiser")


def test_the_kl_term_of_a_cure_begins_when_the_cure_says(digits: list[str], tmp_path: Path) -> None:
    """An autoencoder for the first quarter, then a KL weight that rises."""
    steps = ["train.steps=40", "train.log_every=1", "train.eval_every=40"]
    record = trained(tmp_path, *QUICK, *digits, "model=mlp_vae", "cure=pretrain", *steps)
    assert (record["kl_began_at_step"], record["max_kl_weight"]) == (11, 1)
