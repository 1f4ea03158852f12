"""Images: a `Split` holds N of them and perhaps their labels, `training_batches` draws from it.

Images stay uint8 (a quarter of the memory, and of the traffic) and become floats one batch at a time. Those of a file
that is mapped into memory stay on the disk: the system reads what is asked for and forgets it when it must."""

import dataclasses
import itertools
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from vae.runtime import parallel
from vae.runtime.paging import ask_for
from vae.runtime.rng import generator

CHUNK_VALUES = 2**22  # pixels at a time, where all are looked at
READERS = 4  # threads that read batches of mapped images while others are trained on


@dataclass(frozen=True)
class Split:
    images: Tensor  # (M, C, H, W), uint8 in 0..255, floats, or of any type with a `span`
    labels: Tensor | None = None  # (N,), int64
    rows: Tensor | None = None  # (N,), int64: which of the M images these are; None: all
    mapped: bool = False  # the images lie on the disk
    device: torch.device = torch.device("cpu")  # where batches are wanted
    sources: tuple[str, ...] | None = None  # (N,): the files that they come from, where each has one
    span: tuple[float, float] | None = None  # the values that are black and white; None: 0 and 255, of floats 0 and 1

    def __len__(self) -> int:
        return len(self.images if self.rows is None else self.rows)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    @property
    def total_variance(self) -> float:
        """The variance of an image: over the images (1/N), summed over pixels. A pass over all of them, the first
        time."""
        state = state_of(self.images)
        known: tuple[object, float] = self.__dict__.get("_variance", (None, 0.0))
        if state is None or known[0] != state:
            known = self.__dict__["_variance"] = state, self._total_variance()  # the fields alone are frozen
        return known[1]

    def _total_variance(self) -> float:
        count, mean, total = 0, torch.zeros(()), 0.0
        for rows in self.slices():
            images = self.batch(rows).flatten(1).double()
            # Chan, Golub and LeVeque 1979: what a further block adds, without the cancellation of E[x^2] - E[x]^2.
            new, block = len(images), images.mean(0)
            total += float(
                (images - block).square().sum() + (block - mean).square().sum() * count * new / (count + new)
            )
            mean = mean + (block - mean) * (new / (count + new))
            count += new
        return total / count

    def files(self) -> Tensor | None:
        """(N,): the number of the file that each image comes from. None where all are of files of their own, or of
        fewer than four files: nothing of these could be held out whole."""
        if self.sources is None:
            return None
        numbers: dict[str, int] = {}
        found = [numbers.setdefault(source, len(numbers)) for source in self.sources]
        return torch.tensor(found) if 4 <= len(numbers) < len(found) else None

    def slices(self, values: int = CHUNK_VALUES, least: int = 1) -> Iterator[slice]:
        """All images in turn, those of so many pixels at a time, but no fewer than `least` images."""
        chunk = max(least, values // self.images[0].numel())
        return (slice(start, start + chunk) for start in range(0, len(self), chunk))

    def batch(self, index: Tensor | slice) -> Tensor:
        """Images (B, C, H, W) as float32; whole numbers, and what has a span, are scaled to [0, 1]."""
        return self.scaled(self.stored(index).to(self.device))

    def scaled(self, stored: Tensor) -> Tensor:
        """Images (B, C, H, W) as float32, of what `stored` gives, on the device where that lies."""
        images = stored.contiguous()
        if self.span is not None:
            black, white = self.span
            return ((images.double() - black) / (white - black)).clamp_(0, 1).float()
        return images.to(torch.float32, copy=True) if images.is_floating_point() else images.float().div_(255)

    def stored(self, index: Tensor | slice) -> Tensor:
        """Images (B, C, H, W) as they are stored, where they are stored, in any layout."""
        if isinstance(index, Tensor):
            index = index.to(self.images.device)
        rows = index if self.rows is None else self.rows[index]
        if isinstance(rows, slice):
            return self.images[rows]
        if not self.mapped:
            return self.images.index_select(0, rows)
        ask_for(self.images, rows)
        # By numpy, since threads do it that read ahead. In each of them torch would start OpenMP threads, and where a
        # process has more of those than cores, libgomp lets the training's own sleep whenever they wait for each other.
        return torch.from_numpy(self.images.numpy()[rows.numpy()])

    def take(self, index: Tensor) -> "Split":
        """The images at `index`; mapped ones stay where they are."""
        labels = None if self.labels is None else self.labels[index]
        sources = None if self.sources is None else tuple(self.sources[place] for place in index.tolist())
        taken = dataclasses.replace(self, labels=labels, sources=sources)
        rows = index if self.rows is None else self.rows[index]
        if self.mapped:
            return dataclasses.replace(taken, rows=rows)
        return dataclasses.replace(taken, images=self.images[rows.to(self.images.device)], rows=None)

    def some(self, count: int | None) -> "Split":
        """At most `count` of the images, chosen at random, always the same ones, in their order; None: all."""
        if count is None or count >= len(self):
            return self
        return self.take(torch.randperm(len(self), generator=generator(0, "some images"))[:count].sort().values)

    def to(self, device: torch.device) -> "Split":
        return dataclasses.replace(self, images=self.images if self.mapped else self.images.to(device), device=device)


@dataclass(frozen=True)
class Data:
    train: Split
    test: Split
    grey: Split | None = None  # the training images, of which binary ones are drawn at each step; None: `train`
    validation: Split | None = None  # a third split, where the data bring one
    classes: tuple[str, ...] | None = None  # names of the labels
    range: tuple[float, float] | None = None  # the values of the files that are black and white; None: their type's
    type: str | None = None  # of the numbers in the files, where `range` is of them
    notes: tuple[str, ...] = ()  # what is to be said of how they were read, a line each
    is_grey: bool = False  # the files are all grey, and have three equal channels here
    is_undivided: bool = False  # nothing is held out: all images are in both splits

    def measured(self, count: int | None) -> "Data":
        """The same with at most `count` images to measure on."""
        validation = None if self.validation is None else self.validation.some(count)
        return dataclasses.replace(self, test=self.test.some(count), validation=validation)

    def to(self, device: torch.device) -> "Data":
        parts = {name: getattr(self, name) for name in ("train", "test", "grey", "validation")}
        moved = {name: part.to(device) for name, part in parts.items() if part is not None}
        return dataclasses.replace(self, **moved)


def state_of(tensor: Tensor) -> tuple[int, int] | None:
    """What else than the tensor itself the bits of a sum over it depend on: how often it was changed in place, and the
    number of threads. None of one that counts no changes, as in torch.inference_mode."""
    return None if tensor.is_inference() else (tensor._version, torch.get_num_threads())


def hold_out(split: Split, fraction: float, seed: int) -> Data:
    """Cut a test split of round(fraction * N) images out of `split`, each label in proportion (to within one
    image), at random otherwise. At least two of the N >= 4 images go to each side. Frames of one file are alike, and
    stay together: of such files so many are cut out, by the label of the first frame. `fraction` 0: nothing is cut,
    and both are all of the images."""
    if fraction == 0:
        return Data(split, split, is_undivided=True)
    files, labels, total = split.files(), split.labels, len(split)
    if files is not None:
        total = int(files.max()) + 1
        first = torch.zeros(total, dtype=torch.int64).scatter_reduce_(
            0, files, torch.arange(len(split)), "amin", include_self=False
        )
        labels = None if labels is None else labels[first]
    held = min(max(round(fraction * total), 2), total - 2)
    order = torch.randperm(total, generator=generator(seed, "split"))
    if labels is not None:
        order = order[torch.argsort(labels[order], stable=True)]
    # Every (total / held)-th image in label order: the same fraction of each run of equal labels.
    place = torch.arange(total)
    chosen = (place + 1) * held // total > place * held // total
    left, cut = parted(order[chosen], total, files)
    return Data(split.take(left), split.take(cut))


def parted(held: Tensor, total: int, files: Tensor | None) -> tuple[Tensor, Tensor]:
    """The places of the images that are left, and of those that are cut out: these numbers of `total` images, or of
    the `total` files (`Split.files`) that they come from."""
    is_cut = torch.zeros(total, dtype=torch.bool)
    is_cut[held] = True
    of_image = is_cut if files is None else is_cut[files]
    return (~of_image).nonzero().flatten(), of_image.nonzero().flatten()


def training_batches(split: Split, batch_size: int, seed: int, start: int = 0) -> Iterator[Tensor]:
    """Float batches (batch_size, C, H, W) without end, from batch number `start` on.

    Each epoch is a new permutation, a function of (seed, epoch) alone; what is left of it after the last
    full batch is not used in that epoch. Of each batch a process gets its own rows."""
    order = _order(len(split), batch_size, seed, start, split.images.device)
    if not split.mapped:
        yield from map(split.batch, order)
        return

    def read(rows: Tensor) -> Tensor:
        return split.stored(rows).to(split.device)

    with ThreadPoolExecutor(READERS) as readers:
        waiting = deque(readers.submit(read, rows) for rows in itertools.islice(order, 2 * READERS))
        for rows in order:
            yield split.scaled(waiting.popleft().result())
            waiting.append(readers.submit(read, rows))


def _order(total: int, batch_size: int, seed: int, start: int, device: torch.device) -> Iterator[Tensor]:
    """The places (batch_size,) of the images of each batch."""
    per_epoch = total // batch_size
    for epoch in itertools.count(start // per_epoch):
        order = torch.randperm(total, generator=generator(seed, "order", epoch)).to(device)
        first = start % per_epoch if epoch == start // per_epoch else 0
        for i in range(first, per_epoch):
            yield parallel.own_rows(order[i * batch_size : (i + 1) * batch_size])
