"""One run on one process with all threads, and on as many processes with a thread each, which torchrun starts."""

from functools import partial

from benchmarks import ours
from benchmarks.options import Options
from benchmarks.rounds import Goal, Measured, Metrics, Record, ratios, spread, table, values

ROUNDS = 5
MODELS = ("conv_vae", "mlp_vae")
RATE = "images_per_second"


def measure(options: Options) -> None:
    warmup, steps = (2, 4) if options.smoke else (100, 400)
    settings = {"batch_size": ours.BATCH, "threads": options.threads, "warmup": warmup, "steps": steps}
    record = Record("processes", options.results, settings, options.fresh)
    record.alternate(
        {
            name(model, count): partial(training, options, model, count, warmup, steps)
            for model in MODELS
            for count in sorted({1, options.threads})
        },
        options.rounds or ROUNDS,
    )
    record.finish()


def name(model: str, processes: int) -> str:
    return f"{model} on {processes}"


def training(options: Options, model: str, processes: int, warmup: int, steps: int) -> Metrics:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    done = ours.run(
        *(f"model={model}", f"train.steps={warmup + steps}", f"train.log_every={min(warmup, 20)}", "train.device=cpu"),
        *(f"train.threads={options.threads // processes}", f"train.eval_every={warmup + steps}"),
        *("pictures.gif_every=0", *options.data(), *options.quick()),
        launcher=launcher,
    )
    return {RATE: done.training_rate(warmup, warmup + steps, ours.BATCH)}


def tables(content: Metrics) -> str:
    measured: Measured = content["measured"]
    threads = content["settings"]["threads"]
    rows = []
    for model in MODELS:
        one, several = name(model, 1), name(model, threads)
        found = [spread(values(measured.get(key, []), RATE)) for key in (one, several)]
        rows.append([model, *found, spread(ratios(measured, several, one, RATE), unit="x")])
    said = (
        f"Images per second of training alone, batch {ours.BATCH} in all, over {content['settings']['steps']} steps on "
        "mnist5k, gradients by gloo."
    )
    head = ["model", f"one process, {threads} threads", f"{threads} processes, a thread each", "ratio"]
    return f"{said}\n\n{table(head, rows)}"


def goals(content: Metrics) -> list[Goal]:
    return []
