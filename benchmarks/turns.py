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
NEAR, APART = "near", "apart"  # where the cores are
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


def tables(content: Metrics) -> str:
    settings = content["settings"]
    measured = {
        model: [one["turns"] for one in found if "turns" in one] for model, found in content["measured"].items()
    }
    turns = [turn for found in measured.values() for players in found for turn in itertools.chain(*players.values())]
    shortest = min((crossing for _, *crossings in turns for crossing in crossings), default=0.0)
    counts = Counter(place(turn, shortest) for turn in turns)
    steps = ", ".join(f"{steps} ({model})" for model, steps in settings["steps"].items())
    said = (
        f"Images per second of training alone, batch {settings['batch_size']}, {settings['threads']} threads. The "
        f"contestants take turns of {steps} steps, {settings['cycles']} each in a round. Before and after each turn a "
        f"short sum of two threads is timed, {shortest:.1f} µs at best; where it takes more than {FAR:g} times as long "
        f"the cores are `{APART}`; {counts[None]:,} of {counts.total():,} turns, in which that changed, are left out. "
        "Medians of all turns, in brackets the lowest and the highest of a round's; a ratio is of the lab's training "
        "over the contestant's in the same cycle."
    )
    rows = [
        [model, where, *row]
        for model, found in measured.items()
        for where in (NEAR, APART)
        for row in compared([located(players, where, shortest) for players in found])
    ]
    head = ["model", "cores", "contestant", "turns", "images/s", *(f"{name}, times as many" for name in LAB)]
    return f"{said}\n\n{table(head, rows)}"


def place(turn: list[float], shortest: float) -> str | None:
    """Where the cores were before and after it: NEAR or APART; None: it changed."""
    near, *others = [crossing <= FAR * shortest for crossing in turn[1:]]
    return None if others != [near] else NEAR if near else APART


def located(players: Turns, where: str, shortest: float) -> dict[str, list[float | None]]:
    """The rates of each, in each cycle; None where the cores were elsewhere."""
    return {
        name: [turn[0] if place(turn, shortest) == where else None for turn in many] for name, many in players.items()
    }


def compared(found: list[dict[str, list[float | None]]]) -> list[list[str]]:
    """A row for each contestant; `found`: of each round the rates of each."""
    rows = []
    for name in found[0] if found else []:
        rates = [[rate for rate in one[name] if rate] for one in found]
        ratios = [
            [[a / b for a, b in zip(one[lab], one[name], strict=True) if a and b] for one in found]
            if name not in LAB
            else []
            for lab in LAB
        ]
        count = sum(map(len, rates))
        if count:
            rows.append([name, f"{count}", pooled(rates, "{:,.0f}"), *(pooled(each, "{:.2f}x") for each in ratios)])
    return rows


def pooled(found: list[list[float]], form: str) -> str:
    """The median of all, and the lowest and the highest of the rounds' own."""
    found = [one for one in found if one]
    if not found:
        return ""
    medians = [statistics.median(one) for one in found]
    middle = form.format(statistics.median(itertools.chain(*found)))
    return f"{middle} ({form.format(min(medians))}–{form.format(max(medians))})"


def goals(content: Metrics) -> list[Goal]:
    return []


if __name__ == "__main__":
    main()
