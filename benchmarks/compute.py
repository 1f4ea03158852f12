"""The training step alone, without logging, beside what the machine can do: FLOPs of a step and the rate of a square
matrix product, bytes that a step must move and the rate of a copy (Williams, Waterman and Patterson 2009, the roofline
model), and where the step's time goes. A process of its own:
`python -m benchmarks.compute --model conv_vae --precision fp32 --threads 2`"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import ours
from vae.training.loop import update
from vae.training.optimizer import learning_rate
from vae.training.setup import Setup, prepare

REPEATS = 5
PROFILED = 20  # steps
ENDLESS = 10**9  # steps: it is stopped from outside
OPERATIONS = 12  # rows of the profile


def training_step(setup: Setup, advance: Callable[..., Tensor]) -> Callable[[], None]:
    """One step of the loop in vae.training.loop: data, `advance` (its update of the weights), what is kept of it."""
    batches = setup.batches(after=0)

    def step() -> None:
        number, images = next(batches)
        rate = learning_rate(setup.subject.config.train, number)
        setup.recent.add(advance(number, images, setup.noise(number), setup.schedule.weight(number), rate))

    return step


def seconds(call: Callable[[], object], times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) / times


def traffic(setup: Setup, step: Callable[[], None]) -> tuple[int, int]:
    """Bytes that `step` moves at least, and bytes of what is trained: weights, gradients and two moments.

    Of the weights: read forward and backward; gradients written, and read by Adam; both moments and the weights read
    and written by it. Of each activation that is kept for the backward pass: written, read again, and as much for its
    gradient. What is computed on the way and thrown away comes on top."""
    weights = {p.untyped_storage().data_ptr(): p.nbytes for p in setup.network.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        step()
    trained = sum(weights.values())
    return 10 * trained + 4 * sum(kept.values()), 4 * trained


def prepared(arguments: argparse.Namespace) -> Setup:
    """The lab, which trains what a command line names, without end."""
    settings = {"train.precision": arguments.precision, "train.threads": arguments.threads, "train.steps": ENDLESS}
    overrides = [f"{key}={value}" for key, value in settings.items()]
    data = [] if arguments.model == "expressive" else ours.dataset(arguments.root)  # its images are its own
    return prepare(ours.composed(*ours.MODELS[arguments.model], *data, *overrides, "train.device=cpu"))


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--model", required=True)
    options.add_argument("--precision", required=True)
    options.add_argument("--threads", type=int, required=True)
    options.add_argument("--steps", type=int, default=200)
    options.add_argument("--root", help="directory of MNIST, or a .npy; default: the embedded digits")
    options.add_argument("--side", type=int, default=2048, help="of the square matrices")
    arguments = options.parse_args()
    side = arguments.side
    setup = prepared(arguments)
    step = training_step(setup, partial(update, setup))
    left, right = torch.randn(2, side, side, dtype=torch.bfloat16 if arguments.precision == "bf16" else torch.float32)

    def product() -> None:
        torch.mm(left, right)

    with FlopCounterMode(display=False) as counter:
        step()
    moved, state = traffic(setup, step)
    source, target = torch.ones(2, state // 8).unbind()  # as much as is trained: what fits into a cache is in it

    def copy() -> None:
        target.copy_(source)

    seconds(step, 5), seconds(product, 2), seconds(copy, 5)  # to warm up
    each = max(1, arguments.steps // REPEATS)
    found = [(seconds(step, each), seconds(product, 5), seconds(copy, 20)) for _ in range(REPEATS)]
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        seconds(step, PROFILED)
    flops = counter.get_total_flops()
    steps, products, copies = zip(*found, strict=True)
    rates = [2 * side**3 / spent for spent in products]
    table = profiled.key_averages().table(
        sort_by="self_cpu_time_total", row_limit=OPERATIONS, max_name_column_width=40, max_src_column_width=0
    )
    metrics = {
        "flops_per_step": flops,
        "bytes_per_step": moved,
        "step_seconds": statistics.median(steps),
        "gemm_flops_per_second": statistics.median(rates),
        "copy_bytes_per_second": statistics.median(2 * source.nbytes / spent for spent in copies),
        "fraction": statistics.median(flops / spent / rate for spent, rate in zip(steps, rates, strict=True)),
        "profile": table,
    }
    print(json.dumps(metrics))


if __name__ == "__main__":
    main()
