"""What looking costs: a run at the default settings beside the same run that logs, evaluates, draws and saves nothing
before its last step."""

import statistics
from collections.abc import Callable
from functools import partial

from benchmarks import ours
from benchmarks.options import Options
from benchmarks.rounds import Figures, Goal, Measured, Record, ratios, spread, table, values

ROUNDS = 7
STEPS = 1001  # 4 evaluations, 20 frames and 100 rows of figures lie before the last step
BATCH = 64
WANTED = 5  # per cent


def measure(options: Options) -> None:
    models, steps = (["mlp_vae"], 5) if options.smoke else (["conv_vae", "mlp_vae"], STEPS)
    record = Record("observing", options.results, {"steps": steps, "threads": options.threads}, options.fresh)
    silent = [f"train.log_every={steps}", f"train.eval_every={steps}", "pictures.gif_every=0"]
    often = ["train.eval_every=2", "pictures.gif_every=2"] if options.smoke else []
    for model in models:
        contestants: dict[str, Callable[[], Figures]] = {
            f"{model} default": partial(whole, options, model, steps, often),
            f"{model} silent": partial(whole, options, model, steps, silent),
        }
        record.alternate(contestants, options.rounds or ROUNDS)
    record.finish()


def whole(options: Options, model: str, steps: int, overrides: list[str]) -> Figures:
    here = [f"train.steps={steps}", f"train.threads={options.threads}", "train.device=cpu"]
    done = ours.run(f"model={model}", *here, *overrides, *options.data(), *options.quick())
    loop = done.seconds(0, steps)
    training = steps * BATCH / done.training_rate(0, steps, BATCH)
    return {"loop": loop, "whole": done.finished.seconds, "looking": loop / training - 1}


def cost(measured: Measured, model: str, key: str) -> list[float]:
    """How much longer it takes to look, as a part of the time without."""
    return [ratio - 1 for ratio in ratios(measured, f"{model} default", f"{model} silent", key)]


def models(measured: Measured) -> list[str]:
    return [name.split()[0] for name in measured if name.endswith(" default")]


def tables(content: Figures) -> str:
    measured: Measured = content["measured"]
    rows = []
    for model in models(measured):
        runs = [measured.get(f"{model} {kind}", []) for kind in ("default", "silent")]
        for key, what in (("loop", "the training loop"), ("whole", "the whole process")):
            found = [spread(values(run, key)) for run in runs]
            rows.append([model, what, *found, spread([100 * part for part in cost(measured, model, key)], unit=" %")])
        shares = [spread([100 * part for part in values(run, "looking")], unit=" %") for run in runs]
        rows.append([model, "looking, by the run's own clock", *shares, ""])
    said = (
        f"Seconds for {content['settings']['steps']} steps on mnist5k, {content['settings']['threads']} threads. The "
        "loop ends with its last step, before what is measured once. By a run's own clock: the time in that loop that "
        "is not training, as a part of the time that is; a machine that slows down between two runs does not touch it."
    )
    return f"{said}\n\n{table(['model', '', 'default settings', 'nothing before the end', 'cost of observing'], rows)}"


def goals(content: Figures) -> list[Goal]:
    return [
        Goal.most(
            f"observing {model} costs at most {WANTED:g} % of its training, by the run's own clock",
            100 * statistics.median(found),
            WANTED,
            " %",
        )
        for model in models(content["measured"])
        if (found := values(content["measured"][f"{model} default"], "looking"))
    ]
