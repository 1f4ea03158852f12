"""What is fetched of a mapped file, as the system itself counts it."""

import ctypes
import mmap
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import composed
from torch import Tensor

from vae.data import readers, scale
from vae.data.arrays import mapped
from vae.data.split import Split
from vae.runtime import paging


def pages_there(array: Tensor) -> int:
    """How many pages of a mapped array are in memory."""
    start = array.data_ptr() - array.data_ptr() % mmap.PAGESIZE
    length = array.data_ptr() + array.nbytes - start
    found = (ctypes.c_ubyte * -(-length // mmap.PAGESIZE))()
    mincore = ctypes.CDLL(None, use_errno=True).mincore
    mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    assert mincore(start, length, found) == 0
    return int((np.frombuffer(found, np.uint8) & 1).sum())


@pytest.fixture
def cold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """16,384 images of a page each, of which no page is in memory; so many count as large."""
    if not hasattr(os, "posix_fadvise"):
        pytest.skip("nothing here puts a file out of memory")
    path = tmp_path / "images.npy"
    np.save(path, np.arange(2**14, dtype=np.uint8)[:, None, None].repeat(64, 1).repeat(64, 2))
    with open(path, "rb") as file:
        os.fdatasync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if pages_there(mapped(np.load(path, mmap_mode="r"))) > 100:
        pytest.skip("this file system keeps files in memory")
    monkeypatch.setattr(paging, "LARGE", 2**20)
    return path


def test_of_a_large_file_only_the_rows_that_are_read_are_fetched(cold: Path) -> None:
    """Had nobody asked, 82 images would have brought nearly all of them."""
    images = mapped(np.load(cold, mmap_mode="r")[:, None])
    rows = torch.arange(100, len(images), 200)
    found = Split(images, mapped=True).stored(rows)
    assert torch.equal(found[:, 0, 63, 63], rows.to(torch.uint8))
    assert len(rows) <= pages_there(images) <= 4 * len(rows)


def test_to_open_a_large_file_takes_a_look_at_some_of_it(cold: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the 1,024 images that tell its range, and those that tell whether they vary. Each lies on two pages."""
    monkeypatch.setattr(scale, "SAMPLED", 100)
    data = readers.load(composed("dataset=arrays", f"dataset.train={cold}").dataset)
    scale.check(data, "some")
    assert 1000 <= pages_there(data.train.images) <= 2**13


@pytest.mark.parametrize(
    "array",
    [
        torch.zeros(6, 4, 5, 3).permute(0, 3, 1, 2),
        torch.zeros(3, 4, 5, 6).permute(3, 0, 1, 2),
        torch.zeros(6, 3, 4, 5)[::2],
        torch.zeros(6, 3, 4, 5)[1:],
        torch.zeros(0, 3, 4, 5),
    ],
    ids=["channels last", "images last", "every second", "not the first", "none"],
)
def test_what_is_asked_for_lies_in_the_array(array: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(paging, "_advise", lambda: lambda place, length, advice: asked.append((place, length)))
    monkeypatch.setattr(paging, "LARGE", 0)
    paging.ask_for(array, torch.arange(len(array)))
    monkeypatch.setattr(paging, "LARGE", 2**30)
    paging.ask_for(array, torch.arange(len(array)))  # of a small one nothing
    in_pieces = array.stride(0) == 1
    assert len(asked) == (0 if in_pieces else len(array))
    for row, (place, length) in zip(array, asked, strict=False):
        assert place % mmap.PAGESIZE == 0
        assert 0 <= row.data_ptr() - place < mmap.PAGESIZE
        assert place + length == row.data_ptr() + 4 * 60
