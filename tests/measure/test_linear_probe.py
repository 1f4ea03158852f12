import time
import warnings

import pytest
import torch

from vae.measure import linear_probe


def test_it_finds_what_is_there_and_only_that() -> None:
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(600) % 3
    codes = torch.randn(600, 4, generator=rng)
    telling = codes.clone()
    telling[:, 1] += 6.0 * labels
    found = linear_probe.fit(telling[:400], labels[:400], telling[400:], labels[400:])
    assert found is not None
    assert found.accuracy > 0.97
    assert found.asked == 200
    nothing = linear_probe.fit(codes[:400], labels[:400], codes[400:], labels[400:])
    assert nothing is not None
    assert nothing.accuracy < 0.5
    assert nothing.majority == pytest.approx(1 / 3, abs=0.01)


def test_one_class_is_nothing_to_ask() -> None:
    codes, labels = torch.randn(10, 2), torch.zeros(10, dtype=torch.long)
    assert linear_probe.fit(codes, labels, codes, torch.arange(10)) is None
    assert linear_probe.fit(codes, torch.arange(10), codes[:0], labels[:0]) is None


def test_very_many_classes_take_a_bounded_time_and_say_nothing() -> None:
    """10,080 classes of which the 100 most frequent are asked; scikit-learn's warnings stay inside."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.cat([torch.arange(10_080), torch.arange(50).repeat(60), torch.arange(60).repeat(10)])
    classes = linear_probe.most_frequent(labels)
    assert len(classes) == linear_probe.MAX_CLASSES
    assert set(range(60)) <= set(classes.tolist())
    chosen = linear_probe.chosen(labels, classes, 32, rng)
    assert torch.isin(labels[chosen], classes).all()
    codes = torch.randn(len(chosen), 32, generator=rng)
    before = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert linear_probe.fit(codes, labels[chosen], codes, labels[chosen]) is not None
    assert time.perf_counter() - before < 30


def test_few_images_are_taken_where_codes_are_long() -> None:
    labels = torch.arange(20_000) % 100
    classes = linear_probe.most_frequent(labels)
    assert len(linear_probe.chosen(labels, classes, 8, torch.Generator())) == linear_probe.MAX_IMAGES
    assert len(linear_probe.chosen(labels, classes, 512, torch.Generator())) == 585
