"""One image file as 8-bit pixels, and what had to be done to it."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageColor, ImageOps

from vae.config import schema

Pixels = np.ndarray[Any, np.dtype[np.uint8]]

DEEP = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")  # PIL's modes of more than 8 bits
PLAIN = {".jpg", ".jpeg", ".bmp", ".ppm"}  # suffixes of files with 8 bits, one frame and no transparency
RANGES = (1.0, 255.0, 1023.0, 4095.0, 16383.0, 65535.0)  # that deep files may use, from 0 on
ORIENTATION = 0x0112  # EXIF tag; from 5 on the sides are swapped
Image.MAX_IMAGE_PIXELS = None  # the limit is dataset.max_megapixels, checked before anything is decoded


class Unreadable(Exception):
    """A file that is no image, or not a whole one."""


class Transparent(Exception):
    """An image with transparent pixels, and no background to put it on."""


@dataclass(frozen=True)
class Header:
    """What a file says before its pixels are read."""

    frames: int
    deep: bool


@dataclass(frozen=True)
class Converted:
    pixels: Pixels  # (C, H, W)
    composed: bool = False  # put on a background
    scaled: bool = False
    reshaped: bool = False  # cropped, padded or stretched
    greyed: bool = False  # its colours were dropped


def header(path: Path, settings: schema.Folder) -> Header:
    """Raises Unreadable."""
    if path.suffix.lower() in PLAIN:
        return Header(1, deep=False)
    try:
        with _opened(path, settings) as file:
            return Header(getattr(file, "n_frames", 1), file.mode in DEEP)
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, TypeError, KeyError, struct.error, ...
        raise Unreadable(_reason(error)) from error


def value_range(path: Path, frame: int, settings: schema.Folder) -> tuple[float, float]:
    """The smallest and the largest value of a deep file. Raises Unreadable."""
    try:
        with _opened(path, settings) as file:
            _seek(file, frame, settings)
            values = np.asarray(file, np.float64)
    except Exception as error:
        raise Unreadable(_reason(error)) from error
    low, high = float(values.min()), float(values.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise Unreadable("has values that are not finite")
    return low, high


def common_range(ranges: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """What black and white are in deep files with these ranges of values: from 0 to the largest number of so many bits,
    or, where there are negative values or larger ones, the range itself."""
    lows, highs = zip(*ranges, strict=True)
    low, high = min(lows), max(highs)
    usual = next((top for top in RANGES if high <= top), None)
    if low >= 0 and usual is not None:
        return 0.0, usual
    return low, high if high > low else low + 1


def read(path: Path, frame: int, settings: schema.Folder, span: tuple[float, float] | None) -> Converted:
    """The pixels of a frame. `span`: what is black and what is white in a deep file. Raises Unreadable and
    Transparent."""
    try:
        with _opened(path, settings) as file:
            _seek(file, frame, settings)
            return converted(file, settings, span)
    except Transparent:
        raise
    except Exception as error:
        raise Unreadable(_reason(error)) from error


def converted(file: Image.Image, settings: schema.Folder, span: tuple[float, float] | None) -> Converted:
    """An opened image as 8-bit pixels. Raises Transparent, and what Pillow raises where it is damaged."""
    mode = "L" if settings.grayscale else "RGB"
    greyed = settings.grayscale and _has_colours(file)
    size = wanted(settings)
    is_turned = file.getexif().get(ORIENTATION, 1) >= 5
    given = file.size[::-1] if is_turned else file.size
    if size is not None:
        file.draft(mode, size if is_turned else size[::-1])
    image = ImageOps.exif_transpose(file)
    if image.mode in DEEP:
        if span is None:
            raise ValueError("has more than 8 bits, and neither its name nor other images say which values they use")
        image = _eight_bits(image, span)
    composed = _is_transparent(image)
    if composed:
        image = _on_background(image, settings.background)
    image = image.convert(mode)
    if size is not None and image.size != (size[1], size[0]):
        image = _fitted(image, size, settings)
    scaled = image.size != given
    reshaped = scaled and given[0] * image.height != given[1] * image.width
    pixels = np.asarray(image).reshape(image.height, image.width, -1).transpose(2, 0, 1)
    return Converted(pixels, composed, scaled, reshaped, greyed)


def _has_colours(file: Image.Image) -> bool:
    """Whether its kind of file may have them; of a palette, whether it has."""
    if file.mode == "P":
        palette = np.asarray(file.getpalette("RGB")).reshape(-1, 3)
        return bool((palette != palette[:, :1]).any())
    return file.mode not in ("1", "L", "LA", *DEEP)


def wanted(settings: schema.Folder) -> tuple[int, int] | None:
    """(height, width)."""
    size = settings.size
    if size is None:
        return None
    height, width = size if isinstance(size, list) else (size, size)
    return height, width


def _reason(error: Exception) -> str:
    """In one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _opened(path: Path, settings: schema.Folder) -> Image.Image:
    file = Image.open(path)
    try:
        _check_size(file, settings)
    except ValueError:
        file.close()
        raise
    return file


def _seek(file: Image.Image, frame: int, settings: schema.Folder) -> None:
    if frame:
        file.seek(frame)
        _check_size(file, settings)


def _check_size(file: Image.Image, settings: schema.Folder) -> None:
    if file.width * file.height > settings.max_megapixels * 1e6:
        raise ValueError(f"{file.width}x{file.height} pixels, above dataset.max_megapixels={settings.max_megapixels}")


def _eight_bits(image: Image.Image, span: tuple[float, float]) -> Image.Image:
    low, high = span
    values = (np.asarray(image, np.float64) - low) / (high - low)
    return Image.fromarray((values.clip(0, 1) * 255).round().astype(np.uint8))


def _is_transparent(image: Image.Image) -> bool:
    if "A" not in image.getbands() and "a" not in image.getbands() and "transparency" not in image.info:
        return False
    alpha = image.convert("RGBA").getchannel("A")
    return alpha.getextrema()[0] < 255  # type: ignore[operator]  # PIL's stubs: bands of several kinds


def _on_background(image: Image.Image, background: str | None) -> Image.Image:
    if background is None:
        raise Transparent
    image = image.convert("RGBA")
    ground = Image.new("RGBA", image.size, (*ImageColor.getrgb(background)[:3], 255))
    return Image.alpha_composite(ground, image).convert("RGB")


def _fitted(image: Image.Image, size: tuple[int, int], settings: schema.Folder) -> Image.Image:
    there = (size[1], size[0])
    if settings.fit == "crop":
        return ImageOps.fit(image, there, Image.Resampling.LANCZOS)
    if settings.fit == "stretch":
        return image.resize(there, Image.Resampling.LANCZOS)
    colour = ImageColor.getcolor(settings.background or "black", image.mode)
    return ImageOps.pad(image, there, Image.Resampling.LANCZOS, color=colour)
