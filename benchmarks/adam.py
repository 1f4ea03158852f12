"""Adam alone on the weights of a network: the lab's or torch.optim's, from the moment that torch is imported to the end
of the first step, then step by step. A process of its own:
`python -m benchmarks.adam --optimizer lab --model mlp_vae --threads 2`"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from benchmarks import ours
from benchmarks.optimizers import OPTIMIZERS, TORCH

if TYPE_CHECKING:
    from vae.config.schema import RunConfig, Train

IMPORTED = time.perf_counter()  # torch is imported; nothing of the lab yet


def weights(config: "RunConfig") -> list[torch.nn.Parameter]:
    """Of a network for 28x28 images, each with a gradient."""
    from vae.models import likelihood as likelihoods
    from vae.models.vae import VAE

    likelihood = likelihoods.build(config.objective, config.model.output, (1, 28, 28))
    found = list(VAE(config.model, likelihood, (1, 28, 28), config.seed).parameters())
    for weight in found:
        weight.grad = torch.randn_like(weight)
    return found


def stepper(optimizer: str, settings: "Train", parameters: Sequence[torch.nn.Parameter]) -> Callable[[], object]:
    """One step of Adam with the settings of a run; `optimizer`: whose, one of OPTIMIZERS."""
    if optimizer == TORCH:
        betas = settings.momentum, settings.beta2
        return torch.optim.Adam(parameters, lr=settings.lr, betas=betas, fused=True).step
    from vae.training.optimizer import build

    adam = build(settings, parameters)
    return lambda: adam.step(settings.lr)


def seconds(step: Callable[[], object]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--optimizer", choices=OPTIMIZERS, required=True)
    options.add_argument("--model", required=True)
    options.add_argument("--threads", type=int, required=True)
    options.add_argument("--steps", type=int, default=500)
    arguments = options.parse_args()

    from vae.runtime.machine import configure_process

    config = ours.composed(f"model={arguments.model}")
    configure_process(arguments.threads)
    parameters = weights(config)
    ready = time.perf_counter()
    step = stepper(arguments.optimizer, config.train, parameters)
    step()
    stepped = time.perf_counter()
    metrics = {
        "first_step_seconds": stepped - IMPORTED,
        "optimizer_seconds": stepped - ready,
        "step_milliseconds": 1e3 * statistics.median(seconds(step) for _ in range(arguments.steps)),
    }
    print(json.dumps(metrics))


if __name__ == "__main__":
    main()
