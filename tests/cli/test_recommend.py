"""`recommend=true` says what suits the images and leaves nothing; `experiment=images` takes it."""

import dataclasses
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import QUICK, ROOT, composed
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image
from sklearn.decomposition import PCA

from vae.cli import recommend
from vae.config import schema
from vae.config.load import flat, load, load_saved, references, with_values
from vae.data import readers
from vae.data.split import Data, Split
from vae.measure import spectrum
from vae.measure.recommend import Choice, choices
from vae.runtime import files
from vae.training import checkpoint

Program = Callable[..., tuple[int, str, str]]
SMALL = ["model.hidden=8", "model.channels=[4,4]"]


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    """Of 20 directions with falling variances, and a little noise."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(20, 144)) * np.linspace(1, 0.2, 20)[:, None]
    values = rng.normal(size=(400, 20)) @ directions + 0.05 * rng.normal(size=(400, 144))
    values = (values - values.min()) / (values.max() - values.min())
    np.save(tmp_path / "mine.npy", values.reshape(400, 12, 12).astype(np.float32))
    return ["dataset=arrays", "dataset.train=mine.npy"]


def test_the_code_has_the_dimensions_that_a_pca_needs(images: list[str], tmp_path: Path) -> None:
    values = np.load(tmp_path / "mine.npy")
    data = Data(Split(torch.from_numpy(values)[:, None]), Split(torch.from_numpy(values)[:, None]))
    found = {choice.key: choice.value for choice in choices(composed("experiment=images"), data)}
    explained = PCA(40).fit(values.reshape(400, -1)).explained_variance_ratio_.cumsum()
    assert found["model.latent_dim"] == max(16, int((explained < 0.95).sum()) + 1)
    assert found["train.batch_size"] == 20  # twenty batches to an epoch
    assert found["train.steps"] == 2000
    few = Data(data.train.take(torch.arange(60)), data.test)
    assert {choice.key: choice.value for choice in choices(composed("experiment=images"), few)}["model.latent_dim"] == 6


def test_of_several_processes_each_has_as_many_images_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also before they have met: the leader chooses first."""
    data = Data(Split(torch.rand(300, 1, 12, 12)), Split(torch.rand(60, 1, 12, 12)))
    sizes = []
    for processes in ("1", "2"):
        for name, value in {"WORLD_SIZE": processes, "RANK": "0", "MASTER_ADDR": "x", "MASTER_PORT": "1"}.items():
            monkeypatch.setenv(name, value)
        found = {choice.key: choice.value for choice in choices(composed("experiment=images"), data)}
        sizes.append(found["train.batch_size"])
    assert sizes == [15, 14]


@pytest.mark.usefixtures("images")
def test_of_huge_images_no_more_dimensions_than_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    split = Split(torch.from_numpy(np.load(tmp_path / "mine.npy"))[:, None])
    monkeypatch.setattr(spectrum, "EXACT", 0)  # pixels up to which all eigenvalues are known
    monkeypatch.setattr(spectrum, "MAX_COMPONENT_VALUES", 3 * 144)
    found = choices(composed("experiment=images"), Data(split, split))
    assert {choice.key: choice.value for choice in found}["model.latent_dim"] == 3


@pytest.mark.parametrize(("side", "lr"), [(32, None), (64, 0.001), (48, 0.0013)])
def test_the_learning_rate_falls_with_the_sides_of_large_images(side: int, lr: float | None) -> None:
    """Where there is a start that a high rate would undo, and no rate was given."""
    images = torch.rand(60, 1, 16, side, generator=torch.Generator().manual_seed(0))
    data = Data(Split(images), Split(images))
    found = {choice.key: choice.value for choice in choices(composed("experiment=images"), data)}
    assert found.get("train.lr") == lr
    assert not {"train.lr"} & {choice.key for choice in choices(composed("experiment=images"), data, ["train.lr"])}
    assert not {"train.lr"} & {choice.key for choice in choices(composed(), data)}


def test_it_says_so_and_leaves_nothing(images: list[str], program: Program, tmp_path: Path) -> None:
    (tmp_path / "error.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    status, out, err = program("recommend=true", *images)
    assert status == 0, err
    assert sorted(tmp_path.rglob("*")) == before
    *said, command = out.splitlines()
    assert any(line.startswith("images") and "12x12, 1 channel" in line for line in said)
    assert any(line.startswith("model.latent_dim=") and "a PCA of so many dimensions" in line for line in said)
    python, script, *arguments = shlex.split(command)
    assert (python, script, arguments[0]) == ("python", "run.py", "experiment=images")
    status, _, err = program(*arguments, *QUICK, *SMALL, "hydra.run.dir=run")
    assert status == 0, err
    assert not any(line.startswith("Chosen: model.latent_dim") for line in err.splitlines())


def test_a_run_takes_it_and_is_resumed_with_it(
    images: list[str], program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, read = [], readers.load

    def load(config: schema.Dataset) -> Data:
        reads.append(config)
        return read(config)

    monkeypatch.setattr(readers, "load", load)
    np.save(tmp_path / "mine.npy", (255 * np.load(tmp_path / "mine.npy")).astype(np.uint16))
    status, _, err = program("experiment=images", *images, *QUICK, *SMALL, "hydra.run.dir=run")
    assert status == 0, err
    assert len(reads) == err.count("of which 0 is black") == 1, "read once, and said once"
    config = checkpoint.read(tmp_path / "run").config
    assert f"Chosen: model.latent_dim={config.model.latent_dim}: a PCA" in err
    assert not config.choose
    assert config.train.steps == 4  # as given
    assert program("evaluate=run")[0] == 0
    own = composed("experiment=images", "model.latent_dim=5")
    assert own.choose
    status, _, err = program("experiment=images", *images, *QUICK, *SMALL, "model.latent_dim=5", "hydra.run.dir=other")
    assert status == 0, err
    assert checkpoint.read(tmp_path / "other").config.model.latent_dim == 5


@pytest.mark.parametrize(
    ("option", "key"),
    [("anneal=cyclical", "anneal.steps"), ("cure=capacity", "cure.steps"), ("cure=cyclical", "cure.schedule.steps")],
)
def test_what_is_as_long_as_the_run_goes_with_the_steps_that_are_chosen(
    option: str, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chosen_with(*overrides: str) -> tuple[int, int, schema.RunConfig]:
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            written = compose("config", ["experiment=images", *overrides])
        (tmp_path / ".hydra").mkdir(exist_ok=True)
        OmegaConf.save(written, tmp_path / ".hydra" / "config.yaml")
        config, _ = recommend.chosen([], tmp_path, load(written))
        again = load_saved(files.read_yaml(tmp_path / ".hydra" / "config.yaml"), [])
        assert again == config
        return (
            config.train.steps,
            flat(dataclasses.asdict(config))[key],
            with_values(
                config, {"train.steps": 7}, references(config, files.read_yaml(tmp_path / ".hydra" / "config.yaml"))
            ),
        )

    choice = Choice("train.steps", 3456, "why")
    monkeypatch.setattr("vae.measure.recommend.choices", lambda config, data, given: [choice])
    monkeypatch.setattr(
        recommend, "_read", lambda config: Data(Split(torch.rand(4, 1, 4, 4)), Split(torch.rand(4, 1, 4, 4)))
    )
    steps, length, shorter = chosen_with(option)
    assert (steps, length) == (3456, 3456)
    assert flat(dataclasses.asdict(shorter))[key] == 7, "as in a twin with other steps"
    steps, length, shorter = chosen_with(option, f"{key}=10000")
    assert (steps, length, flat(dataclasses.asdict(shorter))[key]) == (3456, 10000, 10000)


def test_a_folder_of_grey_files_is_trained_with_one_channel(program: Program, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "grey").mkdir()
    for i in range(60):
        Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8)).save(tmp_path / "grey" / f"{i}.png")
    images = ["dataset=folder", "dataset.root=grey", "dataset.cache=cache"]
    status, out, err = program("recommend=true", *images)
    assert status == 0, err
    assert "8x8, 1 channel;" in out
    *_, command = out.splitlines()
    assert "dataset.grayscale=true" in shlex.split(command)
    assert "8x8, 3 channels;" in program("recommend=true", *images, "dataset.grayscale=false")[1]
    status, _, err = program("experiment=images", *images, *QUICK, *SMALL, "hydra.run.dir=run")
    assert status == 0, err
    assert "Chosen: dataset.grayscale=true: all images are grey" in err
    saved = checkpoint.read(tmp_path / "run").config
    assert isinstance(saved.dataset, schema.Folder)
    assert saved.dataset.grayscale
    assert program("evaluate=run")[0] == 0
    init = ["init=run", "hydra.run.dir=no"]
    assert "Chosen: dataset" not in program("experiment=images", *init, *images, *QUICK)[2], "it has that run's model"


def test_data_that_cannot_be_read(program: Program, tmp_path: Path) -> None:
    status, out, err = program("recommend=true", "dataset=arrays", "dataset.train=nowhere.npy")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert list(tmp_path.iterdir()) == []
