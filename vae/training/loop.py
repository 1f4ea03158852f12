"""The training loop, on one page; below it one update of the weights, and what is due after it."""

import math
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from vae.config.schema import RunConfig
from vae.data.split import Data
from vae.measure.evaluation import Evaluation
from vae.output.record import RunRecord
from vae.output.recorder import Recorder
from vae.runtime import commands, parallel
from vae.runtime.signals import Interrupted, Interruption
from vae.training.checkpoint import Checkpoint, Saving
from vae.training.cuda_graph import CapturedUpdate, Update
from vae.training.cure import Batch
from vae.training.optimizer import learning_rate
from vae.training.recent import NotFinite, not_finite, row_of
from vae.training.setup import Learner, prepare


def train(
    config: RunConfig, directory: Path, saved: Checkpoint | None = None, data: Data | None = None
) -> RunRecord | None:
    """Train what `config` describes, or resume it from `saved`, leave the run in `directory` and return its final
    record. Of several processes only the leader writes, and has a record to return. `data`: the run's images, with
    those to stop by, where they have been read already.

    Raises InputError, before anything is written, where the data, the model or the device cannot be used; NotFinite
    when the loss stops being a number, and Interrupted on a signal, both after saving what there is."""
    setup = prepare(config, saved, data)
    settings, subject, schedule, recent, clock = config.train, setup.subject, setup.schedule, setup.recent, setup.clock
    model, stopping = subject.model, setup.stopping
    plain = partial(update, setup)
    advance: Update = CapturedUpdate(plain, setup.device) if setup.is_capturable else plain
    step = start = saved.step if saved else 0
    weight = highest = saved.kl_weight if saved else schedule.weight(1)
    recorder = None
    with clock.paused():
        if saved:
            setup.restore(saved, directory)
        if parallel.is_leader():
            recorder = Recorder(subject, directory, schedule.final, clock, saved.recorder if saved else None)
    evaluation: Evaluation | None = None

    with closing(recorder) if recorder else nullcontext(), Saving(directory) as saving, Interruption() as interruption:
        with clock.paused():
            if recorder and not saved:
                recorder.begin(weight, schedule.rises)
        for step, images in setup.batches(after=start):
            weight = schedule.weight(step)
            highest = max(highest, weight)
            recent.add(advance(step, images, setup.noise(step), weight, learning_rate(settings, step)))

            if is_due(step, schedule.observe_every):
                schedule.observe(step, recent.means(schedule.observe_every).mse, setup.variance)
            due = due_after(step, config, interruption)
            if not any(due):
                continue
            try:
                means = recent.checked_means(step, settings)
                with clock.paused():
                    found = setup.evaluate(thorough=step == settings.steps) if due.evaluation else None
                    if recorder:
                        recorder.watch.weighed(highest)
                        recorder.record(
                            step, weight, means if due.row else None, found, due.frame, setup.cure.measures()
                        )
                    if found and not math.isfinite(found.measures.mse):
                        raise not_finite(step, "reconstruction term", settings)
                    evaluation = found or evaluation
                    is_best = due.evaluation and setup.is_best(step)
                    if due.checkpoint:
                        setup.check_finite(step)
                    if due.checkpoint and recorder:
                        state = setup.parts.states(), recorder.state_dict()
                        saving.save(Checkpoint(config, model.shape, step, weight, *state), recorder.sync, is_best)
            except NotFinite as failure:
                with clock.paused():
                    if recorder:
                        recorder.finish(step, weight, evaluation, str(failure))
                raise
            if due.stop:
                saving.wait()
                raise Interrupted(f"stopped after step {step} and saved", commands.resume(directory), due.stop)
            if stopping.is_over:
                break
        saving.wait()
        interruption.ends_with(f"stopped after step {step} and saved", commands.resume(directory))
        best = setup.keep_best(directory, step)
        if evaluation is None or stopping.patience is not None:  # or interrupted between its last step and its end
            evaluation = setup.evaluate(thorough=True)
        if recorder is None:
            return None
        last = recent.means(settings.log_every).loss
        if best is None:
            return recorder.finish(step, weight, evaluation, training_loss=last)
        recorder.keeps(best.recorder)
        return recorder.finish(step, best.kl_weight, evaluation, best_step=best.step, training_loss=last)


def update(
    learner: Learner, step: int, images: Tensor, noise: Tensor, weight: float | Tensor, rate: float | Tensor
) -> Tensor:
    """One step on `images` (B, C, H, W) with the KL weight and the learning rate of `step`; the row of its measures
    that `recent` keeps."""
    likelihood, optimizer, cure = learner.subject.likelihood, learner.optimizer, learner.cure
    longest = learner.subject.config.train.max_grad_norm
    with learner.autocast():
        posterior, raw = learner.network(images, noise)
    batch = Batch.of(step, weight, images, noise, posterior, raw, likelihood)
    loss = cure.loss(batch)
    optimizer.zero_grad()
    loss.backward()
    for parameter in cure.holds():
        parameter.grad = None
    if longest is not None:
        nn.utils.clip_grad_norm_(optimizer.parameters, longest)
    optimizer.step(rate)
    cure.learn(batch, loss)
    return row_of(loss, batch.reconstruction.loss, batch.mse(likelihood), batch.kl)


class Due(NamedTuple):
    """What is to be done after a step."""

    row: bool  # of training measures
    frame: bool  # of the film
    evaluation: bool
    checkpoint: bool
    stop: int  # the signal that asks for it, 0: none


def due_after(step: int, config: RunConfig, interruption: Interruption) -> Due:
    settings, film = config.train, config.pictures.gif_every
    last = step == settings.steps
    evaluation = last or is_due(step, settings.eval_every)
    # Several processes ask each other for a signal only where they log: they wait for each other.
    asks = parallel.size() == 1 or is_due(step, settings.log_every)
    stop = parallel.maximum(interruption.number) if asks else 0
    return Due(
        row=evaluation or is_due(step, settings.log_every),
        frame=is_due(step, film) or (last and film > 0),
        evaluation=evaluation,
        checkpoint=evaluation or is_due(step, settings.checkpoint_every) or stop > 0,
        stop=stop,
    )


def is_due(step: int, every: int) -> bool:
    """Whether something that happens every so many steps (0: never) does so at `step`."""
    return every > 0 and step % every == 0
