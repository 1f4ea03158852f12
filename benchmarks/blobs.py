"""Data of any size: images of one blob each, in a .npy."""

from pathlib import Path

import numpy as np


def blobs(path: Path, count: int, side: int, channels: int = 1) -> Path:
    """A .npy of `count` uint8 images (side, side), or (side, side, channels), one blob each. Written block
    by block: this process stays small."""
    rng = np.random.default_rng(0)
    axis = np.arange(side)
    block = min(count, max(2, 2**21 // side**2))
    row, column = rng.uniform(0.2 * side, 0.8 * side, (2, block, 1))
    bump = [np.exp(-(((axis - centre) / (0.15 * side)) ** 2)) for centre in (row, column)]
    images = (255 * bump[0][:, :, None] * bump[1][:, None, :]).astype(np.uint8)
    if channels > 1:
        images = images[..., None].repeat(channels, -1)
    with path.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (count, *images.shape[1:])}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, count, block):
            file.write(images[: count - start].data)
    return path
