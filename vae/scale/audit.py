"""Whether a KL schedule does what it is meant to: does the weight reach its end within the training, and does it reach
the loss? In several trackers the answer to "my KL is 0" was that the warm-up never ended, or the knob did nothing."""

import bisect
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
ROUNDED = 4  # roundings, of a loss or of the length of its gradient, that a change may be off by
CLOSE = 1e-3  # of a change: so far from proportional is rounding too
KNOWN = 0.01  # of the KL: so closely it must be known to be told
PROBED = (0.0, 0.5, 1.0, 2.0)  # times the weight to be tried, in the loss


@dataclass(frozen=True)
class Audit:
    """What was found. `problems` are sentences; without any the schedule does what it should, as far as can be told."""

    first: float  # KL weight at the first step
    last: float  # and at the last
    highest: float
    ends_at: int | None  # the step from which on the weight stays; None: it still changes at the last
    reaches_loss: bool | None  # its value and its gradient, both in proportion; None: no loss, or it cannot be told
    kld: float | None  # what the weight multiplies in the loss: the KL, as the loss reduces it; None: nor that
    problems: tuple[str, ...]

    def __str__(self) -> str:
        end = "still changes at the last step" if self.ends_at is None else f"stays from step {self.ends_at} on"
        said = [f"KL weight {number(self.first)} at the first step, {number(self.last)} at the last; it {end}."]
        if self.reaches_loss is not None:
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
    at = _function(schedule, steps)
    stride = max(1, steps // LOOKED_AT)
    weights = {step: _checked(at(step), step) for step in sorted({*range(1, steps + 1, stride), steps})}
    problems: list[str] = []
    highest, last = max(weights.values()), weights[steps]
    tolerance = SAME * highest

    def differs(step: int) -> bool:
        return abs(_checked(at(step), step) - last) > tolerance

    before = max((step for step, weight in weights.items() if abs(weight - last) > tolerance), default=0)
    between = range(before + 1, min(step for step in weights if step > before))  # not looked at
    settled = before + 1 + bisect.bisect_left(between, True, key=lambda step: not differs(step))
    still = settled == steps > 1 and not _arrives(differs, steps + stride)
    if highest == 0:
        problems.append("the KL weight is 0 throughout: nothing holds the code to the prior")
    elif still:
        problems.append(_unended(at, steps, weights))
    elif last < highest - tolerance:
        problems.append(f"the weight ends at {number(last)}, below its highest, {number(highest)}")
    reaches, kld = None, None
    if loss is not None:
        found = _in_loss(loss, highest or 1.0)
        reaches, kld = found.reaches, found.slope
        problems += found.problems
    return Audit(weights[1], last, highest, None if still else settled, reaches, kld, tuple(problems))


def _function(schedule: Any, steps: int) -> Callable[[int], Any]:
    """The weight at a step; of weights in a row an IndexError beyond them."""
    if hasattr(schedule, "tolist"):  # an array, or a tensor
        schedule = schedule.tolist()
    if isinstance(schedule, int | float):
        return lambda step: schedule
    if isinstance(schedule, Sequence) and not isinstance(schedule, str):
        if len(schedule) < steps:
            raise InputError(f"schedule: has {len(schedule)} weights for {steps} steps")
        return lambda step: schedule[step - 1]
    at: Callable[[int], Any] = getattr(schedule, "weight", schedule)
    if not callable(at):
        raise InputError(
            f"schedule: is a {type(schedule).__name__}; must be a function of the step, all weights in a row, or one "
            "number"
        )
    return at


def _arrives(differs: Callable[[int], bool], later: int) -> bool:
    """Whether a weight that changes up to the last step is the same `later`; not, where nothing can be asked there."""
    try:
        return not differs(later)
    except Exception:  # the user's function may know no more steps
        return False


def _checked(weight: Any, step: int) -> float:
    found = checks.number(f"schedule at step {step}", weight)
    if not 0 <= found < math.inf:
        raise InputError(f"schedule: is {found} at step {step}; a KL weight must be a finite number from 0 on")
    return found


def _unended(at: Callable[[int], Any], steps: int, weights: Mapping[int, float]) -> str:
    """When a weight that still changes at the last step would stay, if the schedule can be asked."""
    said = f"the weight still changes at the last step, {steps}, where it is {number(weights[steps])}"
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
    reaches: bool | None  # as in Audit
    slope: float | None
    problems: list[str]


@dataclass(frozen=True)
class _Change:
    """How a loss, or its gradient, changes over the weights PROBED."""

    length: float  # of the largest change
    off: float  # the largest difference of a change from one in proportion to the weight
    whole: float  # the length of what changes
    rounding: float  # of that, in the precision that it was computed in

    @property
    def is_seen(self) -> bool:
        return self.length > self.rounding

    @property
    def is_proportional(self) -> bool:
        return self.off <= CLOSE * self.length + ROUNDED * self.rounding


def _change(rows: "Sequence[Tensor]", eps: float) -> _Change:
    """`rows` (n,), float64, one for each of PROBED. `eps`: the relative rounding of a number in them."""
    steps = [row - rows[0] for row in rows]
    off = [float((step - factor * steps[2]).norm()) for factor, step in zip(PROBED, steps, strict=True)]
    whole = max(float(row.norm()) for row in rows)
    return _Change(max(float(step.norm()) for step in steps), max(off), whole, eps * whole)


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
        for what, numbers in ("is", [found]), ("has a gradient that is", [*gradients[-1].values()]):
            if not all(bool(part.isfinite().all()) for part in numbers):
                raise InputError(f"loss: at KL weight {number(factor * weight)} it {what} not finite; fix that first")
    eps = torch.finfo(found.dtype).eps if found.is_floating_point() else 0.0
    value = _change([torch.tensor([value], dtype=torch.float64) for value in values], eps)
    slope = (values[2] - values[0]) / weight if value.rounding <= KNOWN * value.length else None
    problems = [] if value.is_proportional else ["the loss does not change in proportion to the KL weight"]
    if not gradients[2]:
        return _InLoss(False, slope, [*problems, "the loss has no gradient: is it detached?"])
    parts = {name: part for gradient in gradients for name, part in gradient.items()}
    sizes = {name: part.numel() for name, part in parts.items()}
    eps = max(eps, *(torch.finfo(part.dtype).eps for part in parts.values()))
    gradient = _change([_row(gradient, sizes) for gradient in gradients], eps)
    if not problems and 0 < gradient.length <= gradient.rounding and value.length <= CLOSE * value.whole:
        why = (
            f"what it changes is below the rounding of {str(found.dtype).removeprefix('torch.')}; compute the loss in "
            "float64, or without its reconstruction"
        )
        return _untold(slope, why)
    if not value.is_seen and not gradient.is_seen:
        if _weighs_a_term(loss, weight):
            why = "what it multiplies is 0, or lost in rounding; ask again after some steps of training"
            return _untold(slope, why)
        problems.append("the loss is the same at every KL weight: the knob does not reach it")
    elif not gradient.is_seen:
        problems.append("the loss changes with the KL weight and its gradient does not: the KL is detached (.item())")
    elif not problems and not gradient.is_proportional:
        problems.append("the gradient of the loss does not change in proportion to the KL weight")
    return _InLoss(not problems, slope, problems)


def _untold(slope: float | None, why: str) -> _InLoss:
    return _InLoss(None, slope, [f"whether the KL weight reaches the loss cannot be told: {why}"])


def _weighs_a_term(loss: "Callable[[Any], Tensor]", weight: float) -> bool:
    """Whether in a loss that does not change with the weight this still multiplies something that can be trained."""
    import torch

    knob = torch.tensor(weight, requires_grad=True)
    try:
        with torch.random.fork_rng(), torch.enable_grad():
            (term,) = torch.autograd.grad(loss(knob), knob, create_graph=True, allow_unused=True)
            return term is not None and term.requires_grad
    except Exception:  # the user's function may take numbers alone
        return False


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
