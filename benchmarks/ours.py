"""The lab as its user runs it: run.py in a process of its own, timed by the wall time that TensorBoard's file holds
with every scalar. So nothing is patched, and what logging and observing cost is in the time."""

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.process import ROOT, Failed, Finished, python

if TYPE_CHECKING:
    from vae.config.schema import RunConfig

BATCH = 64  # train.batch_size, by default
LOOP_BEGINS = "prediction/eigenvalue"  # scalars that are logged before the loop, the first of them at step 1
MODELS = {  # what is measured, and the overrides that give it
    "conv_vae": ["model=conv_vae"],
    "mlp_vae": ["model=mlp_vae"],
    "expressive": ["experiment=expressive"],  # pixelcnn_vae on binary images
    "deep": ["model=conv_vae", "model.channels=null"],  # three halvings, on colour images of 64x64
}
# Logged after a step and the evaluation that is due at it, before its pictures and checkpoint. So no time ends at the
# last step of a run, whose evaluation is thorough: what is timed is followed by one step more.
STEP = "train/loss"
ANSWER = "answer/text_summary"  # a text that is logged when all is measured


def program(checkout: Path = ROOT) -> str:
    return str(checkout / "run.py")


@dataclass(frozen=True)
class Run:
    finished: Finished
    scalars: dict[str, list[tuple[int, float, float]]]  # of each tag: step, time.time(), value; of a text 0
    result: dict[str, Any]  # result.json

    def wall(self, tag: str, step: int) -> float:
        """time.time() at which `tag` was logged at `step`."""
        found = [wall for at, wall, _ in self.scalars.get(tag, []) if at == step]
        if not found:
            raise Failed(f"run.py logged no {tag} at step {step}")
        return found[0]

    def seconds(self, first: int, last: int) -> float:
        """Wall time from the end of step `first` to the end of step `last`, all that is done in between with it;
        from 0: from the beginning of the loop."""
        return self.wall(STEP, last) - (self.wall(STEP, first) if first else self.wall(LOOP_BEGINS, 1))

    def training_rate(self, first: int, last: int, batch_size: int) -> float:
        """Images per second of training alone in these steps, by the run's own count: evaluations and logging out."""
        rows = [(step, rate) for step, _, rate in self.scalars["train/images_per_second"]]
        before = [0, *(step for step, _ in rows)]
        spent = sum(
            (step - previous) * batch_size / rate
            for previous, (step, rate) in zip(before, rows, strict=False)
            if first < step <= last
        )
        return (last - first) * batch_size / spent


def run(
    *overrides: str,
    launcher: Sequence[str] = (),
    prefix: Sequence[str] = (),
    limit: Callable[[], None] | None = None,
) -> Run:
    """Train once, in a directory that is gone afterwards. `launcher`: what the interpreter is given before run.py;
    `prefix`: a command that starts the interpreter. Raises Failed."""
    with tempfile.TemporaryDirectory(prefix="bench") as directory:
        here = Path(directory) / "run"
        command = (*launcher, program(), f"hydra.run.dir={here}", *overrides)
        finished = python(*command, cwd=Path(directory), prefix=prefix, limit=limit)
        return Run(finished, events(here), json.loads((here / "result.json").read_text()))


def events(directory: Path) -> dict[str, list[tuple[int, float, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    guidance = {"scalars": 0, "images": 1, "histograms": 1, "tensors": 1, "compressedHistograms": 1}
    found: Any = EventAccumulator(str(directory), size_guidance=guidance).Reload()
    scalars = {
        tag: [(event.step, event.wall_time, event.value) for event in found.Scalars(tag)]
        for tag in found.Tags()["scalars"]
    }
    texts = {
        tag: [(event.step, event.wall_time, 0.0) for event in found.Tensors(tag)] for tag in found.Tags()["tensors"]
    }
    return scalars | texts


def composed(*overrides: str) -> "RunConfig":
    """The checked configuration that these overrides give, in this process."""
    from hydra import compose, initialize_config_dir

    from vae.config.load import load

    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return load(compose("config", list(overrides)))


def dataset(root: str | None) -> list[str]:
    """Overrides: MNIST from `root`, the images of a .npy, or the embedded digits."""
    if root is None:
        return ["dataset=mnist5k"]
    if root.endswith(".npy"):
        return ["dataset=arrays", f"dataset.train={root}"]
    return ["dataset=mnist", f"dataset.root={root}", "dataset.download=false"]
