"""Images per second: the lab's whole run (logging, evaluations, pictures, checkpoints and all) beside the plain loop,
pythae and Lightning, which do none of that. And the training step beside the machine's matrix product."""

import importlib.util
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import ours, rounds
from benchmarks.options import Options
from benchmarks.process import python
from benchmarks.rounds import Goal, Measured, Metrics, Record, median, ratios, spread, table, values

ROUNDS = 5
BATCH = 64
CYCLE = 250  # the default train.eval_every: a window of whole cycles holds one evaluation for each
WARMUP = CYCLE
LAB_WARMUP = 2 * CYCLE  # a run's first evaluation is not in the window: it does some things once
STEPS = {"conv_vae": CYCLE, "mlp_vae": 4 * CYCLE}  # windows of some seconds
LIBRARIES = {"pythae": "pythae", "lightning": "pytorch_lightning"}  # and the module that each is
AUTOCAST = ("plain", "lightning")  # pythae's amp is CUDA's alone
WANTED = {  # times the images/s of each in fp32
    ("conv_vae", "fp32"): {"plain": 1.6, "pythae": 1.45, "lightning": 1.7},
    ("mlp_vae", "fp32"): {"plain": 2.0, "pythae": 1.7, "lightning": 2.2},
    ("conv_vae", "bf16"): {"plain": 2.4, "pythae": 2.2, "lightning": 2.5},
    ("mlp_vae", "bf16"): {"plain": 2.2, "pythae": 1.9, "lightning": 2.4},
}
WANTED_FRACTION = 0.75  # of the rate of the matrix product: conv_vae in fp32


def measure(options: Options) -> None:
    models = ["mlp_vae"] if options.smoke else ["conv_vae", "mlp_vae"]
    warmup, lab_warmup = (2, 2) if options.smoke else (WARMUP, LAB_WARMUP)
    windows = {model: 4 if options.smoke else STEPS[model] for model in models}
    settings = {
        "dataset": "mnist" if options.throughput_root() else "mnist5k",
        "batch_size": BATCH,
        "threads": options.threads,
        "warmup": warmup,
        "lab_warmup": lab_warmup,
        "steps": windows,
    }
    record = Record("throughput", options.results, settings, options.fresh)
    peers = ["plain", *(() if options.smoke else LIBRARIES)]
    for name in [name for name in peers[1:] if importlib.util.find_spec(LIBRARIES[name]) is None]:
        print(f"throughput: {name} is not installed and left out; `make bench` installs it", flush=True)
        peers.remove(name)
    for model, steps in windows.items():
        contestants: dict[str, Callable[[], Metrics]] = {}
        for precision in ("fp32", "bf16"):
            contestants[f"{model} {precision} lab"] = partial(whole_run, options, model, precision, lab_warmup, steps)
            for name in peers:
                if precision == "fp32" or name in AUTOCAST:
                    contestants[f"{model} {precision} {name}"] = partial(
                        peer, options, name, model, precision, warmup, steps
                    )
            contestants[f"{model} {precision} step"] = partial(step_alone, options, model, precision)
        record.alternate(contestants, options.rounds or ROUNDS)
    record.finish()


def whole_run(options: Options, model: str, precision: str, warmup: int, steps: int) -> Metrics:
    cycle = ["train.log_every=1", f"train.eval_every={warmup}"] if options.smoke else []
    done = ours.run(
        *(options.data() or ours.dataset(options.throughput_root())),
        f"model={model}",
        f"train.precision={precision}",
        f"train.threads={options.threads}",
        f"train.steps={warmup + steps + 1}",
        "train.device=cpu",
        *cycle,
        *options.quick(),
    )
    spent = done.seconds(warmup, warmup + steps)
    return {
        "images_per_second": steps * BATCH / spent,
        "training_alone": done.training_rate(warmup, warmup + steps, BATCH),
    }


def peer(options: Options, name: str, model: str, precision: str, warmup: int, steps: int) -> Metrics:
    module = ["benchmarks.plain"] if name == "plain" else ["benchmarks.peers", name]
    root = options.throughput_root()
    data = ["--root", root] if root else []
    sizes = [f"--threads={options.threads}", f"--warmup={warmup}", f"--steps={steps}"]
    with tempfile.TemporaryDirectory() as directory:
        return python(
            "-m", *module, f"--model={model}", f"--precision={precision}", *sizes, *data, cwd=Path(directory)
        ).answer()


def step_alone(options: Options, model: str, precision: str) -> Metrics:
    sizes = [f"--threads={options.threads}", *(["--steps=5", "--side=256"] if options.smoke else ["--steps=200"])]
    with tempfile.TemporaryDirectory() as directory:
        return python(
            "-m", "benchmarks.compute", f"--model={model}", f"--precision={precision}", *sizes, cwd=Path(directory)
        ).answer()


def pairs(measured: Measured) -> list[tuple[str, str]]:
    """(model, precision) of the lab's runs."""
    return [(name.split()[0], name.split()[1]) for name in measured if name.endswith(" lab")]


def compared(measured: Measured, model: str, precision: str) -> list[str]:
    """The contestants that the lab's run in `precision` is held against: in bf16 also those in fp32."""
    kinds = ("fp32",) if precision == "fp32" else ("fp32", "bf16")
    names = [f"{model} {kind} {peer}" for kind in kinds for peer in ("plain", *LIBRARIES)]
    return [name for name in names if name in measured]


def tables(content: Metrics) -> str:
    measured: Measured = content["measured"]
    settings = content["settings"]
    rate, alone = "images_per_second", "training_alone"
    windows = " and ".join(f"{steps:,} ({model})" for model, steps in settings["steps"].items())
    said = (
        f"Images per second on {settings['dataset']}, batch {settings['batch_size']}, {settings['threads']} threads, "
        f"over {windows} steps after {settings['warmup']} (the lab: after {settings['lab_warmup']}, so that no first "
        "evaluation is in them); median (min–max). A ratio is the lab's whole run over the contestant, round by "
        "round."
    )
    rows = []
    for model, precision in pairs(measured):
        lab = f"{model} {precision} lab"
        rows.append([model, f"lab, {precision}, the whole run", spread(values(measured[lab], rate)), "", ""])
        rows.append([model, f"lab, {precision}, training alone", spread(values(measured[lab], alone)), "", ""])
        for name in compared(measured, model, precision):
            _, kind, who = name.split()
            found = measured[name]
            pure = rounds.quotients(measured[lab], found, alone, rate)
            rows.append(
                [
                    model,
                    f"{who}, {kind}",
                    spread(values(found, rate)),
                    spread(ratios(measured, lab, name, rate), unit="x"),
                    spread(pure, unit="x"),
                ]
            )
    head = ["model", "contestant", "images/s", "the lab's whole run", "the lab's training alone"]
    return "\n\n".join([said, table(head, rows), utilisation(measured), roofline(measured)])


def utilisation(measured: Measured) -> str:
    rows = []
    for model, precision in pairs(measured):
        found = measured.get(f"{model} {precision} step", [])
        run = values(measured[f"{model} {precision} lab"], "images_per_second")
        flops, rate = median(values(found, "flops_per_step")), median(values(found, "gemm_flops_per_second"))
        if not flops or not rate or not run:
            continue
        rows.append(
            [
                model,
                precision,
                f"{flops / BATCH / 1e6:.1f}",
                spread([value / 1e9 for value in values(found, "gemm_flops_per_second")]),
                spread([value * 1e3 for value in values(found, "step_seconds")]),
                spread([value * 100 for value in values(found, "fraction")], unit=" %"),
                spread([value * flops / BATCH / rate * 100 for value in run], unit=" %"),
            ]
        )
    head = ["model", "precision", "MFLOP an image", "matrix product, GFLOP/s", "step, ms", "step alone", "whole run"]
    said = (
        "Of the rate of a 2048 x 2048 x 2048 matrix product, in the same process and precision, the model's own FLOPs "
        "(`torch.utils.flop_counter`, forward and backward) reach:"
    )
    return f"{said}\n\n{table(head, rows)}"


def roofline(measured: Measured) -> str:
    rows = []
    for model, precision in pairs(measured):
        found = [step for step in measured.get(f"{model} {precision} step", []) if "bytes_per_step" in step]
        if not found:
            continue
        products = [1e3 * step["flops_per_step"] / step["gemm_flops_per_second"] for step in found]
        memory = [1e3 * step["bytes_per_step"] / step["copy_bytes_per_second"] for step in found]
        rows.append(
            [
                model,
                precision,
                f"{found[-1]['bytes_per_step'] / 1e6:.1f}",
                spread([value / 1e9 for value in values(found, "copy_bytes_per_second")]),
                spread(products),
                spread(memory),
                spread([1e3 * value for value in values(found, "step_seconds")]),
            ]
        )
    head = ["model", "precision", "MB a step", "copy, GB/s", "limit: products, ms", "limit: memory, ms", "step, ms"]
    said = (
        "What a step cannot be faster than (the roofline): its FLOPs at the rate of the matrix product, and the bytes "
        "that it must move (weights, gradients, Adam's moments, kept activations) at the rate of a copy, both in the "
        "same process. The copy is as large as what is trained, so that it is in the cache where that is."
    )
    return f"{said}\n\n{table(head, rows)}" if rows else ""


def goals(content: Metrics) -> list[Goal]:
    measured: Measured = content["measured"]
    found = []
    for (model, precision), wanted in WANTED.items():
        lab = f"{model} {precision} lab"
        # In bf16 the goal is held against what the peers do by default.
        for name in compared(measured, model, "fp32"):
            ratio, peer = median(ratios(measured, lab, name, "images_per_second")), name.split()[2]
            text = f"{model} in {precision} at least {wanted[peer]:g} times the images/s of {peer} in fp32"
            found.append(Goal.at_least(text, ratio, wanted[peer], "x"))
    fraction = median(values(measured.get("conv_vae fp32 step", []), "fraction"))
    text = f"the conv_vae step in fp32 at {WANTED_FRACTION:.0%} of the machine's matrix product"
    found.append(Goal.at_least(text, fraction, WANTED_FRACTION))
    return found


def profiles(content: Metrics) -> str:
    """Where the time of a step goes, of each model and precision."""
    parts = []
    for model, precision in pairs(content["measured"]):
        found = [step for step in content["measured"].get(f"{model} {precision} step", []) if "profile" in step]
        if found:
            parts.append(f"{model}, {precision}:\n\n```\n{found[-1]['profile'].strip()}\n```")
    return "\n\n".join(parts) or "–"
