"""What observing costs: a run at the default settings beside the same run that logs, evaluates, draws and saves nothing
before its last steps."""

import statistics
from collections.abc import Callable
from functools import partial

from benchmarks import ours
from benchmarks.options import Options
from benchmarks.rounds import Goal, Measured, Metrics, Record, ratios, spread, table, values

ROUNDS = 7
STEPS = 1010  # with 4 evaluations, 10 frames and 101 rows of training metrics; one more step follows them all
BRIEF = 20  # steps, where only the end counts
WANTED = {"conv_vae": 3, "mlp_vae": 5}  # per cent
WANTED_END = {"conv_vae default": 10, "mlp_vae default": 10, "conv_vae mnist": 20}  # seconds of the final measures
DEFAULT, SILENT = KINDS = ("default", "silent")
ENDS = {"measures": "from the last step until all is measured", "end": "from the last step to the end"}
FULL = "conv_vae mnist"  # a few steps on full MNIST: only its end counts


def measure(options: Options) -> None:
    models, steps = (["mlp_vae"], 4) if options.smoke else (["conv_vae", "mlp_vae"], STEPS)
    record = Record("observing", options.results, {"steps": steps, "threads": options.threads}, options.fresh)
    for model in models:
        contestants: dict[str, Callable[[], Metrics]] = {
            f"{model} {kind}": partial(whole, options, model, steps, kind) for kind in KINDS
        }
        record.alternate(contestants, options.rounds or ROUNDS)
    if options.root and not options.smoke:
        record.alternate({FULL: partial(end_on_mnist, options, options.root)}, options.rounds or ROUNDS)
    record.finish()


def whole(options: Options, model: str, steps: int, kind: str) -> Metrics:
    done = run(options, model, steps, kind)
    return {
        "loop": done.seconds(0, steps),
        "whole": done.finished.seconds,
        "looking": overhead(done, steps),
        **end(done, steps),
    }


def end(done: ours.Run, steps: int) -> Metrics:
    """Seconds from step `steps`, which one more follows, until all is measured (the evaluation of the last step with
    it), and until the process has ended, with its report."""
    stepped = done.wall(ours.STEP, steps)
    measured = done.wall(ours.ANSWER, steps + 1)
    return {"measures": measured - stepped, "end": done.finished.started + done.finished.seconds - stepped}


def end_on_mnist(options: Options, root: str) -> Metrics:
    sizes = [f"train.threads={options.threads}", "train.device=cpu", f"train.steps={BRIEF + 1}"]
    return end(ours.run("model=conv_vae", *ours.dataset(root), *sizes), BRIEF)


def run(options: Options, model: str, steps: int, kind: str) -> ours.Run:
    """A run of `steps` steps and a last one, of one of KINDS."""
    often = ["train.eval_every=2", "pictures.gif_every=2"] if options.smoke else []
    silent = [f"train.log_every={steps}", f"train.eval_every={steps + 1}", "pictures.gif_every=0"]
    return ours.run(
        *(f"model={model}", f"train.steps={steps + 1}", f"train.threads={options.threads}", "train.device=cpu"),
        *(silent if kind == SILENT else often),
        *options.data(),
        *options.quick(),
    )


def overhead(done: ours.Run, steps: int) -> float:
    """The time of the first `steps` steps that is not training, as a fraction of the time that is; by the run's own
    clock."""
    return done.seconds(0, steps) * done.training_rate(0, steps, ours.BATCH) / (steps * ours.BATCH) - 1


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
        for key, what in ENDS.items():
            rows.append([model, what, *(spread(values(run, key)) for run in runs), ""])
    if FULL in measured:
        rows += [
            ["conv_vae, full MNIST", what, spread(values(measured[FULL], key)), "", ""] for key, what in ENDS.items()
        ]
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
    for name, seconds in WANTED_END.items():
        if found := values(content["measured"].get(name, []), "measures"):
            said = name.replace(" default", "").replace(" mnist", " on full MNIST")
            text = f"the final measures of {said} take at most {seconds} s"
            goals.append(Goal.at_most(text, statistics.median(found), seconds, " s"))
    return goals
