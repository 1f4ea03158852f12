"""What observing costs: a run at the default settings beside the same run that logs, evaluates, draws and saves nothing
before its last steps."""

import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import ours
from benchmarks.options import Options
from benchmarks.process import ROOT
from benchmarks.rounds import Goal, Measured, Metrics, Record, ratios, spread, table, values

ROUNDS = 7
STEPS = 1010  # with 4 evaluations, 20 frames and 101 rows of training metrics; the last row follows them all
BATCH = 64
WANTED = {"conv_vae": 3, "mlp_vae": 5}  # per cent
WANTED_END = 10  # seconds from the last step to the end of the process
DEFAULT, SILENT = KINDS = ("default", "silent")


def measure(options: Options) -> None:
    models, steps = (["mlp_vae"], 4) if options.smoke else (["conv_vae", "mlp_vae"], STEPS)
    record = Record("observing", options.results, {"steps": steps, "threads": options.threads}, options.fresh)
    for model in models:
        contestants: dict[str, Callable[[], Metrics]] = {
            f"{model} {kind}": partial(whole, options, model, steps, kind) for kind in KINDS
        }
        record.alternate(contestants, options.rounds or ROUNDS)
    record.finish()


def whole(options: Options, model: str, steps: int, kind: str) -> Metrics:
    done = run(options, model, steps, kind)
    ended = done.finished.started + done.finished.seconds
    return {
        "loop": done.seconds(0, steps),
        "whole": done.finished.seconds,
        "looking": overhead(done, steps),
        "end": ended - done.wall(ours.STEP, steps + 1),
    }


def run(options: Options, model: str, steps: int, kind: str, checkout: Path = ROOT) -> ours.Run:
    """A run of `steps` steps and a last one, of one of KINDS."""
    often = ["train.eval_every=2", "pictures.gif_every=2"] if options.smoke else []
    silent = [f"train.log_every={steps}", f"train.eval_every={steps + 1}", "pictures.gif_every=0"]
    return ours.run(
        *(f"model={model}", f"train.steps={steps + 1}", f"train.threads={options.threads}", "train.device=cpu"),
        *(silent if kind == SILENT else often),
        *options.data(),
        *options.quick(),
        checkout=checkout,
    )


def overhead(done: ours.Run, steps: int) -> float:
    """The time of the first `steps` steps that is not training, as a fraction of the time that is; by the run's own
    clock."""
    return done.seconds(0, steps) * done.training_rate(0, steps, BATCH) / (steps * BATCH) - 1


def cost(measured: Measured, model: str, key: str) -> list[float]:
    """How much longer observing takes, as a fraction of the time without."""
    return [ratio - 1 for ratio in ratios(measured, f"{model} default", f"{model} silent", key)]


def models(measured: Measured) -> list[str]:
    return [name.split()[0] for name in measured if name.endswith(" default")]


def tables(content: Metrics) -> str:
    measured: Measured = content["measured"]
    rows = []
    for model in models(measured):
        runs = [measured.get(f"{model} {kind}", []) for kind in KINDS]
        for key, what in (("loop", "the training loop"), ("whole", "the whole process")):
            found = [spread(values(run, key)) for run in runs]
            costs = [100 * fraction for fraction in cost(measured, model, key)]
            rows.append([model, what, *found, spread(costs, unit=" %")])
        fractions = [spread([100 * fraction for fraction in values(run, "looking")], unit=" %") for run in runs]
        rows.append([model, "observing, by the run's own clock", *fractions, ""])
        rows.append([model, "from the last step to the end", *(spread(values(run, "end")) for run in runs), ""])
    said = (
        f"Seconds for {content['settings']['steps']} steps on mnist5k, {content['settings']['threads']} threads. The "
        "loop ends at its last step, before what is measured once. By a run's own clock: the time in that loop that "
        "is not training, as a fraction of the time that is; a machine that slows down between two runs does not touch "
        "it."
    )
    return f"{said}\n\n{table(['model', '', 'default settings', 'nothing before the end', 'cost of observing'], rows)}"


def goals(content: Metrics) -> list[Goal]:
    goals = []
    for model in models(content["measured"]):
        runs, wanted = content["measured"][f"{model} default"], WANTED[model]
        if found := values(runs, "looking"):
            text = f"observing {model} costs at most {wanted:g} % of its training, by the run's own clock"
            goals.append(Goal.at_most(text, 100 * statistics.median(found), wanted, " %"))
        if found := values(runs, "end"):
            text = f"a run of {model} ends at most {WANTED_END} s after its last step"
            goals.append(Goal.at_most(text, statistics.median(found), WANTED_END, " s"))
    return goals
