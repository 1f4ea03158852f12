"""Binary images: what each way gives, that test images stay the same, that dynamic ones do not."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import QUICK, composed, trained

from vae.config.errors import InputError
from vae.data import readers
from vae.data.binarize import drawn, training_images
from vae.training.setup import prepare

GREY = np.random.default_rng(0).integers(0, 256, (400, 6, 5), dtype=np.uint8)


@pytest.fixture
def arrays(tmp_path: Path) -> list[str]:
    np.save(tmp_path / "train.npy", GREY)
    np.save(tmp_path / "test.npy", GREY[::-1])
    return ["dataset=arrays", f"dataset.train={tmp_path}/train.npy", f"dataset.test={tmp_path}/test.npy"]


def test_threshold(arrays: list[str]) -> None:
    data = readers.load(composed(*arrays, "dataset.binarize=threshold").dataset)
    assert torch.equal(data.train.batch(slice(None))[:, 0], torch.from_numpy(GREY >= 128).float())
    assert data.grey is None


@pytest.mark.parametrize("how", ["static", "dynamic"])
def test_pixels_are_lit_as_often_as_they_are_bright(how: str, arrays: list[str]) -> None:
    data = readers.load(composed(*arrays, f"dataset.binarize={how}").dataset)
    images, grey = data.train.batch(slice(None))[:, 0].numpy(), GREY / 255
    assert set(np.unique(images)) == {0, 1}
    for low, high in itertools.pairwise((0, 0.25, 0.5, 0.75, 1.01)):
        some = (grey >= low) & (grey < high)
        assert images[some].mean() == pytest.approx(grey[some].mean(), abs=4 * 0.5 / some.sum() ** 0.5)
    assert not images[GREY == 0].any()
    assert images[GREY == 255].all()
    again = readers.load(composed(*arrays, f"dataset.binarize={how}", "seed=7").dataset)
    assert torch.equal(again.train.images, data.train.images)
    assert torch.equal(again.test.images, data.test.images)
    flipped = data.test.batch(slice(None)).flip(0)[:, 0].numpy()
    assert not np.array_equal(flipped, images)  # the two splits have noise of their own


def test_dynamic_images_are_drawn_anew_and_again_the_same_on_resume(arrays: list[str]) -> None:
    config = composed(*arrays, *QUICK, "dataset.binarize=dynamic", "train.batch_size=400", "model=mlp_vae")
    setup = prepare(config)
    first, second = (images for _, images in itertools.islice(setup.batches(after=0), 2))
    assert torch.equal(first.sum().bool(), torch.tensor(True))
    assert set(first.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(first.sort(0).values, second.sort(0).values)  # not just another order
    (_, resumed) = next(setup.batches(after=1))
    assert torch.equal(resumed, second)


def test_processes_draw_what_one_would(arrays: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    data = readers.load(composed(*arrays, "dataset.binarize=dynamic").dataset)
    whole = next(training_images(data, 100, seed=0, start=3))
    parts = []
    for rank in (0, 1):
        monkeypatch.setattr("vae.runtime.parallel.size", lambda: 2)
        monkeypatch.setattr("vae.runtime.parallel.rank", lambda rank=rank: rank)
        parts.append(next(training_images(data, 100, seed=0, start=3)))
    assert torch.equal(torch.cat(parts), whole)


def test_draws_against_their_mean() -> None:
    images = torch.full((1, 1, 200, 200), 0.3)
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
    assert float(drawn(images, noise).mean()) == pytest.approx(0.3, abs=0.01)


def test_what_is_no_brightness_is_refused() -> None:
    with pytest.raises(InputError, match=r"outside \[0, 1\]"):
        readers.load(dataclasses.replace(composed("dataset=gaussian").dataset, binarize="static"))


def test_a_bernoulli_of_them_is_a_density(arrays: list[str], tmp_path: Path) -> None:
    quick = [*QUICK, "model=mlp_vae", "objective=bernoulli", "evaluation.iw_samples=8"]
    grey = trained(tmp_path / "grey", *arrays, *quick)
    binary = trained(tmp_path / "binary", *arrays, *quick, "dataset.binarize=dynamic")
    assert grey["iwae_bound"] is None
    assert binary["iwae_bound"] >= binary["iwae_elbo"]
