"""Images that are handed over in Python (Pillow's, arrays, tensors, files, folders), read as a run's training images
were."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vae.config import schema
from vae.config.errors import InputError
from vae.config.load import at_home
from vae.data import pixels
from vae.data.arrays import mapped
from vae.data.binarize import binary
from vae.data.fingerprint import Reading
from vae.data.pixels import Transparent, Unreadable
from vae.data.scan import scan
from vae.runtime.rng import generator

Shape = tuple[int, int, int]  # (C, H, W)


def images(given: Any, dataset: schema.Dataset, reading: Reading, shape: Shape) -> Tensor:
    """Float images (N, C, H, W). `given`: one image, or several: of Pillow, arrays (H, W), (H, W, C), (C, H, W) or rows
    of pixels, with or without N before them, paths of files, or of folders, whose images come in the order of their
    paths. A float tensor is taken as it is. Raises InputError for what cannot be read as the training images were."""
    if isinstance(given, Tensor):
        given = given.detach().cpu()
        if given.is_floating_point():
            return _in_layout(given.float(), shape)
    if isinstance(given, str | Path):
        given = files(given)
    if isinstance(given, Image.Image):
        given = [given]
    if isinstance(given, Sequence) and any(isinstance(item, Image.Image | str | Path) for item in given):
        found = torch.cat([_one(item, dataset, reading, shape) for item in given])
    else:
        found = _array(np.asarray(given), dataset, reading, shape)
    return found if dataset.binarize == "none" else binary(found, dataset.binarize, generator(0, "binarize given"))


def files(path: str | Path) -> list[Path]:
    """A file, or the images below a folder in the order of their paths."""
    path = at_home(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or directory")
    found = [Path(name) for name, _, _ in scan(path, follow_links=False).images] if path.is_dir() else [path]
    if not found:
        raise InputError(f"{path}: no images in it")
    return found


def _one(item: Any, dataset: schema.Dataset, reading: Reading, shape: Shape) -> Tensor:
    """(1, C, H, W)."""
    name = str(item) if isinstance(item, str | Path) else "the image"
    if not isinstance(item, str | Path | Image.Image):
        return _array(np.asarray(item), dataset, reading, shape)
    if shape[0] not in (1, 3):
        raise InputError(f"{name}: the run has images of {shape[0]} channels; hand over arrays")
    settings = _as_folder(dataset, shape)
    try:
        if isinstance(item, Image.Image):
            found = pixels.converted(item.copy(), settings, reading.range)  # as it is opened a JPEG may be shrunk
        else:
            found = pixels.read(at_home(item), 0, settings, reading.range)
    except Transparent as error:
        raise InputError(f"{name}: is transparent in places, and the run has no dataset.background") from error
    except (Unreadable, ValueError, OSError, TypeError) as error:
        raise InputError(f"{name}: {error}") from error
    if found.pixels.shape != shape:
        raise InputError(f"{name}: has shape {found.pixels.shape}, the run has images of shape {shape}; resize it")
    return torch.tensor(found.pixels)[None].float() / 255


def _as_folder(dataset: schema.Dataset, shape: Shape) -> schema.Folder:
    """How files become pixels; where the run's came from no folder, in their own size."""
    if isinstance(dataset, schema.Folder):
        return dataset
    return schema.Folder(name="files", root="", grayscale=shape[0] == 1, cache="", max_megapixels=200)


def _array(array: Any, dataset: schema.Dataset, reading: Reading, shape: Shape) -> Tensor:
    """Numbers become brightness as those of the training images did, where they are of the same type."""
    is_resized = isinstance(dataset, schema.Folder) and dataset.size is not None
    if is_resized and array.dtype == np.uint8 and array.ndim in (2, 3, 4) and not _fits(array.shape, shape):
        return torch.cat([_one(_photo(image), dataset, reading, shape) for image in _photos(array)])
    if array.dtype.kind not in "biuf" or array.size == 0:
        raise InputError(f"images {array.dtype} of shape {array.shape}: must be numbers, and some")
    values = _in_layout(mapped(np.ascontiguousarray(array)), shape)
    low, high = float(array.min()), float(array.max())
    if reading.range is not None and isinstance(dataset, schema.Arrays) and reading.type == str(values.dtype):
        black, white = reading.range
        return ((values.double() - black) / (white - black)).clamp_(0, 1).float()
    if values.dtype == torch.uint8:
        return values.float() / 255
    if low >= 0 and high <= 1:
        return values.float()
    raise InputError(
        f"images {array.dtype} with values from {low:g} to {high:g}: the run's were "
        f"{reading.type.removeprefix('torch.')}; hand over 8-bit images, or floats in [0, 1]"
    )


def _photos(array: Any) -> list[Any]:
    """(N, H, W) and (N, H, W, C), or one of them, as a list."""
    single = array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (1, 3, 4))
    return [array] if single else list(array)


def _photo(array: Any) -> Image.Image:
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
