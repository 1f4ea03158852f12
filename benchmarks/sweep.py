"""The comparison sweep one run after the other on all cores, as many runs at once as there are cores, and all at
once: four runs of which one is short do not divide evenly among two workers."""

import tempfile
from functools import partial
from pathlib import Path

from benchmarks import ours
from benchmarks.options import Options
from benchmarks.process import python
from benchmarks.rounds import Goal, Measured, Metrics, Record, median, ratios, spread, table, values

ROUNDS = 3
STEPS = 1000
WANTED = 0.6
BASIC, JOBLIB, ALL = "basic launcher", "joblib, one thread a run", "joblib, one thread a run, all four at once"
ONE_THREAD = ["hydra/launcher=joblib", "train.threads=1"]
LAUNCHERS = {BASIC: [], JOBLIB: ONE_THREAD, ALL: [*ONE_THREAD, "hydra.launcher.n_jobs=4"]}


def measure(options: Options) -> None:
    steps = 1 if options.smoke else STEPS
    record = Record("sweep", options.results, {"steps": steps, "threads": options.threads}, options.fresh)
    contestants = {name: partial(whole, options, steps, launcher) for name, launcher in LAUNCHERS.items()}
    record.alternate(contestants, options.rounds or ROUNDS)
    record.finish()


def whole(options: Options, steps: int, launcher: list[str]) -> Metrics:
    threads = [] if launcher else [f"train.threads={options.threads}"]
    short = ["hydra.launcher.n_jobs=1"] if options.smoke and launcher else []
    with tempfile.TemporaryDirectory() as directory:
        done = python(
            *(ours.program(), "sweep=compare", f"train.steps={steps}", "train.device=cpu", *launcher, *threads),
            *("hydra.sweep.dir=sweep", *short, *options.data(), *options.quick()),
            cwd=Path(directory),
        )
    return {"seconds": done.seconds}


def tables(content: Metrics) -> str:
    measured: Measured = content["measured"]
    rows = [
        [name, spread(values(measured.get(name, []), "seconds")), spread(ratios(measured, name, BASIC, "seconds"))]
        for name in LAUNCHERS
    ]
    said = f"`python run.py sweep=compare train.steps={content['settings']['steps']}`, from call to report."
    return f"{said}\n\n{table(['launcher', 'seconds', 'of the basic one'], rows)}"


def goals(content: Metrics) -> list[Goal]:
    found = []
    for name in (JOBLIB, ALL):
        ratio = median(ratios(content["measured"], name, BASIC, "seconds"))
        found.append(
            Goal.at_most(f"the sweep with {name}: at most {WANTED:g} of the basic launcher's time", ratio, WANTED, "x")
        )
    return found
