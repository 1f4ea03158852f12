"""How long until the autoencoder is good: wall time to a test MSE on full MNIST, the lab's recipe beside the plain
loop."""

import tempfile
from functools import partial
from pathlib import Path

from benchmarks import ours
from benchmarks.options import Options
from benchmarks.process import Failed, python
from benchmarks.rounds import Goal, Measured, Metrics, Record, median, ratios, spread, table, values

ROUNDS = 1
RECIPE = ["model=ae", "train=fast"]
GOOD = 0.004  # test MSE a pixel, z sampled
EVERY, CAP = 500, 12000  # the plain loop's evaluations, and when it gives up
WANTED = 1 / 3
LAB, PLAIN = "lab", "plain"


def measure(options: Options) -> None:
    if options.root is None and not options.smoke:
        print("time_to_quality: left out, no MNIST: give its directory with --root or MNIST_ROOT", flush=True)
        return
    good, every, cap = (1.0, 2, 4) if options.smoke else (GOOD, EVERY, CAP)
    settings = {"good": good, "threads": options.threads, "recipe": RECIPE, "plain_every": every, "plain_cap": cap}
    record = Record("time_to_quality", options.results, settings, options.fresh)
    contestants = {LAB: partial(lab, options, good), PLAIN: partial(plain, options, good, every, cap)}
    record.alternate(contestants, options.rounds or ROUNDS)
    record.finish()


def lab(options: Options, good: float) -> Metrics:
    short = ["train.steps=2", "train.eval_every=1", "train.warmup_steps=0"] if options.smoke else []
    here = [f"train.threads={options.threads}", "train.device=cpu"]
    done = ours.run(*(options.data() or ours.dataset(options.root)), *RECIPE, *here, *short, *options.quick())
    reached = [(step, wall) for step, wall, mse in done.scalars["test/mse"] if mse <= good]
    if not reached:
        raise Failed(f"the lab's test MSE ended at {done.scalars['test/mse'][-1][2]:.5f}, above {good}")
    step, wall = reached[0]
    return {
        "step": step,
        "seconds": wall - done.finished.started,
        "after_start_up": wall - done.wall(ours.LOOP_BEGINS, 1),
    }


def plain(options: Options, good: float, every: int, cap: int) -> Metrics:
    data = [f"--root={options.root}"] if options.root else []
    sizes = [f"--threads={options.threads}", f"--until-mse={good}", f"--eval-every={every}", f"--cap={cap}"]
    with tempfile.TemporaryDirectory() as directory:
        done = python("-m", "benchmarks.plain", *sizes, *data, cwd=Path(directory))
    found = done.answer()
    step, wall, mse = found["curve"][-1]
    if mse > good:
        raise Failed(f"the plain loop's test MSE was {mse:.5f} after {step} steps, above {good}")
    training = wall - found["began"]
    return {
        "step": step,
        "seconds": wall - done.started,
        "after_start_up": training,
        "without_evaluations": training - found["evaluating"],
    }


def tables(content: Metrics) -> str:
    measured: Measured = content["measured"]
    rows = []
    for name in (LAB, PLAIN):
        found = measured.get(name, [])
        times = [spread(values(found, key)) for key in ("seconds", "after_start_up", "without_evaluations")]
        rows.append([name, spread(values(found, "step")), *times])
    ratio = [spread(ratios(measured, LAB, PLAIN, key), unit="x") for key in ("seconds", "after_start_up")]
    said = (
        f"Seconds until the test MSE is at most {content['settings']['good']:g}, the autoencoder on full MNIST, batch "
        f"64, {content['settings']['threads']} threads. The lab: `python run.py dataset=mnist "
        f"{' '.join(content['settings']['recipe'])}`, its evaluations in the time; the plain loop: Adam at 1e-3, "
        f"evaluated every {content['settings']['plain_every']} steps."
    )
    head = ["contestant", "steps", "from process start", "after start-up", "after start-up, evaluations left out"]
    return f"{said}\n\n{table(head, [*rows, ['ratio', '', *ratio, '']])}"


def goals(content: Metrics) -> list[Goal]:
    ratio = median(ratios(content["measured"], LAB, PLAIN, "seconds"))
    text = f"time to a test MSE of {GOOD:g} at most a third of the plain loop's"
    return [Goal.at_most(text, ratio, WANTED, "x")]
