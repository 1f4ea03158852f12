"""Files in which benchmark images were published: text of numbers (.amat), and MATLAB's arrays (.mat)."""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vae.config.errors import InputError

SIDE = 28


def amat(path: Path) -> Tensor:
    """Binary images (N, 1, 28, 28), uint8 of 0 and 255, from a text file with the 784 numbers 0 and 1 of an image on
    each line. Raises InputError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: not to be had ({error.strerror}); copy the file there") from error
    characters = np.frombuffer(content, np.uint8)
    values = characters[characters > ord(" ")]
    lines = len(content.splitlines())
    if len(values) != lines * SIDE**2 or lines < 2 or not np.isin(values, (ord("0"), ord("1"))).all():
        raise InputError(
            f"{path}: {lines} lines with {len(values)} characters; must be lines of {SIDE**2} numbers, each 0 or 1"
        )
    return torch.from_numpy(((values == ord("1")) * np.uint8(255)).reshape(-1, 1, SIDE, SIDE))


def omniglot(path: Path) -> tuple[tuple[Tensor, Tensor | None], tuple[Tensor, Tensor | None]]:
    """Training and test images (N, 1, 28, 28), uint8, each with the number of its alphabet (N,), from the file of Burda
    et al. 2016. MATLAB stores an image column by column: read in that order it stands upright. Raises InputError."""
    if not path.is_file():
        raise InputError(f"{path}: not to be had (no such file); copy the file there")
    content = _loadmat(path, ("data", "target", "testdata", "testtarget"))
    train, test = (_columns(content, path, *names) for names in (("data", "target"), ("testdata", "testtarget")))
    return train, test


LOADMAT = """
import sys
import numpy
from scipy.io import loadmat
content = loadmat(sys.argv[1], appendmat=False, variable_names=sys.argv[3:])
numpy.savez(sys.argv[2], **{name: content[name] for name in sys.argv[3:] if name in content})
"""


def _loadmat(path: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """The arrays of these names that a .mat file has. In a process of its own: of a damaged file scipy's reader may end
    its process. -P: nothing is imported from the directory of the call."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "content.npz"
        command = [sys.executable, "-P", "-c", LOADMAT, str(path), str(out), *names]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = done.stderr.strip().splitlines()
            reason = said[-1] if done.returncode == 1 and said else "its reader died of it"
            raise InputError(f"{path}: not a readable .mat file ({reason})")
        try:
            with np.load(out, allow_pickle=False) as content:
                return dict(content)
        except ValueError as error:  # cells and structures
            raise InputError(f"{path}: not a readable .mat file ({error})") from error


def _columns(content: dict[str, Any], path: Path, images: str, targets: str) -> tuple[Tensor, Tensor | None]:
    """The images that are the columns of one of its arrays, and the place of the 1 in each column of another."""
    found, labels = content.get(images), content.get(targets)
    if not isinstance(found, np.ndarray) or found.ndim != 2 or len(found) != SIDE**2 or found.shape[1] < 2:
        shape = found.shape if isinstance(found, np.ndarray) else "none"
        raise InputError(f"{path}: `{images}` has shape {shape}; must be ({SIDE**2}, N), one image a column")
    if found.dtype.kind not in "fub" or not ((found >= 0) & (found <= 1)).all():
        raise InputError(f"{path}: `{images}` must be brightness in [0, 1]")
    grey = np.round(found.T.astype(np.float32) * 255).astype(np.uint8)
    upright = np.ascontiguousarray(grey.reshape(-1, 1, SIDE, SIDE).transpose(0, 1, 3, 2))
    if not isinstance(labels, np.ndarray) or labels.ndim != 2 or labels.shape[1] != len(upright):
        return torch.from_numpy(upright), None
    return torch.from_numpy(upright), torch.from_numpy(labels.argmax(0).astype(np.int64))
