import dataclasses
import itertools
import os
from pathlib import Path

import pytest
import torch
from conftest import composed
from torch._subclasses import FakeTensorMode

from vae.data.readers import embedded_digits
from vae.data.split import READERS, Split, hold_out, training_batches
from vae.training.stopping import with_validation


def counted(total: int, labels: torch.Tensor | None = None) -> Split:
    """Images that carry their own number, so that each can be told apart."""
    return Split(torch.arange(total, dtype=torch.float32).view(-1, 1, 1, 1), labels)


def test_embedded_digits_split_is_stratified() -> None:
    digits = embedded_digits()
    assert digits.images.shape == (5000, 1, 28, 28)
    data = hold_out(digits, 0.2, seed=0)
    assert data.train.labels is not None
    assert data.test.labels is not None
    assert data.train.labels.bincount().tolist() == [400] * 10
    assert data.test.labels.bincount().tolist() == [100] * 10


@pytest.mark.parametrize(("total", "fraction"), [(4, 0.01), (5, 0.9), (10, 0.25), (97, 0.3)])
@pytest.mark.parametrize("labelled", [True, False])
def test_hold_out_is_a_partition(total: int, fraction: float, labelled: bool) -> None:
    labels = torch.arange(total) % 3 if labelled else None
    data = hold_out(counted(total, labels), fraction, seed=1)
    train, test = data.train.images.flatten().tolist(), data.test.images.flatten().tolist()
    assert sorted(train + test) == list(range(total))
    assert len(test) == min(max(round(fraction * total), 2), total - 2)


def test_hold_out_depends_on_its_seed_alone() -> None:
    first, again, other = (hold_out(counted(50), 0.2, seed).test.images for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_frames_of_a_file_stay_together() -> None:
    names = tuple(f"{number * 7 % 10}.gif" for number in range(10) for _ in range(1 + number))  # 1 to 10 frames
    labels = torch.tensor([int(name[0]) % 2 for name in names])
    split = dataclasses.replace(counted(55, labels), sources=names)
    data = with_validation(hold_out(split, 0.4, seed=0), composed("train.patience=3").train)
    parts = [set(part.sources or ()) for part in (data.train, data.validation, data.test) if part is not None]
    assert [len(part) for part in parts] == [4, 2, 4]
    assert set.union(*parts) == set(names)
    assert sum(int(name[0]) % 2 for name in parts[2]) == 2  # each label in proportion
    assert sum(len(part) for part in (data.train, data.validation, data.test) if part is not None) == 55
    few = dataclasses.replace(split, sources=tuple(f"{int(name[0]) % 3}" for name in names))
    assert few.files() is None
    assert len(hold_out(few, 0.4, seed=0).test) == 22


def test_an_epoch_shows_every_image_once() -> None:
    batches = itertools.islice(training_batches(counted(30), 10, seed=0), 6)
    epochs = torch.cat(list(batches)).flatten().view(2, 30)
    assert epochs.sort().values.tolist() == [list(range(30))] * 2
    assert not torch.equal(epochs[0], epochs[1])


def test_batches_can_start_anywhere() -> None:
    split = counted(35)  # 3 batches of 10 an epoch
    through = list(itertools.islice(training_batches(split, 10, seed=4), 9))
    for start in range(9):
        later = list(itertools.islice(training_batches(split, 10, seed=4, start=start), 9 - start))
        assert all(torch.equal(a, b) for a, b in zip(through[start:], later, strict=True))


def test_mapped_images_are_looked_up_as_others_are() -> None:
    """Also those of a file with channels last, whose batches come out of numpy in that layout."""
    images = torch.arange(4 * 2 * 3 * 3, dtype=torch.uint8).view(4, 3, 3, 2).permute(0, 3, 1, 2)
    index, rows = torch.tensor([2, 0, 2]), torch.tensor([3, 0, 1])
    for own in (None, rows):
        mapped, held = Split(images, rows=own, mapped=True), Split(images, rows=own)
        assert torch.equal(mapped.stored(index), held.stored(index))
        assert torch.equal(mapped.batch(index), held.batch(index))
        assert mapped.batch(index).is_contiguous()


@pytest.mark.parametrize("mapped", [False, True])
def test_what_is_taken_of_chosen_rows_are_those_rows(mapped: bool) -> None:
    images = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1)
    split = Split(images, torch.tensor([0, 2, 1, 3, 4]), rows=torch.tensor([0, 2, 1, 3, 4]), mapped=mapped)
    taken = split.take(torch.tensor([4, 3, 2, 1, 0])).take(torch.tensor([0, 1, 3]))
    assert taken.stored(slice(None)).flatten().tolist() == [4, 3, 2]
    assert taken.labels is not None
    assert taken.labels.tolist() == [4, 3, 2]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_mapped_images_are_asked_for_from_a_gpu() -> None:
    split = Split(torch.arange(16, dtype=torch.uint8).view(4, 1, 2, 2), mapped=True).to(torch.device("cuda"))
    assert split.batch(torch.tensor([2], device="cuda")).mul(255).flatten().tolist() == pytest.approx([8, 9, 10, 11])


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc")
def test_readers_of_mapped_images_bring_no_threads_of_their_own() -> None:
    """Where libgomp counts more threads than cores, those of the training sleep between any two loops."""
    split = Split(torch.zeros(64, 3, 64, 64, dtype=torch.uint8), mapped=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        split.batch(slice(None))  # this thread's own helper is there
        before = len(os.listdir("/proc/self/task"))
        batches = training_batches(split, 64, seed=0)
        for _ in range(20):
            next(batches)
        assert len(os.listdir("/proc/self/task")) <= before + READERS
    finally:
        torch.set_num_threads(threads)


def test_uint8_becomes_unit_interval() -> None:
    split = Split(torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1))
    assert split.batch(slice(None)).flatten().tolist() == pytest.approx([0, 0.2, 1])


@pytest.mark.parametrize(("stored", "asked"), [("cuda", "cpu"), ("cpu", "cuda")])
def test_images_are_looked_up_where_they_are(stored: str, asked: str) -> None:
    """In torch's fake mode, which has devices that are not there and refuses what mixes them."""
    with FakeTensorMode():
        images = torch.zeros(4, 1, 2, 2, dtype=torch.uint8, device=stored)
        index = torch.tensor([2, 0], device=asked)
        with pytest.raises(RuntimeError, match="same device"):
            images.index_select(0, index)
        rows = torch.tensor([3, 2, 1], device=stored)
        for split in (Split(images), Split(images, rows=rows)):
            assert split.stored(index).shape == (2, 1, 2, 2)
            assert split.stored(index).device.type == stored
