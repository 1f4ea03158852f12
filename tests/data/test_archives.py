"""Published binary and grey characters, from files of the same form."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import composed
from scipy.io import savemat

from vae.config.errors import InputError
from vae.data import readers

RNG = np.random.default_rng(0)


def save_amat(directory: Path) -> dict[str, np.ndarray]:
    found = {part: RNG.integers(0, 2, (count, 784)) for part, count in (("train", 5), ("valid", 3), ("test", 4))}
    for part, images in found.items():
        np.savetxt(directory / f"binarized_mnist_{part}.amat", images, fmt="%d")
    return found


def test_static_mnist(tmp_path: Path) -> None:
    saved = save_amat(tmp_path)
    config = composed("dataset=static_mnist", f"dataset.root={tmp_path}").dataset
    data = readers.load(config)
    assert np.array_equal(data.train.batch(slice(None)).flatten(1).numpy(), saved["train"])
    assert np.array_equal(data.test.batch(slice(None)).flatten(1).numpy(), saved["test"])
    more = composed("dataset=static_mnist", f"dataset.root={tmp_path}", "dataset.with_validation=true").dataset
    both = readers.load(more).train.batch(slice(None)).flatten(1).numpy()
    assert np.array_equal(both, np.concatenate([saved["train"], saved["valid"]]))


@pytest.mark.parametrize("damage", ["missing", "short", "other numbers", "empty"])
def test_static_mnist_that_is_none(damage: str, tmp_path: Path) -> None:
    save_amat(tmp_path)
    path = tmp_path / "binarized_mnist_test.amat"
    content = path.read_text()
    path.write_text({"short": content[:-5], "other numbers": content.replace("1", "2"), "empty": ""}.get(damage, ""))
    if damage == "missing":
        path.unlink()
    with pytest.raises(InputError, match=r"binarized_mnist_test\.amat"):
        readers.load(composed("dataset=static_mnist", f"dataset.root={tmp_path}").dataset)


def test_omniglot_stands_upright(tmp_path: Path) -> None:
    """MATLAB's x(:) of a 28x28 image is its columns one after another."""
    upright = RNG.random((6, 28, 28)).round(2)
    columns = np.stack([image.ravel(order="F") for image in upright], 1)
    alphabet = np.array([2, 0, 1, 2, 1, 0])
    savemat(
        tmp_path / "chardata.mat",
        {"data": columns, "testdata": columns[:, :2], "target": np.eye(3)[alphabet].T, "testtarget": np.eye(3)[:, :2]},
    )
    data = readers.load(
        composed("dataset=omniglot", f"dataset.file={tmp_path}/chardata.mat", "dataset.binarize=none").dataset
    )
    assert np.abs(data.train.batch(slice(None))[:, 0].numpy() - upright).max() < 0.5 / 255 + 1e-6
    assert data.train.labels is not None
    assert data.train.labels.tolist() == alphabet.tolist()
    binary = readers.load(composed("dataset=omniglot", f"dataset.file={tmp_path}/chardata.mat").dataset)
    assert binary.grey is not None
    assert torch.equal(binary.grey.images, data.train.images)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"data": np.zeros((784, 3))}, "testdata"),
        ({"data": np.zeros((783, 3)), "testdata": np.zeros((784, 3))}, "must be"),
        ({"data": np.full((784, 3), 2.0), "testdata": np.zeros((784, 3))}, "brightness"),
        (None, "not a readable .mat file"),
    ],
)
def test_omniglot_that_is_none(content: dict[str, np.ndarray] | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "chardata.mat"
    if content is None:
        path.write_bytes(b"no such thing" * 30)
    else:
        savemat(path, content)
    with pytest.raises(InputError, match=said):
        readers.load(composed("dataset=omniglot", f"dataset.file={path}").dataset)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="copy the file there"):
        readers.load(composed("dataset=omniglot", f"dataset.file={tmp_path}/no.mat").dataset)
