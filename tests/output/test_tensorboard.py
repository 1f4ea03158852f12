"""The layout of the Custom Scalars tab speaks of tags that a run has."""

import re
from pathlib import Path

import pytest
from conftest import QUICK, trained
from twins import scalars

from vae.output.events import EventFile, check_written, there
from vae.output.tensorboard import LAYOUT


def test_the_name_of_a_machine_may_be_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "john's box/\u00e9" + 300 * "x")
    EventFile(tmp_path).close()
    check_written(there(tmp_path))
    assert len(there(tmp_path)) == 1


CHARTS = {name: (kind, tags) for section in LAYOUT.values() for name, (kind, tags) in section.items()}


@pytest.fixture(scope="module")
def tags(tmp_path_factory: pytest.TempPathFactory, digits: list[str]) -> set[str]:
    directory = tmp_path_factory.mktemp("run")
    trained(directory, *QUICK, *digits, "model=mlp_vae")
    return set(scalars(directory))


@pytest.mark.parametrize("name", CHARTS)
def test_each_chart_has_the_curves_that_it_names(name: str, tags: set[str]) -> None:
    kind, wanted = CHARTS[name]
    found = [[tag for tag in tags if (tag == one if kind == "Margin" else re.search(one, tag))] for one in wanted]
    assert [len(of) for of in found] == [1] * len(wanted)


@pytest.mark.parametrize("bound", ["mu_min", "mu_max", "sigma_min", "sigma_max"])
def test_each_bound_has_a_chart_of_its_own(bound: str) -> None:
    """In one with others it is among the values that the switch "Ignore outliers" cuts off."""
    assert [f"latent/{bound}$"] in [tags for kind, tags in CHARTS.values() if kind == "Multiline"]
