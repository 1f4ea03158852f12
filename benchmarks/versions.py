"""Another checkout of this project, `--before DIR`, beside this one: images per second, the cost of observing, and
start-up. Each child imports the package of its own checkout."""

import compileall
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import machine, observing, ours
from benchmarks.observing import DEFAULT, KINDS, SILENT
from benchmarks.options import Options
from benchmarks.process import ROOT, python
from benchmarks.rounds import Goal, Measured, Metrics, Record, ratios, spread, table, values

ROUNDS = 5
# The training metrics of these steps are logged after a cycle of evaluation, frames and checkpoint is complete.
STEPS = {"conv_vae": 610, "mlp_vae": 2010}
BEFORE, AFTER = VERSIONS = ("before", "after")
CALLS = {"run.py train.steps=1": ["train.steps=1"], "run.py --help": ["--help"]}


def measure(options: Options) -> None:
    if options.before is None:
        print("versions: left out, nothing to compare with: give another checkout with --before", flush=True)
        return
    models = {"mlp_vae": 4} if options.smoke else STEPS
    settings = {"steps": models, "threads": options.threads, "before": machine.code(options.before)}
    record = Record("versions", options.results, settings, options.fresh)
    checkouts = {BEFORE: options.before, AFTER: ROOT}
    for checkout in checkouts.values():
        compileall.compile_dir(checkout / "vae", quiet=1)  # so that no start-up has to
    contestants: dict[str, Callable[[], Metrics]] = {}
    for model, steps in models.items():
        for kind in KINDS:
            for version, checkout in checkouts.items():
                contestants[f"{model} {kind} {version}"] = partial(training, options, checkout, model, steps, kind)
    for name, arguments in CALLS.items():
        for version, checkout in checkouts.items():
            contestants[f"{name} {version}"] = partial(call, options, checkout, arguments)
    record.alternate(contestants, options.rounds or ROUNDS)
    record.finish()


def training(options: Options, checkout: Path, model: str, steps: int, kind: str) -> Metrics:
    done = observing.run(options, model, steps, kind, checkout)
    rate = done.result["images_per_second"]
    return {
        "images_per_second": rate,
        "observing": observing.overhead(done, steps),
        "whole": done.result["seconds"] * rate / ((steps + 1) * ours.BATCH),
    }


def call(options: Options, checkout: Path, arguments: list[str]) -> Metrics:
    """Until the process has ended."""
    with tempfile.TemporaryDirectory() as directory:
        run = [f"train.threads={options.threads}", "train.device=cpu", *options.data(), *options.quick()]
        command = [ours.program(checkout), *arguments, *([] if "--help" in arguments else run)]
        return {"seconds": python(*command, cwd=Path(directory), checkout=checkout).seconds}


def cost(measured: Measured, model: str, version: str) -> list[float]:
    """Of observing, per cent of the training time: default settings less the run that observes nothing, round by
    round."""
    default, silent = (measured.get(f"{model} {kind} {version}", []) for kind in KINDS)
    pairs = zip(default, silent, strict=False)
    return [100 * (a["observing"] - b["observing"]) for a, b in pairs if "observing" in a and "observing" in b]


def compared(measured: Measured, name: str, key: str, what: str) -> list[str]:
    """A row: a metric before, after, and the ratio within each round."""
    before, after = (f"{name} {version}" for version in VERSIONS)
    found = [spread(values(measured.get(version, []), key)) for version in (before, after)]
    return [what, *found, spread(ratios(measured, after, before, key), unit="x")]


def tables(content: Metrics) -> str:
    measured: Measured = content["measured"]
    settings = content["settings"]
    rows = []
    for model in settings["steps"]:
        rows.append(compared(measured, f"{model} {DEFAULT}", "images_per_second", f"{model}, images/s of training"))
        before, after = (cost(measured, model, version) for version in VERSIONS)
        ratio = [a / b for b, a in zip(before, after, strict=False) if b]
        shown = [spread(before, unit=" %"), spread(after, unit=" %"), spread(ratio, unit="x")]
        rows.append([f"{model}, cost of observing", *shown])
        for kind, what in ((DEFAULT, "default settings"), (SILENT, "nothing observed before the end")):
            rows.append(compared(measured, f"{model} {kind}", "whole", f"{model}, whole run over training, {what}"))
    rows += [compared(measured, name, "seconds", f"`{name}`, s") for name in CALLS]
    steps = " and ".join(f"{steps:,} ({model})" for model, steps in settings["steps"].items())
    said = (
        f"Version {settings['before']} of the code before, {content['code']} after; mnist5k, {settings['threads']} "
        f"threads, {steps} steps; median (min–max), ratios within a round. Images/s and the whole run, `seconds` over "
        "those of training, are of result.json. The cost of observing is the time in the training loop that is not "
        "training, as a fraction of the time that is: with default settings, less the same where nothing is observed "
        "before the end. Start-up is until the process has ended."
    )
    return f"{said}\n\n{table(['', BEFORE, AFTER, 'after / before'], rows)}"


def goals(content: Metrics) -> list[Goal]:
    return []
