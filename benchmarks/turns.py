"""Training steps of the lab and of its peers by turns, a fraction of a second each, all processes alive at once: the
same minute of the same machine for all, and told apart by how far its cores are from each other. `python -m
benchmarks.turns --model mlp_vae --precision fp32 --threads 2 --turns` is the lab's process among them."""

import itertools
import json
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import IO

from benchmarks import ours, peers, plain
from benchmarks.blobs import blobs
from benchmarks.compute import ENDLESS, training_step
from benchmarks.options import Options
from benchmarks.process import ROOT, Failed, environment
from benchmarks.rounds import Goal, Metrics, Record, table
from benchmarks.stopwatch import stopwatch
from vae.training.loop import update
from vae.training.setup import prepare

ROUNDS = 5
CYCLES = 30  # of one turn for each
STEPS = {"mlp_vae": 50, "conv_vae": 10, "deep": 2}  # of a turn: a fraction of a second
WARMUP = {"mlp_vae": 500, "conv_vae": 250, "deep": 20}  # steps: until the numbers in Adam's moments are what they stay
LAB = ("lab fp32", "lab bf16")
FAR = 1.3  # times the shortest crossing of the record
NEAR, APART, CHANGED = "near", "apart", "changed"  # where the cores were in a cycle
Turns = dict[str, list[list[float]]]  # of each contestant, turn by turn: images/s, the crossing before and after


def measure(options: Options) -> None:
    models = ["mlp_vae"] if options.smoke else list(STEPS)
    cycles = 2 if options.smoke else CYCLES
    settings = {"batch_size": ours.BATCH, "threads": options.threads, "cycles": cycles, "steps": STEPS}
    record = Record("turns", options.results, settings, options.fresh)
    colour = str(blobs(options.scratch / "bench_colour.npy", 5_000, 64, channels=3)) if "deep" in models else None
    others = ["plain", *([] if options.smoke else peers.installed("turns"))]
    contestants = {
        model: partial(play, options, model, others, colour if model == "deep" else None, cycles) for model in models
    }
    record.alternate(contestants, options.rounds or ROUNDS)
    record.finish()


def play(options: Options, model: str, others: list[str], root: str | None, cycles: int) -> Metrics:
    common = [f"--model={model}", f"--threads={options.threads}", "--turns", *([f"--root={root}"] if root else [])]
    commands = {name: ["benchmarks.turns", f"--precision={name.split()[1]}"] for name in LAB}
    commands |= {name: ["benchmarks.plain"] if name == "plain" else ["benchmarks.peers", name] for name in others}
    warmup, steps = (2, 2) if options.smoke else (WARMUP[model], STEPS[model])
    with ExitStack() as alive:
        players = {name: alive.enter_context(Player([*command, *common])) for name, command in commands.items()}
        for player in players.values():
            player.turn(warmup)
        found: Turns = {name: [] for name in players}
        for _ in range(cycles):
            for name, player in players.items():
                turn = player.turn(steps)
                found[name].append([round(turn["images_per_second"], 1), *(round(x, 2) for x in turn["crossing"])])
    return {"turns": found}


class Player:
    """A process that trains when it is asked to, and waits meanwhile."""

    def __init__(self, arguments: list[str]) -> None:
        self.arguments = arguments

    def __enter__(self) -> "Player":
        self.resources = ExitStack()
        directory = self.resources.enter_context(tempfile.TemporaryDirectory())
        self.complaints: IO[str] = self.resources.enter_context((Path(directory) / "stderr").open("w+"))
        self.process = subprocess.Popen(
            [sys.executable, "-m", *self.arguments],
            cwd=directory,
            env=environment(ROOT),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.complaints,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()
        self.resources.close()

    def turn(self, steps: int) -> Metrics:
        """Raises Failed where the process has ended."""
        assert self.process.stdin
        assert self.process.stdout
        try:
            print(steps, file=self.process.stdin, flush=True)
        except BrokenPipeError:
            raise self.failed() from None
        for line in self.process.stdout:
            if line.startswith("{"):
                answer: Metrics = json.loads(line)
                return answer
        raise self.failed()

    def failed(self) -> Failed:
        self.complaints.seek(0)
        last = [line for line in self.complaints if line.strip()][-1:] or ["nothing on stderr"]
        return Failed(f"{' '.join(self.arguments)}: ended: {last[0].strip()}")


def main() -> None:
    given = plain.parser().parse_args()
    settings = {"train.precision": given.precision, "train.threads": given.threads, "train.steps": ENDLESS}
    overrides = [*ours.MODELS[given.model], *ours.dataset(given.root), "train.device=cpu"]
    setup = prepare(ours.composed(*overrides, *(f"{key}={value}" for key, value in settings.items())))
    step, watch = training_step(setup, partial(update, setup)), stopwatch(given)
    while not watch.tick(ours.BATCH):
        step()


def states(turns: Turns, shortest: float) -> list[str]:
    """Of each cycle: NEAR or APART all the time, or CHANGED."""
    said = []
    for cycle in zip(*turns.values(), strict=True):
        far = {crossing > FAR * shortest for _, *crossings in cycle for crossing in crossings}
        said.append(CHANGED if len(far) > 1 else APART if far.pop() else NEAR)
    return said


def tables(content: Metrics) -> str:
    settings = content["settings"]
    measured = {
        model: [one["turns"] for one in found if "turns" in one] for model, found in content["measured"].items()
    }
    every = [turn for found in measured.values() for turns in found for many in turns.values() for turn in many]
    shortest = min((crossing for _, *crossings in every for crossing in crossings), default=0.0)
    where = {model: [states(turns, shortest) for turns in found] for model, found in measured.items()}
    counts = Counter(state for found in where.values() for said in found for state in said)
    steps = ", ".join(f"{steps} ({model})" for model, steps in settings["steps"].items())
    said = (
        f"Images per second of training alone, batch {settings['batch_size']}, {settings['threads']} threads. The "
        f"contestants take turns of {steps} steps, {settings['cycles']} each in a round. Before and after each turn a "
        f"short sum of two threads is timed, {shortest:.1f} µs at best; where it takes more than {FAR:g} times as long "
        f"the cores are `{APART}`, and {counts[CHANGED]:,} of {counts.total():,} cycles are left out, in which that "
        "changed. Medians of all cycles, in brackets the lowest and the highest of a round's; a ratio is the lab's "
        "training over the contestant's in the same cycle."
    )
    rows = [
        [model, f"{state} ({sum(said.count(state) for said in where[model]):,} cycles)", *row]
        for model, found in measured.items()
        for state in (NEAR, APART)
        for row in compared([only(turns, said, state) for turns, said in zip(found, where[model], strict=True)])
    ]
    head = ["model", "cores", "contestant", "images/s", *(f"{name}, times as many" for name in LAB)]
    return f"{said}\n\n{table(head, rows)}"


def only(turns: Turns, said: list[str], state: str) -> dict[str, list[float]]:
    """The rates of each contestant in the cycles of that state."""
    return {
        name: [rate for (rate, *_), where in zip(many, said, strict=True) if where == state]
        for name, many in turns.items()
    }


def compared(found: list[dict[str, list[float]]]) -> list[list[str]]:
    """A row for each contestant; `found`: of each round the rates of each. None where no round has any."""
    found = [one for one in found if any(one.values())]
    return [
        [
            name,
            pooled([one[name] for one in found], "{:,.0f}"),
            *(
                pooled([[a / b for a, b in zip(one[lab], one[name], strict=True)] for one in found], "{:.2f}x")
                if name not in LAB
                else ""
                for lab in LAB
            ),
        ]
        for name in (found[0] if found else [])
    ]


def pooled(found: list[list[float]], form: str) -> str:
    """The median of all, and the lowest and the highest of the rounds' own."""
    medians = [statistics.median(one) for one in found]
    middle = form.format(statistics.median(itertools.chain(*found)))
    return f"{middle} ({form.format(min(medians))}–{form.format(max(medians))})"


def goals(content: Metrics) -> list[Goal]:
    return []


if __name__ == "__main__":
    main()
