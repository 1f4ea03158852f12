"""What is said of a model from elsewhere: every measure with its unit and error, the verdict and what it rests on, the
pictures, and the page of all that."""

import dataclasses
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vae.config.errors import InputError
from vae.measure.catalogue import CATALOGUE, Prediction
from vae.measure.written import number, uncertainty
from vae.output.events import there
from vae.output.pictures import Picture
from vae.output.record import Answer, RunRecord, finite, write
from vae.output.tensorboard import TensorBoardWriter
from vae.report import page, runs
from vae.runtime import directory as names

WIDTH = 100


@dataclass(frozen=True)
class Value:
    """One measure. `error`: its standard error over the images, None where it is exact or not known."""

    name: str
    label: str
    unit: str
    definition: str
    value: float
    error: float | None

    def __str__(self) -> str:
        error = "" if self.error is None else f" ± {uncertainty(self.error)}"
        return f"{self.label}: {number(self.value)}{error}{' ' if self.unit else ''}{self.unit}"


@dataclass(frozen=True)
class Maps:
    """Of codes that are maps (C, H, W)."""

    shape: tuple[int, int, int]
    channel_kl: list[float]  # (C,), nats, mean over the images, summed over positions
    channel_gaps: list[float]  # (C,), nats of log p(x|z) lost when a whole channel is replaced by prior noise
    channel_active: list[float]  # (C,), the fraction of its positions that are active units
    position_kl: list[list[float]]  # (H, W), nats, summed over channels


@dataclass(frozen=True)
class Diagnosis:
    """`print` it for the sentences; `measures`, `verdict`, `prediction` and `to_dict()` have the numbers; `report(DIR)`
    writes the page."""

    record: RunRecord
    errors: Mapping[str, float]  # standard errors, by the measure's name
    kl: list[float]  # (d,), nats, mean over the images
    eigenvalues: list[float]  # of the data's covariance, descending
    maps: Maps | None  # None: codes are vectors
    doubts: tuple[str, ...]  # what looks like a mistake in what was handed over
    notes: tuple[str, ...]  # how it was taken
    pictures: Mapping[str, Picture]  # by their TensorBoard tags

    @property
    def _answer(self) -> Answer:
        assert self.record.answer is not None  # a diagnosis always has one
        return self.record.answer

    @property
    def verdict(self) -> str:
        return self._answer.verdict

    @property
    def cause(self) -> str | None:
        """Of a dead code, as predicted: objective or optimiser; None where it cannot be told, or nothing is wrong."""
        return self._answer.cause

    @property
    def reason(self) -> str:
        return self._answer.reason

    @property
    def explanation(self) -> str:
        """The whole of what is said: the verdict in a sentence, what it rests on, why."""
        return self._answer.explanation

    @property
    def advice(self) -> list[str]:
        """What may help, in words."""
        return [item["why"] for item in self._answer.advice]

    @property
    def advised_weight(self) -> float | None:
        """The KL weight to write into the loss, as it was described, where the most helpful advice has one."""
        advice = self._answer.advice
        return advice[0].get("kl_weight") if advice else None

    @property
    def prediction(self) -> Prediction:
        """What the closed form says of these images; its measures are None where it does not apply."""
        return self.record.prediction

    @property
    def measures(self) -> dict[str, Value]:
        """Every measure that applies, by its name in the catalogue (docs/measures.md)."""
        found = self.record.to_dict()
        return {
            name: Value(name, item.label, item.unit, item.definition, found[name], self.errors.get(name))
            for name, item in CATALOGUE.items()
            if isinstance(found.get(name), int | float)
        }

    def to_dict(self) -> dict[str, Any]:
        """Flat, for JSON: the keys of result.json, the standard errors as NAME_error, and what it was taken from. A
        number that is not finite is None."""
        found = self.record.to_dict() | {f"{name}_error": error for name, error in self.errors.items()}
        found |= {"kl_per_dimension": self.kl, "eigenvalues": self.eigenvalues}
        if self.maps is not None:
            found |= {f"latent_{name}": value for name, value in dataclasses.asdict(self.maps).items()}
        return dict(finite(found | {"doubts": list(self.doubts), "notes": list(self.notes)}))

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        said = f"{self.verdict}: {self.explanation}"
        lines = [f"Doubt: {doubt}" for doubt in self.doubts]
        lines += ["What follows holds where there is no reason for such a doubt."] if lines else []
        lines.append(said)
        lines += [f"To try: {advice}." for advice in self.advice]
        lines += list(self._map_lines())
        lines += [f"Note: {note}." for note in self.notes]
        return "\n".join(textwrap.fill(line, WIDTH) for line in lines)

    def _map_lines(self) -> Iterator[str]:
        """KL and gap of each channel."""
        if self.maps is None:
            return
        for place, (kl, gap) in enumerate(zip(self.maps.channel_kl, self.maps.channel_gaps, strict=True)):
            yield f"Channel {place}: KL {number(kl)} nats, {number(gap)} nats of log p(x|z) lost without it."

    def report(self, directory: str | Path) -> Path:
        """Write report.html and what it is made of into `directory`: result.json, an event file with the pictures for
        TensorBoard, plots. Returns the page's path. Raises OSError where that cannot be written to, InputError where it
        is a file."""
        directory = Path(directory)
        if directory.exists() and not directory.is_dir():
            raise InputError(f"report: {directory} is a file; a directory is needed for the page and its pictures")
        directory.mkdir(parents=True, exist_ok=True)
        writer = TensorBoardWriter(directory, there(directory))
        try:
            for tag, picture in self.pictures.items():
                writer.picture(tag, picture, 0)
        finally:
            writer.close()
        write(directory / names.RESULT, self.to_dict())
        run = runs.read(directory)
        run.name = str(run.record.get("run_name"))
        return page.write([run], directory, f"Diagnosis: {run.name}")
