"""What an experiment sets and the option that is chosen beside it has not."""

from collections.abc import Callable
from pathlib import Path

import pytest

from vae.cli.left_out import left_out
from vae.config.load import kind_of, option_values

Program = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("arguments", "added"),
    [
        (["experiment=images", "model=mlp_vae"], ["model.channels=0", "~model.channels"]),
        (["experiment=images", "model=ae"], ["anneal=no_kl"]),
        (["experiment=expressive_annealed", "model=ae"], ["anneal=no_kl", "~anneal.steps"]),
        (["experiment=vae", "objective=bernoulli"], ["~objective.sigma2"]),
        (["experiment=low_capacity", "objective=sse", "cure=none"], ["~objective.sigma2"]),
        (["experiment=vae", "objective=gaussian", "model=mlp_vae", "cure=mmd"], []),
        (["experiment=vae", "objective=bernoulli", "objective.sigma2=2"], []),  # typed, so refused
        (["experiment=vae", "objective=bernoulli", "~objective.sigma2"], []),
        (["experiment=images", "model=ae", "anneal=constant"], []),
        (["-m", "experiment=vae", "objective=bernoulli"], []),
        (["objective=bernoulli"], []),
        (["experiment=mine", "objective=mine"], []),
    ],
)
def test_what_is_added(arguments: list[str], added: list[str]) -> None:
    found, said = left_out(arguments)
    assert found == added
    assert len(said) == sum(not item.endswith("=0") for item in found)


def test_it_is_composed_and_said(program: Program) -> None:
    status, out, err = program("--cfg", "job", "experiment=images", "model=mlp_vae")
    assert status == 0, err
    assert "channels" not in out
    assert err == "model.channels of experiment=images is left out: model=mlp_vae has no such key\n"
    status, _, err = program("experiment=vae", "objective=bernoulli", "objective.sigma2=2")
    assert status == 1
    assert err.count("\n") == 1
    assert "objective.sigma2=0 '~objective.sigma2' leaves out what an experiment" in err


@pytest.mark.parametrize(
    "text", ["kind: mlp\ndefaults:\n", "defaults: [mine]\n", 'kind: "${"\n', "model: conv_vae\n", "- mlp\n", "\x00"]
)
def test_a_file_of_one_s_own_that_is_none_is_left_to_hydra(text: str, tmp_path: Path) -> None:
    for group in ("model", "experiment"):
        (tmp_path / group).mkdir()
        (tmp_path / group / "mine.yaml").write_text(text)
    for arguments in (["experiment=images", "model=mine"], ["experiment=mine", "model=mlp_vae"]):
        assert left_out(["--config-dir", str(tmp_path), *arguments]) == ([], [])


def test_of_one_s_own_options_too(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("kind: mlp\nname: mine\n")
    found, _ = left_out(["experiment=images", "model=mine", f"--config-dir={tmp_path}"])
    assert found == ["model.channels=0", "~model.channels"]


def test_the_name_of_an_option_may_have_a_hyphen(tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "my-digits.yaml").write_text("defaults: [my_base]\nroot: here\n")
    (tmp_path / "dataset" / "my_base.yaml").write_text("kind: folder\nroot: there\n")
    found = option_values("dataset", "my-digits", [tmp_path])
    assert (kind_of("dataset", found), found["root"]) == ("folder", "here")
