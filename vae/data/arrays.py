"""Arrays of images as people have them: .npy, .npz, .pt, .h5, .csv and .parquet files, in any number type, layout and
range, with labels beside or inside them. An .npy file stays on the disk; nothing that is pickled is loaded."""

import csv
import functools
import math
import os
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import MAGIC_PREFIX
from torch import Tensor

from vae.config import schema
from vae.config.errors import InputError
from vae.config.load import at_home
from vae.data.split import Split
from vae.runtime.paging import ask_for

Array = np.ndarray[Any, Any]
Choice = Callable[[list[str]], str]  # of the names of a file's arrays that of the images

MAX_CHANNELS = 16
LABEL_KEYS = ("labels", "label", "y", "Y", "targets", "target", "y_train", "train_labels", "arr_1")
IMAGE_WORDS, LABEL_WORDS = ("images", "image", "x", "X", "data"), LABEL_KEYS[:6]  # in names such as x_test, test_images
TRAIN_KEYS, TEST_KEYS = (
    [name for word in IMAGE_WORDS for name in (f"{word}_{split}", f"{split}_{word}")] for split in ("train", "test")
)
IMAGE_KEYS = (*IMAGE_WORDS, *TRAIN_KEYS, "arr_0")
TOP = (1, 255, 1023, 4095, 16383, 65535)  # white in whole numbers of so many bits
FLOATS = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))  # black and white of floats
BRIGHT = 31  # floats that reach it, and no more than 255, are read as levels from 0 to 255
NEAR = 1e-4  # of the range: so far beyond it is rounding
CHUNK = 2**24  # values at a time, where all are looked at
LOOKED_AT = 1000  # images of 8 bits


@dataclass(frozen=True)
class Content:
    """What a file holds."""

    images: Array
    labels: Array | None = None
    mapped: bool = False
    said: tuple[str, ...] = ()
    key: str | None = None  # the name of the images, where the file's arrays have names
    names: tuple[str, ...] = ()  # of all of its arrays


@dataclass(frozen=True)
class Loaded:
    split: Split
    classes: tuple[str, ...] | None  # names of its labels, where they are texts
    note: str  # how it was read; empty: as it stands


def read(config: schema.Arrays) -> list[Loaded]:
    """The images of the training file, and of the test file where there is one, which may be the same file with both in
    it: what is black and what white is the same in both where they have the same type. Raises InputError."""
    found = [_opened(at_home(config.train), config.labels, config, functools.partial(_train_key, asked=config.key))]
    if config.test is not None:
        path = at_home(config.test)
        other = _in_the_same(path, found[0])
        choose = functools.partial(_test_key, asked=config.key, other=other)
        found.append(_opened(path, config.test_labels, config, choose, has_own=other is None))
    named = [one for one in found if one.content.key is not None]
    if config.key is not None and named and all(one.content.key != config.key for one in named):
        raise _has_none(named[0].path, config.key, named[0].content.names)
    loaded = []
    for one in found:
        alike = [other for other in found if other.images.dtype == one.images.dtype]
        low, high = min(other.low for other in alike), max(other.high for other in alike)
        span, said = _span(one, low, high, config)
        numbers, names = (None, None) if one.labels is None else _labels(one.labels, len(one.images), one.path)
        said = [*said, *one.said]
        note = "; ".join([f"{len(one.images)} images in {one.path}", *said]) if said else ""
        split = Split(mapped(one.images), numbers, mapped=one.content.mapped, span=span)
        loaded.append(Loaded(split, names, note))
    return loaded


@dataclass(frozen=True)
class _Opened:
    """A file's images (N, C, H, W), the smallest and the largest of their values, and their labels as they are."""

    path: Path
    images: Array
    low: float
    high: float
    labels: Array | None
    said: list[str]
    content: Content


def _in_the_same(path: Path, train: _Opened) -> str | None:
    """The name of the training images in the file to test on, None where they are of another file. Raises InputError
    where it holds nothing else."""
    if not (os.path.exists(path) and os.path.samefile(path, train.path)):
        return None
    if train.content.key is None:
        raise _trained_on(path)
    return train.content.key


def _opened(
    path: Path, labels: str | None, config: schema.Arrays, choose: Callable[..., str], has_own: bool = True
) -> _Opened:
    """`has_own`: the labels beside the file are those of these images."""
    content = _content(path, functools.partial(choose, path=path))
    images, found, said = _laid_out(content.images, path, config), content.labels, [*content.said]
    beside = at_home(labels) if labels is not None else path.with_name(f"{path.stem}_labels.npy")
    if labels is not None or (found is None and has_own and beside.is_file()):
        found, said = _whole(beside, LABEL_KEYS), [f"labels from {beside}"]
    others = [name for name in content.names if name != content.key]
    spare = _first((_of_split("test", content.key), *TEST_KEYS), others)
    if config.test is None and spare is not None:
        said.append(f"its {spare} is left out, and dataset.test={path} tests on it")
    low, high = 0.0, 255.0
    # Of 8 bits a look at some tells, and there may be more than memory holds.
    if images.dtype != np.uint8 or config.range != "auto" or _some(images).max() <= 1:
        low, high = _extremes(images, path)
    return _Opened(path, images, low, high, found, said, content)


def _some(images: Array) -> Array:
    """Evenly over the file."""
    every = max(1, len(images) // LOOKED_AT)
    ask_for(mapped(images), torch.arange(0, len(images), every))
    return images[::every]


def _content(path: Path, choose: Choice) -> Content:
    reader = _READERS.get(path.suffix.lower())
    try:
        with open(path, "rb") as file, np.errstate(invalid="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            start = file.read(len(MAGIC_PREFIX))
            if start == MAGIC_PREFIX:
                return Content(np.load(path, mmap_mode="r", allow_pickle=False), mapped=True)
            if reader is None and start[:2] == b"PK":
                reader = _npz
            if reader is None:
                raise InputError(
                    f"{path}: is no array; allowed: .npy, .npz, {', '.join(sorted(set(_READERS) - {'.npz', '.npy'}))}"
                )
            return reader(path, choose)
    except InputError:
        raise
    except ImportError as error:
        raise InputError(f"{path}: {error}; pip install '.[arrays]' brings what reads it") from error
    except Exception as error:  # numpy, zipfile, zlib, torch, h5py and pandas each have their own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: not a readable file of arrays ({reason})") from error


def _npz(path: Path, choose: Choice) -> Content:
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as loaded:
        names = list(loaded.files)
        key = choose(names)
        labels, said = _labels_of(key, names)
        found = None if labels is None else loaded[labels]
        return Content(loaded[key], found, said=said, key=key, names=tuple(names))


def _torch(path: Path, choose: Choice) -> Content:
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(loaded, tuple | list) and loaded and all(isinstance(part, Tensor) for part in loaded):
        loaded = dict(zip(("images", "labels"), loaded, strict=False))
    if isinstance(loaded, Tensor):
        return Content(loaded.numpy())
    if not isinstance(loaded, dict):
        raise InputError(f"{path}: holds a {type(loaded).__name__}; must be a tensor, or tensors by name")
    tensors = {str(name): part for name, part in loaded.items() if isinstance(part, Tensor)}
    key = choose(list(tensors))
    labels, said = _labels_of(key, list(tensors))
    found = None if labels is None else tensors[labels].numpy()
    return Content(tensors[key].numpy(), found, said=said, key=key, names=tuple(tensors))


def _hdf5(path: Path, choose: Choice) -> Content:
    import h5py

    with h5py.File(path, "r") as file:
        names = [name for name, part in file.items() if isinstance(part, h5py.Dataset)]
        key = choose(names)
        labels, said = _labels_of(key, names)
        found = None if labels is None else file[labels]
        strings = found is not None and h5py.check_string_dtype(found.dtype) is not None
        values = None if found is None else found.asstr()[()] if strings else found[()]
        return Content(file[key][()], values, said=said, key=key, names=tuple(names))


def _table(path: Path, choose: Choice) -> Content:
    """A row an image, a column a pixel; perhaps a column of labels."""
    import pandas as pd

    if path.suffix.lower() == ".parquet":
        pixels = pd.read_parquet(path)
        pixels.columns = pd.Index([str(name) for name in pixels.columns])
        label = _label_column(list(pixels.columns))
        labels = None if label is None else pixels.pop(label)
    else:
        with open(path, encoding="utf-8-sig") as file:
            head = [name.strip(" \"'") for name in file.readline().strip().split(",")]
            values = next(csv.reader(file), head)
        if len(values) != len(head):  # pandas would take what is too many for the numbers of the rows
            raise InputError(
                f"{path}: the first line has {len(head)} fields and the second {len(values)}; must be as many, a name "
                "for each column, or no names"
            )
        named = _are_names(head)
        label = _label_column(head) if named else None
        pixels, labels = pd.read_csv(path, header=0 if named else None), None
        if label is not None:
            place = head.index(label)
            pixels = pixels.drop(columns=pixels.columns[place])
            labels = pd.read_csv(path, usecols=[place], dtype=str, na_filter=False).iloc[:, 0]  # NA may be a class
    texts = [name for name, kind in pixels.dtypes.items() if kind.kind == "O" or str(kind) in ("str", "string")]
    if texts:
        raise InputError(f"{path}: column {texts[0]} has no numbers; a row is an image, a column a pixel or `label`")
    if pixels.isna().any(axis=None):
        raise InputError(f"{path}: has empty cells")
    if labels is None:
        return Content(pixels.to_numpy())
    if (labels.isna() | (labels.astype(str).str.strip() == "")).any():
        raise InputError(f"{path}: has empty cells in column {label}; each image needs a label, or none has one")
    return Content(pixels.to_numpy(), _numbers(labels.to_numpy()))


def _are_names(head: list[str]) -> bool:
    """Whether a table's first line is one of names: texts, or the numbers of the columns, as pandas writes those that
    have no names."""
    counted = [[str(place) for place in range(first, first + len(head))] for first in (0, 1)]
    return head in counted or not all(_is_number(name) for name in head)


def _label_column(names: list[str]) -> str | None:
    """The name among these that is the labels'."""
    return _first((*LABEL_KEYS, "class", "digit"), names)


def _numbers(labels: Array) -> Array:
    """Labels that a table has as texts, as numbers where all are."""
    if labels.dtype.kind != "O":
        return labels
    try:
        found = labels.astype(np.float64)
    except (ValueError, TypeError):
        return labels
    return found if np.isfinite(found).all() else labels


_READERS = {
    ".npz": _npz,
    ".pt": _torch,
    ".pth": _torch,
    ".h5": _hdf5,
    ".hdf5": _hdf5,
    ".csv": _table,
    ".parquet": _table,
}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _train_key(names: list[str], path: Path, asked: str | None) -> str:
    """The name of the training images among these: that which is asked for, which the test file alone may have, or a
    usual one."""
    found = _first((asked, _of_split("train", asked), *IMAGE_KEYS), names)
    if found is None:
        raise _has_none(path, asked, names)
    return found


def _test_key(names: list[str], path: Path, asked: str | None, other: str | None) -> str:
    """That of the test images: in a file of their own the usual names are theirs too. `other`: the name of the training
    images, where they are in the same file."""
    if other is not None:
        found = _first((asked, _of_split("test", other), *TEST_KEYS), [name for name in names if name != other])
        if found is None:
            raise _trained_on(path)
        return found
    found = _first((_of_split("test", asked), asked, *TEST_KEYS, *IMAGE_KEYS), names)
    if found is None:
        raise _has_none(path, asked, names)
    return found


def _first(wanted: Sequence[str | None], names: Sequence[str]) -> str | None:
    """The first that is wanted of those that there are."""
    return next((name for name in wanted if name in names), None)


def _of_split(split: str, key: str | None) -> str:
    """What images are called that go with these, in this split: x_test with x_train."""
    return "_".join(split if word in ("train", "test") else word for word in (key or "").split("_"))


def _has_none(path: Path, asked: str | None, names: Sequence[str]) -> InputError:
    held = ", ".join(names) or "nothing"
    if asked is not None:
        return InputError(f"{path}: has no {asked} in it, but {held}; dataset.key names one")
    return InputError(f"{path}: has {held} in it; dataset.key=NAME says which are the images")


def _trained_on(path: Path) -> InputError:
    return InputError(
        f"{path}: is trained on, and has no other images to test on (x_test, test_images or their like); name another "
        "file, or in a training leave dataset.test out, which holds some out"
    )


def _labels_of(key: str, names: list[str]) -> tuple[str | None, tuple[str, ...]]:
    """Which of these names has the labels of the images `key`, and what is to be said of it: y_test those of x_test;
    where there is none that is called so, one of a usual name that no other images go with."""
    own = _first(_pairs(key), names)
    if own is not None:
        return own, ()
    others = {key, *(label for name in names if name != key for label in _pairs(name))}
    found = _first(LABEL_KEYS, [name for name in names if name not in others])
    return found, () if found is None else (f"labels from its {found}",)


def _pairs(key: str) -> list[str]:
    """What the labels of images of this name may be called."""
    if key == "arr_0":
        return ["arr_1"]
    words = key.split("_")
    places = [place for place, word in enumerate(words) if word in IMAGE_WORDS]
    return ["_".join([*words[:place], word, *words[place + 1 :]]) for place in places for word in LABEL_WORDS]


def _whole(path: Path, keys: tuple[str, ...]) -> Array:
    """The one array of an .npy file, or that of a usual name of an .npz file."""
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            name = _first(keys, loaded.files) or loaded.files[0]
            found: Array = loaded[name]
            return found
    except (OSError, ValueError, EOFError, IndexError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not readable labels ({error})") from error


def _laid_out(array: Array, path: Path, config: schema.Arrays) -> Array:
    """(N, C, H, W) from any of the allowed layouts, without a copy."""
    given = f"{path}: images {array.dtype} of shape {array.shape}"
    known = config.shape is not None or array.ndim in (2, 3)  # where the channels are
    if array.dtype.kind not in "biuf" or (array.dtype.kind == "f" and array.dtype.itemsize > 8):
        raise InputError(f"{given}; allowed: true or false, whole numbers, or floats")
    if config.shape is not None:
        if array.ndim != 2 and array.shape[1:] != tuple(config.shape):
            raise InputError(f"{given}; dataset.shape is for images that are rows of pixels, (N, pixels)")
        if math.prod(array.shape[1:]) != math.prod(config.shape):
            _refuse_extra_column(array, math.prod(config.shape), given, path)
            raise InputError(f"{given}; dataset.shape={config.shape} has another number of pixels")
        array = array.reshape(len(array), *([1] if len(config.shape) == 2 else []), *config.shape)
        if len(config.shape) == 3:
            array = _of_shape(array, config.shape, given, config.layout)
    elif array.ndim == 2:
        side = math.isqrt(array.shape[1])
        if side < 2 or side**2 != array.shape[1]:
            _refuse_extra_column(array, math.isqrt(max(array.shape[1] - 1, 0)) ** 2, given, path)
            raise InputError(f"{given}; say what they are: dataset.shape=[height,width] or [channels,height,width]")
        array = array.reshape(len(array), 1, side, side)
    if array.ndim == 3:
        array = array[:, None]
    if array.ndim != 4:
        raise InputError(f"{given}; allowed: (N, H, W), (N, H, W, C), (N, C, H, W), or (N, pixels) with dataset.shape")
    if array.size == 0:
        raise InputError(f"{given}; there are no images in it")
    return array if known or _channels_first(array, given, config.layout) else array.transpose(0, 3, 1, 2)


def _refuse_extra_column(array: Array, pixels: int, given: str, path: Path) -> None:
    """Raises InputError where a table has one column more than an image has pixels."""
    if array.ndim == 2 and array.shape[1] == pixels + 1 and path.suffix.lower() in (".csv", ".parquet"):
        raise InputError(
            f"{given}; one column more than {pixels} pixels: if it has labels, name it `label` in a first line of "
            "names; if it is an index, save without one (in pandas index=False)"
        )


def _of_shape(array: Array, shape: list[int], given: str, layout: str) -> Array:
    """(N, C, H, W) of (N, *shape): (C, H, W), or (H, W, C) where `layout` says so. Raises InputError for what looks as
    if it were the other one, or has too many channels."""
    if layout == "channels_last":
        array = array.transpose(0, 3, 1, 2)
    channels = array.shape[1]
    swapped = layout == "auto" and shape[-1] in (1, 3, 4) and shape[0] not in (1, 3, 4)
    if swapped or channels > MAX_CHANNELS:
        meant = ", and dataset.layout=channels_first says that it is meant" if channels <= MAX_CHANNELS else ""
        raise InputError(
            f"{given}; dataset.shape={shape} has {channels} channels, of at most {MAX_CHANNELS}: it is "
            f"[channels,height,width]; [height,width,channels] goes with dataset.layout=channels_last{meant}"
        )
    return array


def _channels_first(array: Array, given: str, layout: str) -> bool:
    first, last = array.shape[1], array.shape[-1]
    if layout != "auto":
        found = layout == "channels_first"
        if (first if found else last) > MAX_CHANNELS:
            raise InputError(f"{given}; dataset.layout={layout}: at most {MAX_CHANNELS} channels are allowed")
        return found
    for usual in ((1, 3), (4,), (2, *range(5, MAX_CHANNELS + 1))):
        if first in usual or last in usual:
            if first in usual and last in usual and first not in (1, 3):
                break
            return first in usual
    raise InputError(
        f"{given}; where are the channels, at most {MAX_CHANNELS} of them? dataset.layout=channels_first (N, C, H, W) "
        "or channels_last (N, H, W, C)"
    )


def _span(
    found: _Opened, low: float, high: float, config: schema.Arrays
) -> tuple[tuple[float, float] | None, list[str]]:
    """The values that are black and white, None where they are those that their type stands for; and what is to be said
    of them. `low` and `high`: of all files of this type."""
    images = found.images
    if images.dtype == bool:
        return (0.0, 1.0), []
    if isinstance(config.range, list):
        black, white = (float(value) for value in config.range)
        beyond = low < black or high > white
        said = [f"values from {low:g} to {high:g}, of which {black:g} is black and {white:g} white"]
        return (black, white), said + (["what lies beyond is cut off"] if beyond else [])
    if images.dtype == np.uint8 and high > 1:
        return None, []
    if images.dtype.kind in "iu":
        top = next((top for top in TOP if high <= top), None)
        span = (0.0, float(top)) if low >= 0 and top is not None else (low, high if high > low else low + 1)
    else:
        near = NEAR * max(1.0, high - low)
        choices = FLOATS if high > BRIGHT else FLOATS[:2]
        span = next(((a, b) for a, b in choices if low >= a - near and high <= b + near), (math.nan, math.nan))
        if math.isnan(span[0]):
            raise InputError(
                f"{found.path}: images {images.dtype} with values from {low:g} to {high:g}; which are black and white? "
                "dataset.range=[black,white]"
            )
        if span == (0.0, 1.0) and low >= 0 and high <= 1:
            return None, []
    return span, [f"{images.dtype}, of which {span[0]:g} is black and {span[1]:g} white"]


def _extremes(images: Array, path: Path) -> tuple[float, float]:
    low, high = math.inf, -math.inf
    chunk = max(1, CHUNK // max(1, images[0].size))
    for start in range(0, len(images), chunk):
        some = images[start : start + chunk]
        low, high = min(low, float(some.min())), max(high, float(some.max()))  # NaN wins in numpy's
        if math.isnan(float(some.min())):
            raise InputError(f"{path}: images have values that are not finite")
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError(f"{path}: images have values that are not finite")
    return low, high


def _labels(array: Array, count: int, path: Path) -> tuple[Tensor, tuple[str, ...] | None]:
    """Numbers (N,), int64, and their names where they had any: from numbers, texts or one-hot rows."""
    given = f"{path}: labels {array.dtype} of shape {array.shape} for {count} images"
    if array.ndim == 2 and array.shape[0] == count and array.shape[1] > 1 and array.dtype.kind in "biuf":
        if not (((array == 0) | (array == 1)).all() and (array.sum(1) == 1).all()):
            raise InputError(f"{given}; rows must be one-hot: a single 1, all else 0")
        return torch.from_numpy(array.argmax(1).astype(np.int64)), None
    array = array.reshape(count) if array.size == count else array
    if array.shape != (count,):
        raise InputError(f"{given}; must be one an image, or one-hot rows")
    if array.dtype.kind in "USO":
        texts = [value.decode() if isinstance(value, bytes) else str(value) for value in array.tolist()]
        names = tuple(sorted(set(texts)))
        places = {name: place for place, name in enumerate(names)}
        return torch.tensor([places[text] for text in texts]), names
    if array.dtype.kind == "f" and not (np.isfinite(array).all() and (array == np.round(array)).all()):
        raise InputError(f"{given}; must be whole numbers, texts, or one-hot rows")
    if array.dtype.kind not in "biuf":
        raise InputError(f"{given}; must be whole numbers, texts, or one-hot rows")
    return torch.from_numpy(array.astype(np.int64)), None


def mapped(array: Array) -> Tensor:
    """The same memory as a tensor, where torch has its type. torch warns that it cannot know that nobody will write to
    what is only mapped."""
    if array.dtype.kind in "biuf" and not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype in (np.uint32, np.uint64):
        array = array.astype(np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(array)
