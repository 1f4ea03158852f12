"""The optimisers of torch.optim in their public functional form: what they remember of past gradients is kept here, by
name, as it is saved.

The classes of torch.optim do the same. Making the first of them imports torch's compiler, a second that every run would
wait for, and a step of theirs takes longer; `python -m benchmarks optimizers` measures both."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.adamw import adamw
from torch.optim.rmsprop import rmsprop
from torch.optim.sgd import sgd

from vae.config import schema
from vae.runtime import untrusted

ADAMW_DECAY = 0.01  # torch.optim's default

Memory = Mapping[str, list[Tensor]]


class Optimizer(ABC):
    """`step` moves the parameters that have a gradient. `memory` is what is kept of
    past gradients: for each name a tensor like each parameter, and under `step` the number of steps of each."""

    names: tuple[str, ...] = ()
    counts_steps = True

    def __init__(self, parameters: Iterable[Tensor], settings: schema.Train) -> None:
        self.parameters: list[Tensor] = list(parameters)
        self.momentum, self.beta2, self.eps = settings.momentum, settings.beta2, settings.eps
        self.memory = {name: [torch.zeros_like(p) for p in self.parameters] for name in self.names}
        if self.counts_steps:
            self.memory["step"] = [torch.zeros((), device=p.device) for p in self.parameters]

    def state_dict(self) -> dict[str, Tensor]:
        return {f"{name}.{i}": value for name, values in self.memory.items() for i, value in enumerate(values)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Raises ValueError where `state` is not of this optimiser and these parameters."""
        own = self.state_dict()
        untrusted.tensors(state, own, "optimizer")
        for name, value in own.items():
            value.copy_(state[name])

    def forget(self) -> None:
        """As if no step had been made."""
        for values in self.memory.values():
            for value in values:
                value.zero_()

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, lr: float | Tensor) -> None:
        """`lr`: a number, or () on the parameters' device, which a captured step reads anew each time."""
        used = [i for i, parameter in enumerate(self.parameters) if parameter.grad is not None]
        memory = {name: [values[i] for i in used] for name, values in self.memory.items()}
        parameters = [self.parameters[i] for i in used]
        self.move(parameters, [p.grad for p in parameters if p.grad is not None], memory, lr)

    @abstractmethod
    def move(self, parameters: list[Tensor], gradients: list[Tensor], memory: Memory, lr: float | Tensor) -> None:
        """One step of those parameters, in place."""


class Adam(Optimizer):
    """Kingma and Ba 2015, arXiv 1412.6980, algorithm 1."""

    names = ("mean", "square")
    function: Callable[..., Any] = staticmethod(adam)
    decay = 0.0

    def move(self, parameters: list[Tensor], gradients: list[Tensor], memory: Memory, lr: float | Tensor) -> None:
        type(self).function(
            parameters,
            gradients,
            memory["mean"],
            memory["square"],
            [],
            memory["step"],
            fused=True,
            amsgrad=False,
            beta1=self.momentum,
            beta2=self.beta2,
            lr=lr,
            weight_decay=self.decay,
            eps=self.eps,
            maximize=False,
        )


class AdamW(Adam):
    """Loshchilov and Hutter 2019, arXiv 1711.05101, algorithm 2, where the decay of a step is lr * decay."""

    function = staticmethod(adamw)
    decay = ADAMW_DECAY


class SGD(Optimizer):
    """Stochastic gradient descent with heavy-ball momentum: velocity = momentum * velocity + gradient, and a step of
    -lr * velocity."""

    names = ("velocity",)
    counts_steps = False

    def move(self, parameters: list[Tensor], gradients: list[Tensor], memory: Memory, lr: float | Tensor) -> None:
        sgd(
            parameters,
            gradients,
            list(memory["velocity"]),
            fused=True,
            weight_decay=0.0,
            momentum=self.momentum,
            lr=lr,
            dampening=0.0,
            nesterov=False,
            maximize=False,
        )


class RMSprop(Optimizer):
    """Tieleman and Hinton 2012, lecture 6.5; here with momentum = train.momentum and alpha = train.beta2.
    `train.centered`: divided by an estimate of the standard deviation (Graves 2013, arXiv 1308.0850, eq. 38 to 45)."""

    names: tuple[str, ...] = ("square", "velocity")

    def __init__(self, parameters: Iterable[Tensor], settings: schema.Train) -> None:
        self.centered = settings.centered
        if self.centered:
            self.names = ("square", "mean", "velocity")
        super().__init__(parameters, settings)

    def move(self, parameters: list[Tensor], gradients: list[Tensor], memory: Memory, lr: float | Tensor) -> None:
        rmsprop(
            parameters,
            gradients,
            memory["square"],
            memory.get("mean", []),
            memory["velocity"],
            memory["step"],
            foreach=True,
            capturable=isinstance(lr, Tensor),
            lr=lr,
            alpha=self.beta2,
            eps=self.eps,
            weight_decay=0.0,
            momentum=self.momentum,
            centered=self.centered,
        )


OPTIMIZERS: dict[str, type[Optimizer]] = {"adam": Adam, "adamw": AdamW, "sgd": SGD, "rmsprop": RMSprop}


def learning_rate(settings: schema.Train, step: int) -> float:
    """The learning rate at `step` (1, 2, ...): constant, half a cosine from lr down to 0, or a fraction of what it was
    after each milestone; each times the line of the warm-up."""
    warmup = min(1.0, step / settings.warmup_steps) if settings.warmup_steps else 1.0
    scale = 1.0
    if settings.lr_schedule == "cosine":
        scale = 0.5 * (1 + math.cos(math.pi * (step - 1) / settings.steps))
    elif settings.lr_schedule == "steps":
        scale = settings.decay ** sum(step > milestone for milestone in settings.milestones)
    return settings.lr * warmup * scale


def build(settings: schema.Train, parameters: Iterable[Tensor]) -> Optimizer:
    return OPTIMIZERS[settings.optimizer](parameters, settings)
