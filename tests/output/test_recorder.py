"""What a run says while it trains."""

import logging
from pathlib import Path

import pytest
from conftest import QUICK, trained


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
