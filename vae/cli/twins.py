"""Twins of a run: runs that differ from it in one thing. They are trained below its directory, or found beside it in
its sweep."""

import dataclasses
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from vae.cli.resume_sweep import is_sweep
from vae.cli.train import alone_in, train_together
from vae.config import schema
from vae.config.errors import InputError
from vae.config.load import load_saved, located
from vae.config.schema import RunConfig
from vae.measure.advice import as_overrides, gentle_start
from vae.measure.causes import REACHED
from vae.measure.verdict import OPEN, VERDICTS
from vae.output import record as records
from vae.runtime import commands, files
from vae.runtime import directory as names
from vae.training import checkpoint
from vae.training.checkpoint import Checkpoint

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Twin:
    directory: Path
    what: str  # how it differs
    changes: tuple[str, ...]  # the same as overrides
    verdict: str
    saved: Checkpoint


@dataclass(frozen=True)
class Twins:
    """Of the run in `directory`, each with so many steps."""

    directory: Path
    config: RunConfig
    steps: int
    allow: list[str]

    def kind_start(self, weight: float) -> Twin:
        """Its KL weight stays near 0 for an eighth of the steps, and has risen to `weight` by half of them. Where the
        run rose late already, a cure says what its weight is, or it has no KL term, smaller steps and a slow start
        instead."""
        config = self.config
        rises_late = isinstance(config.anneal, schema.DelayedKL | schema.SigmoidKL) or config.cure.changes_weight
        if weight == 0 or rises_late:
            gentle = gentle_start(dataclasses.replace(config.train, steps=self.steps))
            twin = dataclasses.replace(config, run_name="kind_start", train=dataclasses.replace(config.train, **gentle))
            return self._made(twin, "a quarter of the learning rate and a slow start", as_overrides(gentle))

        def is_one(other: RunConfig, record: dict[str, Any]) -> bool:
            reached = record.get("kl_weight", 0) >= REACHED * weight
            return reached and _rises_to(other.anneal, weight) and same_but(other, config, "anneal")

        beside = self._beside(is_one)
        if beside is not None:
            return beside
        midpoint = self.steps / 4
        anneal = schema.SigmoidKL(name="sigmoid", weight=weight, midpoint=midpoint, steepness=10 / midpoint)
        twin = dataclasses.replace(config, run_name="kind_start", anneal=anneal)
        return self._made(twin, "anneal=sigmoid", _chosen(anneal))

    def without_code(self) -> Twin:
        model = dataclasses.replace(self.config.model, posterior="none")
        return self._with_model(model, "without_code", "a decoder without a code", "model.posterior=none")

    def factorised(self) -> Twin | None:
        """Its decoder sees no pixels; None where the run's sees none, or is the user's own."""
        model = self.config.model
        if not isinstance(model, schema.PixelCNNModel) or not model.kernels:
            return None
        blind = dataclasses.replace(model, kernels=[])
        return self._with_model(blind, "factorised", "a decoder that sees no pixels", "model.kernels=[]")

    def as_map(self) -> tuple[Twin, Twin] | None:
        """The code enters its decoder as a map, and the same without a code; None where it is a map already."""
        model = self.config.model
        if not isinstance(model, schema.PixelCNNModel) or not model.kernels or model.z_as == "map":
            return None
        with_map = dataclasses.replace(model, z_as="map")
        without = dataclasses.replace(with_map, posterior="none")
        return (
            self._with_model(with_map, "as_map", "the code as a map", "model.z_as=map"),
            self._with_model(
                without, "map_without_code", "a map, and no code", "model.z_as=map", "model.posterior=none"
            ),
        )

    def _with_model(self, model: schema.Model, name: str, what: str, *changes: str) -> Twin:
        config = self.config
        if config.cure.refuses(dataclasses.replace(config, model=model)) is not None:  # as where there is no code
            config, changes = dataclasses.replace(config, cure=schema.NoCure(name="none")), (*changes, "cure=none")

        def is_one(other: RunConfig, record: dict[str, Any]) -> bool:
            return same_but(other, config, "model") and dataclasses.replace(other.model, name=model.name) == model

        beside = self._beside(is_one, what, changes)
        if beside is not None:
            return beside
        return self._made(dataclasses.replace(config, run_name=name, model=model, init=None), what, changes)

    def _beside(
        self, matches: Callable[[RunConfig, dict[str, Any]], bool], what: str = "", changes: tuple[str, ...] = ()
    ) -> Twin | None:
        """A finished run in the same sweep whose configuration matches; of several one that is alive. It differs in
        `what`, or else in its schedule."""
        own = self.directory.absolute()
        if not is_sweep(own.parent):
            return None
        found = []
        for path in sorted(own.parent.glob(f"*/{names.CONFIG}")):
            place = path.parent.parent
            try:
                record = records.read(place)
                other = located(load_saved(files.read_yaml(path), self.allow), commands.started_in(place))
            except (InputError, OSError, ValueError):
                continue  # whatever is wrong with it, it is no twin
            verdict = record.get("verdict")
            if other.train.steps != self.steps:
                continue
            other = dataclasses.replace(other, train=dataclasses.replace(other.train, steps=self.config.train.steps))
            if place != own and verdict in VERDICTS and verdict not in OPEN and matches(other, record):
                found.append((verdict != "alive", place, other))
        if not found:
            return None
        _, place, other = min(found, key=lambda item: item[:2])
        log.info("explain: %s is the twin already", place)
        return self._read(place, what or f"anneal={other.anneal.name}", changes or _chosen(other.anneal))

    def _made(self, config: RunConfig, what: str, changes: tuple[str, ...]) -> Twin:
        """Trained, or resumed, or read where it is finished."""
        config = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=self.steps))
        place = self.directory / names.TWINS / config.run_name
        try:
            before = checkpoint.read(place, self.allow) if names.has_checkpoint(place) else None
            if before is not None and before.config != config:  # of another call, with another number of steps
                with files.locked(place):
                    shutil.rmtree(place)
                before = None
            if not (place / names.RESULT).exists():
                (place / names.CONFIG).parent.mkdir(parents=True, exist_ok=True)
                own = commands.overrides(self.directory) or []
                anew = ["init=null"] if config.init is None and self.config.init is not None else []
                overrides = commands.changed(own, [*changes, *anew, f"train.steps={self.steps}"])
                files.replace(place / names.CONFIG, OmegaConf.to_yaml(OmegaConf.structured(config)).encode())
                files.replace(place / names.OVERRIDES, OmegaConf.to_yaml(OmegaConf.create(overrides)).encode())
                log.info("explain: training a twin with %s, %d steps", what, self.steps)
                with alone_in(place):
                    train_together(dataclasses.replace(config, allow=self.allow or None), place, before)
        except files.DirectoryInUse as error:
            raise InputError(f"{place}: another program trains this twin; wait for it") from error
        return self._read(place, what, changes)

    def _read(self, place: Path, what: str, changes: tuple[str, ...]) -> Twin:
        record = records.read(place)
        if record.get("verdict") not in VERDICTS:
            raise InputError(
                f"{place}: this twin failed ({record.get('failure', 'no verdict')}); remove it to try again"
            )
        return Twin(place, what, changes, str(record["verdict"]), checkpoint.read(place, self.allow))


def _chosen(anneal: schema.Anneal) -> tuple[str, ...]:
    """The overrides that choose this schedule, with all its values."""
    values = {name: commands.written(value) for name, value in vars(anneal).items() if name not in ("kind", "name")}
    return (f"anneal={anneal.name}", *(f"anneal.{name}={value}" for name, value in values.items()))


def _rises_to(anneal: schema.Anneal, weight: float) -> bool:
    """A schedule that starts low and ends at this weight."""
    return isinstance(anneal, schema.RisingKL) and not isinstance(anneal, schema.CyclicalKL) and anneal.weight == weight


def same_but(one: RunConfig, other: RunConfig, part: str) -> bool:
    """Whether two configurations train the same thing, but for one part. Names tell runs apart and change nothing; nor
    do pictures and evaluations."""
    ignored = {
        "run_name": "",
        "evaluation": None,
        "pictures": None,
        "tracking": None,
        "experiment": None,
        "cause": None,
        "sweep": None,
        part: None,
    }
    return dataclasses.replace(one, **ignored) == dataclasses.replace(other, **ignored)  # type: ignore[arg-type]
