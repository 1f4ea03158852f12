"""Links: from the decoder's raw output to the mean image. Functions of a module, so that models can be pickled."""

from collections.abc import Callable

import torch
from torch import Tensor

Link = Callable[[Tensor], Tensor]


def identity(raw: Tensor) -> Tensor:
    return raw


def sigmoid(raw: Tensor) -> Tensor:
    return torch.sigmoid(raw)


def continuous_bernoulli_mean(logits: Tensor) -> Tensor:
    """The mean of a continuous Bernoulli variable, 1 / (1 - exp(-l)) - 1 / l for logits l: not sigmoid(l)
    (Loaiza-Ganem and Cunningham 2019, arXiv 1907.06845, eq. 8, in logits)."""
    size = logits.abs()
    small = size < 1e-2
    safe = torch.where(small, torch.ones_like(size), size)
    above = -1 / torch.expm1(-safe) - 1 / safe  # for positive logits: the exponentials do not overflow
    return torch.where(small, 0.5 + logits / 12, torch.where(logits < 0, 1 - above, above))


OUTPUTS: dict[str | None, Link] = {None: identity, "linear": identity, "sigmoid": sigmoid}  # by model.output
