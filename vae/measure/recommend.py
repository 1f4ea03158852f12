"""Which settings suit a set of images, from their number, their size and their spectrum, each with its reason."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vae.config.schema import RunConfig
from vae.data.split import Data
from vae.measure import spectrum
from vae.measure.advice import IMAGES_EACH
from vae.runtime.torchrun import world

LOOKED_AT = 5000  # training images
EXPLAINED = 0.95  # of the variance, by a PCA of as many dimensions as the code has
DIMENSIONS = 16, 128  # of the code: fewer lose what is seen, more leave the prior empty
EPOCHS, STEPS = 40, (2000, 6000)  # of training
BATCHES = 20  # at least so many to an epoch
SIDE = 32  # pixels, up to which the learning rate stays: the deeper network of larger images undoes a start with it


@dataclass(frozen=True)
class Choice:
    key: str
    value: Any
    why: str


def choices(config: RunConfig, data: Data, given: Sequence[str] = ()) -> list[Choice]:
    """Values in place of those of `config`, for its kind of model; those `given` stay, and the others go by them. A run
    that begins with another's weights has its model."""
    total, (channels, height, width) = len(data.train), data.train.shape
    grey = [Choice("dataset.grayscale", True, "all images are grey: one channel, a third of the numbers")]
    chosen = grey if data.is_grey and "dataset.grayscale" not in given and config.init is None else []
    pixels = (1 if chosen else channels) * height * width
    most = max(1, min(DIMENSIONS[1], pixels // 2, total // IMAGES_EACH))
    found = spectrum.measure(data.train.some(LOOKED_AT), most)
    most = min(most, len(found.eigenvalues))  # of huge images fewer are known
    explained = (found.eigenvalues[:most].cumsum(0) / found.total).tolist()
    wanted = next((place for place, part in enumerate(explained, start=1) if part >= EXPLAINED), most)
    latent_dim = min(max(wanted, DIMENSIONS[0]), most)
    batch_size = config.train.batch_size
    if "train.batch_size" not in given:
        processes = world().size
        batch_size = min(batch_size, max(2, total // BATCHES) // processes * processes or processes)
    steps = config.train.steps
    if "train.steps" not in given:
        steps = min(max(math.ceil(EPOCHS * total / batch_size / 100) * 100, STEPS[0]), STEPS[1])
    epochs = steps * batch_size / total
    least = min(DIMENSIONS[0], most)
    limits = f"{least} to {most}" if least < most else f"no more than {most}"
    chosen += [
        Choice(
            "model.latent_dim",
            latent_dim,
            f"a PCA of so many dimensions explains {explained[latent_dim - 1]:.0%} of the variance "
            f"({EXPLAINED:.0%} wanted, {limits} allowed)",
        ),
        Choice("train.steps", steps, f"{epochs:.0f} times each of the {total} images"),
        Choice("train.eval_every", max(1, steps // 20), "twenty looks at the validation images"),
    ]
    side = max(height, width)
    if side > SIDE and config.model.start == "spectral":
        lr = float(f"{config.train.lr * SIDE / side:.2g}")
        chosen.append(
            Choice("train.lr", lr, f"{config.train.lr:g} is for sides of up to {SIDE} pixels, these have {side}")
        )
    if batch_size != config.train.batch_size:
        chosen.append(Choice("train.batch_size", batch_size, f"there are {total} images to train on"))
    kept = ("model.",) if config.init is not None else ()
    return [choice for choice in chosen if choice.key not in given and not choice.key.startswith(kept)]
