"""A folder of images as one array: decoded once, by all cores, into an .npy file below dataset.cache that later runs
map into memory. What was decoded before an interruption is kept, and a folder that has changed is decoded anew."""

import hashlib
import json
import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageOps

from vae.config import schema
from vae.config.errors import InputError
from vae.runtime import files

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm"}
CHUNK = 2**25  # bytes of decoded images in memory at a time

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def decoded(root: Path, config: schema.Folder) -> tuple[Path, list[Path]]:
    """All images below `root` in the order of their paths: the .npy file that holds them, uint8 (N, C, H, W), and where
    each of them comes from. Raises InputError for an image that cannot be read or has another size than the first."""
    found = sorted(_images_below(root, root.resolve()))
    if not found:
        raise InputError(f"{root}: no images in it (looked for {', '.join(sorted(SUFFIXES))})")
    paths = [Path(path) for path, _, _ in found]
    source = [str(root.resolve()), config.size, config.grayscale]
    directory = Path(config.cache) / f"{root.resolve().name}-{_digest(source)}"
    path = directory / f"{_digest([source, found])}.npy"
    if path.exists():
        return path, paths
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is damaged in part and can be read is no error
        warnings.simplefilter("error", Image.DecompressionBombWarning)  # a small file that claims to be a huge image
        first = _pixels(paths[0], config)
        directory.mkdir(parents=True, exist_ok=True)
        with files.locked(directory, wait=True):  # of two runs that want the same folder one decodes
            if not path.exists():
                _decode(paths, config, first, path)
    return path, paths


def _images_below(directory: Path, top: Path) -> Iterator[tuple[str, int, int]]:
    """Path, size in bytes and time of change of each image. Links that lead out of `top` are refused."""
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(top):
                raise InputError(f"{entry.path}: a link that leads out of {top}; put the files themselves there")
            if entry.is_dir(follow_symlinks=False):
                yield from _images_below(Path(entry.path), top)
            elif os.path.splitext(entry.name)[1].lower() in SUFFIXES and entry.is_file():
                status = entry.stat()
                yield entry.path, status.st_size, status.st_mtime_ns


def _digest(values: Any) -> str:
    return hashlib.blake2b(json.dumps(values).encode(), digest_size=10).hexdigest()


def _decode(paths: list[Path], config: schema.Folder, first: Pixels, target: Path) -> None:
    """Write the images to `target`, by way of a file beside it that an interrupted call leaves to the next one."""
    partial = target.with_suffix(".partial")
    for stale in set(target.parent.iterdir()) - {partial}:
        stale.unlink()
    try:
        with open(partial, "a+b") as file:
            done = _begin(file, (len(paths), *first.shape))
            for path, pixels in _in_parallel(paths, done, config, max(1, min(1024, CHUNK // first.nbytes))):
                if pixels.shape != first.shape:
                    sizes = [f"{shape[2]}x{shape[1]}" for shape in (pixels.shape, first.shape)]
                    raise InputError(
                        f"{path}: {sizes[0]}, but {paths[0]}: {sizes[1]}; set dataset.size to bring all to one size"
                    )
                file.write(pixels.tobytes())
            file.flush()
            os.fsync(file.fileno())
    except InputError:
        partial.unlink()  # the folder has to change now, and then it is of no use
        raise
    os.replace(partial, target)


def _in_parallel(paths: list[Path], start: int, config: schema.Folder, chunk: int) -> Iterator[tuple[Path, Pixels]]:
    """Each image from number `start` on, in order; `chunk` of them are in memory at a time."""
    from tqdm import tqdm

    quick = len(paths) < 2000
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(total=len(paths), initial=start, desc="decoding images", unit="", leave=False, disable=quick) as progress,
    ):
        for i in range(start, len(paths), chunk):
            some = paths[i : i + chunk]
            yield from zip(some, pool.map(lambda path: _pixels(path, config), some), strict=True)
            progress.update(len(some))


def _begin(file: BinaryIO, shape: tuple[int, ...]) -> int:
    """Bring a file that perhaps holds some whole images, and perhaps part of one, to where the next one goes: how many
    there are."""
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    if file.tell() == 0:
        np.lib.format.write_array_header_1_0(file, header)
        file.flush()
        return 0
    file.seek(0)
    np.lib.format.read_magic(file)
    np.lib.format.read_array_header_1_0(file)
    begin, size = file.tell(), int(np.prod(shape[1:]))
    done = (os.fstat(file.fileno()).st_size - begin) // size
    file.truncate(begin + done * size)
    return done


def _pixels(path: Path, config: schema.Folder) -> Pixels:
    """One image as (C, H, W)."""
    mode = "L" if config.grayscale else "RGB"
    try:
        with Image.open(path) as file:
            if config.size is not None:
                file.draft(mode, (config.size, config.size))
            image = _eight_bits(ImageOps.exif_transpose(file)).convert(mode)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Warning) as error:
        raise InputError(f"{path}: not a readable image ({error}); remove it or replace it") from error
    if config.size is not None:
        image = ImageOps.fit(image, (config.size, config.size), Image.Resampling.LANCZOS)
    return np.asarray(image).reshape(image.height, image.width, -1).transpose(2, 0, 1)


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey levels scaled to 8 bits: PIL's own conversion would clip them."""
    if image.mode.startswith("I;16") or (image.mode == "I" and np.asarray(image).max() < 2**16):
        return Image.fromarray((np.asarray(image, np.uint32) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode} have no fixed range; save them with 8 or 16 bits")
    return image
