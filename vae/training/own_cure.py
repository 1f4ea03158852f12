"""A cure of the user's own. It is tried for one step before anything is written, on copies of the model and the
optimiser: nothing of the trial is left in what is then trained."""

import copy
import dataclasses
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vae.config import schema
from vae.config.errors import InputError
from vae.runtime import custom
from vae.runtime.rng import generator
from vae.training import optimizer as optimizers
from vae.training.cure import Batch, Context, Cure, build

PLACE = "cure.rule"


class Own(Cure):
    """What the user's class gives. Raises InputError where that is no cure, and where a method of it fails or gives
    what no cure gives."""

    def __init__(self, config: schema.CustomCure, context: Context) -> None:
        self.cure: Any = custom.build(config.rule, PLACE, context=context)
        if not isinstance(self.cure, Cure):
            raise InputError(f"{PLACE}: gave {type(self.cure).__name__}; must be a subclass of vae.training.cure.Cure")
        self.codes = self.cure.codes
        if isinstance(self.codes, bool) or not isinstance(self.codes, int) or self.codes < 1:
            raise InputError(f"{PLACE}: codes is {self.codes}; must be a whole number from 1 on, so many an image")

    def loss(self, batch: Batch) -> Tensor:
        with _said("loss(batch) fails"):
            loss = self.cure.loss(batch)
        if not isinstance(loss, Tensor) or loss.shape != ():
            given = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise InputError(f"{PLACE}: loss(batch) gave {given}; must be a tensor of shape (), the mean over images")
        return loss

    def holds(self) -> Iterable[Tensor]:
        with _said("holds() fails"):
            held = list(self.cure.holds())
        if not all(isinstance(parameter, Tensor) for parameter in held):
            raise InputError(f"{PLACE}: holds() gave something else than parameters of the model")
        return held

    def learn(self, batch: Batch, loss: Tensor) -> None:
        with _said("learn(batch, loss) fails"):
            self.cure.learn(batch, loss)

    def is_settled(self, step: int) -> bool:
        with _said("is_settled(step) fails"):
            return bool(self.cure.is_settled(step))

    def measures(self) -> dict[str, float]:
        with _said("measures() fails"):
            return {str(name): float(value) for name, value in self.cure.measures().items()}

    def state_dict(self) -> dict[str, Any]:
        with _said("state_dict() fails"):
            return dict(self.cure.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        with _said("load_state_dict(state) fails"):
            self.cure.load_state_dict(state)


def _said(what: str) -> AbstractContextManager[None]:
    return custom.one_line_for(PLACE, what)


@build.register
def own(config: schema.CustomCure, context: Context) -> Cure:
    """The user's cure. Raises InputError where it is none, cannot take part in a step, or would forget on resume what
    it saves."""
    _try(config, _copied(context))
    return Own(config, context)


def _copied(context: Context) -> Context:
    subject = context.subject
    subject = dataclasses.replace(
        subject, model=copy.deepcopy(subject.model), likelihood=copy.deepcopy(subject.likelihood)
    )
    trained = [p for part in (subject.model, subject.likelihood) for p in part.parameters() if p.requires_grad]
    return context._replace(subject=subject, optimizer=optimizers.build(subject.config.train, trained))


def _try(config: schema.CustomCure, context: Context) -> None:
    """A step on the first training images at KL weight 1, and what it remembers given to another one."""
    cure, subject, optimizer = Own(config, context), context.subject, context.optimizer
    settings = subject.config.train
    images = subject.data.train.batch(slice(0, settings.batch_size))
    codes = () if cure.codes == 1 else (cure.codes,)
    rng = generator(subject.config.seed, "trial", device=context.device)
    noise = torch.randn(len(images), *codes, subject.model.latent_dim, generator=rng, device=context.device)
    posterior, raw = subject.model.train()(images, noise)
    batch = Batch.of(1, 1.0, images, noise, posterior, raw, subject.likelihood)
    loss = cure.loss(batch)
    if not bool(loss.isfinite()):
        raise InputError(f"{PLACE}: loss(batch) is {loss.item()} for the first images; must be finite")
    with _said("the gradient of loss(batch) fails"):
        gradients = torch.autograd.grad(loss, optimizer.parameters, allow_unused=True) if loss.requires_grad else ()
    known = [gradient for gradient in gradients if gradient is not None]
    if not any(bool(gradient.any()) for gradient in known):
        raise InputError(f"{PLACE}: no parameter of the model gets a gradient from loss(batch); is it detached?")
    if not all(bool(gradient.isfinite().all()) for gradient in known):
        raise InputError(f"{PLACE}: the gradient of loss(batch) is not finite for the first images")
    cure.holds()
    cure.learn(batch, loss)
    cure.is_settled(1)
    cure.measures()
    with _said("state_dict() gives what cannot be copied"):
        saved = copy.deepcopy(cure.state_dict())
    resumed = Own(config, context)
    resumed.load_state_dict(saved)
    with _said("state_dict() gives what cannot be compared"):
        again = resumed.state_dict()
        forgotten = [name for name in {**saved, **again} if not _same(again.get(name), saved.get(name))]
    if forgotten:
        raise InputError(f"{PLACE}: load_state_dict does not take back {forgotten[0]}, which state_dict saves")


def _same(one: Any, other: Any) -> bool:
    """Whether two states, of tensors and numbers in lists and dicts, are the same; NaN is the same as NaN."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        if one.dtype != other.dtype or not torch.equal(one.isnan(), other.isnan()):
            return False
        return torch.equal(one[~one.isnan()], other[~other.isnan()])
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray | np.generic):
        return one.dtype == other.dtype and _same(one.tolist(), other.tolist())
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(_same(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple | deque):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other) or bool(one != one and other != other)
