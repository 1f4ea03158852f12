"""Links: from the decoder's raw output to the mean image. Functions of a module, so that models can be pickled."""

from collections.abc import Callable

import torch
from torch import Tensor

Link = Callable[[Tensor], Tensor]

LEVELS = 256  # grey levels of 8 bits


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


def location(raw: Tensor) -> Tensor:
    """Of a discretised logistic, raw location and log scale (B, 2 C, H, W): the location, which is its mean but for
    what is cut off at 0 and 1."""
    return torch.sigmoid(raw.chunk(2, 1)[0])


def categorical_mean(logits: Tensor) -> Tensor:
    """Logits (B, 256 C, H, W) of the grey levels 0 to 255 to the mean (B, C, H, W), in [0, 1]."""
    probabilities = logits.unflatten(1, (LEVELS, -1)).softmax(1)
    levels = torch.linspace(0, 1, LEVELS, device=logits.device)
    return torch.einsum("bkchw,k->bchw", probabilities, levels)


OUTPUTS: dict[str | None, Link] = {None: identity, "linear": identity, "sigmoid": sigmoid}  # by model.output


def inverse(link: Link, mean: Tensor) -> Tensor | None:
    """The raw output that `link` turns into `mean`, in float64, and finite where a sigmoid's mean is 0 or 1. None for a
    link that is neither of these."""
    mean = mean.double()
    if link is identity:
        return mean
    return torch.logit(mean, eps=1e-9) if link is sigmoid else None


def continuous_bernoulli_logit(mean: Tensor) -> Tensor:
    """The inverse of `continuous_bernoulli_mean`, by bisection, for means within [0.001, 0.999]."""
    low, high = torch.full_like(mean, -2000.0), torch.full_like(mean, 2000.0)
    for _ in range(60):
        middle = (low + high) / 2
        below = continuous_bernoulli_mean(middle) < mean
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2
