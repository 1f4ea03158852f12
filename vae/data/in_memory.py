"""Images that are handed over in memory, of whatever kind people have: tensors, arrays, a DataLoader, a dataset, or a
Split and Data of ours."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from vae.config.errors import InputError
from vae.data.arrays import MAX_CHANNELS
from vae.data.split import Data, Split

MAX_VALUES = 2**28  # pixels of all images that are held, a GiB as float32
CHANNELS = 4  # of an image, at most, where a number may be of these or of something else
KEYS = ("images", "image", "pixel_values", "x", "data", "input", "inputs")  # of images in a dictionary
LABELS = ("labels", "label", "y", "targets", "target")


def split_of(images: Any, labels: Any = None, what: str = "images", most: int | None = None) -> tuple[Split, list[str]]:
    """The images as a Split, at most `most` of them and no more than fit into MAX_VALUES, evenly chosen (of a
    DataLoader, the first), and what is to be said of how they were taken. Images may be (N, C, H, W), (N, H, W), (N, H,
    W, C) where that is clear, or rows (N, n); uint8 counts as 0 to 255, floats stay as they are. Raises InputError,
    which names `what`, for anything else."""
    notes: list[str] = []
    if isinstance(images, Data):
        images = images.test
    if isinstance(images, Split):
        split = images
    elif isinstance(images, tuple | list) and len(images) == 2 and _is_pair(images):
        raise InputError(f"{what}: are a pair, images and labels; hand over the first alone, and the second as labels=")
    elif isinstance(images, Mapping):
        names = ", ".join(map(str, images))
        raise InputError(f"{what}: are a {type(images).__name__} with {names}; hand over the images in it alone")
    elif isinstance(images, Tensor | np.ndarray):
        split = Split(_laid_out(_tensor(images, what), what, notes))
    else:
        with torch.random.fork_rng(devices=[]):  # a DataLoader draws a seed, whether it shuffles or not
            found, own = _collected(images, what, most, notes)
        split = Split(_laid_out(found, what, notes))
        labels = own if labels is None else labels
    if labels is not None:
        split = Split(split.images, _whole_numbers(labels, len(split), what), split.rows, split.mapped, span=split.span)
    if len(split) < 2:
        raise InputError(f"{what}: {len(split)} given; at least 2 are needed")
    limit = max(2, min(most or len(split), MAX_VALUES // math.prod(split.shape)))
    if limit < len(split):
        notes.append(f"{limit} of {len(split)} {what} are measured, evenly chosen")
        split = split.take(torch.arange(limit) * len(split) // limit)
    is_float = split.images.is_floating_point()
    if is_float and not all(bool(split.stored(rows).isfinite().all()) for rows in split.slices()):
        raise InputError(f"{what}: have values that are not finite; leave out the images that have them")
    if not is_float and split.span is None:
        if not isinstance(images, Split):
            notes.append(f"{what} are whole numbers: 0 to 255 are read as 0 to 1")
        if int(split.stored(slice(0, 1000)).max()) <= 1:
            raise InputError(f"{what}: whole numbers of which the largest is 1; hand them over as floats")
    return split, notes


def _is_pair(given: Sequence[Any]) -> bool:
    """Whether this is a batch as data loaders give them: images, and a label of each."""
    images, labels = given
    both = isinstance(images, Tensor | np.ndarray) and isinstance(labels, Tensor | np.ndarray)
    return both and images.ndim > labels.ndim and len(images) == len(labels)


def _tensor(images: Tensor | np.ndarray[Any, Any], what: str) -> Tensor:
    if isinstance(images, np.ndarray) and images.dtype.kind not in "bf" and images.dtype != np.uint8:
        raise InputError(f"{what}: are {images.dtype}; must be floats, or uint8 from 0 to 255")
    found = images.detach().cpu() if isinstance(images, Tensor) else torch.from_numpy(np.ascontiguousarray(images))
    if found.dtype == torch.bool or (found.is_floating_point() and found.dtype != torch.float32):
        return found.float()
    if found.dtype not in (torch.uint8, torch.float32):
        raise InputError(f"{what}: are {found.dtype}; must be floats, or uint8 from 0 to 255")
    return found


def _laid_out(images: Tensor, what: str, notes: list[str]) -> Tensor:
    """(N, C, H, W)."""
    shape = tuple(images.shape)
    if images.dim() == 2:
        side = math.isqrt(shape[1])
        height, width = (side, side) if side**2 == shape[1] and side > 1 else (1, shape[1])
        notes.append(f"{what} are rows of {shape[1]} pixels, taken for {height}x{width}")
        return images.reshape(len(images), 1, height, width)
    if images.dim() == 3:
        return images[:, None]
    if images.dim() != 4 or not math.prod(shape[1:]):
        raise InputError(f"{what}: have shape {shape}; must be (N, C, H, W), (N, H, W) or rows (N, pixels)")
    if shape[1] > CHANNELS and shape[3] in (1, 3, 4):
        notes.append(f"{what} have shape {shape}, taken for channels last")
        return images.permute(0, 3, 1, 2)
    if shape[1] > MAX_CHANNELS:
        raise InputError(f"{what}: have shape {shape}, {shape[1]} channels; at most {MAX_CHANNELS}, as (N, C, H, W)")
    return images


def _collected(source: Any, what: str, most: int | None, notes: list[str]) -> tuple[Tensor, Tensor | None]:
    """Images and labels of a DataLoader or a dataset, as many as may be held."""
    images: list[Tensor] = []
    labels: list[Tensor] = []
    count = 0
    for batch, own in _batches(source, what):
        if images and batch.shape[1:] != images[0].shape[1:]:
            raise InputError(f"{what}: shapes {tuple(images[0].shape[1:])} and {tuple(batch.shape[1:])}; must be one")
        images.append(batch)
        count += len(batch)
        if own is not None and own.dim() == 1 and not own.is_floating_point():
            labels.append(own)
        if count >= (most or math.inf) or count * batch[0].numel() >= MAX_VALUES:
            notes.append(f"the first {count} {what} are measured")
            break
    if not images:
        raise InputError(f"{what}: none came out of the {type(source).__name__}")
    found = torch.cat(images)
    known = torch.cat(labels) if labels and sum(map(len, labels)) == len(found) else None
    return found, known


def _batches(source: Any, what: str) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Images (B, ...) and their labels (B,), where there are any."""
    is_loader = isinstance(source, DataLoader) or not (hasattr(source, "__len__") and hasattr(source, "__getitem__"))
    if is_loader and not isinstance(source, Iterable):
        raise InputError(f"{what}: is a {type(source).__name__}; must be a tensor, an array, a DataLoader or a dataset")
    is_list = isinstance(source, list | tuple) and len(source) > 0
    if is_loader or (is_list and _is_batch(*pair_of(source[0], what))):
        for item in source:
            yield pair_of(item, what)
        return
    for place in range(len(source)):
        image, label = pair_of(source[place], what)
        yield image[None], None if label is None or label.numel() != 1 else label.reshape(1)


def _is_batch(images: Tensor, labels: Tensor | None) -> bool:
    """Whether an item of a list is a batch of a DataLoader, and no image with its label."""
    rows = labels is not None and labels.dim() > 0 and len(labels) == len(images) > CHANNELS
    return images.dim() == 4 or (rows and images.dim() < 4)


def pair_of(item: Any, what: str) -> tuple[Tensor, Tensor | None]:
    """The images and the labels in a batch, or the image and its label in an item, as data loaders give them. Raises
    InputError."""
    label: Any = None
    if isinstance(item, tuple | list) and item:
        item, label = item[0], item[1] if len(item) > 1 else None
    elif isinstance(item, Mapping):
        label = next((item[key] for key in LABELS if key in item), None)
        item = next((item[key] for key in KEYS if key in item), item)
    if isinstance(item, np.ndarray | Tensor):
        image = _tensor(item, what)
    else:
        raise InputError(
            f"{what}: hold a {type(item).__name__}; must hold tensors, as transforms.ToTensor() makes them"
        )
    if isinstance(label, int | np.integer):
        label = torch.tensor(int(label))
    return image, label if isinstance(label, Tensor) else None


def _whole_numbers(labels: Any, count: int, what: str) -> Tensor:
    found = torch.as_tensor(labels).cpu()
    if found.shape != (count,) or found.is_floating_point():
        raise InputError(
            f"labels: {found.dtype} of shape {tuple(found.shape)} for {count} {what}; one whole number each"
        )
    return found.long()
