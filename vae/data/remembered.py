"""What was made of images, for the next run that has the same: of a sweep, many runs of one process do. Kept only as
long as the images themselves, and of the last few only. Images that are changed in place are others, where torch does
it: what NumPy writes into memory that it shares with a tensor is not seen."""

import operator
import weakref
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, NamedTuple, TypeVar

from torch import Tensor

from vae.data.split import Split, state_of

Made = TypeVar("Made")


class Entry(NamedTuple, Generic[Made]):
    tensors: Sequence[weakref.ref[Tensor]]
    key: Hashable
    made: Made


class OfImages(Generic[Made]):
    def __init__(self, most: int) -> None:
        """`most`: how many are kept."""
        self.most = most
        self.kept: list[Entry[Made]] = []

    def get(self, split: Split, key: Hashable, make: Callable[[], Made]) -> Made:
        """What `make` makes of the whole split: the same for the same images, labels and `key`, on as many threads."""
        tensors = [split.images] if split.labels is None else [split.images, split.labels]
        states = [state_of(tensor) for tensor in tensors]
        if split.rows is not None or split.mapped or None in states:  # mapped images may change on the disk
            return make()
        key = (key, split.span, split.device, *states)
        for entry in self.kept:
            found = [reference() for reference in entry.tensors]
            if entry.key == key and len(found) == len(tensors) and all(map(operator.is_, found, tensors)):
                return entry.made
        made = make()
        entry = Entry([weakref.ref(tensor, self._forget) for tensor in tensors], key, made)
        self.kept = [*self.kept, entry][-self.most :]
        return made

    def _forget(self, gone: weakref.ref[Tensor]) -> None:
        """A new list: another may be looked through."""
        self.kept = [entry for entry in self.kept if all(reference is not gone for reference in entry.tensors)]
