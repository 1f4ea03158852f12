"""A training step on a GPU: the lab's as one CUDA graph, the same kernel by kernel, the same with NCCL (one process),
and the plain loop's. `python -m benchmarks.gpu --model mlp_vae --precision fp32` measures them in one process."""

import argparse
import dataclasses
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from benchmarks import ours, plain
from benchmarks.compute import ENDLESS, training_step
from benchmarks.options import Options
from benchmarks.process import python
from benchmarks.rounds import Goal, Measured, Metrics, Record, spread, table, values
from vae.training.cuda_graph import CapturedUpdate
from vae.training.loop import update
from vae.training.setup import prepare

ROUNDS = 5
STEPS = 300  # of each way
MODELS = ("conv_vae", "mlp_vae", "deep")
WAYS = ("graph", "kernels", "nccl", "plain")


def measure(options: Options) -> None:
    if not torch.cuda.is_available():
        print("gpu: there is none here", flush=True)
        return
    card = torch.cuda.get_device_name()
    settings = {
        "batch_size": ours.BATCH,
        "steps": STEPS,
        "card": card,
        "cuda": torch.version.cuda,
        "deterministic": [way for way in WAYS if way != "plain"],
    }
    record = Record("gpu", options.results, settings, options.fresh)
    sizes = [f"--images={options.colour()}", f"--steps={8 if options.smoke else STEPS}"]
    contestants = {
        f"{model} {precision}": partial(child, f"--model={model}", f"--precision={precision}", *sizes)
        for model in MODELS
        for precision in ("fp32", "bf16")
    }
    record.alternate(contestants, options.rounds or ROUNDS)
    record.finish()


def child(*arguments: str) -> Metrics:
    with tempfile.TemporaryDirectory() as directory:
        return python("-m", "benchmarks.gpu", *arguments, cwd=Path(directory)).answer()


def plain_step(model: str, precision: str, root: str | None) -> Callable[[], object]:
    """One step of benchmarks.plain."""
    network = plain.PlainVAE(model).to("cuda")
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    loader = plain.loader(root)
    batches: Iterator[Tensor] = (images for _ in itertools.count() for images, _ in loader)

    def step() -> None:
        plain.update(network, optimizer, next(batches).to("cuda"), precision)

    return step


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--model", choices=MODELS, required=True)
    options.add_argument("--precision", required=True)
    options.add_argument("--images", required=True, help="a .npy of 64x64 colour images, for --model deep")
    options.add_argument("--steps", type=int, required=True)
    given = options.parse_args()
    root = given.images if given.model == "deep" else None
    settings = [
        f"train.precision={given.precision}",
        f"train.steps={ENDLESS}",
        "train.device=cuda",
        *ours.MODELS[given.model],
        *ours.dataset(root),
    ]
    config = ours.composed(*settings)
    with tempfile.NamedTemporaryFile() as meeting:
        store = dist.FileStore(meeting.name, 1)
        dist.init_process_group("cpu:gloo,cuda:nccl", store=store, rank=0, world_size=1)
        graph, kernels, replica = prepare(config), prepare(config), prepare(config)
        network = nn.parallel.DistributedDataParallel(replica.subject.model)
        replica = dataclasses.replace(replica, network=network)
        ways = {
            "graph": training_step(graph, CapturedUpdate(partial(update, graph), graph.device)),
            "kernels": training_step(kernels, partial(update, kernels)),
            "nccl": training_step(replica, partial(update, replica)),
            "plain": plain_step(given.model, given.precision, root),
        }
        spent: dict[str, float] = {}
        for steps in (20, given.steps):
            for name, step in ways.items():
                torch.use_deterministic_algorithms(name != "plain")  # the lab sets it; a plain loop does not
                torch.cuda.synchronize()
                start = time.perf_counter()
                for _ in range(steps):
                    step()
                torch.cuda.synchronize()
                spent[name] = (time.perf_counter() - start) / steps
        dist.destroy_process_group()
    print(json.dumps({name: ours.BATCH / seconds for name, seconds in spent.items()}))


def tables(content: Metrics) -> str:
    measured: Measured = content["measured"]
    settings = content["settings"]
    rows = []
    for name, found in measured.items():
        pairs = {way: [one["graph"] / one[way] for one in found if way in one] for way in WAYS}
        cells = [[spread(values(found, way)), spread(pairs[way], unit="x")] for way in WAYS[1:]]
        rows.append([*name.split(), spread(values(found, "graph")), *itertools.chain(*cells)])
    said = (
        f"Images per second of training on one {settings['card']}, CUDA {settings['cuda']}, batch "
        f"{settings['batch_size']}, over {settings['steps']} steps, the four ways in turn in one process; fp32 without "
        "TF32; median (min–max), and how many times as many the graph gives. `deep` is `model=conv_vae "
        "model.channels=null` on 64x64 colour images, the others are on mnist5k. Each update as one CUDA graph (the "
        "default); kernel by kernel (`train.cuda_graph=false`); kernel by kernel with gradients sent through NCCL by "
        "one process, to whom nobody answers; the plain loop, which decodes its images in the process that trains. "
        f"{', '.join(settings.get('deterministic', WAYS))}: with torch's deterministic algorithms, which the lab sets."
    )
    head = ["model", "precision", "graph", "kernels", "", "NCCL", "", "plain", ""]
    return f"{said}\n\n{table(head, rows)}"


def goals(content: Metrics) -> list[Goal]:
    return []


if __name__ == "__main__":
    main()
