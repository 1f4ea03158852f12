"""How long until the answer: wall time from the call on a folder of images of 64x64 until the verdict that a run's
evaluations say is the one at its end and changes no more."""

import re
import tempfile
from functools import partial
from pathlib import Path

from benchmarks import ours
from benchmarks.options import Options
from benchmarks.process import ROOT, python
from benchmarks.rounds import Goal, Measured, Metrics, Record, median, spread, table, values

ROUNDS = 1
SIDE = 64
WANTED = 180  # seconds
EXPERIMENTS = {"default": [], "experiment=images": ["experiment=images"]}
EVALUATED = "test/mse"  # logged by each evaluation
SAID = re.compile(r"step ([\d,]+)/.*so far (\w+(?: \w+)*)")


def measure(options: Options) -> None:
    settings = {"side": SIDE, "threads": options.threads}
    record = Record("answer", options.results, settings, options.fresh)
    with tempfile.TemporaryDirectory(dir=options.scratch) as directory:
        images = options.data() or icons(Path(directory))
        sizes = [f"train.threads={options.threads}", "train.device=cpu"]
        short = ["train.steps=4", "train.eval_every=2", "train.log_every=1", *options.quick()] if options.smoke else []
        record.alternate(
            {name: partial(answered, *images, *sizes, *given, *short) for name, given in EXPERIMENTS.items()},
            options.rounds or ROUNDS,
        )
    record.finish()


def icons(directory: Path) -> list[str]:
    """Overrides for the icons of examples/real_images.py."""
    folder = directory / "my_images"
    python(str(ROOT / "examples" / "real_images.py"), str(folder), cwd=directory)
    return ["dataset=folder", f"dataset.root={folder / 'icons'}", "dataset.background=white", f"dataset.size={SIDE}"]


def answered(*overrides: str) -> Metrics:
    done = ours.run(*overrides)
    said = [
        (int(step.replace(",", "")), verdict)
        for step, verdict in SAID.findall(done.finished.stdout + done.finished.stderr)
    ]
    final = done.result["verdict"].replace("_", " ")
    since = settled(said, final)
    began = done.finished.started
    return {
        "images": done.result["train_images"] + done.result["test_images"],
        "steps": done.result["steps"],
        "verdict": final,
        "explained_variance": done.result["explained_variance"],
        "step": since or done.result["steps"],
        "answer": done.wall(EVALUATED, since) - began if since else done.finished.seconds,
        "run": done.result["seconds"],
        "whole": done.finished.seconds,
    }


def settled(said: list[tuple[int, str]], final: str) -> int | None:
    """The first step from which on each evaluation said the `final` verdict; None: only the end said so."""
    since = None
    for step, verdict in reversed(said):
        if verdict != final:
            break
        since = step
    return since


def tables(content: Metrics) -> str:
    measured: Measured = content["measured"]
    rows = []
    for name, found in measured.items():
        last = found[-1]
        rows.append(
            [
                name,
                last.get("verdict", "–"),
                spread(values(found, "answer")),
                f"{last['step']:,} of {last['steps']:,}" if "step" in last else "–",
                spread(values(found, "run")),
                spread(values(found, "whole")),
                spread(values(found, "explained_variance")),
            ]
        )
    images = next((found[-1]["images"] for found in measured.values() if "images" in found[-1]), 0)
    threads = content["settings"]["threads"]
    said = (
        f"{images:,} icons of {SIDE}x{SIDE} in colour, a file each (`examples/real_images.py`): `python run.py "
        f"dataset=folder dataset.root=DIR dataset.background=white dataset.size={SIDE}`, {threads} threads. Seconds "
        "from the call until the evaluation from which on the verdict is that of the end; of the run, from its first "
        "step; and of the whole process."
    )
    head = ["", "verdict", "known after, s", "at step", "the run, s", "the process, s", "explained variance"]
    return f"{said}\n\n{table(head, rows)}"


def goals(content: Metrics) -> list[Goal]:
    goals = []
    for name, found in content["measured"].items():
        text = f"{name}, images of {SIDE}x{SIDE}: the verdict is known at most {WANTED} s after the call"
        goals.append(Goal.at_most(text, median(values(found, "answer")), WANTED, " s"))
    return goals
