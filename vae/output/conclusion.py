"""The end of a run: its final record, assembled here for a run, for its resumption, and for `evaluate=`."""

from typing import NamedTuple

from vae.measure.evaluation import Evaluation, Examination
from vae.measure.subject import Subject
from vae.output.record import Answer, Identity, RunRecord


class Conclusion(NamedTuple):
    record: RunRecord
    examination: Examination | None


def conclude(
    subject: Subject,
    done: Evaluation | None,
    step: int,
    weight: float,
    final_weight: float,
    failure: str | None = None,
) -> Conclusion:
    """What is said of a run after `step` steps, at KL weight `weight`. `done`: its last thorough evaluation, None where
    it had none. A run that failed has the measures of its last evaluation, and why it failed."""
    config, model = subject.config, subject.model
    identity = Identity(
        run_name=config.run_name,
        model=config.model.name,
        objective=config.objective.name,
        anneal=config.anneal.name,
        dataset=config.dataset.name,
        seed=config.seed,
        steps=step,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        latent_dim=config.model.latent_dim,
        kl_weight=weight,
        final_kl_weight=final_weight,
    )
    prediction = subject.prediction(weight)
    if done is None:
        return Conclusion(RunRecord(identity, prediction, failure=failure), None)
    verdict = subject.judge(done.measures, weight)
    answer = Answer(verdict.name, verdict.cause, verdict.reason)
    if failure is not None:
        return Conclusion(RunRecord(identity, prediction, done.measures, answer, failure), None)
    examination = subject.examine(done)
    linear = subject.against_closed_form(weight)
    record = RunRecord(identity, prediction, done.measures, answer, final=examination.measures, linear=linear)
    return Conclusion(record, examination)
