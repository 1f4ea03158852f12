"""`python run.py explain=DIR`: tell the cause of a collapse by tests. Twins of the run are trained; what they show is
written to explanation.json, and into the run's result.json."""

import dataclasses
import functools
import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vae.cli.reporting import write_report
from vae.cli.resume_sweep import is_sweep
from vae.cli.session import Job
from vae.cli.train import alone_in
from vae.cli.twins import Twin, Twins
from vae.config.errors import InputError
from vae.config.load import allowed_modules, references, with_values
from vae.config.schema import RunConfig, TensorBoardAlone
from vae.data.split import Data, Split
from vae.measure import cured, evaluation, inference, residuals, spectrum
from vae.measure.advice import Advice, advise
from vae.measure.causes import Comparison, KindStart, OtherDecoder, cause_of, sentences, would_use_a_map
from vae.measure.diagnostics import Paired, paired
from vae.measure.inference import Losses
from vae.measure.spectrum import Spectrum
from vae.measure.story import explain as explanation
from vae.measure.verdict import DEAD, VERDICTS
from vae.models.likelihood import Likelihood
from vae.models.vae import VAE
from vae.output import record as records
from vae.output.conclusion import command
from vae.runtime import commands, files, parallel
from vae.runtime import directory as names
from vae.runtime.machine import choose_device, configure_process
from vae.runtime.rng import generator
from vae.runtime.signals import continued_by
from vae.runtime.terminal import Progress, show
from vae.training import checkpoint
from vae.training.checkpoint import Checkpoint
from vae.training.encoder import train_encoder
from vae.training.own_data import own_data

log = logging.getLogger(__name__)

MAX_IMAGES = 10_000  # training images on which losses are compared
EXPLAINED = (*DEAD, "partly_collapsed")


def explain(job: Job, call: RunConfig) -> None:
    """Of a run; of a sweep each run whose code is dead, in whole or in part. Called again after an interruption, it
    resumes the twin that was trained."""
    directory = job.directory
    if job.keys:
        raise InputError(
            f"{job.keys[0]}: cannot be changed by explain=; a twin has its run's settings, but for explain.steps"
        )

    def again(directory: Path) -> str:
        steps = call.explain.steps
        return commands.explain(directory) + ("" if steps is None else f" explain.steps={steps}")

    with continued_by(again, directory):
        if is_sweep(directory):
            _explain_sweep(directory, call)
        else:
            show(explain_run(directory, call))
            if (directory / names.REPORT).is_file():
                write_report(directory)  # which says what the cause rests on


def _explain_sweep(directory: Path, call: RunConfig) -> None:
    from vae.report import runs

    found = [run for run in runs.find([directory]) if run.record.get("verdict") in EXPLAINED]
    dead = [run.directory for run in found if run.config.get("model.posterior") != "none"]
    if not dead:
        raise InputError(f"explain={directory}: none of its runs is dead, or partly so; name one run to explain it")
    failed = 0
    for path in dead:
        try:
            show(explain_run(path, call))
        except InputError as error:
            failed += 1
            log.error("%s", error)
    write_report(directory)
    if failed:
        raise InputError(f"{directory}: {failed} of {len(dead)} runs could not be explained")


def explain_run(directory: Path, call: RunConfig) -> str:
    """What its twins say of the run in `directory`. Raises InputError where it has not come to its end, or has not
    learnt enough to tell anything."""
    if parallel.size() > 1:
        raise InputError("explain= runs in one process; leave torchrun out")
    with alone_in(directory):
        allow = allowed_modules(call)
        saved, record = checkpoint.read(directory, allow), _finished(directory)
        config = dataclasses.replace(saved.config, tracking=TensorBoardAlone(name="tensorboard"))  # twins come and go
        configure_process(config.train.threads)
        data = own_data(config, saved.parts["data"])
        data = data.measured(config.evaluation.test_images).to(choose_device(config.train.device))
        weight = record.get("max_kl_weight", record["kl_weight"])
        short = config if call.explain.steps is None else _with_steps(config, call.explain.steps, directory)
        bench = _Bench(Twins(directory, short, short.train.steps, allow), saved, record, weight, data)
        compared = bench.comparison()
        limits = config.evaluation.thresholds
        cause = cause_of(compared)
        said = [*sentences(compared, cause, limits), cured.said(cause), *_not_shared(config, record)]
        look_at = compared.kind_start.place if compared.kind_start else compared.without_code
        found = {"cause": cause, "said": [*filter(None, said)], "look_at": look_at, **compared.to_dict()}
        records.write(directory / names.EXPLANATION, found)
        if cause is not None:
            records.write(directory / names.RESULT, _with_cause(record, config, directory, cause, compared, said))
    return f"{os.path.relpath(directory)}: {' '.join(said).strip()}"


def _not_shared(config: RunConfig, record: Mapping[str, Any]) -> Iterator[str]:
    """What of the run's own training its twins have not had."""
    changes = record.get("changes")
    if changes and isinstance(changes, list):
        yield (
            f"The run's settings were changed on its way ({'; '.join(map(str, changes))}); its twins have had the last "
            "ones from their first step."
        )
    if config.init is not None:
        yield (
            f"The run began with the weights of {config.init}, as its twin with a kind start did; twins with another "
            "decoder began anew."
        )


def _with_steps(config: RunConfig, steps: int, directory: Path) -> RunConfig:
    """For so many steps, and what was as long as the run in `directory` by a reference is as long as they are."""
    try:
        written = files.read_yaml(directory / names.CONFIG)
    except (OSError, ValueError):  # its checkpoint does without
        written = None
    return with_values(config, {"train.steps": steps}, references(config, written))


def _finished(directory: Path) -> dict[str, Any]:
    """The record of a run that can be explained."""
    record = records.read(directory)
    verdict, weight = record.get("verdict"), record.get("max_kl_weight", record.get("kl_weight"))
    if verdict is None:
        raise InputError(f"explain={directory}: the run has not come to its end; resume={directory} continues it")
    is_weight = isinstance(weight, int | float) and not isinstance(weight, bool) and 0 <= weight < math.inf
    if verdict not in VERDICTS or not is_weight or not isinstance(record.get("reason"), str):
        raise InputError(f"{directory / names.RESULT}: is no run's record; evaluate={directory} measures the run again")
    if verdict == "unfinished":
        raise InputError(
            f"explain={directory}: the run is unfinished, and there is nothing to explain yet; train longer"
        )
    return record


@dataclass(frozen=True)
class _Bench:
    """Where a run and its twins are measured."""

    twins: Twins
    saved: Checkpoint
    record: dict[str, Any]
    weight: float  # the highest KL weight of the run, at which all is compared
    data: Data

    def comparison(self) -> Comparison:
        config = self.twins.config
        if config.model.posterior == "none":
            raise InputError(f"explain={self.twins.directory}: has no code (model.posterior=none) to be explained")
        images = self._images()
        model, likelihood = self._model(self.saved)
        own = self._losses(model, likelihood, images)
        kind = self.twins.kind_start(self.weight) if self.record["verdict"] in EXPLAINED else None
        kind_losses = None if kind is None else self._losses(*self._model(kind.saved), images)
        without = self.twins.without_code()
        bare_model, bare_likelihood = self._model(without.saved)
        bare = self._losses(bare_model, bare_likelihood, images)
        constant = self._better_constant(bare, bare_likelihood, images)
        best = own if kind_losses is None else kind_losses
        is_gaussian = config.model.posterior == "gaussian"
        is_dead = self.record["verdict"] in DEAD
        # What a twin that broke leaves over no code could carry.
        predicts = model.is_autoregressive and self.weight and constant is None
        residual = self._residual(bare_model, bare_likelihood) if predicts else None
        return Comparison(
            verdict=str(self.record["verdict"]),
            kl_weight=self.weight,
            steps=self.twins.steps,
            images=len(images),
            loss=float(own.at(self.weight).mean()),
            without_code=self._place(without),
            code_saves=paired((bare.nll if constant is None else constant) - best.nll),
            against_constant=constant is not None,
            code_costs=self.weight * float(best.kl.mean()) if self.weight else 0.0,
            encoder_gains=self._encoder_gains(model, likelihood, own, images) if is_gaussian else None,
            inference_gap=self._inference_gap(model, likelihood) if is_gaussian else None,
            kind_start=None if kind is None or kind_losses is None else self._kind_start(kind, kind_losses, own),
            factorised=self._factorised(images) if is_dead else None,
            as_map=self._as_map(images, bare, constant) if is_dead else None,
            residual_eigenvalue=None if residual is None else float(residual[0]),
            residual_kld=None if residual is None else self._kld(residual),
        )

    def _factorised(self, images: Split) -> OtherDecoder | None:
        """Held against an image that is the same for all: what a decoder without pixels and code can do."""
        twin = self.twins.factorised()
        if twin is None:
            return None
        model, likelihood = self._model(twin.saved)
        losses = self._losses(model, likelihood, images)
        constant = self._constant(likelihood, images)
        return self._other(twin, None if constant is None else paired(constant - losses.at(self.weight)))

    def _better_constant(self, bare: Losses, likelihood: Likelihood, images: Split) -> Tensor | None:
        """-log p(x|z) (N,) of one image for all, where a decoder without a code does worse than that, as it may where
        it breaks in its training; None where it does not."""
        constant = self._constant(likelihood, images)
        if constant is None:
            return None
        worse = paired(bare.nll - constant)
        little = self.twins.config.evaluation.thresholds.little_kld
        return constant if worse.mean > max(3 * worse.error, little) else None

    def _as_map(self, images: Split, bare: Losses, constant: Tensor | None) -> OtherDecoder | None:
        """Held against the best of what gets no code: `bare`, a decoder with the map's layers, one image for all."""
        twins = self.twins.as_map()
        if twins is None:
            return None
        with_code, without = (self._losses(*self._model(twin.saved), images).at(self.weight) for twin in twins)
        codeless = [without, bare.nll, *([] if constant is None else [constant])]
        return self._other(twins[0], paired(min(codeless, key=torch.mean) - with_code))

    def _other(self, twin: Twin, pays: Paired | None) -> OtherDecoder:
        record = records.read(twin.directory)
        return OtherDecoder(
            place=self._place(twin),
            changes=twin.changes,
            verdict=twin.verdict,
            kld=record["kld"],
            swap_gap=record["swap_gap"],
            pays=pays,
        )

    def _residual(self, model: VAE, likelihood: Likelihood) -> Tensor | None:
        """The eigenvalues of what a decoder without a code leaves over."""
        config = self.twins.config
        return residuals.eigenvalues(
            model, likelihood, self.data.train, config.evaluation.batch_size, config.model.latent_dim, config.seed
        )

    def _kld(self, eigenvalues: Tensor) -> float:
        """What a small code would carry."""
        above = eigenvalues[eigenvalues > self.weight] / self.weight
        return 0.5 * float(above.log().sum())

    def _place(self, twin: Twin) -> str:
        return os.path.relpath(twin.directory, self.twins.directory)

    def _kind_start(self, kind: Twin, losses: Losses, own: Losses) -> KindStart:
        theirs, ours = losses.at(self.weight), own.at(self.weight)
        return KindStart(
            place=self._place(kind),
            what=kind.what,
            changes=kind.changes,
            verdict=kind.verdict,
            kl_weight=kind.saved.kl_weight,
            loss=float(theirs.mean()),
            lower_by=paired(ours - theirs),
        )

    def _images(self) -> Split:
        """Training images."""
        split = self.data.train
        if len(split) <= MAX_IMAGES:
            return split
        rng = generator(self.twins.config.seed, "explained images")
        return split.take(torch.randperm(len(split), generator=rng)[:MAX_IMAGES].sort().values)

    def _model(self, saved: Checkpoint) -> tuple[VAE, Likelihood]:
        model, likelihood = saved.model()
        return model.to(self.data.train.device), likelihood.to(self.data.train.device)

    def _losses(self, model: VAE, likelihood: Likelihood, images: Split) -> Losses:
        config = self.twins.config
        return inference.losses(model, likelihood, images, config.evaluation.batch_size, config.seed)

    @functools.cached_property
    def _mean_and_total(self) -> Spectrum:
        return spectrum.measure(self.data.train, 1)

    def _constant(self, likelihood: Likelihood, images: Split) -> Tensor | None:
        batch_size = self.twins.config.evaluation.batch_size
        return evaluation.constant_nll(likelihood, self._mean_and_total, images, batch_size)

    def _encoder_gains(self, model: VAE, likelihood: Likelihood, own: Losses, images: Split) -> Paired:
        """What is gained by training the encoder on while the decoder stays."""
        config, steps = self.twins.config, self.twins.steps
        progress = Progress("encoder", steps)

        def tell(step: int) -> None:
            if step % config.train.log_every == 0:
                progress.update(step, {})

        try:
            trained = train_encoder(config, model, likelihood, self.data, self.weight, steps, tell)
        finally:
            progress.close()
        return paired(own.at(self.weight) - self._losses(trained, likelihood, images).at(self.weight))

    def _inference_gap(self, model: VAE, likelihood: Likelihood) -> Paired:
        config = self.twins.config
        order = torch.randperm(len(self.data.test), generator=generator(config.seed, "examination"))
        images = self.data.test.batch(order[: config.evaluation.probe_images])
        return inference.inference_gap(model, likelihood, images, self.weight, config.seed)


def _with_cause(
    record: dict[str, Any],
    config: RunConfig,
    directory: Path,
    cause: str,
    compared: Comparison,
    sentences_on_it: Sequence[str],
) -> dict[str, Any]:
    """The run's record with the cause that was tested."""
    verdict, reason, kind = record["verdict"], record["reason"], compared.kind_start
    tested = " ".join(sentences_on_it)
    found = record | {"cause": cause, "cause_rests_on": "tested"}
    try:
        advice = advise(config, record, verdict, cause)
        if cause == "optimiser" and kind is not None:
            cures = [item for item in advice if item.overrides[:1] and item.overrides[0].startswith("cure=")]
            advice = [Advice("the start of the twin that lives", kind.changes), *cures]
        if (
            cause == "decoder"
            and compared.as_map is not None
            and would_use_a_map(compared, config.evaluation.thresholds)
        ):
            advice = [Advice("the code as a map, which can say where", compared.as_map.changes)]
        said = explanation(config, record, verdict, reason, cause, tested)
    except (LookupError, TypeError, ValueError):  # a record of an earlier version has not all that they tell of
        return found | {"explanation": f"{reason}. {tested}"}
    lines = [{"why": item.why, "command": command(config, directory, item)} for item in advice]
    return found | {"explanation": said, "advice": lines}
