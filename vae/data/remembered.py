"""What was made of images, for the next run that has the same: of a sweep, many runs of one process do. Kept only as
long as the images themselves, and of the last few only."""

import weakref
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

from torch import Tensor

from vae.data.split import Split

Made = TypeVar("Made")


class OfImages(Generic[Made]):
    def __init__(self, most: int) -> None:
        """`most`: how many are kept."""
        self.kept: deque[tuple[Sequence[weakref.ref[Tensor]], Hashable, Made]] = deque(maxlen=most)

    def get(self, split: Split, key: Hashable, make: Callable[[], Made]) -> Made:
        """What `make` makes of the whole split: the same for the same images, labels and `key`."""
        if split.rows is not None or split.mapped:  # whose images may change on the disk
            return make()
        tensors = [split.images] if split.labels is None else [split.images, split.labels]
        key = (key, split.span, split.device)
        for references, known, made in self.kept:
            found = [reference() for reference in references]
            if known == key and len(found) == len(tensors) and all(a is b for a, b in zip(found, tensors, strict=True)):
                return made
        made = make()
        alive = [entry for entry in self.kept if all(reference() is not None for reference in entry[0])]
        self.kept.clear()
        self.kept.extend([*alive, ([weakref.ref(tensor) for tensor in tensors], key, made)])
        return made
