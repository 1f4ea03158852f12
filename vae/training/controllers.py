"""Cures that control the KL weight by what a training does: the loss is the reconstruction term + beta * the schedule's
KL weight * KL, with beta moved after each step."""

import math

import torch
from torch import Tensor

from vae.config import schema
from vae.runtime import parallel
from vae.training.cure import Batch, Context, Cure, build


class Controller(Cure):
    """`beta` is a number on the device, for which the host does not wait."""

    def __init__(self, beta: float, device: torch.device) -> None:
        self.beta = torch.tensor(beta, device=device)

    def loss(self, batch: Batch) -> Tensor:
        return batch.loss_with(self.beta * batch.kl.sum())

    def is_settled(self, step: int) -> bool:
        """Never: beta moves until the end."""
        return False

    def measures(self) -> dict[str, float]:
        return {"beta": float(self.beta)}

    def state_dict(self) -> dict[str, Tensor]:
        return {"beta": self.beta}


@build.register(schema.ControlVAE)
class ControlVAE(Controller):
    """A PI controller that holds KL at `target`: with the error e = target - KL of a batch,
    beta = Kp / (1 + exp(e)) - Ki sum e, within [0, max] (Shao et al. 2020, arXiv 2004.05988, algorithm 1).

    The sum takes no more error than brings beta to a bound; otherwise it would have to unwind before beta could leave
    it. (The authors' code would stop it where beta is below 0 and above 1 at once, which it never is.)"""

    def __init__(self, config: schema.ControlVAE, context: Context) -> None:
        super().__init__(0.0, context.device)
        self.target, self.proportional, self.rate = config.target, config.proportional, config.integral
        self.max_weight = config.max_weight
        self.integral = torch.zeros((), device=context.device)  # -Ki sum e

    @torch.no_grad()
    def learn(self, batch: Batch, loss: Tensor) -> None:
        error = self.target - parallel.mean(batch.kl.sum())
        proportional = self.proportional * torch.sigmoid(-error)
        self.beta.copy_((proportional + self.integral - self.rate * error).clamp(0, self.max_weight))
        self.integral.copy_(self.beta - proportional)

    def state_dict(self) -> dict[str, Tensor]:
        return super().state_dict() | {"integral": self.integral}


@build.register(schema.GECO)
class GECO(Controller):
    """The least KL with which the squared error is at most `goal` of the data's variance, by a Lagrange multiplier on
    that constraint (Rezende and Viola 2018, arXiv 1810.00597, algorithm 1). The loss KL + lambda * error has the optima
    of error + KL / lambda, so beta is 1 / lambda: log beta falls by `rate` * the constraint's exponential mean a step,
    constraint = MSE / variance - goal. (The rate is of a constraint without unit, so that it does not depend on the
    number of pixels.)"""

    BOUND = math.log(1e10)  # of log beta to either side

    def __init__(self, config: schema.GECO, context: Context) -> None:
        super().__init__(1.0, context.device)
        self.goal, self.rate, self.smoothing = config.goal, config.rate, config.smoothing
        self.scale = context.subject.likelihood.pixels * context.variance
        self.total, self.mass = (torch.zeros((), device=context.device) for _ in range(2))  # the mean is their quotient

    @torch.no_grad()
    def learn(self, batch: Batch, loss: Tensor) -> None:
        constraint = parallel.mean(batch.reconstruction.squared_error.mean()) / self.scale - self.goal
        self.total.lerp_(constraint, 1 - self.smoothing)
        self.mass.lerp_(torch.ones_like(self.mass), 1 - self.smoothing)
        log_beta = self.beta.log() - self.rate * self.total / self.mass
        self.beta.copy_(log_beta.clamp(-self.BOUND, self.BOUND).exp())

    def measures(self) -> dict[str, float]:
        return super().measures() | {"constraint": float(self.total / self.mass.clamp(min=1e-12))}

    def state_dict(self) -> dict[str, Tensor]:
        return super().state_dict() | {"total": self.total, "mass": self.mass}
