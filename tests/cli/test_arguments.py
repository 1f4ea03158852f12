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


def test_flags_come_last() -> None:
    """Hydra's parser wants all else side by side, what is added to it too, and takes what follows --info for its
    value."""
    typed = [
        "seed=1",
        "--config-dir",
        "mine",
        "recommend=true",
        "--info",
        "defaults",
        "-m",
        "--config-name=other",
        "a=b",
    ]
    given, _ = arguments.expanded(typed)
    flags = ["--config-dir", "mine", "--info", "defaults", "-m", "--config-name=other"]
    assert given == ["experiment=images", "seed=1", "recommend=true", "a=b", *flags]
    assert arguments.expanded(["--info", "seed=1"])[0] == ["seed=1", "--info"]


def test_a_value_is_not_taken_from_what_stands_before() -> None:
    with pytest.raises(InputError, match=r"seed=7\?$"):
        arguments.check_flags(["train.steps=3", "--seed", "7", "model=ae"])


@pytest.mark.parametrize("text", ["true", "True", "yes", "on", "1", "'yes'", "Y"])
def test_booleans_are_read_as_hydra_reads_them(text: str) -> None:
    given, added = arguments.expanded([f"recommend={text}", "dataset=folder"])
    assert given == ["experiment=images", "recommend=true", "dataset=folder"]
    assert added == ["experiment=images"]


@pytest.mark.parametrize("text", ["false", "No", "off", "0"])
def test_what_is_false_recommends_nothing(text: str) -> None:
    assert arguments.expanded([f"recommend={text}"]) == (["recommend=false"], [])


def test_what_is_no_boolean_is_left_to_hydra() -> None:
    assert arguments.expanded(["recommend=maybe"]) == (["recommend=maybe"], [])


@pytest.mark.parametrize("text", ["null", "NULL", ""])
def test_a_verb_that_is_null_is_none(text: str) -> None:
    assert arguments.expanded([f"encode={text}", "dataset.size=3", "n=null"])[1] == []
    with pytest.raises(InputError, match=r"format=csv: goes with"):
        arguments.expanded([f"encode={text}", "format=csv"])
