"""Images in memory: a `Split` holds N images and perhaps their labels, `training_batches` draws from it.

Images stay uint8 (a quarter of the memory, and of the traffic) and become floats one batch at a time."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from vae.streams import generator


@dataclass(frozen=True)
class Split:
    images: Tensor  # (N, C, H, W), uint8 in 0..255 or float32
    labels: Tensor | None = None  # (N,), int64

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def batch(self, index: Tensor | slice) -> Tensor:
        """Images (B, C, H, W) as float32; uint8 is scaled to [0, 1]."""
        images = self.images[index]
        return images if images.is_floating_point() else images.float().div_(255)

    def take(self, index: Tensor) -> "Split":
        return Split(self.images[index], None if self.labels is None else self.labels[index])

    def to(self, device: torch.device) -> "Split":
        return Split(self.images.to(device), self.labels)


@dataclass(frozen=True)
class Data:
    train: Split
    test: Split

    def to(self, device: torch.device) -> "Data":
        return Data(self.train.to(device), self.test.to(device))


def hold_out(split: Split, fraction: float, seed: int) -> Data:
    """Cut a test split of round(fraction * N) images out of `split`, each label in proportion (to within one
    image), by chance otherwise. At least two of the N >= 4 images go to each side."""
    total = len(split)
    held = min(max(round(fraction * total), 2), total - 2)
    order = torch.randperm(total, generator=generator(seed, "split"))
    if split.labels is not None:
        order = order[torch.argsort(split.labels[order], stable=True)]
    # Every (total / held)-th image in label order: a proportional share of each run of equal labels.
    place = torch.arange(total)
    chosen = (place + 1) * held // total > place * held // total
    return Data(split.take(order[~chosen].sort().values), split.take(order[chosen].sort().values))


def training_batches(split: Split, batch_size: int, seed: int, start: int = 0) -> Iterator[Tensor]:
    """Float batches (batch_size, C, H, W) without end, from batch number `start` on.

    Each epoch is a new permutation, a function of (seed, epoch) alone; what is left of it after the last
    full batch is not used in that epoch."""
    per_epoch = len(split) // batch_size
    for epoch in itertools.count(start // per_epoch):
        order = torch.randperm(len(split), generator=generator(seed, "order", epoch))
        order = order.to(split.images.device)
        first = start % per_epoch if epoch == start // per_epoch else 0
        for i in range(first, per_epoch):
            yield split.batch(order[i * batch_size : (i + 1) * batch_size])
