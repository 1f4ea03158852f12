"""Binary images, of which a Bernoulli likelihood is a probability: each pixel becomes 1 from half of white on
(threshold), or with its own brightness for its probability, once (static, as the static MNIST of Larochelle and Murray
2011 was made) or anew each time it is trained on (dynamic, Salakhutdinov and Murray 2008). The test images are made
binary once. What is made once is the same for every seed of a run, as a published file would be."""

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor

from vae.config.errors import InputError
from vae.config.schema import Dataset
from vae.data.split import Data, Split, training_batches
from vae.runtime import parallel
from vae.runtime.rng import generator


def binarized(data: Data, config: Dataset) -> Data:
    """`data` as `config.binarize` asks. They are held in memory, a byte a pixel. Raises InputError where pixels are no
    brightness."""
    how = config.binarize
    if how == "none":
        return data
    train, test, validation = (
        None if part is None else _split(part, how, name, config.name)
        for name, part in (
            ("train", data.train),
            ("test", None if data.is_undivided else data.test),
            ("validation", data.validation),
        )
    )
    assert train is not None
    test = train if data.is_undivided else test
    assert test is not None
    grey = data.train if how == "dynamic" else None
    return dataclasses.replace(data, train=train, test=test, validation=validation, grey=grey)


def drawn(images: Tensor, noise: Tensor) -> Tensor:
    """Binary images of grey ones, floats in [0, 1]: 1 with the probability that a pixel's brightness is. `noise`:
    uniform on [0, 1), of the images' shape."""
    return (noise.to(images.device) < images).to(images.dtype)


def training_images(data: Data, batch_size: int, seed: int, start: int = 0) -> Iterator[Tensor]:
    """Float batches (batch_size, C, H, W) of the training images without end, from batch number `start` on, as
    `training_batches` gives them; where they are made binary dynamically, drawn anew. Of each batch a process gets its
    own rows, of images and of noise."""
    batches = training_batches(data.grey or data.train, batch_size, seed, start)
    if data.grey is None:
        yield from batches
        return
    for step, grey in enumerate(batches, start=start + 1):
        rng = generator(seed, "binarize", step, grey.device)
        noise = torch.rand(batch_size, *grey.shape[1:], generator=rng, device=grey.device)
        yield drawn(grey, parallel.own_rows(noise))


def binary(grey: Tensor, how: str, rng: torch.Generator) -> Tensor:
    """Grey images in [0, 1] made binary once, as 0 and 1."""
    return (grey >= 0.5).to(grey.dtype) if how == "threshold" else drawn(grey, torch.rand(grey.shape, generator=rng))


def _split(split: Split, how: str, name: str, source: str) -> Split:
    rng = generator(0, f"binarize {name}")
    images = torch.empty(len(split), *split.shape, dtype=torch.uint8)
    for rows in split.slices():
        grey = split.batch(rows).cpu()
        if not ((grey >= 0) & (grey <= 1)).all():
            raise InputError(
                f"dataset.binarize={how} with dataset={source}: has pixels outside [0, 1], which are no brightness; "
                "leave dataset.binarize out"
            )
        images[rows] = binary(grey, how, rng) * 255
    return Split(images, split.labels, device=split.device, sources=split.sources)
