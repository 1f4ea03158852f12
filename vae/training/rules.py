"""Cures that say which parameters step, and when a training begins anew."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from vae.config import schema
from vae.data.split import Split
from vae.measure import diagnostics
from vae.measure.evaluation import encode_split
from vae.measure.subject import Subject
from vae.models import decoders
from vae.models.latent import in_eval_mode
from vae.runtime import parallel
from vae.runtime.rng import generator
from vae.training.cure import Batch, Context, Cure, build


@build.register(schema.Aggressive)
class Aggressive(Cure):
    """The encoder alone steps, on fresh batches, until the mean loss of `compare_every` steps is above that of those
    before, or `max_inner` steps are made; then the decoder alone makes one step (He et al. 2019, arXiv 1901.05534,
    algorithm 1). Once the mutual information of images and codes has been below its best at `patience` looks, in a row
    or not, both step together. A look comes when the decoder has made as many steps as there are batches in the data,
    as in the authors' code, so that the encoder's own steps do not count. It is measured on validation images where
    there are some, else on training images."""

    IMAGES = 1000  # that it is measured on

    def __init__(self, config: schema.Aggressive, context: Context) -> None:
        self.subject, self.config = context.subject, config
        encoder = {*context.subject.model.encoder.parameters(), *context.subject.model.head.parameters()}
        self.encoder = [parameter for parameter in context.optimizer.parameters if parameter in encoder]
        self.others = [parameter for parameter in context.optimizer.parameters if parameter not in encoder]
        self.is_on, self.is_decoders_turn, self.inner = True, False, 0
        self.decoder_steps = 0
        self.total = torch.zeros((), device=context.device)  # loss of the inner steps since the last comparison
        self.before = torch.full((), torch.inf, device=context.device)  # its mean at the last comparison
        self.best, self.waited = 0.0, 0
        data, settings = context.subject.data, context.subject.config
        self.every = max(1, len(data.train) // settings.train.batch_size)
        split = data.validation or data.train
        chosen = torch.randperm(len(split), generator=generator(settings.seed, "aggressive"))[: self.IMAGES]
        self.images = split.take(chosen.sort().values)

    def holds(self) -> Iterable[Tensor]:
        if not self.is_on:
            return ()
        return self.encoder if self.is_decoders_turn else self.others

    @torch.no_grad()
    def learn(self, batch: Batch, loss: Tensor) -> None:
        if not self.is_on:
            return
        if not self.is_decoders_turn:
            self._note(parallel.mean(loss))
            return
        self._begin_inner_loop()
        self.decoder_steps += 1
        if self.decoder_steps % self.every == 0:
            self._look(batch.step)

    def _begin_inner_loop(self) -> None:
        self.is_decoders_turn, self.inner = False, 0
        self.total.zero_()
        self.before.fill_(torch.inf)

    def _note(self, loss: Tensor) -> None:
        self.inner += 1
        self.total += loss
        rose = False
        if self.inner % self.config.compare_every == 0:
            mean = self.total / self.config.compare_every
            rose = bool(mean > self.before)
            self.before.copy_(mean)
            self.total.zero_()
        self.is_decoders_turn = rose or self.inner >= self.config.max_inner

    def _look(self, step: int) -> None:
        found = mutual_information(self.subject, self.images, step)
        self.waited += int(found < self.best)
        self.best = max(self.best, found)
        self.is_on = self.waited < self.config.patience

    def is_settled(self, step: int) -> bool:
        return not self.is_on

    def measures(self) -> dict[str, float]:
        return {"encoder_alone": float(self.is_on), "best_mutual_information": self.best}

    def state_dict(self) -> dict[str, Any]:
        names = ("is_on", "is_decoders_turn", "inner", "decoder_steps", "total", "before", "best", "waited")
        return {name: getattr(self, name) for name in names}


def mutual_information(subject: Subject, images: Split, step: int) -> float:
    """I(x; z) in nats of these images, one code each; the same in all processes."""
    model = subject.model
    with in_eval_mode(model):
        posterior = encode_split(model, images, subject.config.evaluation.batch_size)
    rng = generator(subject.config.seed, "mutual information", step)
    z = posterior.sample(torch.randn(posterior.mu.shape, generator=rng).to(posterior.mu.device))
    found = diagnostics.aggregate_posterior(posterior, z, torch.arange(len(z), device=z.device))
    return float(parallel.broadcast(found.mutual_information))


@build.register(schema.Pretrain)
class Pretrain(Cure):
    """First an autoencoder: no KL term. Then the decoder and the optimiser's memory begin anew, the encoder stays, and
    the KL weight rises in a line to the schedule's, with a floor for each of the d dimensions, max(floor / d, KL_j) of
    the batch's mean KL_j (Li et al. 2019, arXiv 1909.00868: 8 nats in all, a rise over 10 epochs)."""

    def __init__(self, config: schema.Pretrain, context: Context) -> None:
        self.context, steps = context, context.subject.config.train.steps
        self.reset_after = max(1, round(config.autoencoder * steps))
        self.rising = max(1, round(config.rising * steps))
        self.floor = config.floor / context.subject.model.latent_dim
        self.step = 0

    def beta(self, step: int) -> float:
        """The KL weight, as a fraction of the schedule's."""
        return min(1.0, max(0.0, (step - self.reset_after) / self.rising))

    def is_settled(self, step: int) -> bool:
        return self.beta(step) == 1

    def loss(self, batch: Batch) -> Tensor:
        beta = self.beta(batch.step)
        if beta == 0:
            return batch.reconstruction.loss
        return batch.loss_with(beta * parallel.mean(batch.kl).clamp(min=self.floor).sum())

    def learn(self, batch: Batch, loss: Tensor) -> None:
        self.step = batch.step
        if batch.step == self.reset_after:
            self._reset()

    def _reset(self) -> None:
        subject = self.context.subject
        config, model = subject.config, subject.model
        rng = generator(config.seed, "decoder reset")
        _, fresh = decoders.build(config.cure, config.model, model.shape, model.outputs, rng)
        model.decoder.load_state_dict(fresh.state_dict())
        self.context.optimizer.forget()

    def measures(self) -> dict[str, float]:
        return {"beta": self.beta(self.step)}

    def state_dict(self) -> dict[str, int]:
        return {"step": self.step}
