"""The jobs of a sweep are those that Hydra's own sweeper makes."""

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from vae.cli.grid import grid


@pytest.mark.parametrize(
    ("params", "overrides"),
    [
        ({}, ["seed=1,2", "model=ae,mlp_vae", "train.lr=0.1"]),
        ({"model": "linear_vae,mlp_vae", "anneal.weight": "0.1,1,10"}, ["seed=3"]),
        ({"model": "linear_vae,mlp_vae", "anneal.weight": "0.1,1,10"}, ["model=mlp_vae", "anneal.weight=4,8"]),
        ({"seed": "range(3)"}, ["train.steps=choice(5,6)"]),
        ({}, ["seed=1", "seed=2,3"]),
    ],
)
def test_the_grid_is_hydra_s(params: dict[str, str], overrides: list[str]) -> None:
    given = OverridesParser.create().parse_overrides([*(f"{key}={value}" for key, value in params.items()), *overrides])
    (batch,) = BasicSweeper.split_arguments(given, None)
    assert [sorted(job) for job in grid(params, overrides)] == [sorted(job) for job in batch]
