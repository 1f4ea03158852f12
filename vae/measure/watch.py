"""What happens during a training: when the KL term begins, dips, collapses and recoveries, told by one state machine
that sees what is logged and what is evaluated; and whether the loss has stopped falling. No torch."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from vae.config.schema import Thresholds
from vae.measure.written import number, with_error

LAST_PART = 1 / 3  # of a run, in which its loss should have stopped falling
GROWING = 0.2  # of the KL at the end: a code that gained more in that part was still on its way up
MIN_ROWS = 4  # of training measures in that part, for a line through them


def key(meaning: str, unit: str = "", **default: Any) -> Any:
    """A field of the final record that is no measure."""
    return field(**default, metadata={"meaning": meaning, "unit": unit})


@dataclass(frozen=True)
class Trajectory:
    """What a training went through; None: it did not happen, or could not be told."""

    max_kl_weight: float = key("the highest KL weight of the schedule, up to the step whose model this is", default=0.0)
    kl_began_at_step: int | None = key("first logged step with a KL weight above 0", "steps", default=None)
    dipped_at_step: int | None = key(
        "step of the lowest KL in the deepest dip: a fall at a constant KL weight, from which KL came back by itself",
        "steps",
        default=None,
    )
    dipped_from_kld: float | None = key("KL from which it fell", "nats", default=None)
    dipped_to_kld: float | None = key("KL to which it fell", "nats", default=None)
    dip_over_at_step: int | None = key("step at which it was back at twice that", "steps", default=None)
    dip_over_kld: float | None = key("KL at that step", "nats", default=None)
    collapsed_at_step: int | None = key("step of the last collapse that was noticed", "steps", default=None)
    collapsed_from_kld: float | None = key(
        "highest KL before it, since the KL term began (or just before it began); null: collapsed from the start",
        "nats",
        default=None,
    )
    collapsed_at_weight: float | None = key(
        "KL weight at that step, times the cure's `beta`, if it has one", default=None
    )
    recovered_at_step: int | None = key(
        "step at which the code had recovered from the last collapse", "steps", default=None
    )
    recovered_to_kld: float | None = key("KL at that step", "nats", default=None)
    loss_fall: float | None = key(
        "by how much the loss fell over the last third of the steps, by a line through them", "nats", default=None
    )
    loss_fall_error: float | None = key("standard error of that", "nats", default=None)
    loss_fall_before: float | None = key(
        "by how much it fell from the first logged steps to the last", "nats", default=None
    )
    kld_rise: float | None = key(
        "by how much KL rose over the last third of the steps, by a line through them", "nats", default=None
    )
    kld_rise_error: float | None = key("standard error of that", "nats", default=None)
    loss_excess: float | None = key("by how much it ended above the loss of a constant image", "nats", default=None)

    def unfinished(self, steps: int, limits: Thresholds, stopped: bool = False) -> str | None:
        """Why nothing can be said yet of a run of so many steps; None where it has done its learning, as far as can be
        told. `stopped`: it has come to its own end, and whether the loss was falling then is not asked."""
        if steps < limits.unfinished_steps:
            return f"{steps} steps are too few to judge by (from {limits.unfinished_steps} on)"
        fall, before, error = self.loss_fall, self.loss_fall_before, self.loss_fall_error
        if fall is None or before is None or error is None:
            return None
        if self.loss_excess is not None and self.loss_excess > max(before, 0) + 3 * error:
            return (
                f"the loss is {number(self.loss_excess)} nats above that of a constant image, and has "
                f"{'fallen' if before > 0 else 'risen'} by {number(abs(before))} so far"
            )
        if not stopped and fall > 3 * error and fall > limits.unfinished_fall * before > 0:
            return (
                f"the loss is still falling: by {with_error(fall, error)} nats over the last third of the steps, "
                f"{fall / before:.1%} of its whole fall (finished below {limits.unfinished_fall:.1%})"
            )
        return None

    def growing(self, kld: float, limits: Thresholds) -> str | None:
        """What says that the code of a run that ends with this KL was still on its way up; None where nothing does."""
        rise, error = self.kld_rise, self.kld_rise_error
        if rise is None or error is None or not rise > max(3 * error, GROWING * kld, limits.used_nats):
            return None
        return (
            f"KL is still rising: by {with_error(rise, error)} nats over the last third of the steps, to {number(kld)}"
        )


@dataclass
class Watch:
    """Learns the measures of the training batches and of the evaluations, and says when something has happened.

    - The code has collapsed (`out`) when KL falls below `low` while the KL term has a weight, or an evaluation finds
      that the decoder does not use it. It has recovered when an evaluation finds it used, or KL is at twice its lowest
      since then, and at twice `low`, with no evaluation that says otherwise.
    - A *dip* is a fall of KL, at a constant KL weight, below `dip_fraction` of the highest it was at that weight, from
      which it comes back to twice its lowest without a collapse. It is known when it is over: a KL that starts
      too high and settles, or that a rising weight pushes down, does not come back, and nothing has happened."""

    limits: Thresholds
    low: float = math.nan  # nats; at first `collapsed_kld`
    weight: float | None = None
    mse: float | None = 0.0  # of the last training batches; None: not known
    free: float = 0.0  # KL of the last training batches before the KL term had a weight
    high: float = 0.0  # highest KL with a KL weight, since the start or the last recovery
    high_step: int = 0
    peak: float = 0.0  # highest KL since the weight last changed, or since the last event
    peak_step: int = 0
    trough: float = 0.0  # lowest KL since the peak
    trough_step: int = 0
    unused: bool = False  # says the last evaluation
    out: bool = False
    found: Trajectory = field(default_factory=Trajectory)

    def __post_init__(self) -> None:
        if math.isnan(self.low):
            self.low = self.limits.collapsed_kld

    def expect(self, kld: float) -> None:
        """So much KL is predicted: more than half of it is no collapse."""
        self.low = min(self.low, kld / 2)

    def weighed(self, weight: float) -> None:
        """Learn the schedule's highest KL weight since this was last asked, whether or not its step was logged."""
        self._note(max_kl_weight=max(self.found.max_kl_weight, weight))

    def training(self, step: int, mse: float | None, kld: float, weight: float) -> str | None:
        """Learn the means of the last training batches, and the weight that the KL has had in the loss, a cure's part
        in it included; a sentence when something has happened."""
        before, self.mse = self.mse, mse
        began = weight > 0 and self.weight == 0 and self.found.kl_began_at_step is None
        if weight > 0 and self.found.kl_began_at_step is None:
            self._note(kl_began_at_step=step)
        changed, self.weight = weight != self.weight, weight
        if weight == 0:  # KL is free, and that of a point infinite
            self.free = kld if math.isfinite(kld) else 0.0
            return None
        if not self.out and (changed or kld > self.peak):  # after a collapse the lowest since then counts
            self._start_over(step, kld)
        if kld < self.trough:
            self.trough, self.trough_step = kld, step
        if began:
            images = "" if before is None else f"; the training MSE was {before:.4g}"
            return f"step {step}: the wait is over, the KL term has begun{images}"
        if not self.out and kld > self.high:
            self.high, self.high_step = kld, step
        if not self.out and kld < self.low:
            return self._collapse(step, weight, self._fell(step, kld))
        back = kld >= 2 * max(self.trough, self.low)
        if self.out and back and not self.unused:
            return self._recover(step, kld)
        if not self.out and back and self.trough < self.limits.dip_fraction * self.peak:
            return self._dip(step, kld)
        return None

    def evaluation(self, step: int, used: bool, kld: float) -> str | None:
        """Learn whether the decoder uses the code."""
        self.unused = not used
        if used:
            self.low = min(self.low, kld / 2)  # so much KL is a live code
            return self._recover(step, kld) if self.out else None
        if self.out:
            return None
        return self._collapse(step, self.weight or 0.0, f"the decoder does not use it, at a KL of {number(kld)} nats")

    def _fell(self, step: int, kld: float) -> str:
        if self.high_step == step and self.free:
            return f"KL fell from {number(self.free)} nats, before the KL term began, to {number(kld)}"
        if self.high_step == step:
            return f"KL is {number(kld)} nats from the start"
        return f"KL fell from {number(self.high)} nats (step {self.high_step}) to {number(kld)}"

    def _start_over(self, step: int, kld: float) -> None:
        self.peak, self.peak_step = kld, step
        self.trough, self.trough_step = kld, step

    def _collapse(self, step: int, weight: float, how: str) -> str:
        self.out = True
        self._note(
            collapsed_at_step=step,
            collapsed_from_kld=(self.high if 0 < self.high_step < step else self.free) or None,
            collapsed_at_weight=weight,
            recovered_at_step=None,
            recovered_to_kld=None,
        )
        what = "the code has collapsed" if weight > 0 else "the code is not used"  # no KL term can have collapsed it
        return f"step {step}: {what} ({how})"

    def _recover(self, step: int, kld: float) -> str:
        self.out = False
        finite = kld if math.isfinite(kld) else None  # that of a point is not
        self.high, self.high_step = finite or 0.0, step
        self._start_over(step, finite or 0.0)
        self._note(recovered_at_step=step, recovered_to_kld=finite)
        return f"step {step}: the code has recovered" + (f" (KL {number(finite)} nats)" if finite is not None else "")

    def _dip(self, step: int, kld: float) -> str:
        fall = (
            f"from {number(self.peak)} nats (step {self.peak_step}) to {number(self.trough)} (step {self.trough_step})"
        )
        deepest = self.found.dipped_to_kld
        if deepest is None or self.trough < deepest:
            self._note(
                dipped_at_step=self.trough_step,
                dipped_from_kld=self.peak,
                dipped_to_kld=self.trough,
                dip_over_at_step=step,
                dip_over_kld=kld,
            )
        self._start_over(step, kld)
        return f"step {step}: KL is back at {number(kld)} nats after a dip {fall}"

    def _note(self, **changes: Any) -> None:
        self.found = dataclasses.replace(self.found, **changes)

    def state_dict(self) -> dict[str, Any]:
        """Numbers, truth values and None, flat."""
        names = [item.name for item in dataclasses.fields(self) if item.name not in ("limits", "found")]
        return {name: getattr(self, name) for name in names} | dataclasses.asdict(self.found)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        events = {item.name for item in dataclasses.fields(Trajectory)}
        self.found = Trajectory(**{name: value for name, value in state.items() if name in events})
        for name in state.keys() - events:
            setattr(self, name, state[name])


def settled(trajectory: Trajectory, rows: "Rows", steps: int, weight: float, constant_loss: float | None) -> Trajectory:
    """`trajectory` with what says whether a run of so many steps has done its learning at this KL weight.
    `constant_loss`: what is minimised, for an image that is the same for all codes; None: not known."""
    step, loss = np.asarray(rows.step, float), np.asarray(rows.reconstruction, float)
    if weight > 0:  # without one the KL does not count, and that of a point is infinite
        loss = loss + weight * np.asarray(rows.kld)
    known = loss[np.isfinite(loss)]  # a run that an earlier version has begun did not keep all of it
    last = step > (1 - LAST_PART) * steps
    if last.sum() < MIN_ROWS or not np.isfinite(loss[last]).all():
        return trajectory
    of_loss = _line(step[last], loss[last])
    kld = np.asarray(rows.kld)[last]
    of_kld = _line(step[last], kld) if weight > 0 and np.isfinite(kld).all() else None
    span = LAST_PART * steps
    return dataclasses.replace(
        trajectory,
        loss_fall=-of_loss.slope * span,
        loss_fall_error=of_loss.error * span,
        loss_fall_before=float(known[0]) - of_loss.end,
        loss_excess=None if constant_loss is None else of_loss.end - constant_loss,
        kld_rise=None if of_kld is None else of_kld.slope * span,
        kld_rise_error=None if of_kld is None else of_kld.error * span,
    )


class _Line(NamedTuple):
    slope: float  # a step
    error: float  # standard error of that
    end: float


def _line(steps: "np.ndarray[Any, Any]", values: "np.ndarray[Any, Any]") -> _Line:
    """Through these values, by least squares."""
    x = steps - steps.mean()
    slope = (x * values).sum() / (x * x).sum()
    residuals = values - values.mean() - slope * x
    error = math.sqrt((residuals**2).sum() / (len(x) - 2) / (x * x).sum())
    return _Line(float(slope), error, float(values.mean() + slope * x[-1]))


class Rows(NamedTuple):
    """What was logged of a training, a row every `train.log_every` steps; nats per image."""

    step: Sequence[int]
    reconstruction: Sequence[float]  # the loss less its KL term
    kld: Sequence[float]
