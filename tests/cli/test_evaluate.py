"""`evaluate=` measures on images that the run was not trained on, whatever else the call says of them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import QUICK
from PIL import Image

Program = Callable[..., tuple[int, str, str]]
SMALL = ["model=mlp_vae", "model.encoder_widths=[16]", "model.decoder_widths=[16]", "model.latent_dim=3"]


def save_images(directory: Path, count: int) -> None:
    rng = np.random.default_rng(count)
    directory.mkdir(parents=True)
    for i in range(count):
        Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8)).save(directory / f"{i:02d}.png")


@pytest.fixture
def run(finished: Callable[..., Path], tmp_path: Path) -> Path:
    """On 24 images below `images`, of which 5 are tested on."""
    save_images(tmp_path / "images", 24)
    where = [f"dataset.root={tmp_path}/images", f"dataset.cache={tmp_path}/cache"]
    return finished("mine", *SMALL, "dataset=folder", *where, "dataset.test_fraction=0.2", "dataset.split_seed=7")


def broken(images: Path) -> None:
    (images / "03.png").write_bytes(b"nothing")


def animated(images: Path) -> None:
    pages = [Image.fromarray(np.full((8, 8), shade, np.uint8)) for shade in (9, 99)]
    pages[0].save(images / "03.tif", save_all=True, append_images=pages[1:])
    (images / "03.png").unlink()


def unchanged(images: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("arguments", "change", "says"),
    [
        (["dataset.split_seed=1"], unchanged, "dataset.split_seed was 7, is 1"),
        (["dataset.root=images", "dataset.split_seed=1"], unchanged, "dataset.split_seed was 7, is 1"),
        (["dataset.split_seed=1", "dataset.binarize=threshold"], unchanged, "dataset.split_seed was 7, is 1"),
        (["dataset.fit=pad", "dataset.test_fraction=0.3"], unchanged, "dataset.test_fraction was 0.2, is 0.3"),
        (["dataset.skip_broken=true"], broken, "the number of train images was 19, is 18"),
        (["dataset.frames=all"], animated, "the number of train images was 19, is 20"),
    ],
)
def test_its_own_images_are_not_divided_anew(
    arguments: list[str], change: Callable[[Path], None], says: str, run: Path, program: Program, tmp_path: Path
) -> None:
    change(tmp_path / "images")
    status, out, err = program("evaluate=mine", *arguments)
    assert (status, out) == (1, "")
    assert f"its images would be divided anew ({says})" in err.splitlines()[-1]
    assert not (run / "evaluation.json").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["dataset.binarize=threshold"],
        ["dataset.split_seed=7", "dataset.fit=pad"],
        ["dataset.cache=elsewhere"],
        ["dataset=folder", "dataset.root=other", "dataset.split_seed=1"],  # others, on purpose
        ["dataset.root=images"],
    ],
)
def test_what_leaves_the_split_alone_is_measured(
    arguments: list[str], run: Path, program: Program, tmp_path: Path
) -> None:
    save_images(tmp_path / "other", 12)
    status, _, err = program("evaluate=mine", *arguments)
    assert status == 0, err
    assert (run / "evaluation.json").exists()


def test_a_test_split_of_its_own_stays_one(program: Program, tmp_path: Path) -> None:
    """What becomes of the other images divides nothing."""
    for part, count in (("train", 20), ("test", 8)):
        save_images(tmp_path / "images" / part, count)
    where = ["dataset=folder", f"dataset.root={tmp_path}/images"]
    assert program(*QUICK, *SMALL, *where, "hydra.run.dir=mine")[0] == 0
    broken(tmp_path / "images" / "train")
    status, _, err = program("evaluate=mine", "dataset.skip_broken=true")
    assert status == 0, err


def test_images_that_were_trained_on_are_not_held_out_of(program: Program, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (40, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "both.npz", x_train=images[:30], x_test=images[30:])
    where = ["dataset=arrays", "dataset.train=both.npz", "dataset.test=both.npz"]
    assert program(*QUICK, *SMALL, *where, "hydra.run.dir=mine")[0] == 0
    status, _, err = program("evaluate=mine", "dataset.test=null")
    assert status == 1
    assert "its images would be divided anew (dataset.test was " in err.splitlines()[-1]


def test_the_option_of_the_run_is_the_run_s(program: Program, tmp_path: Path) -> None:
    """With the run's split, which the option alone would not have."""
    settings = [*QUICK, *SMALL, "dataset=mnist5k", "dataset.split_seed=7", "dataset.binarize=threshold"]
    assert program(*settings, "evaluation.test_images=50", "hydra.run.dir=mine")[0] == 0
    measured = []
    for more in ([], ["dataset=mnist5k"]):
        status, _, err = program("evaluate=mine", *more)
        assert status == 0, err
        measured.append((tmp_path / "mine" / "evaluation.json").read_text())
    assert measured[0] == measured[1]
    status, _, err = program("evaluate=mine", "dataset=mnist5k", "dataset.split_seed=0")
    assert (status, err.count("\n")) == (1, 1)
    assert "dataset.split_seed was 7, is 0" in err
