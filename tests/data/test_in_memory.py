from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from vae.config.errors import InputError
from vae.data import in_memory as given
from vae.data.in_memory import split_of
from vae.data.split import Data, Split

IMAGES = torch.rand(12, 3, 4, 5, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(12) % 3


@pytest.mark.parametrize(
    ("images", "shape"),
    [
        (IMAGES, (3, 4, 5)),
        (IMAGES.double().numpy(), (3, 4, 5)),
        (IMAGES[:, 0], (1, 4, 5)),
        (IMAGES.repeat(1, 1, 2, 1).permute(0, 2, 3, 1).numpy(), (3, 8, 5)),  # channels last
        (IMAGES[:, 0, :, :4].flatten(1), (1, 4, 4)),
        (IMAGES[:, 0].flatten(1)[:, :7], (1, 1, 7)),
        ((IMAGES > 0.5), (3, 4, 5)),
        ((IMAGES * 255).byte(), (3, 4, 5)),
        (Split(IMAGES), (3, 4, 5)),
        (Data(Split(IMAGES[:4]), Split(IMAGES)), (3, 4, 5)),
        (DataLoader(TensorDataset(IMAGES, LABELS), batch_size=5), (3, 4, 5)),
        (TensorDataset(IMAGES), (3, 4, 5)),
        ([*DataLoader(TensorDataset(IMAGES), batch_size=5)], (3, 4, 5)),
        ([IMAGES[:5], IMAGES[5:]], (3, 4, 5)),
        ([*IMAGES], (3, 4, 5)),
        ([(image, torch.ones(3)) for image in IMAGES], (3, 4, 5)),  # targets that are no labels
        ([{"pixel_values": IMAGES[:6], "label": LABELS[:6]}, {"pixel_values": IMAGES[6:], "label": LABELS[6:]}], None),
    ],
)
def test_images_of_every_kind(images: Any, shape: tuple[int, int, int] | None) -> None:
    if shape is None:  # a generator gives batches
        images, shape = iter(images), (3, 4, 5)
    split, _ = split_of(images)
    assert (len(split), split.shape) == (12, shape)
    batch = split.batch(slice(0, 12))
    assert batch.dtype == torch.float32
    assert 0 <= float(batch.min()) <= float(batch.max()) <= 1


def test_values_and_order_stay() -> None:
    for images in (IMAGES, 5 * IMAGES - 2, DataLoader(TensorDataset(IMAGES), batch_size=5)):
        wanted = images if isinstance(images, torch.Tensor) else IMAGES
        assert torch.equal(split_of(images)[0].batch(slice(0, 12)), wanted)
    last = IMAGES.repeat(1, 1, 2, 1).permute(0, 2, 3, 1)
    assert torch.equal(split_of(last)[0].batch(slice(0, 12)), last.permute(0, 3, 1, 2))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_one_value_among_many_images_that_is_not_finite(value: float) -> None:
    many = torch.rand(3000, 1, 2, 3)
    many[2998, 0, 1, 2] = value
    with pytest.raises(InputError, match="train: have values that are not finite; leave out"):
        split_of(many, what="train")
    assert len(split_of(many, most=1000)[0]) == 1000  # which are others


def test_a_data_loader_leaves_torch_s_random_numbers_alone() -> None:
    before = torch.get_rng_state()
    split_of(DataLoader(TensorDataset(IMAGES), batch_size=5, shuffle=True))
    assert torch.equal(torch.get_rng_state(), before)


def test_labels_come_with_the_images_or_beside_them() -> None:
    for images, labels in (
        (IMAGES, LABELS.numpy()),
        (IMAGES, LABELS.tolist()),
        (DataLoader(TensorDataset(IMAGES, LABELS), batch_size=5), None),
        ([*DataLoader(TensorDataset(IMAGES, LABELS), batch_size=5)], None),
        ([*DataLoader(TensorDataset(IMAGES[:, 0].flatten(1), LABELS), batch_size=5)], None),
        ([{"image": IMAGES[:6], "label": LABELS[:6]}, {"image": IMAGES[6:], "label": LABELS[6:]}], None),
        (TensorDataset(IMAGES, LABELS), None),
        ([(image, int(label)) for image, label in zip(IMAGES, LABELS, strict=True)], None),
    ):
        found = split_of(images, labels)[0].labels
        assert found is not None
        assert torch.equal(found, LABELS)
    targets = torch.rand(12, 2)  # no labels
    assert split_of(DataLoader(TensorDataset(IMAGES, targets), batch_size=5))[0].labels is None


def test_no_more_are_held_than_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    split, notes = split_of(IMAGES, LABELS, most=4)
    assert torch.equal(split.batch(slice(0, 4)), IMAGES[[0, 3, 6, 9]])
    assert split.labels is not None
    assert split.labels.tolist() == [0, 0, 0, 0]
    assert notes == ["4 of 12 images are measured, evenly chosen"]
    monkeypatch.setattr(given, "MAX_VALUES", 6 * 60)
    assert len(split_of(IMAGES)[0]) == 6

    def endless() -> Any:
        while True:
            yield IMAGES[:3]

    split, notes = split_of(endless())
    assert len(split) == 6
    assert notes[0] == "the first 6 images are measured"


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (IMAGES[:1], "images: 1 given; at least 2"),
        (IMAGES.repeat(1, 7, 1, 1), "21 channels; at most 16"),
        (IMAGES.long(), "must be floats, or uint8"),
        ((IMAGES > 0.5).byte(), "the largest is 1"),
        (np.array(["a", "b"]), "are <U1; must be floats"),
        ([IMAGES[0], IMAGES[0, :, :2]], "shapes .* must be one"),
        ([], "none came out of the list"),
        (object(), "is a object; must be"),
        (iter(["a"]), "images: hold a str"),
    ],
)
def test_what_are_no_images(images: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        split_of(images)
