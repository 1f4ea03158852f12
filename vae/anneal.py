"""KL schedules: which weight the KL term has at a step, given what was observed so far. No torch.

Steps count from 1. A schedule that only looks at the step is a function of it; one that looks at training has
its memory in `state_dict`, so that a run can be taken up again in the middle."""

import math

from vae import schema


class Schedule:
    """The weight of the KL term at every step. `final` is where it ends, `observe_every` how many steps lie
    between two calls of `observe` (0: it does not want any)."""

    observe_every = 0

    def __init__(self, final: float) -> None:
        self.final = final

    def weight(self, step: int) -> float:
        """The KL weight at `step` (1, 2, ...). The loop calls it once for every step, in order."""
        return self.final

    def observe(self, step: int, mse: float) -> None:
        """Learn the training MSE (per pixel), the mean over the last `observe_every` steps."""

    def state_dict(self) -> dict[str, float | int | None]:
        return {}

    def load_state_dict(self, state: dict[str, float | int | None]) -> None:
        if state:
            raise ValueError(f"unexpected schedule state {sorted(state)}")


class Linear(Schedule):
    """min(1, step / steps) (Sonderby et al. 2016, arXiv 1602.02282, "warm-up")."""

    def __init__(self, config: schema.LinearKL) -> None:
        super().__init__(config.weight)
        self.steps = config.steps

    def weight(self, step: int) -> float:
        return self.final * min(1.0, step / self.steps)


class Sigmoid(Schedule):
    """1 / (1 + exp(-steepness (step - midpoint))) (Bowman et al. 2016, arXiv 1511.06349, figure 2)."""

    def __init__(self, config: schema.SigmoidKL) -> None:
        super().__init__(config.weight)
        self.midpoint, self.steepness = config.midpoint, config.steepness

    def weight(self, step: int) -> float:
        # The tanh form of the logistic function does not overflow.
        return self.final * 0.5 * (1 + math.tanh(0.5 * self.steepness * (step - self.midpoint)))


class Cyclical(Schedule):
    """M cycles over T steps; in each the weight rises for a part R, then holds (Fu et al. 2019, arXiv 1903.10145,
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


class Delayed(Schedule):
    """Weight 0 until the smoothed training MSE has once been at most `threshold`; from the step after, `rate`
    more a step, up to the final weight. The latch, the smoothed MSE and where the rise began are its state."""

    def __init__(self, config: schema.DelayedKL) -> None:
        super().__init__(config.weight)
        self.threshold, self.rate, self.smoothing = config.threshold, config.rate, config.smoothing
        self.interval = self.observe_every = config.observe_every
        self.smoothed: float | None = None
        self.latched_at: int | None = None

    def weight(self, step: int) -> float:
        if self.latched_at is None:
            return 0.0
        return min(self.final, self.rate * (step - self.latched_at))

    def observe(self, step: int, mse: float) -> None:
        # `smoothing` is per step; an observation speaks for `observe_every` of them.
        memory = self.smoothing**self.interval
        self.smoothed = mse if self.smoothed is None else memory * self.smoothed + (1 - memory) * mse
        if self.latched_at is None and self.smoothed <= self.threshold:
            self.latched_at = step
            self.observe_every = 0  # it has seen what it waited for

    def state_dict(self) -> dict[str, float | int | None]:
        return {"smoothed": self.smoothed, "latched_at": self.latched_at}

    def load_state_dict(self, state: dict[str, float | int | None]) -> None:
        latched_at = state["latched_at"]
        self.smoothed = state["smoothed"]
        self.latched_at = None if latched_at is None else int(latched_at)
        self.observe_every = self.interval if latched_at is None else 0


def build(config: schema.Anneal) -> Schedule:
    match config:
        case schema.NoKL():
            return Schedule(0.0)
        case schema.ConstantKL():
            return Schedule(config.weight)
        case schema.LinearKL():
            return Linear(config)
        case schema.SigmoidKL():
            return Sigmoid(config)
        case schema.CyclicalKL():
            return Cyclical(config)
        case schema.DelayedKL():
            return Delayed(config)
    raise AssertionError(config)
