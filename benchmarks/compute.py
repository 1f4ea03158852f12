"""The training step alone, without logging, beside what the machine's matrix product can do: FLOPs of a step, their
rate as a part of the rate of a square product, and where the step's time goes. A process of its own:
`python -m benchmarks.compute --model conv_vae --precision fp32 --threads 2`"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from hydra import compose, initialize_config_dir
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.process import ROOT
from vae import config as conf
from vae import datasets, objective, optimizers
from vae.data import training_batches
from vae.model import VAE
from vae.streams import generator
from vae.train import use_device

REPEATS = 5
PROFILED = 20  # steps
OPERATIONS = 12  # rows of the profile


def training_step(overrides: list[str]) -> Callable[[], None]:
    """One step of the loop in vae.train: data, forward, backward, Adam."""
    conf.register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = conf.load(compose("config", overrides))
    device = use_device(config.train)
    data = datasets.load(config.dataset).to(device)
    likelihood = objective.build(config.objective, config.model.output, data.train.shape).to(device)
    model = VAE(config.model, likelihood.link_name, data.train.shape, config.seed).to(device)
    optimizer = optimizers.build(config.train, model.parameters())
    batches = training_batches(data.train, config.train.batch_size, config.seed)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=config.train.precision == "bf16")

    def step() -> None:
        images = next(batches)
        noise = torch.randn(len(images), model.latent_dim, generator=generator(0, "noise", 0, device), device=device)
        with autocast:
            posterior = model.encode(images)
            raw = model.raw(posterior.sample(noise))
        loss = likelihood(images, raw).loss + posterior.kl().mean(0).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

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
    step = training_step([f"{key}={value}" for key, value in settings.items()] + ["train.device=cpu"])
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
    figures = {
        "flops_per_step": flops,
        "step_seconds": step_seconds,
        "gemm_flops_per_second": statistics.median(rates),
        "fraction": statistics.median(flops / spent / rate for (spent, _), rate in zip(pairs, rates, strict=True)),
        "profile": table,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
