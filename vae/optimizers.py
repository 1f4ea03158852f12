"""Adam, AdamW and SGD with momentum, on torch's fused kernels: one pass over the weights a step.

torch.optim reaches the same kernels, through classes that import torch's compiler when one of them is made (as long as
importing torch takes) and that look after more, at each step, than a run of this program has use for."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from vae import schema

EPS = 1e-8  # of Adam: torch's own
DECAY = 0.01  # of AdamW: torch's own


class Optimizer(ABC):
    """`step` moves the parameters that have a gradient; always the same ones. `memory` is what it keeps of past
    gradients: lists of tensors like the parameters, by name."""

    def __init__(self, parameters: Iterable[Tensor], lr: float, momentum: float, names: Iterable[str]) -> None:
        self.parameters: list[Tensor] = list(parameters)
        self.lr = lr
        self.momentum = momentum
        self.memory = {name: [torch.zeros_like(p) for p in self.parameters] for name in names}
        self.count = torch.zeros((), device=self.parameters[0].device)  # steps, where the kernels want it

    def state_dict(self) -> dict[str, Tensor]:
        named = {f"{name}.{i}": value for name, values in self.memory.items() for i, value in enumerate(values)}
        return {"count": self.count, **named}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for name, value in self.state_dict().items():
            value.copy_(state[name])

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        self.count += 1
        used = [(i, p, p.grad) for i, p in enumerate(self.parameters) if p.grad is not None]
        memory = {name: [values[i] for i, _, _ in used] for name, values in self.memory.items()}
        self.move([p for _, p, _ in used], [gradient for _, _, gradient in used], memory)

    @abstractmethod
    def move(self, parameters: list[Tensor], gradients: list[Tensor], memory: Mapping[str, list[Tensor]]) -> None:
        """One step of those parameters, in place."""


class Adam(Optimizer):
    """Kingma and Ba 2015, arXiv 1412.6980, algorithm 1; with `decay` AdamW, Loshchilov and Hutter 2019, arXiv
    1711.05101, algorithm 2, where the decay of a step is lr * decay."""

    def __init__(
        self, parameters: Iterable[Tensor], lr: float, momentum: float = 0.9, beta2: float = 0.999, decay: float = 0.0
    ) -> None:
        super().__init__(parameters, lr, momentum, ("mean", "square"))
        self.beta2 = beta2
        self.decay = decay

    def move(self, parameters: list[Tensor], gradients: list[Tensor], memory: Mapping[str, list[Tensor]]) -> None:
        kernel = torch._fused_adamw_ if self.decay else torch._fused_adam_
        kernel(
            parameters,
            gradients,
            memory["mean"],
            memory["square"],
            [],
            [self.count] * len(parameters),
            lr=self.lr,
            beta1=self.momentum,
            beta2=self.beta2,
            eps=EPS,
            weight_decay=self.decay,
            amsgrad=False,
            maximize=False,
        )


class SGD(Optimizer):
    """Stochastic gradient descent with heavy-ball momentum, as torch.optim.SGD has it: velocity = momentum * velocity +
    gradient, and a step of -lr * velocity."""

    def __init__(self, parameters: Iterable[Tensor], lr: float, momentum: float) -> None:
        super().__init__(parameters, lr, momentum, ("velocity",) if momentum else ())

    def move(self, parameters: list[Tensor], gradients: list[Tensor], memory: Mapping[str, list[Tensor]]) -> None:
        torch._fused_sgd_(
            parameters,
            gradients,
            memory.get("velocity", []),
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=0.0,
            dampening=0.0,
            nesterov=False,
            maximize=False,
            is_first_step=False,
        )


def build(settings: schema.Train, parameters: Iterable[Tensor]) -> Optimizer:
    match settings.optimizer:
        case "sgd":
            return SGD(parameters, settings.lr, settings.momentum)
        case "adamw":
            return Adam(parameters, settings.lr, settings.momentum, settings.beta2, DECAY)
    return Adam(parameters, settings.lr, settings.momentum, settings.beta2)
