"""Arrays of every number type, range, layout and file: read as they were meant, said, or refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import composed

from vae.config import schema
from vae.config.errors import InputError
from vae.data import arrays, readers
from vae.data.arrays import Loaded
from vae.output.pictures import in_colour

RNG = np.random.default_rng(0)
UNIT = RNG.random((20, 8, 9))  # what every variant below shows
UNIT[0, 0, :2] = 0, 1


def load(path: Path, *overrides: str) -> Loaded:
    config = composed("dataset=arrays", f"dataset.train={path}", *overrides).dataset
    assert isinstance(config, schema.Arrays)
    (found,) = arrays.read(config)
    return found


def shown(found: Loaded) -> np.ndarray[Any, Any]:
    return found.split.batch(slice(None))[:, 0].numpy()


TYPES: dict[str, tuple[np.ndarray[Any, Any], float, str]] = {
    "uint8": ((UNIT * 255).round().astype(np.uint8), 0.002, ""),
    "bool": (UNIT > 0.5, 0.51, ""),
    "uint16": ((UNIT * 65535).round().astype(np.uint16), 1e-4, "0 is black and 65535 white"),
    "12 bits in uint16": ((UNIT * 4095).round().astype(np.uint16), 2e-4, "0 is black and 4095 white"),
    "int64 with 0..255": ((UNIT * 255).round().astype(np.int64), 0.002, "0 is black and 255 white"),
    "big-endian": ((UNIT * 255).round().astype(">i4"), 0.002, "0 is black and 255 white"),
    "uint8 with 0 and 1": ((UNIT > 0.5).astype(np.uint8), 0.51, "0 is black and 1 white"),
    "int16, signed": ((UNIT * 2000 - 1000).round().astype(np.int16), 3e-4, "-1000 is black and 1000 white"),
    "float16": (UNIT.astype(np.float16), 1e-3, ""),
    "float64": (UNIT, 1e-6, ""),
    "[-1, 1]": ((UNIT * 2 - 1).astype(np.float32), 1e-6, "-1 is black and 1 white"),
    "floats with 0..255": ((UNIT * 255).astype(np.float32), 1e-6, "0 is black and 255 white"),
    "1.0000001": ((UNIT * 1.0000001).astype(np.float32), 1e-5, ""),
}


@pytest.mark.parametrize("kind", TYPES)
def test_number_types(kind: str, tmp_path: Path) -> None:
    array, near, line = TYPES[kind]
    np.save(tmp_path / "a.npy", array)
    found = load(tmp_path / "a.npy")
    assert np.abs(shown(found) - UNIT).max() <= near
    assert shown(found).min() >= 0
    assert shown(found).max() <= 1
    assert found.split.mapped
    assert line in found.note


@pytest.mark.parametrize("values", [[0.0, 1.5], [-0.2, 3.0], [-7.0, 900.0], [0.0, 256.5]])
def test_floats_that_could_mean_anything(values: list[float], tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.resize(np.array(values), (4, 8, 8)))
    with pytest.raises(InputError, match=r"which are black and white\? dataset\.range=\[black,white\]"):
        load(tmp_path / "a.npy")
    assert shown(load(tmp_path / "a.npy", "dataset.range=[-7,900]")).max() <= 1


def test_a_range_of_one_s_own_says_what_it_cuts_off(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.resize(np.array([0, 50, 100, 200], np.uint8), (4, 8, 8)))
    found = load(tmp_path / "a.npy", "dataset.range=[50,100]")
    assert sorted(np.unique(shown(found)).tolist()) == [0, 1]
    assert "cut off" in found.note
    assert "cut off" not in load(tmp_path / "a.npy", "dataset.range=[0,200]").note


LAYOUTS: dict[str, tuple[tuple[int, ...], list[str], tuple[int, int, int] | None]] = {
    "grey": ((20, 8, 9), [], (1, 8, 9)),
    "colour, last": ((20, 8, 9, 3), [], (3, 8, 9)),
    "colour, first": ((20, 3, 8, 9), [], (3, 8, 9)),
    "with opacity": ((20, 8, 9, 4), [], (4, 8, 9)),
    "two channels": ((20, 2, 32, 33), [], (2, 32, 33)),
    "sixteen": ((20, 32, 33, 16), [], (16, 32, 33)),
    "ambiguous": ((20, 8, 8, 8), [], None),
    "ambiguous, said": ((20, 8, 8, 8), ["dataset.layout=channels_last"], (8, 8, 8)),
    "seventeen": ((20, 17, 33, 34), [], None),
    "squares as rows": ((20, 64), [], (1, 8, 8)),
    "rows": ((20, 72), ["dataset.shape=[8,9]"], (1, 8, 9)),
    "colour rows": ((20, 216), ["dataset.shape=[3,8,9]"], (3, 8, 9)),
    "colour rows, last": ((20, 216), ["dataset.shape=[8,9,3]", "dataset.layout=channels_last"], (3, 8, 9)),
    "colour rows, last, not said": ((20, 216), ["dataset.shape=[8,9,3]"], None),
    "eight channels, said": ((20, 216), ["dataset.shape=[8,9,3]", "dataset.layout=channels_first"], (8, 9, 3)),
    "28 channels": ((20, 2352), ["dataset.shape=[28,28,3]"], None),
    "28 channels, said": ((20, 2352), ["dataset.shape=[28,28,3]", "dataset.layout=channels_first"], None),
    "28 channels, not rows": ((20, 28, 28, 3), ["dataset.shape=[28,28,3]"], None),
    "rows of another size": ((20, 72), ["dataset.shape=[8,8]"], None),
    "rows of nothing known": ((20, 72), [], None),
    "five axes": ((20, 2, 2, 2, 2), [], None),
    "no axis": ((), [], None),
}


@pytest.mark.parametrize("kind", LAYOUTS)
def test_layouts(kind: str, tmp_path: Path) -> None:
    size, overrides, shape = LAYOUTS[kind]
    np.save(tmp_path / "a.npy", RNG.random(size))
    if shape is None:
        with pytest.raises(InputError, match=r"a\.npy: images float64 of shape"):
            load(tmp_path / "a.npy", *overrides)
    else:
        assert load(tmp_path / "a.npy", *overrides).split.shape == shape


@pytest.mark.parametrize("shape", ["[8]", "[0,8]", "[1,2,3,4]"])
def test_shapes_that_are_none(shape: str) -> None:
    with pytest.raises(InputError, match=r"dataset\.shape"):
        composed("dataset=arrays", "dataset.train=x", f"dataset.shape={shape}")


LABELS: dict[str, tuple[Any, list[int], tuple[str, ...] | None]] = {
    "numbers": (np.arange(4), [0, 1, 2, 3], None),
    "floats": (np.array([0.0, 2.0, 1.0, 1.0]), [0, 2, 1, 1], None),
    "a column": (np.array([[0], [2], [1], [1]]), [0, 2, 1, 1], None),
    "texts": (np.array(["dog", "cat", "dog", "ant"]), [2, 1, 2, 0], ("ant", "cat", "dog")),
    "one-hot": (np.eye(4)[[2, 0, 1, 3]], [2, 0, 1, 3], None),
    "true or false": (np.array([True, False, True, True]), [1, 0, 1, 1], None),
}
FOUR = (UNIT[:4] * 255).astype(np.uint8)


@pytest.mark.parametrize("place", ["inside", "beside", "named"])
@pytest.mark.parametrize("kind", LABELS)
def test_labels(kind: str, place: str, tmp_path: Path) -> None:
    given, expected, names = LABELS[kind]
    overrides = []
    if place == "inside":
        np.savez(tmp_path / "a.npz", images=FOUR, labels=given)
        path = tmp_path / "a.npz"
    else:
        path = tmp_path / "a.npy"
        np.save(path, FOUR)
        beside = tmp_path / ("a_labels.npy" if place == "beside" else "mine.npy")
        np.save(beside, given)
        overrides = [] if place == "beside" else [f"dataset.labels={beside}"]
    found = load(path, *overrides)
    assert found.split.labels is not None
    assert found.split.labels.tolist() == expected
    assert found.classes == names
    if place != "inside":
        assert "labels from" in found.note


@pytest.mark.parametrize(
    "labels",
    [
        np.arange(5),
        np.array([0.5, 1, 2, 3]),
        np.zeros((4, 3)),
        np.full((4, 2), 0.5),
        np.array([1j] * 4),
        np.nan * np.ones(4),
    ],
)
def test_labels_that_are_none(labels: np.ndarray[Any, Any], tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=FOUR, labels=labels)
    with pytest.raises(InputError, match="labels"):
        load(tmp_path / "a.npz")


def test_texts_mean_the_same_in_both_files(tmp_path: Path) -> None:
    np.savez(tmp_path / "train.npz", images=FOUR, labels=np.array(["dog", "cat", "dog", "cat"]))
    np.savez(tmp_path / "test.npz", images=FOUR, labels=np.array(["dog", "eel", "dog", "eel"]))
    config = composed("dataset=arrays", f"dataset.train={tmp_path}/train.npz", f"dataset.test={tmp_path}/test.npz")
    data = readers.load(config.dataset)
    assert data.classes == ("cat", "dog", "eel")
    assert data.train.labels is not None
    assert data.test.labels is not None
    assert data.train.labels.tolist() == [1, 0, 1, 0]
    assert data.test.labels.tolist() == [1, 2, 1, 2]


@pytest.mark.parametrize("key", ["images", "x", "data", "x_train", "arr_0"])
def test_usual_names_in_an_npz_file(key: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **{key: FOUR, "other": np.zeros(3)})
    assert load(tmp_path / "a.npz").split.shape == (1, 8, 9)


def test_a_name_of_one_s_own(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", scans=FOUR, more=np.zeros(3))
    assert load(tmp_path / "a.npz", "dataset.key=scans").split.shape == (1, 8, 9)
    with pytest.raises(InputError, match=r"has scans, more in it; dataset\.key=NAME"):
        load(tmp_path / "a.npz")
    with pytest.raises(InputError, match="has no cans in it, but scans, more"):
        load(tmp_path / "a.npz", "dataset.key=cans")


@pytest.mark.parametrize(
    ("key", "labels", "said"),
    [
        ("x_test", [3, 3, 3, 3], ""),
        ("x_train", [1, 1, 1, 1], ""),
        ("val_images", [5, 5, 5, 5], ""),
        ("scans", [7, 7, 7, 7], "labels from its target"),
        ("X_dev", [7, 7, 7, 7], "labels from its target"),
    ],
)
def test_labels_are_those_of_their_images(key: str, labels: list[int], said: str, tmp_path: Path) -> None:
    images = dict.fromkeys(("x_train", "x_test", "val_images", "scans", "X_dev"), FOUR)
    kinds = {"y_train": 1, "y_test": 3, "val_labels": 5, "target": 7}
    np.savez(tmp_path / "a.npz", **images, **{name: np.full(4, kind) for name, kind in kinds.items()})
    found = load(tmp_path / "a.npz", f"dataset.key={key}")
    assert found.split.labels is not None
    assert found.split.labels.tolist() == labels
    assert said in found.note
    assert bool(said) == ("labels from" in found.note)


def test_labels_of_other_images_are_not_taken(tmp_path: Path) -> None:
    images, labels = torch.ones(4, 8, 8), torch.ones(4)
    torch.save({"x_train": images, "y_train": labels, "x_test": images}, tmp_path / "a.pt")
    assert load(tmp_path / "a.pt", "dataset.key=x_test").split.labels is None


def shades(**arrays: int) -> dict[str, np.ndarray[Any, Any]]:
    """Under each name four images of one brightness of their own; under y_... and ..._labels four labels."""
    return {
        name: np.full(4, shade) if name[0] == "y" or "labels" in name else np.full((4, 8, 9), shade, np.uint8)
        for name, shade in arrays.items()
    }


def save(path: Path, arrays: dict[str, np.ndarray[Any, Any]]) -> None:
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".pt":
        torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, path)
    else:
        with pytest.importorskip("h5py").File(path, "w") as file:
            for name, array in arrays.items():
                file[name] = array


def read_both(train: Path, test: Path, *overrides: str) -> list[tuple[int, list[int] | None]]:
    """Of the training and of the test images their brightness and their labels."""
    config = composed("dataset=arrays", f"dataset.train={train}", f"dataset.test={test}", *overrides).dataset
    assert isinstance(config, schema.Arrays)
    found = [part.split for part in arrays.read(config)]
    return [
        (int(split.images.unique()), None if split.labels is None else split.labels.unique().tolist())
        for split in found
    ]


MEDMNIST = ("train_images", "train_labels", "val_images", "val_labels", "test_images", "test_labels")
BOTH: dict[str, tuple[dict[str, int], list[str], list[tuple[int, list[int] | None]]]] = {
    "Keras": ({"x_train": 9, "y_train": 1, "x_test": 7, "y_test": 2}, [], [(9, [1]), (7, [2])]),
    "scikit-learn": ({"X_train": 9, "X_test": 7, "y_train": 1, "y_test": 2}, [], [(9, [1]), (7, [2])]),
    "MedMNIST": (dict(zip(MEDMNIST, (9, 1, 8, 3, 7, 2), strict=True)), [], [(9, [1]), (7, [2])]),
    "names of one's own": ({"scans_train": 9, "scans_test": 7}, ["dataset.key=scans_train"], [(9, None), (7, None)]),
}


@pytest.mark.parametrize("suffix", [".npz", ".pt", ".h5"])
@pytest.mark.parametrize("kind", BOTH)
def test_a_file_of_both_splits(kind: str, suffix: str, tmp_path: Path) -> None:
    content, overrides, expected = BOTH[kind]
    path = tmp_path / f"both{suffix}"
    save(path, shades(**content))
    assert read_both(path, path, *overrides) == expected


@pytest.mark.parametrize(
    ("train", "test", "overrides", "expected"),
    [
        ({"x_train": 9}, {"x_test": 7}, [], (9, 7)),
        ({"x_train": 9}, {"x_test": 7}, ["dataset.key=x_train"], (9, 7)),
        ({"x_train": 9}, {"x_test": 7}, ["dataset.key=x_test"], (9, 7)),
        ({"x_train": 9}, {"x_train": 9, "x_test": 7}, ["dataset.key=x_train"], (9, 7)),
        ({"images": 9}, {"images": 7}, [], (9, 7)),
        ({"images": 9}, {"x_train": 5, "x_test": 7}, [], (9, 7)),
        ({"images": 9}, {"scans": 7, "more": 5}, ["dataset.key=scans"], (9, 7)),
        ({"scans": 9, "x": 5}, {"scans": 7, "x_test": 5}, ["dataset.key=scans"], (9, 7)),
        ({"scans_train": 9}, {"scans_test": 7}, ["dataset.key=scans_train"], (9, 7)),
    ],
)
def test_a_file_for_each_split(
    train: dict[str, int], test: dict[str, int], overrides: list[str], expected: tuple[int, int], tmp_path: Path
) -> None:
    """dataset.key is the name in the file that has it."""
    save(tmp_path / "a.npz", shades(**train))
    save(tmp_path / "b.npz", shades(**test))
    found = read_both(tmp_path / "a.npz", tmp_path / "b.npz", *overrides)
    assert tuple(shade for shade, _ in found) == expected


def test_a_key_that_neither_file_has(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(tmp_path / f"{name}.npz", shades(images=9))
    with pytest.raises(InputError, match=r"a\.npz: has no cans in it, but images; dataset\.key names one"):
        read_both(tmp_path / "a.npz", tmp_path / "b.npz", "dataset.key=cans")
    with pytest.raises(InputError, match=r"a\.npz: has no cans in it, but images"):
        load(tmp_path / "a.npz", "dataset.key=cans")


@pytest.mark.parametrize("content", [{"x": 9}, {"x_train": 9, "y_train": 1, "x_val": 7}, {"images": 9, "data": 7}])
def test_images_are_not_tested_on_that_are_trained_on(content: dict[str, int], tmp_path: Path) -> None:
    save(tmp_path / "a.npz", shades(**content))
    np.save(tmp_path / "a.npy", FOUR)
    (tmp_path / "link.npy").symlink_to("a.npy")
    for train, test in (("a.npz", "a.npz"), ("a.npy", "a.npy"), ("a.npy", "link.npy")):
        with pytest.raises(InputError, match="is trained on, and has no other images to test on"):
            read_both(tmp_path / train, tmp_path / test)


def test_labels_beside_a_file_of_both_splits_are_the_training_images(tmp_path: Path) -> None:
    save(tmp_path / "a.npz", shades(x_train=9, x_test=7))
    np.save(tmp_path / "a_labels.npy", np.full(4, 3))
    assert read_both(tmp_path / "a.npz", tmp_path / "a.npz") == [(9, [3]), (7, None)]


def test_what_is_left_out_of_a_file_of_both_splits_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    save(path, shades(x_train=9, x_test=7))
    np.save(tmp_path / "a_labels.npy", np.full(4, 3))
    assert f"; its x_test is left out, and dataset.test={path} tests on it" in load(path).note
    assert load(path, "dataset.key=x_test").note == f"4 images in {path}; labels from {tmp_path}/a_labels.npy"


@pytest.mark.parametrize("content", ["tensor", "dict", "pair"])
def test_tensors(content: str, tmp_path: Path) -> None:
    images, labels = torch.from_numpy(FOUR), torch.arange(4)
    saved: Any = {"tensor": images, "dict": {"x": images, "y": labels}, "pair": (images, labels)}[content]
    torch.save(saved, tmp_path / "a.pt")
    found = load(tmp_path / "a.pt")
    assert np.abs(shown(found) - FOUR / 255).max() < 1e-6
    assert (found.split.labels is None) == (content == "tensor")


def test_a_pickle_in_a_tensor_file_is_not_loaded(tmp_path: Path) -> None:
    torch.save({"x": Path("code")}, tmp_path / "a.pt")
    with pytest.raises(InputError, match=r"a\.pt: not a readable file of arrays"):
        load(tmp_path / "a.pt")


@pytest.mark.parametrize("head", [True, False])
def test_tables(head: bool, tmp_path: Path) -> None:
    rows = (UNIT[:4, :8, :8] * 255).round().astype(int).reshape(4, 64)
    lines = [",".join(map(str, row)) for row in rows]
    if head:
        names = ",".join(["label", *(f"pixel{i}" for i in range(64))])
        lines = [names, *(f"{kind},{line}" for kind, line in zip("cabc", lines, strict=True))]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    found = load(tmp_path / "a.csv")
    assert np.abs(shown(found) * 255 - rows.reshape(4, 8, 8)).max() < 1e-3
    assert found.classes == (("a", "b", "c") if head else None)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("label,p0\n1,x\n2,3", "column p0 has no numbers"),
        ("a,b,c,d\n1,2,,4\n1,2,3,4", "empty cells"),
        ("label,a,b,c,d\nx,1,2,3,4\n,1,2,3,4", "empty cells in column label"),
        ("7,1,2,3,4\n8,1,2,3,4", "one column more than 4 pixels: .* name it `label` .* index=False"),
        (",0,1,2,3\n0,1,2,3,4\n1,1,2,3,4", "one column more than 4 pixels"),
        ("a,b,c,d\n1,1,2,3,4\n2,1,2,3,4", "the first line has 4 fields and the second 5"),  # R's row names
        ("a,b,c,d,label\n1,1,2,3,4,7\n2,1,2,3,4,8", "the first line has 5 fields and the second 6"),
        ("label,a,b,c,d\n7,1,2,3,4,\n8,1,2,3,4,", "the first line has 5 fields and the second 6"),
    ],
)
def test_tables_that_are_none(content: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(InputError, match=says):
        load(tmp_path / "a.csv")


def test_hdf5_and_parquet_where_their_readers_are(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["images"], file["labels"] = FOUR, ["b", "a", "b", "a"]
    assert np.abs(shown(load(tmp_path / "a.h5")) - FOUR / 255).max() < 1e-6
    assert load(tmp_path / "a.h5").classes == ("a", "b")
    frame = pd.DataFrame(FOUR[:, :8, :8].reshape(4, 64), columns=[str(i) for i in range(64)])
    frame.assign(label=[0, 1, 0, 1]).to_parquet(tmp_path / "a.parquet")
    found = load(tmp_path / "a.parquet")
    assert found.split.labels is not None
    assert found.split.labels.tolist() == [0, 1, 0, 1]


def test_a_reader_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    (tmp_path / "a.h5").write_bytes(b"anything")
    with pytest.raises(InputError, match=r"pip install '\.\[arrays\]'"):
        load(tmp_path / "a.h5")


def test_what_is_no_array(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(InputError, match=r"a\.txt: is no array; allowed: \.npy, \.npz, "):
        load(tmp_path / "a.txt")


@pytest.mark.parametrize("channels", range(1, 17))
def test_any_number_of_channels_can_be_shown(channels: int) -> None:
    images = torch.rand(2, 3, channels, 4, 5)
    found = in_colour(images)
    assert found.shape == (2, 3, 3, 4, 10 if channels == 2 else 5)
    assert found.min() >= 0
    assert found.max() <= 1
    if channels == 1 or channels == 2:
        assert torch.equal(found[..., 0, :, :], found[..., 2, :, :])
    elif channels != 4:
        assert torch.equal(found, images[..., :3, :, :])


def test_clear_pixels_are_grey() -> None:
    image = torch.tensor([1.0, 0.0, 0.0, 0.0]).reshape(4, 1, 1)
    assert in_colour(image).flatten().tolist() == pytest.approx([96 / 255] * 3)


@pytest.mark.parametrize(
    ("train", "test", "span"),
    [
        (np.array([-1024, 3071], np.int16), np.array([-1024, 2976], np.int16), (-1024, 3071)),
        (np.array([0, 4000], np.uint16), np.array([0, 900], np.uint16), (0, 4095)),
        (np.array([-1, 1], np.float32), np.array([0, 1], np.float32), (-1, 1)),
    ],
)
def test_black_and_white_are_the_same_in_both_splits(
    train: Any, test: Any, span: tuple[int, int], tmp_path: Path
) -> None:
    for name, values in (("train", train), ("test", test)):
        np.save(tmp_path / f"{name}.npy", np.resize(values, (4, 8, 9)))
    config = composed("dataset=arrays", f"dataset.train={tmp_path}/train.npy", f"dataset.test={tmp_path}/test.npy")
    data = readers.load(config.dataset)
    assert data.train.span == data.test.span == span


@pytest.mark.parametrize("array", [np.full((4, 8, 9), -5, np.int16), np.full((4, 8, 9), 70000, np.int32)])
def test_constant_values_are_no_range(array: np.ndarray[Any, Any], tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", array)
    assert np.isfinite(shown(load(tmp_path / "a.npy"))).all()


@pytest.mark.parametrize("size", [(20, 8, 9), (20, 64)])
def test_a_layout_is_of_channels_that_there_are(size: tuple[int, ...], tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", RNG.random(size))
    assert load(tmp_path / "a.npy", "dataset.layout=channels_last").split.shape[0] == 1


def test_a_shape_is_for_rows_alone(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", RNG.random((20, 8, 9, 3)))
    with pytest.raises(InputError, match="rows of pixels"):
        load(tmp_path / "a.npy", "dataset.shape=[3,8,9]")


def test_quoted_numbers_are_no_head(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('"0","5","9","0"\n"1","2","3","4"')
    assert len(load(tmp_path / "a.csv").split) == 2


@pytest.mark.parametrize("first", [0, 1])
def test_the_numbers_of_the_columns_are_names(first: int, tmp_path: Path) -> None:
    """As pandas writes those of a table without names."""
    head = ",".join(map(str, range(first, first + 64)))
    (tmp_path / "a.csv").write_text("\n".join([head, *(",".join(["255"] * 64) for _ in range(3))]))
    found = load(tmp_path / "a.csv")
    assert len(found.split) == 3
    assert shown(found).min() == 1


@pytest.mark.parametrize(
    ("labels", "numbers", "classes"),
    [
        (["NA", "None", "nan", "NA"], [0, 1, 2, 0], ("NA", "None", "nan")),
        (["3", "1", "1", "0"], [3, 1, 1, 0], None),
    ],
)
def test_texts_that_pandas_takes_for_nothing(
    labels: list[str], numbers: list[int], classes: tuple[str, ...] | None, tmp_path: Path
) -> None:
    rows = [f"10,20,{label},30,40" for label in labels]
    (tmp_path / "a.csv").write_text("\n".join(['a,b, "label",c,d', *rows]))
    found = load(tmp_path / "a.csv")
    assert found.split.labels is not None
    assert found.split.labels.tolist() == numbers
    assert found.classes == classes


def test_a_table_of_one_column_too_many_for_its_shape(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("7,1,2,3,4,5,6\n8,1,2,3,4,5,6")
    with pytest.raises(InputError, match="one column more than 6 pixels"):
        load(tmp_path / "a.csv", "dataset.shape=[2,3]")
