"""What a run knows of its data: number, shape and type of the images and a digest of them, checked on resume, and what
is needed to read other images as these were read."""

import hashlib
import re
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from vae.config.errors import InputError
from vae.data.split import Data, Split
from vae.runtime import untrusted
from vae.runtime.terminal import printable

MAX_BYTES = 2**26  # of a split that are read: all of MNIST, an even sample of what is larger


@dataclass(frozen=True)
class Reading:
    """How the training images were read."""

    range: tuple[float, float] | None  # the values of the files that are black and white; None: their type's
    type: str  # of their numbers
    classes: tuple[str, ...] | None  # names of the labels

    @classmethod
    def of(cls, state: Any) -> Self:
        """From a Fingerprint's state. Raises ValueError where it is none."""
        untrusted.names(state, ("train", "test", "validation", "range", "classes", "type"), "data")
        limits, classes, kind = state["range"], state["classes"], state["type"]
        if not isinstance(state["validation"], dict | None):
            raise ValueError(f"data.validation: is {type(state['validation']).__name__}, must be a dict")
        if limits is not None:
            if not isinstance(limits, list) or len(limits) != 2:
                raise ValueError(f"data.range: is {limits}, must be two numbers")
            for limit in limits:
                untrusted.number(limit, "data.range")
            if limits[0] >= limits[1]:
                raise ValueError(f"data.range: {limits} does not rise")
        named = isinstance(classes, list) and classes and all(isinstance(name, str) for name in classes)
        if classes is not None and not named:
            raise ValueError("data.classes: must be texts")
        if not isinstance(kind, str) or not re.fullmatch(r"torch\.\w+|unknown", kind):
            raise ValueError(f"data.type: {kind} is no type of numbers")
        return cls(
            None if limits is None else (float(limits[0]), float(limits[1])),
            kind,
            None if classes is None else tuple(classes),
        )


class Fingerprint:
    def __init__(self, data: Data, source: str) -> None:
        """`source` names the data in messages."""
        self.source = source
        self.splits = {"train": _of(data.train), "test": _of(data.test)}
        if data.validation is not None:
            self.splits["validation"] = _of(data.validation)
        self.reading = Reading(
            range=data.range,
            type=data.type or str(data.train.images.dtype),
            classes=tuple(map(printable, data.classes)) if data.classes else None,
        )

    def state_dict(self) -> dict[str, Any]:
        reading = {"range": self.reading.range, "classes": self.reading.classes}
        listed = {name: None if value is None else list(value) for name, value in reading.items()}
        return {"validation": None, **self.splits, **listed, "type": self.reading.type}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises InputError where `state` was taken of other data, or is none."""
        if isinstance(state, dict) and state.get("validation") is not None and "validation" not in self.splits:
            raise InputError(
                f"{self.source}: not the data that the run began with (validation split: is gone); bring them back, or "
                "start a new run"
            )
        for split, now in self.splits.items():
            found = state.get(split) if isinstance(state, dict) else None
            if split == "validation" and found is None:
                continue  # of an earlier version, which did not write down what these were
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
