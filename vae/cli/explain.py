"""`python run.py explain=DIR`: tell the cause of a collapse by tests. Twins of the run, which differ from it in one
thing, are trained below its directory; what they show is written to explanation.json, and into the run's result.json.

- The *kind start*: the KL term waits, then rises to the same weight (a run that did that already starts with smaller
  steps instead). Alive with a lower loss: the optimiser was stuck. Dead as well, or no better: the objective asks for
  it.
- The *decoder without a code*: what log p(x|z) owes to z, against what z costs. Where such a decoder is far better than
  a constant image, and the kind start is dead, the decoder needs no code.
- The *encoder trained on* with the decoder fixed, and q fitted to each image: what inference loses."""

import dataclasses
import json
import logging
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from vae.cli import failures
from vae.cli.resume import is_sweep
from vae.cli.session import Job
from vae.cli.train import alone_in, train_together
from vae.config import schema
from vae.config.errors import InputError
from vae.config.load import allowed_modules, load_saved
from vae.config.schema import RunConfig
from vae.data import readers
from vae.data.split import Data, Split
from vae.measure import evaluation, inference
from vae.measure.advice import advise
from vae.measure.diagnostics import Paired, paired
from vae.measure.inference import Losses
from vae.measure.story import explain as tell
from vae.measure.subject import Subject
from vae.measure.verdict import DEAD, number
from vae.models.likelihood import Likelihood
from vae.models.vae import VAE
from vae.output import record as records
from vae.output.conclusion import command
from vae.runtime import commands, files
from vae.runtime import directory as names
from vae.runtime.machine import choose_device, configure_process
from vae.runtime.rng import generator
from vae.runtime.terminal import Progress, show
from vae.training import checkpoint
from vae.training.encoder import train_encoder

log = logging.getLogger(__name__)

MAX_IMAGES = 10_000  # training images on which losses are compared
EXPLAINED = (*DEAD, "partly_collapsed")


@dataclass(frozen=True)
class Twin:
    """A run that differs from another one in one thing."""

    directory: Path
    what: str  # how it differs
    verdict: str
    losses: Losses  # of the same training images


@dataclass(frozen=True)
class Explanation:
    cause: str | None  # optimiser, objective, decoder; None: nothing is wrong, or it could not be told
    sentences: tuple[str, ...]
    look_at: str  # the directory of the run that shows it
    evidence: dict[str, Any]


def explain(job: Job, call: RunConfig) -> None:
    """Of a run; of a sweep each run whose code is dead, in whole or in part."""
    directory = job.directory
    if not is_sweep(directory):
        show(_said(directory, explain_run(directory, call)))
        return
    from vae.report import page, runs

    found = runs.find([directory])
    dead = [run.directory for run in found if run.record.get("verdict") in EXPLAINED]
    if not dead:
        raise InputError(f"explain={directory}: none of its runs is dead, or partly so; name one run to explain it")
    for path in dead:
        show(_said(path, explain_run(path, call)))
    found = runs.find([directory])
    show(f"report: {page.write(found, directory, page.heading(found))}")


def explain_run(directory: Path, call: RunConfig) -> Explanation:
    """Raises InputError where the run has not come to its end, or has not learnt enough to tell anything."""
    with failures.machine_errors(directory):
        saved = checkpoint.read(directory, allowed_modules(call))
        record = records.read(directory)
        if "verdict" not in record:
            raise InputError(f"explain={directory}: the run has not come to its end; resume={directory} continues it")
        if record["verdict"] == "unfinished":
            raise InputError(
                f"explain={directory}: the run is unfinished, and there is nothing to explain yet; train longer"
            )
        config = saved.config
        configure_process(config.train.threads)
        data = readers.load(config.dataset).to(choose_device(config.train.device))
        laboratory = _Laboratory(
            directory=directory,
            config=config,
            steps=call.explain.steps or config.train.steps,
            weight=float(record.get("max_kl_weight", record["kl_weight"])),
            data=data,
            images=_some(data.train, config.seed),
            allow=allowed_modules(call),
        )
        found = laboratory.explanation(saved, record)
        content = {"cause": found.cause, "said": found.sentences, "look_at": found.look_at, **found.evidence}
        _write(directory / names.EXPLANATION, content)
        _write(directory / names.RESULT, _told(record, laboratory, found))
    return found


@dataclass(frozen=True)
class _Laboratory:
    directory: Path  # of the run
    config: RunConfig
    steps: int  # of each twin
    weight: float  # the highest KL weight of the run, at which all is compared
    data: Data
    images: Split  # training images
    allow: list[str]

    def explanation(self, saved: checkpoint.Checkpoint, record: dict[str, Any]) -> Explanation:
        model, likelihood = self._on_device(saved)
        own = self._losses(model, likelihood)
        is_dead = record["verdict"] in EXPLAINED
        kind = self._kind_start() if is_dead else None
        without = self._without_code()
        best = kind.losses if kind is not None else own
        saves = paired(without.losses.nll - best.nll)
        costs = self.weight * float(best.kl.mean()) if self.weight else 0.0
        gain = self._gain_without_code(without, likelihood)
        encoder = self._encoder(model, likelihood, own)
        gap = self._inference_gap(model, likelihood)
        evidence: dict[str, Any] = {
            "kl_weight": self.weight,
            "steps": self.steps,
            "images": len(self.images),
            "loss": float(own.at(self.weight).mean()),
            "without_code": self._relative(without),
            "code_saves": saves.mean,
            "code_saves_error": saves.error,
            "code_costs": costs,
            "gain_without_code": None if gain is None else gain.mean,
            "encoder_trained_on_gains": encoder.mean,
            "encoder_trained_on_gains_error": encoder.error,
            "inference_gap": gap.mean,
            "inference_gap_error": gap.error,
        }
        whose = "Its code" if kind is None else "The kind start's code"
        bits = (
            f"{whose} saves {number(saves.mean)} ± {saves.error:.2g} nats of log p(x|z) against a decoder that gets "
            f"none ({without.directory.name}), and costs {number(costs)}."
        )
        inferred = (
            f"Training the encoder on, with the decoder fixed, gains {_amount(encoder)}, and fitting q to each image "
            f"by itself {_amount(gap)}: so much is lost by inference"
        )
        if kind is None:
            look_at = self._relative(without)
            said = (f"The code is {record['verdict']}, so no cause is sought.", bits, f"{inferred}.")
            return Explanation(None, said, look_at, evidence)
        difference = paired(own.at(self.weight) - kind.losses.at(self.weight))
        cause = _cause(str(record["verdict"]), kind, difference, gain, self.config.evaluation.thresholds)
        evidence |= {
            "kind_start": self._relative(kind),
            "kind_start_verdict": kind.verdict,
            "kind_start_loss": float(kind.losses.at(self.weight).mean()),
            "kind_start_loss_lower_by": difference.mean,
            "kind_start_loss_lower_by_error": difference.error,
        }
        first = self._verdict_on(cause, kind, own, difference)
        look_at = f"{inferred}; look at {os.path.relpath(kind.directory)}."
        return Explanation(cause, (first, bits, look_at), self._relative(kind), evidence)

    def _relative(self, twin: Twin) -> str:
        return os.path.relpath(twin.directory, self.directory)

    def _verdict_on(self, cause: str | None, kind: Twin, own: Losses, difference: Paired) -> str:
        compared = (
            f"{float(kind.losses.at(self.weight).mean()):.2f} against {float(own.at(self.weight).mean()):.2f} nats, "
            f"{abs(difference.mean):.2g} ± {difference.error:.2g} {'lower' if difference.mean > 0 else 'higher'}"
        )
        twin = f"A twin with {kind.what}, at the same KL weight {self.weight:.3g} at its end, is {kind.verdict}"
        if cause is None:
            return f"Tested, and not told: {twin[0].lower()}{twin[1:]}, with a loss of {compared}."
        return f"Tested: the {cause}. {twin}, with a loss of {compared}."

    def _kind_start(self) -> Twin:
        """The twin that starts kindly, or a run beside this one in its sweep that is just that."""
        config, weight = self.config, self.weight
        if weight == 0 or isinstance(config.anneal, schema.DelayedKL):
            momentum = min(config.train.momentum, 0.9)
            train = dataclasses.replace(
                config.train,
                steps=self.steps,
                lr=config.train.lr / 4,
                warmup_steps=max(1, self.steps // 20),
                momentum=momentum,
            )
            twin = dataclasses.replace(config, run_name="kind_start", train=train)
            changes = [
                f"train.lr={train.lr:g}",
                f"train.warmup_steps={train.warmup_steps}",
                f"train.momentum={momentum:g}",
            ]
            return self._twin(twin, "a quarter of the learning rate and a slow start", changes)
        beside = self._beside(lambda other: _rises_to(other.anneal, weight) and _same_but(other, config, "anneal"))
        if beside is not None:
            return beside
        quarter = max(1, self.steps // 4)
        anneal = schema.DelayedKL(
            name="delayed",
            weight=weight,
            threshold=0.3,
            threshold_of="variance",
            patience=quarter,
            rate=weight / quarter,
            smoothing=0.9,
            observe_every=min(10, quarter),
        )
        twin = dataclasses.replace(
            config, run_name="kind_start", anneal=anneal, train=dataclasses.replace(config.train, steps=self.steps)
        )
        values = dataclasses.asdict(anneal)
        settings = [f"anneal.{name}={value}" for name, value in values.items() if name not in ("kind", "name")]
        return self._twin(twin, "anneal=delayed", ["anneal=delayed", *settings])

    def _without_code(self) -> Twin:
        config = self.config
        beside = self._beside(lambda other: other.model.posterior == "none" and _same_but(other, config, "model"))
        if beside is not None:
            return beside
        twin = dataclasses.replace(
            config,
            run_name="without_code",
            model=dataclasses.replace(config.model, posterior="none"),
            train=dataclasses.replace(config.train, steps=self.steps),
        )
        return self._twin(twin, "a decoder without a code", ["model.posterior=none"])

    def _beside(self, matches: Any) -> Twin | None:
        """A finished run in the same sweep whose configuration matches; of several one that is alive."""
        parent = self.directory.absolute().parent
        if not is_sweep(parent):
            return None
        found = []
        for path in sorted(parent.glob(f"*/{names.CONFIG}")):
            place = path.parent.parent
            record = records.read(place)
            if place == self.directory.absolute() or record.get("verdict", "unfinished") == "unfinished":
                continue
            try:
                other = load_saved(files.read_yaml(path), self.allow)
            except (InputError, OSError, ValueError):
                continue
            if matches(other):
                found.append((record["verdict"] in DEAD, place, other))
        if not found:
            return None
        _, place, other = min(found, key=lambda item: item[:2])
        log.info("explain: %s is the twin already", place)
        return self._read(place, f"anneal={other.anneal.name}")

    def _twin(self, config: RunConfig, what: str, changes: list[str]) -> Twin:
        """Trained, or resumed, or read where it is finished."""
        place = self.directory / "explain" / config.run_name
        try:
            before = checkpoint.read(place, self.allow) if names.has_checkpoint(place) else None
            if before is not None and before.config != config:
                raise InputError(f"{place}: is another twin, with other settings; remove it")
            if not (place / names.RESULT).exists():
                (place / names.CONFIG).parent.mkdir(parents=True, exist_ok=True)
                own = commands.overrides(self.directory) or []
                overrides = commands.changed(own, [*changes, f"train.steps={self.steps}"])
                files.replace(place / names.CONFIG, OmegaConf.to_yaml(OmegaConf.structured(config)).encode())
                files.replace(place / names.OVERRIDES, OmegaConf.to_yaml(OmegaConf.create(overrides)).encode())
                log.info("explain: training a twin with %s, %d steps", what, config.train.steps)
                with alone_in(place):
                    train_together(config, place, before)
        except files.DirectoryInUse as error:
            raise InputError(f"{place}: another program trains this twin; wait for it") from error
        return self._read(place, what)

    def _read(self, place: Path, what: str) -> Twin:
        saved = checkpoint.read(place, self.allow)
        return Twin(place, what, str(records.read(place)["verdict"]), self._losses(*self._on_device(saved)))

    def _on_device(self, saved: checkpoint.Checkpoint) -> tuple[VAE, Likelihood]:
        model, likelihood = saved.model()
        return model.to(self.images.device), likelihood.to(self.images.device)

    def _losses(self, model: VAE, likelihood: Likelihood) -> Losses:
        config = self.config
        return inference.losses(model, likelihood, self.images, config.evaluation.batch_size, config.seed)

    def _gain_without_code(self, without: Twin, likelihood: Likelihood) -> Paired | None:
        """By how much a decoder without a code is better than an image that is the same for all; None: not known."""
        model, likelihood = self._on_device(checkpoint.read(without.directory, self.allow))
        spectrum = Subject(self.config, model, likelihood, self.data).spectrum
        constant = evaluation.constant_nll(likelihood, spectrum, self.images, self.config.evaluation.batch_size)
        return None if constant is None else paired(constant - without.losses.nll)

    def _encoder(self, model: VAE, likelihood: Likelihood, own: Losses) -> Paired:
        """What is gained by training the encoder on while the decoder stays."""
        progress = Progress("encoder", self.steps)
        try:
            trained = train_encoder(
                self.config,
                model,
                likelihood,
                self.data.train,
                self.weight,
                self.steps,
                lambda step: progress.update(step, {}) if step % 10 == 0 else None,
            )
        finally:
            progress.close()
        return paired(own.at(self.weight) - self._losses(trained, likelihood).at(self.weight))

    def _inference_gap(self, model: VAE, likelihood: Likelihood) -> Paired:
        config = self.config
        order = generator(config.seed, "examination")
        some = torch.randperm(len(self.data.test), generator=order)[: config.evaluation.probe_images]
        return inference.inference_gap(model, likelihood, self.data.test.batch(some), self.weight, config.seed)


def _cause(verdict: str, kind: Twin, difference: Paired, gain: Paired | None, limits: schema.Thresholds) -> str | None:
    """Why the code of a run with this verdict is dead, or partly so."""
    if kind.verdict == "unfinished":
        return None
    is_lower = difference.mean > 3 * difference.error
    if kind.verdict not in DEAD and is_lower:
        return "optimiser"
    if verdict not in DEAD:  # something keeps the code small, in the twin as well: the network may
        return None
    if gain is not None and gain.mean > 3 * gain.error and gain.mean > limits.little_kld:
        return "decoder"
    return "objective"


def _rises_to(anneal: schema.Anneal, weight: float) -> bool:
    """A schedule that starts low and ends at this weight."""
    return isinstance(anneal, schema.RisingKL) and not isinstance(anneal, schema.CyclicalKL) and anneal.weight == weight


def _same_but(one: RunConfig, other: RunConfig, part: str) -> bool:
    """Whether two configurations train the same thing, but for one part. Names tell runs apart and change nothing; nor
    do pictures and evaluations."""
    ignored = {"run_name": "", "evaluation": None, "pictures": None, "experiment": None, "sweep": None, part: None}
    return dataclasses.replace(one, **ignored) == dataclasses.replace(other, **ignored)  # type: ignore[arg-type]


def _some(split: Split, seed: int) -> Split:
    if len(split) <= MAX_IMAGES:
        return split
    chosen = torch.randperm(len(split), generator=generator(seed, "explained images"))[:MAX_IMAGES]
    return split.take(chosen.sort().values)


def _told(record: dict[str, Any], laboratory: _Laboratory, found: Explanation) -> dict[str, Any]:
    """The run's record with the cause that was tested."""
    if found.cause is None:
        return record
    config, verdict = laboratory.config, record["verdict"]
    told = record | {"cause": found.cause, "cause_rests_on": "tested"}
    try:
        advice = advise(config, record, verdict, found.cause)
        explanation = tell(config, record, verdict, record["reason"], found.cause, " ".join(found.sentences))
    except LookupError:  # of an earlier version
        return told | {"explanation": " ".join([record["reason"], *found.sentences])}
    lines = [{"why": item.why, "command": command(laboratory.directory, item)} for item in advice]
    return told | {"explanation": explanation, "advice": lines}


def _write(path: Path, content: dict[str, Any]) -> None:
    clean = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in content.items()
    }
    files.replace(path, json.dumps(clean, indent=2, allow_nan=False).encode() + b"\n")


def _amount(found: Paired) -> str:
    if abs(found.mean) <= max(3 * found.error, 0.001):
        return "nothing that can be measured"
    return f"{number(found.mean)} ± {found.error:.2g} nats"


def _said(directory: Path, found: Explanation) -> str:
    return f"{os.path.relpath(directory)}: " + " ".join(found.sentences)
