"""Training steps of the lab and of its peers by turns, a fraction of a second each, all processes alive at once: the
same minute of the same machine for all, and told apart by how far its cores are from each other. `python -m
benchmarks.turns --model mlp_vae --precision fp32 --threads 2 --turns` is the lab's process among them."""

import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import threading
from collections import Counter, deque
from contextlib import ExitStack
from functools import partial

from benchmarks import ours, peers, plain
from benchmarks.compute import prepared, training_step
from benchmarks.options import Options
from benchmarks.process import ROOT, Failed, environment
from benchmarks.rounds import Goal, Metrics, Record, table
from benchmarks.stopwatch import LEAD, InTurn
from vae.training.loop import update

ROUNDS = 5
CYCLES = 30  # of one turn for each
STEPS = {"mlp_vae": 50, "conv_vae": 10, "deep": 2}  # of a turn: a fraction of a second
WARMUP = {"mlp_vae": 500, "conv_vae": 250, "deep": 20}  # steps: until the numbers in Adam's moments are what they stay
LAB = ("lab fp32", "lab bf16")
PATIENCE = 600  # seconds that a turn, or the end of a process, may take
NEAREST, FARTHER = 1.2, 1.5  # times the usual shortest crossing: up to the one cores are near, from the other on apart
FEWEST = 5  # pairs of turns that a round must have for its median to count as lowest or highest
NEAR, APART = "near", "apart"  # where the cores are
Turns = dict[str, list[list[float]]]  # of each contestant, turn by turn: images/s, the crossing before and after


def measure(options: Options) -> None:
    models = ["mlp_vae"] if options.smoke else list(STEPS)
    cycles = 2 if options.smoke else CYCLES
    steps = {model: 2 if options.smoke else STEPS[model] for model in models}
    settings = {"batch_size": ours.BATCH, "threads": options.threads, "cycles": cycles, "steps": steps}
    record = Record("turns", options.results, settings, options.fresh)
    colour = options.colour() if "deep" in models else None
    others = ["plain", *([] if options.smoke else peers.installed("turns"))]
    contestants = {
        model: partial(play, options, model, others, colour if model == "deep" else None, cycles, steps[model])
        for model in models
    }
    record.alternate(contestants, options.rounds or ROUNDS)
    record.finish()


def play(options: Options, model: str, others: list[str], root: str | None, cycles: int, steps: int) -> Metrics:
    common = [f"--model={model}", f"--threads={options.threads}", "--turns", *([f"--root={root}"] if root else [])]
    commands = {name: ["benchmarks.turns", f"--precision={name.split()[1]}"] for name in LAB}
    commands |= {name: ["benchmarks.plain"] if name == "plain" else ["benchmarks.peers", name] for name in others}
    with ExitStack() as alive:
        players = {name: alive.enter_context(Player([*command, *common])) for name, command in commands.items()}
        for player in players.values():
            player.turn(2 if options.smoke else WARMUP[model])
        found: Turns = {name: [] for name in players}
        names = deque(players)
        for _ in range(cycles):
            for name in names:
                turn = players[name].turn(steps)
                found[name].append([round(turn["images_per_second"], 1), *(round(x, 2) for x in turn["crossing"])])
            names.rotate()  # who comes first
    return {"turns": found}


class Player:
    """A process that trains when it is asked to, and waits meanwhile."""

    def __init__(self, arguments: list[str]) -> None:
        self.arguments = arguments

    def __enter__(self) -> "Player":
        self.resources = ExitStack()
        directory = self.resources.enter_context(tempfile.TemporaryDirectory())
        self.complaints = self.resources.enter_context(tempfile.TemporaryFile())
        self.process = subprocess.Popen(
            [sys.executable, "-m", *self.arguments],
            cwd=directory,
            env=environment(ROOT),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.complaints,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        """It ends by itself where nobody asks any more, and tidies up."""
        with self.resources:
            try:
                self.process.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.communicate()

    def turn(self, steps: int) -> Metrics:
        """Raises Failed where the process has ended, or is ended because it does not answer."""
        assert self.process.stdin
        assert self.process.stdout
        giving_up = threading.Timer(PATIENCE, self.process.kill)
        giving_up.start()
        try:
            print(steps, file=self.process.stdin, flush=True)
            for line in self.process.stdout:
                if line.startswith("{"):
                    answer: Metrics = json.loads(line)
                    return answer
        except BrokenPipeError:
            pass
        finally:
            giving_up.cancel()
        status = self.process.wait()
        self.complaints.seek(0)
        raise Failed.of(self.arguments, status, self.complaints.read().decode(errors="replace"))


def main() -> None:
    setup = prepared(plain.parser().parse_args())
    step, watch = training_step(setup, partial(update, setup)), InTurn()
    while True:
        step()
        watch.tick(ours.BATCH)


def tables(content: Metrics) -> str:
    settings = content["settings"]
    measured = {
        model: [one["turns"] for one in found if "turns" in one] for model, found in content["measured"].items()
    }
    turns = [turn for found in measured.values() for players in found for turn in itertools.chain(*players.values())]
    crossings = sorted(crossing for _, *crossings in turns for crossing in crossings)
    usual = crossings[len(crossings) // 20] if crossings else 0.0  # the shortest but for one in twenty
    counts = Counter(place(turn, usual) for turn in turns)
    steps = ", ".join(f"{steps} ({model})" for model, steps in settings["steps"].items())
    said = (
        f"Images per second of training alone, on the data of the table above, batch {settings['batch_size']}, "
        f"{settings['threads']} threads; plain, pythae and lightning in fp32. The contestants take turns of {steps} "
        f"steps, {settings['cycles']} each in a round; {LEAD} steps before each are not counted. Before "
        "and after it the process times a short sum of two threads. Cores are "
        f"`{NEAR}` where that takes at most {NEAREST:g} times as long as the usual shortest, {usual:.1f} µs, and "
        f"`{APART}` where it takes {FARTHER:g} times as long or more; {counts[None]:,} of {counts.total():,} turns are "
        "left out, in which they were between the two or changed. Medians of all turns, in brackets the lowest and the "
        f"highest of a round's, if of {FEWEST} at least; a ratio is of the lab's training over the contestant's "
        "in the same cycle, with the number of such pairs."
    )
    rows = [
        [model, where, *row]
        for model, found in measured.items()
        for where in (NEAR, APART)
        for row in compared([located(players, where, usual) for players in found])
    ]
    head = ["model", "cores", "contestant", "turns", "images/s", *(f"{name}, times as many" for name in LAB)]
    return f"{said}\n\n{table(head, rows)}"


def place(turn: list[float], usual: float) -> str | None:
    """Where the cores were before and after it: NEAR or APART; None: between the two, or no longer the same."""
    _, *crossings = turn
    if max(crossings) <= NEAREST * usual:
        return NEAR
    return APART if min(crossings) >= FARTHER * usual else None


def located(players: Turns, where: str, usual: float) -> dict[str, list[float | None]]:
    """The rates of each, in each cycle; None where the cores were elsewhere."""
    return {name: [turn[0] if place(turn, usual) == where else None for turn in many] for name, many in players.items()}


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
        if any(rates):
            cells = [f"{pooled(each, '{:.2f}x')} of {sum(map(len, each))}" if any(each) else "" for each in ratios]
            rows.append([name, f"{sum(map(len, rates))}", pooled(rates, "{:,.0f}"), *cells])
    return rows


def pooled(found: list[list[float]], form: str) -> str:
    """The median of all, and the lowest and the highest of the rounds' own."""
    middle = form.format(statistics.median(itertools.chain(*found)))
    medians = [statistics.median(one) for one in found if len(one) >= FEWEST]
    return f"{middle} ({form.format(min(medians))}–{form.format(max(medians))})" if medians else middle


def goals(content: Metrics) -> list[Goal]:
    return []


if __name__ == "__main__":
    main()
