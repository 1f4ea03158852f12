"""Images that are handed over in Python (Pillow's, arrays, tensors, files, folders), read as a run's training images
were."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vae.config import schema
from vae.config.errors import InputError
from vae.config.load import at_home
from vae.data import arrays, pixels
from vae.data.arrays import mapped
from vae.data.binarize import binary
from vae.data.fingerprint import Reading
from vae.data.pixels import Converted, Transparent, Unreadable
from vae.data.scan import scan
from vae.runtime.rng import generator

Shape = tuple[int, int, int]  # (C, H, W)
ITEMS = (Image.Image, str, Path, np.ndarray, Tensor)  # of which a list is read one by one
NEAR = {"float": 1e-4, "whole": 0.5}  # of the range: beyond it, but by rounding, or by a value that training had not


def images(given: Any, dataset: schema.Dataset, reading: Reading, shape: Shape) -> Tensor:
    """Float images (N, C, H, W) as the model sees them. `given`: one image, or several: of Pillow, arrays and tensors
    (H, W), (H, W, C), (C, H, W) or rows of pixels, with or without N before them, paths of files, or of folders, whose
    images come in the order of their paths. Numbers are those that the training files had: floats from -1 to 1 where
    theirs were. Raises InputError for what cannot be read as the training images were."""
    listed = isinstance(given, list | tuple) and any(isinstance(item, ITEMS) for item in given)
    found = torch.cat([_one(item, dataset, reading, shape) for item in (given if listed else [given])])
    return found if dataset.binarize == "none" else binary(found, dataset.binarize, generator(0, "binarize given"))


def files(path: str | Path, follow_links: bool) -> list[Path]:
    """A file, or the images below a folder in the order of their paths."""
    path = at_home(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or directory")
    found = [Path(name) for name, _, _ in scan(path, follow_links).images] if path.is_dir() else [path]
    if not found:
        raise InputError(f"{path}: no images in it")
    return found


def _one(item: Any, dataset: schema.Dataset, reading: Reading, shape: Shape) -> Tensor:
    """(N, C, H, W): of a folder, of a file with several frames and of an array there may be several."""
    settings = _as_folder(dataset, shape)
    if isinstance(item, str | Path):
        paths = files(item, settings.follow_links)
        found = [image for path in paths for image in _of_file(path, settings, reading, shape)]
        return torch.stack(found)
    if isinstance(item, Image.Image):
        return _checked(lambda: [pixels.read_opened(item, settings, reading.range)], "the image", shape)[0][None]
    if isinstance(item, Tensor):
        item = item.detach().cpu()
        item = (item.float() if item.is_floating_point() else item).numpy()
    try:
        array = np.asarray(item)
    except ValueError as error:  # lists of several lengths
        raise InputError(f"images: no array can be made of the {type(item).__name__} ({error})") from error
    return _array(array, dataset, reading, shape)


def _of_file(path: Path, settings: schema.Folder, reading: Reading, shape: Shape) -> list[Tensor]:
    """The first frame, or all, as in training."""

    def frames() -> list[Converted]:
        count = pixels.header(path, settings).frames if settings.frames == "all" else 1
        found = pixels.read(path, range(count), settings, reading.range)
        for one in found:
            if isinstance(one, Exception):
                raise one
        return [one for one in found if isinstance(one, Converted)]

    return _checked(frames, str(path), shape)


def _checked(read: Callable[[], list[Converted]], name: str, shape: Shape) -> list[Tensor]:
    """Images (C, H, W) of a file, or the InputError that names it."""
    if shape[0] not in (1, 3):
        raise InputError(f"{name}: the run has images of {shape[0]} channels; hand over arrays")
    try:
        found = read()
    except Transparent as error:
        raise InputError(f"{name}: is transparent in places, and the run has no dataset.background") from error
    except Unreadable as error:
        raise InputError(f"{name}: {error}") from error
    for one in found:
        if one.pixels.shape != shape:
            raise InputError(f"{name}: has shape {one.pixels.shape}, the run has images of shape {shape}; resize it")
    return [torch.tensor(one.pixels).float() / 255 for one in found]


def _as_folder(dataset: schema.Dataset, shape: Shape) -> schema.Folder:
    """How files become pixels; where the run's came from no folder, in their own size."""
    if isinstance(dataset, schema.Folder):
        return dataset
    return schema.Folder(name="files", root="", grayscale=shape[0] == 1, cache="", max_megapixels=200)


def _array(array: Any, dataset: schema.Dataset, reading: Reading, shape: Shape) -> Tensor:
    """Numbers become brightness as those of the training images did, where they are of the same type."""
    is_resized = isinstance(dataset, schema.Folder) and dataset.size is not None
    if is_resized and array.dtype == np.uint8 and array.ndim in (2, 3, 4) and not _fits(array.shape, shape):
        return torch.cat([_one(_photo(image), dataset, reading, shape) for image in _photos(array, shape)])
    if array.dtype.kind not in "biuf" or array.size == 0:
        raise InputError(f"images {array.dtype} of shape {array.shape}: must be numbers, and some")
    low, high = float(array.min()), float(array.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError(f"images {array.dtype} of shape {array.shape}: have values that are not finite")
    values = _in_layout(mapped(np.ascontiguousarray(array)), shape)
    is_float, was_float = values.is_floating_point(), reading.type.startswith("torch.float")
    alike = reading.type == str(values.dtype) or (is_float and was_float)
    if alike and was_float and isinstance(dataset, schema.Synthetic | schema.CustomDataset):
        return values.float()  # no brightness, or of a range of their own
    if reading.range is not None and isinstance(dataset, schema.Arrays) and alike:
        black, white = reading.range
        near = NEAR["float" if is_float else "whole"] * (white - black)
        if not _is_window(dataset, reading.range) and (low < black - near or high > white + near):
            raise InputError(
                f"images {array.dtype} with values from {low:g} to {high:g}: the run's were {black:g} (black) to "
                f"{white:g} (white); scale or clip them to these"
            )
        return ((values.double() - black) / (white - black)).clamp_(0, 1).float()
    if values.dtype == torch.uint8:
        return values.float() / 255
    near = NEAR["float"] if is_float else 0.0
    if low >= -near and high <= 1 + near:
        return values.float().clamp(0, 1)  # a copy: they are somebody else's
    raise InputError(
        f"images {array.dtype} with values from {low:g} to {high:g}: the run's were "
        f"{reading.type.removeprefix('torch.')}; hand over 8-bit images, or floats in [0, 1]"
    )


def _is_window(dataset: schema.Arrays, limits: tuple[float, float]) -> bool:
    """Whether somebody chose these values out of more, what lies beyond to be cut off, as in training."""
    return isinstance(dataset.range, list) and limits not in arrays.FLOATS


def _photos(array: Any, shape: Shape) -> list[Any]:
    """(N, H, W), (N, H, W, C) and (N, C, H, W), or one of them, as a list. (3, H, W) is one image of a run on
    colours."""
    channels = (1, 3, 4)
    coloured = array.ndim == 3 and array.shape[0] == shape[0] == 3
    single = array.ndim == 2 or coloured or (array.ndim == 3 and array.shape[-1] in channels)
    return [array] if single else list(array)


def _photo(array: Any) -> Image.Image:
    """Of (H, W), (H, W, C) or (C, H, W)."""
    if array.ndim == 3 and array.shape[-1] not in (1, 3, 4) and array.shape[0] in (1, 3, 4):
        array = np.ascontiguousarray(array.transpose(1, 2, 0))
    try:
        return Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array)
    except (TypeError, ValueError) as error:
        raise InputError(f"an array of shape {array.shape} is no image; (H, W), (H, W, 3) or (H, W, 4)") from error


def _fits(given: Sequence[int], shape: Shape) -> bool:
    channels, height, width = shape
    return tuple(given[-3:]) in (shape, (height, width, channels)) or (channels == 1 and given[-2:] == (height, width))


def _in_layout(values: Tensor, shape: Shape) -> Tensor:
    """(N, C, H, W)."""
    channels, height, width = shape
    given = tuple(values.shape)
    if given[-3:] == shape and len(given) in (3, 4):
        return values.reshape(-1, *shape)
    if given[-3:] == (height, width, channels) and len(given) in (3, 4):
        return values.reshape(-1, height, width, channels).permute(0, 3, 1, 2).contiguous()
    if channels == 1 and given[-2:] == (height, width) and len(given) in (2, 3):
        return values.reshape(-1, *shape)
    if len(given) in (1, 2) and given[-1:] == (channels * height * width,):
        return values.reshape(-1, *shape)
    raise InputError(f"images of shape {given}: the run has images of shape {shape} (channels, height, width)")
