"""What the numbers of the images are like, before anything is made of them."""

import logging

import torch

from vae.config.errors import InputError
from vae.data.split import Data, Split

log = logging.getLogger(__name__)

SAMPLED = 10_000  # images that are looked at, evenly over the split
SAMPLED_VALUES = 2**26  # and no more pixels in all


def check(data: Data, source: str, to_learn: bool = True) -> float:
    """The variance of a pixel over the training images (of a sample of them, where they are many). Says how the images
    were read. Raises InputError, which names `source`, for images that are not on the scale that their type stands for
    or, with `to_learn`, that nothing can be learnt from."""
    for name, split in (("training", data.train), ("test", data.test)):
        if len(split) < 2 and to_learn:
            raise InputError(
                f"{source}: {len(split)} {name} image{'' if len(split) == 1 else 's'}; at least 2 are needed"
            )
    some = sample(data.train)
    if some.span is None and not some.images.is_floating_point() and int(some.images.max()) == 1:
        raise InputError(
            f"{source}: the images are whole numbers of which the largest is 1, and would be read as 1/255; "
            "multiply them by 255, or save them as floats"
        )
    variance = some.total_variance / some.images[0].numel()
    if variance == 0 and to_learn:
        raise InputError(f"{source}: all {len(data.train)} training images are the same; there is nothing to learn")
    for note in data.notes:
        log.info("%s: %s", source, note)
    return variance


def sample(split: Split) -> Split:
    count, maximum = len(split), max(2, min(SAMPLED, SAMPLED_VALUES // split.images[0].numel()))
    chosen: slice | torch.Tensor = slice(0, count)
    if count > maximum:
        chosen = torch.arange(maximum) * count // maximum
    return Split(split.stored(chosen), device=split.device, span=split.span)


def onto(split: Split, black: float, white: float) -> Split:
    """The images with 0 and 1 at `black` and `white`: in memory, as floats."""
    if (black, white) == (0, 1):
        return split
    return Split(split.batch(slice(0, len(split))) * (white - black) + black, split.labels)
