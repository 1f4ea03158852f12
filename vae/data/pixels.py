"""One image file as 8-bit pixels, and what had to be done to it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image, ImageColor, ImageOps

from vae.config import schema

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Values = np.ndarray[Any, np.dtype[np.float64]]
Result = TypeVar("Result")

DEEP = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")  # PIL's modes of more than 8 bits
PLAIN = {".jpg", ".jpeg", ".bmp"}  # suffixes of files with 8 bits, one frame and no transparency
RANGES = (1.0, 255.0, 1023.0, 4095.0, 16383.0, 65535.0)  # that deep files may use, from 0 on
OTHERS = {"1": "1 bit", "CMYK": "CMYK", "LAB": "Lab", "YCbCr": "YCbCr"}  # modes whose numbers become others
WHITE = "white of a deep PGM"  # in Image.info
ORIENTATION = 0x0112  # EXIF tag; from 5 on the sides are swapped
BITS_PER_SAMPLE, WHITE_IS_ZERO = 258, (262, 0)  # TIFF tags: the first, and another with its value
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
    tripled: bool = False  # it is grey, and has three equal channels now
    was: str | None = None  # what it was converted from, of OTHERS


def header(path: Path, settings: schema.Folder) -> Header:
    """Raises Unreadable."""
    if path.suffix.lower() in PLAIN:
        return Header(1, deep=False)
    try:
        with _opened(path, settings) as file:
            return Header(getattr(file, "n_frames", 1), file.mode in DEEP)
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, TypeError, KeyError, struct.error, ...
        raise Unreadable(_reason(error)) from error


def value_ranges(path: Path, frames: Iterable[int], settings: schema.Folder) -> list[tuple[float, float] | Exception]:
    """The smallest and the largest value of each of these frames of a deep file; Unreadable where one has none."""

    def extremes(file: Image.Image) -> tuple[float, float]:
        values = _values(file)
        return float(values.min()), float(values.max())

    return _each(path, frames, settings, extremes)


def common_range(ranges: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """What black and white are in deep files with these ranges of values: from 0 to the largest number of so many bits,
    or, where there are negative values or larger ones, the range itself."""
    lows, highs = zip(*ranges, strict=True)
    low, high = min(lows), max(highs)
    usual = next((top for top in RANGES if high <= top), None)
    if low >= 0 and usual is not None:
        return 0.0, usual
    return low, high if high > low else low + 1


def read(
    path: Path, frames: Iterable[int], settings: schema.Folder, span: tuple[float, float] | None
) -> list[Converted | Exception]:
    """The pixels of each of these frames, in rising order; Unreadable or Transparent where there are none. `span`: what
    is black and what is white in a deep file."""
    return _each(path, frames, settings, lambda file: converted(file, settings, span))


def read_one(path: Path, frame: int, settings: schema.Folder, span: tuple[float, float] | None) -> Converted:
    """One frame. Raises Unreadable and Transparent."""
    (found,) = read(path, [frame], settings, span)
    if isinstance(found, Exception):
        raise found
    return found


def _each(
    path: Path, frames: Iterable[int], settings: schema.Folder, do: Callable[[Image.Image], Result]
) -> list[Result | Exception]:
    """What `do` makes of each frame, or its error. The file is opened once and gone through once: a seek in an opened
    one starts where it is. After an error it is opened anew."""
    found: list[Result | Exception] = []
    file: Image.Image | None = None
    try:
        for frame in frames:
            try:
                file = file or _opened(path, settings)
                _seek(file, frame, settings)
                found.append(do(file))
            except Transparent as error:
                found.append(error)
            except Exception as error:  # as in `header`
                found.append(Unreadable(_reason(error)))
                if file is not None:
                    file.close()
                file = None
    finally:
        if file is not None:
            file.close()
    return found


def read_opened(image: Image.Image, settings: schema.Folder, span: tuple[float, float] | None) -> Converted:
    """The pixels of an image that somebody else has opened, which stays as it is. Raises Unreadable and Transparent."""
    try:
        _refuse_deep_colours(image)  # a copy does not say that it has them
        white = _white(image)
        copied = image.copy()  # reading may shrink a JPEG
        copied.info[WHITE] = white
        return converted(copied, settings, span)
    except Transparent:
        raise
    except Exception as error:
        raise Unreadable(_reason(error)) from error


def converted(file: Image.Image, settings: schema.Folder, span: tuple[float, float] | None) -> Converted:
    """An opened image as 8-bit pixels. Raises Transparent, and what Pillow raises where it is damaged."""
    mode = "L" if settings.grayscale else "RGB"
    _refuse_deep_colours(file)
    image = _eight_bits(file, span) if file.mode in DEEP else file
    coloured, was = _has_colours(image), OTHERS.get(file.mode)
    size = wanted(settings)
    is_turned = image.getexif().get(ORIENTATION, 1) >= 5
    given = image.size[::-1] if is_turned else image.size
    if size is not None:
        image.draft(mode, size if is_turned else size[::-1])
    image = ImageOps.exif_transpose(image)
    composed = _is_transparent(image)
    if composed:
        image = _on_background(image, settings.background)
    image = image.convert(mode)
    if size is not None and image.size != (size[1], size[0]):
        image = _fitted(image, size, settings)
    scaled = image.size != given
    reshaped = scaled and given[0] * image.height != given[1] * image.width
    pixels = np.asarray(image).reshape(image.height, image.width, -1).transpose(2, 0, 1)
    greyed, tripled = settings.grayscale and coloured, not (settings.grayscale or coloured)
    return Converted(pixels, composed, scaled, reshaped, greyed, tripled, was)


def _refuse_deep_colours(file: Image.Image) -> None:
    """Raises ValueError where an image that is not loaded yet has colours, or grey with opacity, of 16 bits: Pillow
    would keep the upper 8 of them, which are black where 12 are used."""
    bits = getattr(file, "tag_v2", {}).get(BITS_PER_SAMPLE, (8,))
    raw = [tile[3] for tile in getattr(file, "tile", ())]
    wide = any(";16" in str(name) and "BGR;16" not in str(name) for name in raw)  # BGR;16 has 16 bits for all three
    wide = wide or any(file.format == "PPM" and name[1] > 255 for name in raw if isinstance(name, tuple))
    if file.mode not in DEEP and (max(bits) > 8 or wide):
        raise ValueError(
            "has several channels of 16 bits, of which 8 would be read; save it with 8 bits, as grey alone, or all as "
            "an array for dataset=arrays"
        )


def _has_colours(file: Image.Image) -> bool:
    """Whether its kind of file may have them; of a palette, whether it has."""
    if file.mode == "P":
        palette = np.asarray(file.getpalette("RGB") or []).reshape(-1, 3)
        return bool((palette != palette[:, :1]).any())
    if file.format == "GIF" and file.mode in ("RGB", "RGBA"):  # as Pillow opens a frame after the first
        pixels = np.asarray(file.convert("RGB"))
        return bool((pixels != pixels[..., :1]).any())
    return file.mode not in ("1", "L", "LA")


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


def _eight_bits(file: Image.Image, span: tuple[float, float] | None) -> Image.Image:
    """A deep image, turned as it is."""
    values = _values(file)
    if span is None:
        raise ValueError("has more than 8 bits, and neither its name nor other images say which values they use")
    low, high = span
    scaled = ((values - low) / (high - low)).clip(0, 1) * 255
    image = Image.fromarray(scaled.round().astype(np.uint8))
    image.getexif()[ORIENTATION] = file.getexif().get(ORIENTATION, 1)
    return image


def _values(file: Image.Image) -> Values:
    """Those of a deep image, (H, W)."""
    if "transparency" in file.info:
        raise ValueError("has more than 8 bits and one value that is transparent; save it without")
    tag, value = WHITE_IS_ZERO
    if getattr(file, "tag_v2", {}).get(tag) == value:  # Pillow turns those of 8 bits round, and these not
        raise ValueError("has more than 8 bits, of which 0 is white; save it with 0 for black")
    white = file.info.get(WHITE, _white(file))
    values = np.asarray(file, np.float64)
    if white is not None:
        values = (values * (white / 65535)).round()
    if not np.isfinite(values).all():
        raise ValueError("has values that are not finite")
    return values


def _white(file: Image.Image) -> float | None:
    """What a deep PGM says that white is, before it is loaded: Pillow stretches its values from there to 65535."""
    named = [tile[3] for tile in getattr(file, "tile", ()) if file.format == "PPM" and isinstance(tile[3], tuple)]
    return next((float(arguments[1]) for arguments in named if arguments[1] > 255), None)


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
