"""Checks on resume that the data are unchanged: number, shape and type of the images, and a digest of them."""

import hashlib
from typing import Any

import torch
from torch import Tensor

from vae.config.errors import InputError
from vae.data.split import Data, Split

MAX_BYTES = 2**26  # of a split that are read: all of MNIST, an even sample of what is larger


class Fingerprint:
    def __init__(self, data: Data, source: str) -> None:
        """`source` names the data in messages."""
        self.source = source
        self.splits = {"train": _of(data.train), "test": _of(data.test)}

    def state_dict(self) -> dict[str, Any]:
        return self.splits

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises InputError where `state` was taken of other data, or is none."""
        for split, now in self.splits.items():
            found = state.get(split) if isinstance(state, dict) else None
            for name, value in now.items():
                if not isinstance(found, dict) or name not in found:
                    raise InputError(f"checkpoint, data: {split}.{name} is missing")
                before = found[name]
                if type(before) is not type(value) or before != value:
                    what = "has other content" if name == "digest" else f"{name} was {before}, is {value}"
                    raise InputError(
                        f"{self.source}: not the data that the run began with ({split} split: {what}); "
                        "bring them back, or start a new run"
                    )


def _of(split: Split) -> dict[str, Any]:
    total, size = len(split), split.images[:1].nbytes
    sample = torch.arange(0, total, max(1, -(-total * size // MAX_BYTES)))
    digest = hashlib.blake2b(_bytes(split.stored(sample)), digest_size=16)
    if split.labels is not None:
        digest.update(_bytes(split.labels))
    return {
        "images": total,
        "shape": list(split.shape),
        "type": str(split.images.dtype),
        "labelled": split.labels is not None,
        "digest": digest.hexdigest(),
    }


def _bytes(values: Tensor) -> memoryview:
    return values.cpu().contiguous().numpy().reshape(-1).view("uint8").data
