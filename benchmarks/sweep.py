"""Sweeps, from the call to their report: the comparison one run after the other on all cores, as many runs at once as
there are cores, and all at once (four runs of which one is short do not divide evenly among two workers); and 24 short
runs by joblib beside the same by another checkout, `--before DIR`, with how much of either is training."""

import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import machine, ours
from benchmarks.options import Options
from benchmarks.process import ROOT, python
from benchmarks.rounds import Goal, Measured, Metrics, Record, median, ratios, spread, table, values

ROUNDS = 3
STEPS = 1000
WANTED = 0.6  # of the time that the 24 runs took before
BASIC, JOBLIB, ALL = "basic launcher", "joblib, one thread a run", "joblib, one thread a run, all four at once"
ONE_THREAD = ["hydra/launcher=joblib", "train.threads=1"]
LAUNCHERS = {BASIC: [], JOBLIB: ONE_THREAD, ALL: [*ONE_THREAD, "hydra.launcher.n_jobs=4"]}
SHORT_RUNS = ["sweep=learning_rate", *ONE_THREAD]
SHORTEST = ["model=mlp_vae", "train.lr=0.001", "seed=0", "train.steps=1", "hydra.launcher.n_jobs=1"]  # one of them
BEFORE, NOW = "24 short runs before", "24 short runs"


def measure(options: Options) -> None:
    steps = 1 if options.smoke else STEPS
    settings: Metrics = {"steps": steps, "threads": options.threads}
    if options.before is not None:
        settings["before"] = machine.code(options.before)
    record = Record("sweep", options.results, settings, options.fresh)
    contestants: dict[str, Callable[[], Metrics]] = {
        name: partial(comparison, options, steps, launcher) for name, launcher in LAUNCHERS.items()
    }
    if options.before is not None:
        contestants[BEFORE] = partial(short_runs, options, options.before)
    contestants[NOW] = partial(short_runs, options, ROOT)
    record.alternate(contestants, options.rounds or ROUNDS)
    record.finish()


def comparison(options: Options, steps: int, launcher: list[str]) -> Metrics:
    threads = [] if launcher else [f"train.threads={options.threads}"]
    few = ["hydra.launcher.n_jobs=1"] if options.smoke and launcher else []
    return swept(options, ROOT, ["sweep=compare", f"train.steps={steps}", *launcher, *threads, *few])


def short_runs(options: Options, checkout: Path) -> Metrics:
    return swept(options, checkout, [*SHORT_RUNS, *(SHORTEST if options.smoke else [])])


def swept(options: Options, checkout: Path, arguments: list[str]) -> Metrics:
    """Seconds from call to report, and those that its runs trained, added up, by their own count."""
    with tempfile.TemporaryDirectory() as directory:
        done = python(
            *(ours.program(checkout), *arguments, "train.device=cpu", "hydra.sweep.dir=sweep"),
            *options.data(),
            *options.quick(),
            cwd=Path(directory),
            checkout=checkout,
        )
        results = [json.loads(path.read_text()) for path in Path(directory).glob("sweep/*/result.json")]
    trained = sum(found["steps"] * ours.BATCH / found["images_per_second"] for found in results)
    return {"seconds": done.seconds, "training_seconds": trained}


def tables(content: Metrics) -> str:
    measured: Measured = content["measured"]
    rows = [
        [name, spread(values(measured.get(name, []), "seconds")), spread(ratios(measured, name, BASIC, "seconds"))]
        for name in LAUNCHERS
    ]
    said = f"`python run.py sweep=compare train.steps={content['settings']['steps']}`, from call to report."
    told = f"{said}\n\n{table(['launcher', 'seconds', 'of the basic one'], rows)}"
    versions = {BEFORE: content["settings"].get("before"), NOW: content["code"]}
    rows = [
        [
            str(code),
            spread(values(measured[name], "seconds")),
            spread(ratios(measured, name, BEFORE, "seconds")),
            spread(values(measured[name], "training_seconds")),
        ]
        for name, code in versions.items()
        if name in measured
    ]
    head = ["version of the code", "seconds", "of the older one", "training of all runs, seconds of one core"]
    said = f"`python run.py {' '.join(SHORT_RUNS)}`, 24 runs of 600 steps, from call to report."
    return f"{told}\n\n{said}\n\n{table(head, rows)}"


def goals(content: Metrics) -> list[Goal]:
    ratio = median(ratios(content["measured"], NOW, BEFORE, "seconds"))
    text = f"24 short runs by joblib: at most {WANTED:g} of the time that they took before"
    return [Goal.at_most(text, ratio, WANTED, "x")]
