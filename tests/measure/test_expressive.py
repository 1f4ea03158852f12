"""A decoder that sees pixels on images whose distribution is known: when it needs no code, and when it keeps one."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import trained

COUNT = 3000
SMALL = [
    "model=pixelcnn_vae",
    "objective=bernoulli",
    "model.latent_dim=2",
    "model.encoder_widths=[32]",
    "model.map_hidden=16",
    "model.channels=8",
    "train.device=cpu",
    "train.threads=1",
    "train.lr=0.01",
    "train.lr_schedule=cosine",
    "train.eval_every=10000",
    "evaluation.iw_samples=16",
    "evaluation.quality_images=0",
    "pictures.gif_every=0",
]


def on(directory: Path, images: np.ndarray[Any, Any], *overrides: str) -> dict[str, Any]:
    np.save(directory / "images.npy", images.astype(np.uint8) * 255)
    return trained(directory / "run", *SMALL, "dataset=arrays", f"dataset.train={directory}/images.npy", *overrides)


def chain(count: int, length: int, stay: float) -> np.ndarray[Any, Any]:
    """Rows of pixels, each like the one before it with probability `stay`: (count, 1, length)."""
    rng = np.random.default_rng(0)
    changes = rng.random((count, length)) >= stay
    changes[:, 0] = rng.random(count) < 0.5
    return np.logical_xor.accumulate(changes, axis=1)[:, None]


def entropy(p: float) -> float:
    return -p * math.log(p) - (1 - p) * math.log(1 - p)


@pytest.mark.parametrize("z_as", ["bias", pytest.param("map", marks=pytest.mark.slow)])
def test_of_a_markov_chain_it_reaches_the_entropy_and_needs_no_code(z_as: str, tmp_path: Path) -> None:
    images = chain(COUNT, 24, 0.85)
    found = on(tmp_path, images, "model.kernels=[3]", f"model.z_as={z_as}", "train.steps=800")
    truth = math.log(2) + 23 * entropy(0.85)
    assert found["verdict"] == "collapsed"
    assert found["kld"] < 0.05
    assert abs(found["swap_gap"]) < 0.1
    # The entropy of the test images under the chain itself, rather than its expectation: 300 images scatter.
    test = chain_nll(images[split_of(tmp_path)], 0.85)
    assert -found["elbo"] == pytest.approx(test, abs=0.15)
    assert test == pytest.approx(truth, abs=0.5)


def split_of(directory: Path) -> np.ndarray[Any, Any]:
    """The places of the test images."""
    from conftest import composed

    from vae.data import readers

    config = composed("dataset=arrays", f"dataset.train={directory}/images.npy").dataset
    test = readers.load(config).test
    assert test.rows is not None
    return test.rows.numpy()


def chain_nll(images: np.ndarray[Any, Any], stay: float) -> float:
    rows = images[:, 0].astype(bool)
    same = (rows[:, 1:] == rows[:, :-1]).sum(1)
    log_p = math.log(0.5) + same * math.log(stay) + (rows.shape[1] - 1 - same) * math.log(1 - stay)
    return -float(log_p.mean())


def test_without_pixels_to_see_the_same_chain_needs_its_code(tmp_path: Path) -> None:
    found = on(tmp_path, chain(COUNT, 24, 0.95), "model.kernels=[]", "train.steps=800")
    assert found["verdict"] == "alive"
    assert found["kld"] > 1


@pytest.mark.parametrize("z_as", ["bias", pytest.param("map", marks=pytest.mark.slow)])
def test_a_bit_that_few_pixels_do_not_tell_is_kept(z_as: str, tmp_path: Path) -> None:
    """Each of 64 pixels is the image's bit, or with probability .2 its opposite. A Gaussian code pays somewhat more
    than the log 2 nats of a bit, and says a little of how sure it is."""
    rng = np.random.default_rng(0)
    bit = rng.random((COUNT, 1, 1)) < 0.5
    images = bit ^ (rng.random((COUNT, 8, 8)) < 0.2)
    found = on(tmp_path, images, "model.kernels=[3]", f"model.z_as={z_as}", "train.steps=1000")
    assert found["verdict"] == "alive"
    assert math.log(2) - 0.05 < found["mutual_information"] < 1.1
    assert math.log(2) < found["kld"] < 1.7
    assert -found["iwae_bound"] == pytest.approx(math.log(2) + 64 * entropy(0.2), abs=1.2)
