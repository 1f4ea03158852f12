"""KL schedules: which weight the KL term has at a step, given what was observed so far.

Steps count from 1. A schedule that only looks at the step is a function of it; one that looks at training has its
memory in `state_dict`, so that a run can be resumed in the middle. A kind of schedule is a class of its dataclass in
vae.config.schema, registered with `build`."""

import math
from abc import ABC, abstractmethod
from functools import singledispatch
from typing import Any

from vae.config import schema
from vae.config.errors import InputError
from vae.runtime import custom, untrusted


class Schedule(ABC):
    """The weight of the KL term at every step. `final` is where it ends, `rises` whether it changes on the way,
    `observe_every` how many steps lie between two calls of `observe` (0: it does not want any)."""

    NEAR = 1e-3  # of the final weight, which a sigmoid only nears
    rises = True
    observe_every = 0

    def __init__(self, final: float) -> None:
        self.final = final

    @abstractmethod
    def weight(self, step: int) -> float:
        """The KL weight at `step` (1, 2, ...), given what was observed before it: asked again, it answers the same."""

    def is_settled(self, step: int) -> bool:
        """Whether the weight at `step` is the final one, within a thousandth. Early stopping counts no other
        evaluation."""
        return abs(self.weight(step) - self.final) <= self.NEAR * self.final

    def observe(self, step: int, mse: float, variance: float) -> None:  # noqa: B027  (most schedules want none)
        """Learn the training MSE (per pixel), the mean over the last `observe_every` steps; `variance` of the training
        data, per pixel, is what a constant image leaves."""

    def state_dict(self) -> dict[str, Any]:
        """Plain values: numbers, None, truth values, strings, and lists and dicts of them."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises ValueError where `state` is not what `state_dict` gives."""
        untrusted.matches(state, self.state_dict(), "schedule")


@singledispatch
def build(config: schema.Anneal) -> Schedule:
    """The schedule that `config` describes."""
    raise NotImplementedError(type(config))


def of(config: schema.RunConfig) -> Schedule:
    """The schedule of a run: that of `anneal`, or a cure's up to the weight of anneal=constant."""
    own = build(config.anneal)
    return Scaled(build(config.cure.schedule), own.final) if isinstance(config.cure, schema.ScheduleCure) else own


class Constant(Schedule):
    rises = False

    def weight(self, step: int) -> float:
        return self.final


@build.register
def no_kl(config: schema.NoKL) -> Schedule:
    return Constant(0.0)


@build.register
def constant(config: schema.ConstantKL) -> Schedule:
    return Constant(config.weight)


@build.register(schema.LinearKL)
class Linear(Schedule):
    """min(1, step / steps) (Sonderby et al. 2016, arXiv 1602.02282, "warm-up")."""

    def __init__(self, config: schema.LinearKL) -> None:
        super().__init__(config.weight)
        self.steps = config.steps

    def weight(self, step: int) -> float:
        return self.final * min(1.0, step / self.steps)


@build.register(schema.SigmoidKL)
class Sigmoid(Schedule):
    """1 / (1 + exp(-steepness (step - midpoint))) (Bowman et al. 2016, arXiv 1511.06349, figure 2)."""

    def __init__(self, config: schema.SigmoidKL) -> None:
        super().__init__(config.weight)
        self.midpoint, self.steepness = config.midpoint, config.steepness

    def weight(self, step: int) -> float:
        # The tanh form of the logistic function does not overflow.
        return self.final * 0.5 * (1 + math.tanh(0.5 * self.steepness * (step - self.midpoint)))


@build.register(schema.CyclicalKL)
class Cyclical(Schedule):
    """M cycles over T steps; in each the weight rises for a fraction R, then holds (Fu et al. 2019, arXiv 1903.10145,
    eq. 6 and 7). After T steps it stays at its end."""

    def __init__(self, config: schema.CyclicalKL) -> None:
        super().__init__(config.weight)
        self.steps, self.cycles, self.rising = config.steps, config.cycles, config.rising

    def weight(self, step: int) -> float:
        if step > self.steps:
            return self.final
        cycle = self.steps / self.cycles
        tau = (step - 1) % math.ceil(cycle) / cycle
        return self.final * min(1.0, tau / self.rising)


@build.register(schema.DelayedKL)
class Delayed(Schedule):
    """Weight 0 until the smoothed training MSE has once been at most `threshold` (of the data's variance, or per
    pixel), or for `patience` steps no longer fell by a hundredth; from the step after, `rate` more a step, up to the
    final weight. The smoothed MSE, the lowest that counted, when that was and where the rise began are its state."""

    PROGRESS = 0.01  # of the lowest MSE: a fall by less is none

    def __init__(self, config: schema.DelayedKL) -> None:
        super().__init__(config.weight)
        self.threshold, self.is_relative = config.threshold, config.threshold_of == "variance"
        self.patience, self.rate, self.smoothing = config.patience, config.rate, config.smoothing
        self.interval = self.observe_every = config.observe_every
        self.smoothed: float | None = None
        self.lowest: float | None = None
        self.lowest_at: int | None = None
        self.latched_at: int | None = None

    def weight(self, step: int) -> float:
        if self.latched_at is None:
            return 0.0
        return min(self.final, self.rate * (step - self.latched_at))

    def observe(self, step: int, mse: float, variance: float) -> None:
        # `smoothing` is per step; an observation speaks for `observe_every` of them.
        memory = self.smoothing**self.interval
        self.smoothed = mse if self.smoothed is None else memory * self.smoothed + (1 - memory) * mse
        if self.lowest is None or self.lowest_at is None or self.smoothed < (1 - self.PROGRESS) * self.lowest:
            self.lowest, self.lowest_at = self.smoothed, step
        reached = self.smoothed <= self.threshold * (variance if self.is_relative else 1)
        stalled = self.patience is not None and step - self.lowest_at >= self.patience
        if self.latched_at is None and (reached or stalled):
            self.latched_at = step
            self.observe_every = 0  # it has seen what it waited for

    def state_dict(self) -> dict[str, Any]:
        names = ("smoothed", "lowest", "lowest_at", "latched_at")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        for name, value in state.items():
            setattr(self, name, value)
        self.observe_every = self.interval if self.latched_at is None else 0


class Around(Schedule):
    """Another schedule, of which a subclass changes something."""

    def __init__(self, schedule: Schedule, final: float) -> None:
        super().__init__(final)
        self.schedule = schedule

    @property
    def observe_every(self) -> int:  # type: ignore[override]
        return self.schedule.observe_every

    @property
    def rises(self) -> bool:  # type: ignore[override]
        return self.schedule.rises

    def observe(self, step: int, mse: float, variance: float) -> None:
        self.schedule.observe(step, mse, variance)

    def state_dict(self) -> dict[str, Any]:
        return self.schedule.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.schedule.load_state_dict(state)


class Scaled(Around):
    """Another schedule's weights, times a number."""

    def __init__(self, schedule: Schedule, factor: float) -> None:
        super().__init__(schedule, factor * schedule.final)
        self.factor = factor

    def weight(self, step: int) -> float:
        return self.factor * self.schedule.weight(step)


class Own(Around):
    """A user's schedule, whose weights are checked at every step. Raises InputError for one that is no KL weight."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__(schedule, _checked(getattr(schedule, "final", None), "final"))

    def weight(self, step: int) -> float:
        return _checked(self.schedule.weight(step), f"weight({step})")

    def observe(self, step: int, mse: float, variance: float) -> None:
        with custom.one_line_for("anneal.schedule", "observe(step, mse, variance) fails"):
            super().observe(step, mse, variance)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        with custom.one_line_for("anneal.schedule", "load_state_dict fails"):
            self.schedule.load_state_dict(state)


def _checked(weight: Any, name: str) -> float:
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
        raise InputError(f"anneal.schedule: {name} is {weight}; a KL weight must be a finite number from 0 on")
    return float(weight)


@build.register
def own(config: schema.CustomKL) -> Schedule:
    """The user's schedule. Raises InputError where it is none, its first weight is no KL weight, or it would forget on
    resume what it saves."""
    schedule = custom.build(config.schedule, "anneal.schedule")
    if not isinstance(schedule, Schedule):
        raise InputError(
            f"anneal.schedule: gave {type(schedule).__name__}; must be a subclass of vae.training.schedule.Schedule"
        )
    saves = type(schedule).state_dict is not Schedule.state_dict
    if saves and type(schedule).load_state_dict is Schedule.load_state_dict:
        raise InputError("anneal.schedule: has a state_dict of its own and no load_state_dict that takes it back")
    checked = Own(schedule)
    checked.weight(1)
    return checked
