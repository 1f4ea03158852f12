"""What was made of images is kept for the same images alone, and no longer than they are."""

import gc
import weakref

import pytest
import torch
from conftest import composed

from vae.data import readers
from vae.data.remembered import OfImages
from vae.data.split import Split
from vae.measure import spectrum


def a_split(seed: int) -> Split:
    return Split(torch.rand(40, 1, 5, 4, generator=torch.Generator().manual_seed(seed)), torch.arange(40))


def test_only_the_same_images_labels_and_key_are_known() -> None:
    made: list[int] = []
    known: OfImages[int] = OfImages(most=2)

    def make() -> int:
        made.append(len(made))
        return made[-1]

    first, second = a_split(0), a_split(0)
    assert [known.get(first, "a", make), known.get(first, "a", make), known.get(first, "b", make)] == [0, 0, 1]
    assert known.get(second, "a", make) == 2
    assert known.get(Split(first.images, first.labels, span=(0, 2)), "b", make) == 3
    assert known.get(Split(first.images, second.labels), "b", make) == 4
    assert known.get(Split(first.images, first.labels, rows=torch.arange(3)), "b", make) == 5
    assert known.get(first, "a", make) == 6, "only the last few"


def test_images_that_are_changed_in_place_are_others() -> None:
    split = a_split(0)
    before, variance = spectrum.measure(split, 3).eigenvalues, split.total_variance
    assert split.total_variance == variance
    split.images.mul_(10)
    torch.testing.assert_close(spectrum.measure(split, 3).eigenvalues, 100 * before, rtol=1e-4, atol=0)
    assert split.total_variance == pytest.approx(100 * variance, rel=1e-4)
    known: OfImages[torch.Tensor] = OfImages(most=3)
    assert split.labels is not None
    labels = split.labels
    assert known.get(split, 0, labels.sum) == 780
    labels.add_(1)
    assert known.get(split, 0, labels.sum) == 820
    with torch.inference_mode():
        untold = Split(torch.ones(4, 1, 2, 2))
    assert known.get(untold, 0, untold.images.sum) == 16
    with torch.inference_mode():
        untold.images.mul_(2)
    assert known.get(untold, 0, untold.images.sum) == 32
    assert untold.total_variance == 0


def test_another_number_of_threads_sums_anew() -> None:
    split, made = a_split(0), []
    known: OfImages[int] = OfImages(most=3)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 1):
            torch.set_num_threads(threads)
            known.get(split, 0, lambda: made.append(torch.get_num_threads()) or len(made))
    finally:
        torch.set_num_threads(before)
    assert made == [1, 2]


def test_nothing_is_kept_of_images_that_are_gone() -> None:
    known: OfImages[torch.Tensor] = OfImages(most=3)
    split = a_split(0)
    made = weakref.ref(known.get(split, 0, lambda: torch.zeros(3)))
    del split
    gc.collect()
    assert made() is None


def test_the_spectrum_of_images_is_measured_once_for_each_count() -> None:
    split = a_split(0)
    assert spectrum.measure(split, 3) is spectrum.measure(split, 3)
    assert spectrum.measure(split, 4).components.shape[1] == 4
    scaled = spectrum.measure(split, 3, scale=torch.ones(20, dtype=torch.float64))
    assert torch.equal(scaled.eigenvalues, spectrum.measure(split, 3).eigenvalues)


def test_the_digits_are_read_once_for_each_way_to_split_them() -> None:
    first, again = (readers.load(composed().dataset) for _ in range(2))
    assert first.train.images is again.train.images
    assert readers.load(composed("dataset.split_seed=1").dataset).train.images is not first.train.images
