"""Whether a KL schedule does what it is meant to: does the weight reach its end within the training, and does it reach
the loss? In several trackers the answer to "my KL is 0" was that the warm-up never ended, or the knob did nothing."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vae.config import checks
from vae.config.errors import InputError
from vae.measure.written import number

if TYPE_CHECKING:
    from torch import Tensor

LOOKED_AT = 10_000  # steps at most, evenly over the training
FURTHER = 1000  # times the training: so far is looked for the end of a warm-up
BEYOND = (1.01, 1.1, 1.37, 1.9, 2.6, 3.7, 7.3, 19.1, 53.9, 101.3, 310.7, 1000)  # times the training, no even ones
SAME = 1e-6  # of the highest weight: a smaller change is none
ROUNDING = 1e-7  # of a loss or of the length of its gradient
CLOSE = 1e-3  # of a gradient: so far from proportional is rounding
PROBED = (0.0, 0.5, 1.0, 2.0)  # times the weight to be tried, in the loss


@dataclass(frozen=True)
class Audit:
    """What was found. `problems` are sentences; without any the schedule does what it should, as far as can be told."""

    first: float  # KL weight at the first step
    last: float  # and at the last
    highest: float
    ends_at: int | None  # the step from which on the weight stays; None: it still changes at the last
    reaches_loss: bool | None  # its value and its gradient, both in proportion; None: no loss was given
    kld: float | None  # what the weight multiplies in the loss: the KL, as the loss reduces it
    problems: tuple[str, ...]

    def __str__(self) -> str:
        end = "still changes at the last step" if self.ends_at is None else f"stays from step {self.ends_at} on"
        said = [f"KL weight {number(self.first)} at the first step, {number(self.last)} at the last; it {end}."]
        if self.reaches_loss is not None and self.kld is not None:
            how = "reaches the loss and its gradient" if self.reaches_loss else "does not reach the loss as it should"
            said.append(f"It {how}.")
            if self.kld:
                said.append(f"In the loss it multiplies {number(self.kld)}: the KL, as the loss reduces it.")
        return "\n".join([*said, *(f"Problem: {problem}." for problem in self.problems)])


def audit_schedule(
    schedule: "Callable[[int], float] | Sequence[float] | float" = 1.0,
    steps: int = 1,
    loss: "Callable[[float], Tensor] | None" = None,
) -> Audit:
    """`schedule`: the KL weight at a step (1, 2, ... `steps`): a function, all weights in a row, or one number. `loss`:
    the loss as a function of the KL weight, everything else fixed; its gradient with respect to whatever it is made of
    must change in proportion. Raises InputError for what is no schedule or no loss."""
    steps = checks.whole("steps", steps, 1)
    weights = _weights(schedule, steps)
    problems: list[str] = []
    highest, last = max(weights.values()), weights[steps]
    tolerance = SAME * highest
    settled = steps
    for step in reversed(weights):
        if abs(weights[step] - last) > tolerance:
            break
        settled = step
    still = len(weights) > 1 and settled == steps
    if highest == 0:
        problems.append("the KL weight is 0 throughout: nothing holds the code to the prior")
    elif still:
        problems.append(_unended(schedule, steps, weights))
    elif last < highest - tolerance:
        problems.append(f"the weight ends at {number(last)}, below its highest, {number(highest)}")
    reaches, kld = None, None
    if loss is not None:
        found = _in_loss(loss, highest or 1.0)
        reaches, kld = not found.problems, found.slope
        problems += found.problems
    return Audit(weights[1], last, highest, None if still else settled, reaches, kld, tuple(problems))


def _weights(schedule: Any, steps: int) -> dict[int, float]:
    if hasattr(schedule, "tolist"):  # an array, or a tensor
        schedule = schedule.tolist()
    if isinstance(schedule, int | float):
        return {1: _checked(schedule, 1), steps: _checked(schedule, steps)}
    if isinstance(schedule, Sequence) and not isinstance(schedule, str):
        if len(schedule) < steps:
            raise InputError(f"schedule: has {len(schedule)} weights for {steps} steps")
        at = lambda step: schedule[step - 1]  # noqa: E731
    else:
        at = getattr(schedule, "weight", schedule)
    if not callable(at):
        raise InputError(
            f"schedule: is a {type(schedule).__name__}; must be a function of the step, all weights in a row, or one "
            "number"
        )
    stride = max(1, steps // LOOKED_AT)
    looked_at = sorted({*range(1, steps + 1, stride), steps})
    return {step: _checked(at(step), step) for step in looked_at}


def _checked(weight: Any, step: int) -> float:
    found = checks.number(f"schedule at step {step}", weight)
    if not 0 <= found < math.inf:
        raise InputError(f"schedule: is {found} at step {step}; a KL weight must be a finite number from 0 on")
    return found


def _unended(schedule: Any, steps: int, weights: Mapping[int, float]) -> str:
    """When a weight that still changes at the last step would stay, if the schedule can be asked."""
    said = f"the weight still changes at the last step, {steps}, where it is {number(weights[steps])}"
    if isinstance(schedule, Sequence):
        return said
    at = getattr(schedule, "weight", schedule)
    try:
        if not _is_one_way([*weights.values(), *(_checked(at(step), step) for step in _beyond(steps))]):
            return f"{said}: it goes up and down, and the training ends in between"
        end = _checked(at(FURTHER * steps), FURTHER * steps)
        low, high = steps, FURTHER * steps
        while high - low > 1:  # of a weight that rises, or falls, to its end
            middle = (low + high) // 2
            low, high = (low, middle) if abs(at(middle) - end) <= SAME * max(abs(end), 1e-300) else (middle, high)
    except Exception:  # the user's function may know no more steps
        return said
    if abs(at(FURTHER * steps // 2) - end) > SAME * max(abs(end), 1e-300):
        return f"{said}, and at step {FURTHER * steps} it still does"
    return f"{said}; it would end at {number(end)}, at step {high}: {high / steps:.3g} times the training"


def _beyond(steps: int) -> list[int]:
    """Steps after the training."""
    return [int(steps * factor) for factor in BEYOND]


def _is_one_way(weights: Sequence[float]) -> bool:
    """Whether a schedule only rises, or only falls; not one of cycles."""
    changes = [after - before for before, after in itertools.pairwise(weights)]
    slack = SAME * max(weights)
    return min(changes) >= -slack or max(changes) <= slack


@dataclass(frozen=True)
class _InLoss:
    slope: float
    problems: list[str]


def _in_loss(loss: "Callable[[float], Tensor]", weight: float) -> _InLoss:
    """How the value and the gradient of a loss change with the weight."""
    import torch

    if not callable(loss):
        raise InputError(f"loss: is a {type(loss).__name__}; must be a function of the KL weight")
    values, gradients = [], []
    for factor in PROBED:
        with torch.random.fork_rng(), torch.enable_grad():
            torch.manual_seed(0)  # the same draws of z at each weight
            found = loss(factor * weight)
            if not isinstance(found, torch.Tensor) or found.numel() != 1:
                hint = " (of .item() no gradient is left)" if isinstance(found, float) else ""
                raise InputError(f"loss: gave {_what(found)}; must give one number, a tensor{hint}")
            values.append(float(found.detach()))
            gradients.append(_gradient(found))
    changes = [value - values[0] for value in values]
    slope = changes[2] / weight
    if max(map(abs, changes)) <= ROUNDING * max(map(abs, values)):
        return _InLoss(slope, ["the loss is the same at every KL weight: the knob does not reach it"])
    problems = []
    if not _proportional(changes):
        problems.append("the loss does not change in proportion to the KL weight")
    if not gradients[2]:
        return _InLoss(slope, [*problems, "the loss has no gradient: is it detached?"])
    sizes = {name: part.numel() for gradient in gradients for name, part in gradient.items()}
    rows = [_row(gradient, sizes) for gradient in gradients]
    steps = [row - rows[0] for row in rows]
    lengths = [float(step.norm()) for step in steps]
    if max(lengths) <= ROUNDING * float(rows[2].norm()):
        problems.append("the loss changes with the KL weight and its gradient does not: the KL is detached (.item())")
    elif not problems:
        off = max(float((step - factor * steps[2]).norm()) for factor, step in zip(PROBED, steps, strict=True))
        if off > CLOSE * max(lengths):
            problems.append("the gradient of the loss does not change in proportion to the KL weight")
    return _InLoss(slope, problems)


def _proportional(changes: Sequence[float]) -> bool:
    whole = changes[2]
    return all(
        abs(change - factor * whole) <= CLOSE * max(map(abs, changes))
        for factor, change in zip(PROBED, changes, strict=True)
    )


def _what(found: Any) -> str:
    shape = getattr(found, "shape", None)
    return f"a {type(found).__name__}" if shape is None else f"a tensor of shape {tuple(shape)}"


def _gradient(loss: "Tensor") -> "dict[int, Tensor]":
    """With respect to every tensor that the loss was made of and that wants a gradient, by its identity; empty where
    there is none."""
    import torch

    leaves: list[Tensor] = []
    waiting, seen = [loss.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        if hasattr(node, "variable"):
            leaves.append(node.variable)
        waiting += [following for following, _ in node.next_functions]
    if not leaves:
        return {}
    found = torch.autograd.grad(loss, leaves, allow_unused=True)
    return {id(leaf): part for leaf, part in zip(leaves, found, strict=True) if part is not None}


def _row(gradient: "dict[int, Tensor]", sizes: Mapping[int, int]) -> "Tensor":
    """All of a gradient as one row, float64; what is not in it is 0."""
    import torch

    parts = [
        gradient[name].detach().double().flatten().cpu() if name in gradient else torch.zeros(size, dtype=torch.float64)
        for name, size in sizes.items()
    ]
    return torch.cat(parts)
