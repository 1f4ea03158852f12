"""The end of a run: its final record, assembled here for a run, for its resumption, for `evaluate=`, and, as far as it
can be known, for a model from elsewhere."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vae.config import load
from vae.config.schema import DelayedKL, RunConfig
from vae.measure import watch
from vae.measure.advice import Advice, advise
from vae.measure.evaluation import Evaluation, Examination
from vae.measure.story import explain
from vae.measure.subject import Measured, Subject
from vae.measure.watch import Rows, Trajectory
from vae.output.record import Answer, Identity, RunRecord, changes
from vae.runtime import commands


class Conclusion(NamedTuple):
    record: RunRecord
    examination: Examination | None


def conclude(
    subject: Subject,
    directory: Path,
    done: Evaluation | None,
    step: int,
    weight: float,
    final_weight: float,
    trajectory: Trajectory,
    rows: Rows,
    failure: str | None = None,
    best_step: int | None = None,
    stopped: bool = False,
) -> Conclusion:
    """What is said of the run in `directory` after `step` steps, at KL weight `weight`. `done`: its last thorough
    evaluation, None where it had none; `trajectory` and `rows`: what was noticed and logged on the way; `best_step`:
    whose model it is, where early stopping was asked for; `stopped`: the training has come to its own end. A run that
    failed has the measures of its last evaluation, and why it failed."""
    config, model = subject.config, subject.model
    highest = max(trajectory.max_kl_weight, weight)
    trajectory = dataclasses.replace(trajectory, max_kl_weight=highest)
    identity = Identity(
        run_name=config.run_name,
        model=config.model.name,
        objective=config.objective.name,
        anneal=config.anneal.name,
        cure=config.cure.name,
        dataset=config.dataset.name,
        seed=config.seed,
        steps=step,
        best_step=best_step,
        changes=changes(directory) or None,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        latent_dim=config.model.latent_dim,
        train_images=len(subject.data.train),
        classes=None if subject.data.classes is None else list(subject.data.classes),
        one_step=model.is_autoregressive,
        kl_weight=weight,
        final_kl_weight=final_weight,
    )
    if done is None or failure is not None:
        split = None if done is None else done.measures
        record = RunRecord(identity, subject.prediction(highest), split, trajectory=trajectory, failure=failure)
        return Conclusion(record, None)

    def say(advice: Advice) -> dict[str, Any]:
        return {"why": advice.why, "command": command(config, directory, advice)}

    settles = not config.cure.changes_loss  # the plain loss need not fall where another one is minimised
    least = config.cure.least_kl(config.model.latent_dim)
    found = judged(subject, identity, done, trajectory, rows, say, settles, least, stopped)
    linear = subject.against_closed_form(weight)
    return Conclusion(dataclasses.replace(found.record, linear=linear), found.examination)


def judged(
    subject: Measured,
    identity: Identity,
    done: Evaluation,
    trajectory: Trajectory,
    rows: Rows,
    say: Callable[[Advice], dict[str, Any]],
    settles: bool = True,
    least_kl: float = 0.0,
    stopped: bool = False,
) -> Conclusion:
    """What is measured once, the verdict, its reasons and what may help, of any model that was evaluated. `say`: a
    piece of advice as its reader can follow it; `settles`: whether the rows tell if the training has come to rest;
    `least_kl`: nats that the model pays whatever it learns; `stopped`: its training has come to its own end."""
    config, step, weight = subject.config, identity.steps, identity.kl_weight
    highest = trajectory.max_kl_weight
    if step is not None and settles:
        constant = subject.constant_loss()
        constant = None if constant is None else constant + weight * least_kl
        trajectory = watch.settled(trajectory, rows, step, weight, constant)
    examination = subject.examine(done, highest)
    verdict = subject.judge(done.measures, examination.measures, step, weight, trajectory, stopped)
    quality = subject.sample_quality()
    record = RunRecord(
        identity,
        subject.prediction(highest),
        split=done.measures,
        final=examination.measures,
        samples=quality.measures,
        trajectory=trajectory,
        null_reasons=(*examination.notes, *quality.notes),
    )
    found = record.to_dict()
    answer = Answer(
        verdict=verdict.name,
        cause=verdict.cause,
        cause_rests_on=None if verdict.cause is None else "predicted",
        reason=verdict.reason,
        explanation=explain(config, found, verdict.name, verdict.reason, verdict.cause),
        advice=[say(item) for item in advise(config, found, verdict.name, verdict.cause)],
    )
    return Conclusion(dataclasses.replace(record, answer=answer), examination)


def command(config: RunConfig, directory: Path, advice: Advice) -> str:
    """The line that follows a piece of advice for the run in `directory`, whose own place it leaves open; empty where
    the directory does not say how the run was called."""
    if advice.verb:
        allow = commands.allow(dataclasses.asdict(config))
        return commands.run([f"{advice.verb}={commands.PLACE}", *advice.overrides, *allow])
    anneal = config.anneal
    is_mse = isinstance(anneal, DelayedKL) and anneal.threshold_of == "mse"  # as every one was in earlier versions
    new = commands.changed(["anneal.threshold_of=mse"] if is_mse else [], advice.overrides)
    return commands.another(directory, [*new, *_along(config, directory, advice.overrides)]) or ""


def _along(config: RunConfig, directory: Path, overrides: Sequence[str]) -> list[str]:
    """What goes along with these overrides: the values of the model that a cure sets, where the run in `directory` was
    called with others, and a start with weights of its own where the run began with those of another network."""
    asked = dict(item.split("=", 1) for item in overrides)
    cure, of_model = load.cure(asked["cure"]) if "cure" in asked else (config.cure, {})
    own = {item.partition("=")[0] for item in commands.overrides(directory) or []}
    words = [f"model.{name}={value}" for name, value in of_model.items() if f"model.{name}" in own]
    is_model = bool(of_model) or any(key.partition(".")[0] == "model" for key in asked)
    has_layer = "cure" in asked and not (cure.fits_spectral_start and config.cure.fits_spectral_start)
    if config.init is None or not (is_model or has_layer):
        return words
    return [*words, "init=null", *(["allow=null"] if commands.allow(dataclasses.asdict(config)) else [])]
