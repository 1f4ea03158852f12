"""Images per second: the lab's whole loop (logging, evaluations, pictures, checkpoints and all) beside the plain loop,
pythae and Lightning, which do none of that. And the training step beside the machine's matrix product."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import ours, peers, rounds
from benchmarks.options import Options
from benchmarks.process import python
from benchmarks.rounds import Goal, Measured, Metrics, Record, median, ratios, spread, table, values

ROUNDS = 5
AGAIN = "mlp_vae"  # measured twice where the cores are apart: a step of a few milliseconds depends on it
CYCLE = 250  # the default train.eval_every: a window of whole cycles holds one evaluation for each
CYCLES = {"conv_vae": 1, "mlp_vae": 4, "deep": 1}  # of a window: some seconds
DEEP_CYCLE = 100  # more often than by default: a step takes six times as long as that of conv_vae
PRECISIONS = {"conv_vae": ("fp32", "bf16"), "mlp_vae": ("fp32", "bf16"), "deep": ("fp32",)}
AUTOCAST = ("plain", "lightning")  # pythae's amp is CUDA's alone
WANTED = {  # times the images/s of each in fp32
    ("conv_vae", "fp32"): {"plain": 1.6, "pythae": 1.45, "lightning": 1.7},
    ("mlp_vae", "fp32"): {"plain": 2.0, "pythae": 1.7, "lightning": 2.2},
    ("conv_vae", "bf16"): {"plain": 2.4, "pythae": 2.2, "lightning": 2.5},
    ("mlp_vae", "bf16"): {"plain": 2.2, "pythae": 1.9, "lightning": 2.4},
    ("deep", "fp32"): {"pythae": 1.3},
}
WANTED_FRACTIONS = {"conv_vae": 0.75, "expressive": 0.5}  # of the rate of the matrix product, in fp32


def measure(options: Options) -> None:
    models = ["mlp_vae"] if options.smoke else list(CYCLES)
    cycle = {model: 2 if options.smoke else DEEP_CYCLE if model == "deep" else CYCLE for model in models}
    windows = {model: CYCLES[model] * cycle[model] for model in models}
    settings = {
        "dataset": "mnist" if options.throughput_root() else "mnist5k",
        "batch_size": ours.BATCH,
        "threads": options.threads,
        "cycle": cycle,
        "steps": windows,
    }
    record = Record("throughput", options.results, settings, options.fresh)
    others = ["plain", *([] if options.smoke else peers.installed("throughput"))]
    colour = options.colour() if "deep" in models else None
    for model, steps in windows.items():
        root = colour if model == "deep" else options.throughput_root()
        contestants: dict[str, Callable[[], Metrics]] = {}
        for precision in PRECISIONS[model]:
            contestants[f"{model} {precision} lab"] = partial(
                whole_loop, options, model, precision, root, cycle[model], steps
            )
            for name in others:
                if precision == "fp32" or name in AUTOCAST:
                    contestants[f"{model} {precision} {name}"] = partial(
                        peer, options, name, model, precision, root, cycle[model], steps
                    )
            contestants[f"{model} {precision} step"] = partial(step_alone, options, model, precision, root)
        record.alternate(contestants, options.rounds or ROUNDS, 2 if model == AGAIN else 1)
    if not options.smoke:
        alone = partial(step_alone, options, "expressive", "fp32", None)
        record.alternate({"expressive fp32 step": alone}, options.rounds or ROUNDS)
    record.finish()


def whole_loop(options: Options, model: str, precision: str, root: str | None, cycle: int, steps: int) -> Metrics:
    """After two cycles: a run's first evaluation, which does some things once, is not in the window."""
    warmup = 2 * cycle
    done = ours.run(
        *(options.data() or ours.dataset(root)),
        *ours.MODELS[model],
        f"train.precision={precision}",
        f"train.threads={options.threads}",
        f"train.steps={warmup + steps + 1}",
        f"train.eval_every={cycle}",
        "train.device=cpu",
        *(["train.log_every=1"] if options.smoke else []),
        *options.quick(),
    )
    spent = done.seconds(warmup, warmup + steps)
    return {
        "images_per_second": steps * ours.BATCH / spent,
        "training_alone": done.training_rate(warmup, warmup + steps, ours.BATCH),
    }


def peer(options: Options, name: str, model: str, precision: str, root: str | None, warmup: int, steps: int) -> Metrics:
    module = ["benchmarks.plain"] if name == "plain" else ["benchmarks.peers", name]
    data = ["--root", root] if root else []
    sizes = [f"--threads={options.threads}", f"--warmup={warmup}", f"--steps={steps}"]
    with tempfile.TemporaryDirectory() as directory:
        return python(
            "-m", *module, f"--model={model}", f"--precision={precision}", *sizes, *data, cwd=Path(directory)
        ).answer()


def step_alone(options: Options, model: str, precision: str, root: str | None) -> Metrics:
    steps = 40 if model in ("deep", "expressive") else 200
    sizes = [f"--threads={options.threads}", *(["--steps=5", "--side=256"] if options.smoke else [f"--steps={steps}"])]
    data = ["--root", root] if root else []
    with tempfile.TemporaryDirectory() as directory:
        return python(
            *("-m", "benchmarks.compute", f"--model={model}", f"--precision={precision}", *sizes, *data),
            cwd=Path(directory),
        ).answer()


def pairs(measured: Measured, kind: str = "lab") -> list[tuple[str, str]]:
    """(model, precision) of what was measured: `lab`, its whole loop; `step`, a step alone."""
    return [(name.split()[0], name.split()[1]) for name in measured if name.endswith(f" {kind}")]


def compared(measured: Measured, model: str, precision: str) -> list[str]:
    """The contestants that the lab's run in `precision` is held against: in bf16 also those in fp32."""
    kinds = ("fp32",) if precision == "fp32" else ("fp32", "bf16")
    names = [f"{model} {kind} {peer}" for kind in kinds for peer in ("plain", *peers.LIBRARIES)]
    return [name for name in names if name in measured]


def tables(content: Metrics) -> str:
    measured: Measured = content["measured"]
    settings = content["settings"]
    rate, alone = "images_per_second", "training_alone"
    windows = ", ".join(f"{steps:,} ({model})" for model, steps in settings["steps"].items())
    cycles = ", ".join(f"{steps:,} ({model})" for model, steps in settings["cycle"].items())
    said = (
        f"Images per second on {settings['dataset']}, batch {settings['batch_size']}, {settings['threads']} threads, "
        f"over {windows} steps. The lab evaluates every {cycles} steps and is timed from its second evaluation on, the "
        "others after as many steps as there are between two. `deep` is `model=conv_vae model.channels=null` on 5,000 "
        "colour images of 64x64. Median (min–max); a ratio is the lab's whole loop over the contestant, round by round."
    ) + rounds.apart(content, again=AGAIN)
    rows = []
    for model, precision in pairs(measured):
        lab = f"{model} {precision} lab"
        rows.append([model, f"lab, {precision}, the whole loop", spread(values(measured[lab], rate)), "", ""])
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
    head = ["model", "contestant", "images/s", "the lab's whole loop", "the lab's training alone"]
    return "\n\n".join([said, table(head, rows), utilisation(measured), roofline(measured)])


def utilisation(measured: Measured) -> str:
    rows = []
    for model, precision in pairs(measured, "step"):
        found = measured[f"{model} {precision} step"]
        run = values(measured.get(f"{model} {precision} lab", []), "images_per_second")
        flops, rate = median(values(found, "flops_per_step")), median(values(found, "gemm_flops_per_second"))
        if not flops or not rate:
            continue
        rows.append(
            [
                model,
                precision,
                f"{flops / ours.BATCH / 1e6:.1f}",
                spread([value / 1e9 for value in values(found, "gemm_flops_per_second")]),
                spread([value * 1e3 for value in values(found, "step_seconds")]),
                spread([value * 100 for value in values(found, "fraction")], unit=" %"),
                spread([value * flops / ours.BATCH / rate * 100 for value in run], unit=" %"),
            ]
        )
    head = ["model", "precision", "MFLOP an image", "matrix product, GFLOP/s", "step, ms", "step alone", "whole loop"]
    said = (
        "Of the rate of a 2048 x 2048 x 2048 matrix product, in the same process and precision, the model's own FLOPs "
        "(`torch.utils.flop_counter`, forward and backward) reach (in the whole loop, which is another process: of the "
        "median of these rates):"
    )
    return f"{said}\n\n{table(head, rows)}"


def roofline(measured: Measured) -> str:
    rows = []
    for model, precision in pairs(measured, "step"):
        found = [step for step in measured[f"{model} {precision} step"] if "bytes_per_step" in step]
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
        for peer in wanted:
            ratio = median(ratios(measured, lab, f"{model} fp32 {peer}", "images_per_second"))
            text = f"{model} in {precision} at least {wanted[peer]:g} times the images/s of {peer} in fp32"
            found.append(Goal.at_least(text, ratio, wanted[peer], "x"))
    for model, wanted_fraction in WANTED_FRACTIONS.items():
        fraction = median(values(measured.get(f"{model} fp32 step", []), "fraction"))
        text = f"the {model} step in fp32 at {wanted_fraction:.0%} of the machine's matrix product"
        found.append(Goal.at_least(text, fraction, wanted_fraction))
    return found


def profiles(content: Metrics) -> str:
    """Where the time of a step goes, of each model and precision."""
    parts = []
    for model, precision in pairs(content["measured"], "step"):
        found = [step for step in content["measured"][f"{model} {precision} step"] if "profile" in step]
        if found:
            parts.append(f"{model}, {precision}:\n\n```\n{found[-1]['profile'].strip()}\n```")
    return "\n\n".join(parts) or "–"
