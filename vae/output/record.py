"""The final record of a run, result.json: who it is, what was predicted for it, what was measured, what follows. Flat,
in JSON numbers; its keys only ever grow. No torch."""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from vae.config import schema
from vae.config.errors import InputError
from vae.measure.catalogue import (
    FinalMeasures,
    LinearMeasures,
    Prediction,
    SampleMeasures,
    SplitMeasures,
    measures,
)
from vae.measure.verdict import VERDICTS
from vae.measure.watch import Trajectory, key
from vae.runtime import directory as names
from vae.runtime import files


@dataclass(frozen=True)
class Identity:
    run_name: str = key("the run's name")
    model: str = key("name of the model's option")
    objective: str = key("name of the objective's option")
    anneal: str = key("name of the KL schedule's option")
    cure: str = key("name of the cure's option")
    dataset: str = key("name of the dataset's option")
    seed: int = key("what every random number of the run derives from")
    steps: int | None = key("training steps made", "steps")
    best_step: int | None = key(
        "the step whose model this is, with the lowest loss of validation images at the schedule's final KL weight "
        "(at 1: the highest ELBO); null: the last step's",
        "steps",
    )
    changes: list[str] | None = key("what resume= has changed on the way; null: nothing, the run can be made again")
    parameters: int = key("numbers that are trained")
    latent_dim: int = key("dimensions d of the code")
    train_images: int = key("images that were trained on; of a model from elsewhere, that the prediction rests on")
    classes: list[str] | None = key("names of the labels, in their order; null: they have none")
    one_step: bool = key(
        "whether squared errors are of one-step predictions: of each pixel from those before it, as an autoregressive "
        "decoder makes them"
    )
    kl_weight: float = key(
        "the KL weight (beta) of the schedule at the step whose model this is, whatever a cure makes of it"
    )
    final_kl_weight: float = key("the KL weight at which the schedule ends")


@dataclass(frozen=True)
class Answer:
    verdict: str = key("one of " + ", ".join(VERDICTS))
    cause: str | None = key(
        "of a dead code: objective, optimiser or decoder; null: cannot be told, or nothing is wrong"
    )
    cause_rests_on: str | None = key("predicted: by the closed form; tested: by the twins of explain=; null: no cause")
    reason: str = key("a sentence with the measures and thresholds that decided")
    explanation: str = key("what is said of the run at its end")
    advice: list[dict[str, Any]] = key("what may help: `why`, and a `command` that runs as it stands")


@dataclass(frozen=True)
class Course:
    """What the training took."""

    seconds: float = key(
        "from the run's start to its last measure, without the page, of all its parts where it was resumed", "s"
    )
    images_per_second: float = key("training images per second of training", "1/s")
    threads: int | None = key("of the CPU that a process computed with, `train.threads`, or its share of the machine")
    peak_memory_mib: float | None = key(
        "the most memory held: by the run on its GPU, else by its process on the host", "MiB"
    )
    versions: str = key("of Python and the main libraries")
    training_loss: float | None = key(
        "what was minimised, the mean over the last `train.log_every` training batches: with a cure that has a loss of "
        "its own that one, which compares with no other",
        "nats",
        default=None,
    )
    precision: str | None = key("in which the networks were trained, at the last step: fp32, bf16", default=None)

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Self | None:
        """From a flat record; None where a run had not come to its end."""
        found: dict[str, Any] = {field.name: record.get(field.name) for field in dataclasses.fields(cls)}
        needed = (found["seconds"], found["images_per_second"])
        return cls(**found) if all(isinstance(value, int | float) for value in needed) else None


@dataclass(frozen=True)
class RunRecord:
    """Parts that a run does not have are None, and their keys are not in result.json."""

    identity: Identity
    prediction: Prediction
    split: SplitMeasures | None = None
    answer: Answer | None = None
    failure: str | None = None  # why it ended early
    final: FinalMeasures | None = None
    samples: SampleMeasures | None = None
    linear: LinearMeasures | None = None
    trajectory: Trajectory | None = None
    course: Course | None = None
    null_reasons: tuple[str, ...] = ()  # why a measure is None

    def to_dict(self) -> dict[str, Any]:
        """Flat: the keys of result.json."""
        found: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            part = getattr(self, field.name)
            if dataclasses.is_dataclass(part) and not isinstance(part, type):
                found |= dataclasses.asdict(part)
            elif isinstance(part, str):
                found[field.name] = part
        if self.null_reasons:
            found["null_reasons"] = "; ".join(self.null_reasons)
        return found

    def save(self, directory: Path, file: str = names.RESULT) -> None:
        """A number that is not finite becomes null, and `null_reasons` says what it was."""
        content = self.to_dict()
        reasons = [
            *self.null_reasons,
            *(f"{name} was {value}" for name, value in content.items() if _is_no_number(value)),
        ]
        if reasons:
            content["null_reasons"] = "; ".join(reasons)
        write(directory / file, content)


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Values as JSON; a number that is not finite is null."""
    files.replace(path, json.dumps(finite(content), indent=2, allow_nan=False).encode() + b"\n")


def finite(value: Any) -> Any:
    """The same with None for every number that is not finite, which JSON has none of."""
    if isinstance(value, Mapping):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if _is_no_number(value) else value


def _is_no_number(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def read(directory: Path) -> dict[str, Any]:
    """The flat record that a run has left, of whatever version; empty where there is none. Raises InputError where it
    cannot be read."""
    path = directory / names.RESULT
    try:
        record = json.loads(files.read_text(path)) if path.is_file() else {}
        if not isinstance(record, dict):
            raise ValueError("no object")
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable ({error}); move it away to continue without it") from error
    return record


def stopped(steps: int, best_step: int | None, train: schema.Train) -> bool:
    """Whether a training has come to its own end after so many steps: early stopping has ended it before all were made
    (`best_step` None: it was not asked for), or its learning rate has come to 0."""
    early = best_step is not None and steps < train.steps
    return early or (train.lr_schedule == "cosine" and steps >= train.steps)


def changes(directory: Path) -> list[str]:
    """What resume= has changed of a run on its way, a line a call."""
    path = directory / names.CHANGES
    return files.read_text(path).splitlines() if path.is_file() else []


UNMEASURED = (Identity, Answer, Trajectory, Course)  # the parts of a record whose keys are no measures


def table() -> str:
    """The keys of result.json that are no measures, as a table in Markdown: docs/measures.md."""
    rows = ["| key | unit | meaning |", "|---|---|---|"]
    for part in UNMEASURED:
        rows += [f"| `{f.name}` | {f.metadata['unit']} | {f.metadata['meaning']} |" for f in dataclasses.fields(part)]
    rows.append("| `failure` | | why a run ended early; only where it did |")
    rows.append(
        "| `null_reasons` | | why a measure is null, or which number was not finite; only where there are any |"
    )
    return "\n".join(rows) + "\n"


def known_keys() -> list[str]:
    """Every key that result.json may have."""
    own = [field.name for part in UNMEASURED for field in dataclasses.fields(part)]
    groups = (Prediction, SplitMeasures, FinalMeasures, SampleMeasures, LinearMeasures)
    return [*own, *(item.name for group in groups for item in measures(group)), "failure", "null_reasons"]
