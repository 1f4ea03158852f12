"""Adam as vae.training.optimizer calls it, beside torch.optim.Adam: how long its first step takes to come, and how long
every other one takes."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.options import Options
from benchmarks.process import python
from benchmarks.rounds import Goal, Measured, Metrics, Record, ratios, spread, table, values

ROUNDS, ATTEMPTS = 7, 3
STEPS = 500
MODELS = ("mlp_vae", "conv_vae")
LAB, TORCH = OPTIMIZERS = ("lab", "torch.optim")
METRICS = {
    "first_step_seconds": "from `import torch` done to the first step done, s",
    "optimizer_seconds": "of it making the optimizer and its step, s",
    "step_milliseconds": "a step, ms",
}


def measure(options: Options) -> None:
    steps = 3 if options.smoke else STEPS
    record = Record("optimizers", options.results, {"steps": steps, "threads": options.threads}, options.fresh)
    contestants: dict[str, Callable[[], Metrics]] = {
        f"{model} {optimizer}": partial(adam, options, model, optimizer, steps)
        for model in MODELS
        for optimizer in OPTIMIZERS
    }
    record.alternate(contestants, options.rounds or ROUNDS, ATTEMPTS)
    record.finish()


def adam(options: Options, model: str, optimizer: str, steps: int) -> Metrics:
    given = [f"--optimizer={optimizer}", f"--model={model}", f"--threads={options.threads}", f"--steps={steps}"]
    with tempfile.TemporaryDirectory() as directory:
        return python("-m", "benchmarks.adam", *given, cwd=Path(directory)).answer()


def tables(content: Metrics) -> str:
    measured: Measured = content["measured"]
    rows = []
    for model in MODELS:
        lab, torch = (f"{model} {optimizer}" for optimizer in OPTIMIZERS)
        for key, what in METRICS.items():
            found = [spread(values(measured.get(name, []), key)) for name in (lab, torch)]
            rows.append([model, what, *found, spread(ratios(measured, torch, lab, key), unit="x")])
    said = (
        f"Adam on the weights of a network, {content['settings']['threads']} threads: median (min–max) over "
        f"processes; a step is the median of {content['settings']['steps']} that follow the first. Before the first "
        "step both compose the configuration and make the network."
    )
    head = ["model", "", "`vae.training.optimizer`", "`torch.optim.Adam(fused=True)`", "torch.optim over ours"]
    return f"{said}\n\n{table(head, rows)}"


def goals(content: Metrics) -> list[Goal]:
    return []
