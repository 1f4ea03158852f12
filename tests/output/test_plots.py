"""What matplotlib draws for TensorBoard: pictures that are not blank, of a small run and of what is given."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import QUICK, trained
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vae.data.split import Split
from vae.measure import spectrum
from vae.output import plots


def test_a_run_leaves_its_plots(digits: list[str], tmp_path: Path) -> None:
    trained(tmp_path, *QUICK, *digits, "model=mlp_vae")
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 1}).Reload()
    for tag in ("spectrum", "kl_per_dimension", "aggregate_posterior"):
        assert events.Images(tag)[-1].height > 100


@pytest.mark.parametrize("named", [True, False])
def test_codes_are_told_apart(named: bool) -> None:
    labels = torch.arange(60) % 3
    z = torch.randn(60, 2, generator=torch.Generator().manual_seed(0)) + labels[:, None]
    drawn = plots.aggregate_plot(z, [0, 1], labels, ("ant", "$bee", "c" * 99) if named else None)
    assert drawn.dtype == np.uint8
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 50
    assert (drawn != plots.aggregate_plot(z, [0, 1], None)).any()


def test_names_whose_signs_the_font_lacks_are_told_apart() -> None:
    labels = torch.arange(60) % 2
    z = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    drawn = plots.aggregate_plot(z, [0, 1], labels, ("日本", "中国"))
    assert (drawn == plots.aggregate_plot(z, [0, 1], labels, (r"\u65e5\u672c", r"\u4e2d\u56fd"))).all()


def test_the_spectrum_is_drawn() -> None:
    found = spectrum.measure(Split(torch.rand(50, 1, 4, 4)), 16)
    drawn = plots.spectrum_plot(found.eigenvalues, 4)
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 10
    assert (plots.spectrum_plot(found.eigenvalues, 4, 3, ("t", 0.1)) != drawn).any()


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["objective=bernoulli", "dataset.binarize=threshold"], "KL weight"),
        (["objective=gaussian"], "t = beta sigma²"),
        (["anneal=no_kl"], None),
    ],
)
def test_the_spectrum_shows_what_is_predicted(
    overrides: list[str], name: str | None, digits: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []

    def keep(values: torch.Tensor, *arguments: Any) -> np.ndarray[Any, Any]:
        given.extend([values, *arguments])
        return np.zeros((8, 8, 3), np.uint8)

    monkeypatch.setattr(plots, "spectrum_plot", keep)
    record = trained(tmp_path, *QUICK, *digits, "model=mlp_vae", *overrides)
    if name is None:
        assert len(given) == 2  # nothing is said to be kept, or not to be
        return
    values, latent_dim, kept, (line, height), *_ = given
    assert (kept, line) == (record["predicted_active_units"], name)
    assert kept > 0
    assert kept == min(latent_dim, int((values > height).sum()))


@pytest.mark.parametrize(
    "overrides",
    [
        ["model.latent_dim=1"],
        ["objective=gaussian", "objective.sigma2=1000"],
        ["model.posterior=dirac", "anneal=no_kl"],
    ],
)
def test_runs_of_any_kind_leave_their_plots(overrides: list[str], digits: list[str], tmp_path: Path) -> None:
    """A code of one dimension, an optimum that keeps none, a KL that is infinite."""
    trained(tmp_path, *QUICK, *digits, "model=mlp_vae", *overrides)
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 1}).Reload()
    assert events.Images("spectrum")[-1].height > 100
    assert (tmp_path / "aggregate_posterior.png").exists() == ("model.latent_dim=1" not in overrides)


def test_labels_of_many_classes_are_drawn() -> None:
    z = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    drawn = plots.aggregate_plot(z, [0, 1], torch.arange(60) % 20)
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 50
