"""The command line before Hydra reads it: which flags pass is held against Hydra's own parser."""

import argparse

import pytest
from hydra._internal.utils import get_args_parser

from vae.cli import arguments
from vae.config.errors import InputError


def flags() -> dict[str, argparse.Action]:
    return {name: action for action in get_args_parser()._actions for name in action.option_strings}


def test_the_flags_are_hydra_s() -> None:
    assert sorted(flags()) == sorted((*arguments.FLAGS, *arguments.WITH_VALUE))
    assert {name for name, action in flags().items() if action.nargs is None} == set(arguments.WITH_VALUE)
    assert tuple(flags()["--cfg"].choices or ()) == arguments.SHOWN


@pytest.mark.parametrize(
    "given",
    [
        ["-m", "model=ae,mlp_vae"],
        ["--multi", "model=ae,mlp_vae"],
        ["--cfg", "job", "--resolve"],
        ["--cfg=job", "--package", "train"],
        ["-sc", "install=bash"],
        ["--config-dir", "--odd-name"],
        ["--info", "defaults"],
        ["train.lr=-1", "+new=--x", "~sweep"],
    ],
)
def test_what_hydra_takes_passes(given: list[str]) -> None:
    arguments.check_flags(given)


def test_a_value_is_not_taken_from_what_stands_before() -> None:
    with pytest.raises(InputError, match=r"seed=7\?$"):
        arguments.check_flags(["train.steps=3", "--seed", "7", "model=ae"])
