"""Checks on what was read from a checkpoint before it is used: a checkpoint may be damaged, made by another program, or
made to do harm. torch.load(weights_only=True) runs no code from it; what it holds is checked here. All functions raise
ValueError with one line that names the place."""

import math
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vae.config.errors import InputError

DTYPES = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
)
MAX_VALUES = 200_000  # containers, numbers, strings and tensors in one checkpoint
MAX_DEPTH = 8


def archive(path: Path) -> None:
    """A checkpoint is a zip archive whose members are stored as they are, so that what they take in memory is what
    they take on the disk."""
    with zipfile.ZipFile(path) as file:
        members = file.infolist()
    packed = [member.filename for member in members if member.compress_type != zipfile.ZIP_STORED]
    if packed:
        raise ValueError(f"{packed[0]!r} is compressed, as torch never writes it")
    if sum(member.file_size for member in members) > path.stat().st_size:
        raise ValueError("its members are larger than it is itself")


def bounded(content: Any, size: int) -> None:
    """Only plain values and tensors, no more of them and no deeper than a run has, and tensors that hold what they
    declare: `size` bytes in all at most."""
    values = 0
    storages: dict[int, int] = {}  # bytes of each; tensors may share one
    left = [(content, "", 0)]
    while left:
        value, place, depth = left.pop()
        values += 1
        if values > MAX_VALUES or depth > MAX_DEPTH:
            raise ValueError(f"{place}: more values, or more deeply nested, than any run has")
        if isinstance(value, dict):
            if not all(isinstance(key, str | int) for key in value):
                raise ValueError(f"{place}: keys other than names and numbers")
            left += [(item, f"{place}.{key}".lstrip("."), depth + 1) for key, item in value.items()]
        elif isinstance(value, list | tuple):
            left += [(item, f"{place}[{i}]", depth + 1) for i, item in enumerate(value)]
        elif isinstance(value, Tensor):
            if value.layout != torch.strided or value.device.type != "cpu" or value.dtype not in DTYPES:
                raise ValueError(f"{place}: a {value.layout} tensor of {value.dtype} on {value.device}")
            storage = value.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            if value.numel() * value.element_size() > storage.nbytes() or sum(storages.values()) > size:
                raise ValueError(f"{place}: a tensor of shape {tuple(value.shape)} that has fewer numbers")
        elif not (value is None or isinstance(value, bool | int | float | str)):
            raise ValueError(f"{place}: {type(value).__name__}, which no run saves")


def plain(content: Any, place: str) -> None:
    """No tensor anywhere in `content`: to compare one with anything gives a tensor again."""
    if isinstance(content, Tensor):
        raise ValueError(f"{place}: is a tensor, which no run saves there")
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, item in items:
        plain(item, f"{place}.{key}")


@contextmanager
def restoring(part: str) -> Iterator[None]:
    """Raises InputError for the ValueError of a part whose saved state is none of its own."""
    try:
        yield
    except ValueError as error:
        raise InputError(f"checkpoint, {part}: not the state of this run ({error})") from error


def names(found: Any, wanted: Iterable[Any], place: str) -> None:
    """`found` is a dict with just these keys."""
    if not isinstance(found, dict):
        raise ValueError(f"{place}: is {type(found).__name__}, must be a dict")
    missing, added = [sorted(map(str, keys)) for keys in (set(wanted) - set(found), set(found) - set(wanted))]
    if missing:
        raise ValueError(f"{place}: {missing[0]} is missing")
    if added:
        raise ValueError(f"{place}: {added[0]} does not belong there")


def number(value: Any, place: str, minimum: float = -math.inf, maximum: float = 2**53 - 1, whole: bool = False) -> None:
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        raise ValueError(f"{place}: is {type(value).__name__}, must be a {'whole ' if whole else ''}number")
    if not minimum <= value <= maximum:
        raise ValueError(f"{place}: {value} is out of range")


def matches(found: Any, fresh: Mapping[str, Any], place: str) -> None:
    """A dict with the keys of `fresh`, the state of something new: tensors like its own, truth values and numbers where
    it has them, and None or a number where it has None."""
    names(found, fresh, place)
    for key, wanted in fresh.items():
        value = found[key]
        if isinstance(wanted, Tensor):
            tensor(value, wanted.shape, wanted.dtype, f"{place}: {key}")
        elif isinstance(wanted, bool):
            if not isinstance(value, bool):
                raise ValueError(f"{place}.{key}: is {type(value).__name__}, must be true or false")
        elif value is not None or wanted is not None:
            number(value, f"{place}.{key}", whole=isinstance(wanted, int))


def tensors(found: Any, fresh: Mapping[str, Tensor], place: str) -> None:
    """A dict of tensors with the keys, the shapes and the types of `fresh` (whose tensors may be on the meta
    device)."""
    names(found, fresh, place)
    for key, wanted in fresh.items():
        tensor(found[key], wanted.shape, wanted.dtype, f"{place}: {key}")


def tensor(found: Any, shape: Iterable[int], dtype: torch.dtype, place: str) -> None:
    if not isinstance(found, Tensor):
        raise ValueError(f"{place} is {type(found).__name__}, must be a tensor")
    if tuple(found.shape) != tuple(shape):
        raise ValueError(f"{place} is {tuple(found.shape)}, this run has {tuple(shape)}")
    if found.dtype != dtype:
        raise ValueError(f"{place} is {found.dtype}, this run has {dtype}")
