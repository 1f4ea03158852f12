"""Images that nothing can be learnt from are refused in one line; their variance is numpy's."""

import numpy as np
import pytest
import torch

from vae.config.errors import InputError
from vae.data import scale
from vae.data.split import Data, Split

IMAGES = torch.randint(0, 256, (50, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def checked(train: torch.Tensor, test: torch.Tensor = IMAGES) -> float:
    return scale.check(Data(Split(train), Split(test)), "dataset=mine")


def test_the_variance_is_numpy_s_over_images() -> None:
    assert checked(IMAGES) == pytest.approx((IMAGES.numpy() / 255).var(0).mean())
    far = 1e4 + torch.rand(2500, 1, 3, 3, generator=torch.Generator().manual_seed(1))  # more than one block, far from 0
    assert Split(far).total_variance == pytest.approx(far.double().numpy().var(0).sum(), rel=1e-9)


def test_of_very_many_images_some_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "SAMPLED", 10)
    assert checked(IMAGES) == pytest.approx((IMAGES.numpy() / 255)[::5].var(0).mean())


@pytest.mark.parametrize(
    ("train", "test", "says"),
    [
        (IMAGES[:1].expand(20, -1, -1, -1), IMAGES, "all 20 training images are the same"),
        (
            (IMAGES > 127).to(torch.uint8),
            IMAGES,
            "would be read as 1/255; multiply them by 255, or save them as floats",
        ),
        (IMAGES, IMAGES[:1], "1 test image; at least 2 are needed"),
    ],
)
def test_images_that_cannot_be_learnt_from(train: torch.Tensor, test: torch.Tensor, says: str) -> None:
    with pytest.raises(InputError, match="dataset=mine") as error:
        checked(train, test)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_floats_may_be_0_and_1() -> None:
    assert checked((IMAGES > 127).float()) > 0
    assert np.isfinite(checked(IMAGES.double()))
