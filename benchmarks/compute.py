"""The training step alone, without logging, beside what the machine's matrix product can do: FLOPs of a step, their
rate as a fraction of the rate of a square product, and where the step's time goes. A process of its own:
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


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--model", required=True)
    options.add_argument("--precision", required=True)
    options.add_argument("--threads", type=int, required=True)
    options.add_argument("--steps", type=int, default=200)
    options.add_argument("--side", type=int, default=2048, help="of the square matrices")
    arguments = options.parse_args()
    side = arguments.side
    settings = {"model": arguments.model, "train.precision": arguments.precision, "train.threads": arguments.threads}
    overrides = [f"{key}={value}" for key, value in settings.items()]
    setup = prepare(ours.composed(*overrides, "train.device=cpu", f"train.steps={ENDLESS}"))
    step = training_step(setup, partial(update, setup))
    left, right = torch.randn(2, side, side, dtype=torch.bfloat16 if arguments.precision == "bf16" else torch.float32)

    def product() -> None:
        torch.mm(left, right)

    with FlopCounterMode(display=False) as counter:
        step()
    seconds(step, 5), seconds(product, 2)  # to warm up
    each = max(1, arguments.steps // REPEATS)
    pairs = [(seconds(step, each), seconds(product, 5)) for _ in range(REPEATS)]
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        seconds(step, PROFILED)
    flops = counter.get_total_flops()
    step_seconds = statistics.median(spent for spent, _ in pairs)
    rates = [2 * side**3 / spent for _, spent in pairs]
    table = profiled.key_averages().table(
        sort_by="self_cpu_time_total", row_limit=OPERATIONS, max_name_column_width=40, max_src_column_width=0
    )
    metrics = {
        "flops_per_step": flops,
        "step_seconds": step_seconds,
        "gemm_flops_per_second": statistics.median(rates),
        "fraction": statistics.median(flops / spent / rate for (spent, _), rate in zip(pairs, rates, strict=True)),
        "profile": table,
    }
    print(json.dumps(metrics))


if __name__ == "__main__":
    main()
