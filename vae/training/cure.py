"""What a published cure may do in a training, as the loop meets it. It is one of four things, or several:

- a term: what is minimised (`loss`; vae.training.terms, and a bound in vae.training.bounds);
- a weight that is controlled: `loss` with a KL weight of its own, which `learn` moves (vae.training.controllers);
- a rule that says which parameters step (`holds`; vae.training.rules);
- a layer in the model: nothing here (vae.models.heads, vae.models.decoders).

A cure is a class of its dataclass in vae.config.schema, registered with `build`. What it remembers is in its
`state_dict`, so that a run can be resumed in the middle. Whatever it minimises, it is judged by the plain ELBO."""

from collections.abc import Iterable
from functools import singledispatch
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vae.config import schema
from vae.measure.subject import Subject
from vae.models.likelihood import Likelihood, Reconstruction
from vae.models.posteriors import Posterior
from vae.runtime import untrusted
from vae.training.optimizer import Optimizer


class Batch(NamedTuple):
    """A training step as a cure sees it: B images, K codes of each (one, but for a bound that wants more)."""

    step: int
    weight: float | Tensor  # of the KL term, by the schedule; the number 0 leaves the term out
    images: Tensor  # (B * K, C, H, W), those of an image together
    noise: Tensor  # (B, d) or (B, K, d), that the codes were drawn with
    posterior: Posterior  # (B, d)
    raw: Tensor  # (B * K, outputs * C, H, W), of the decoder
    reconstruction: Reconstruction  # its loss: () nats an image, the mean over the batch of -log p(x|z)
    kl: Tensor  # (d,) nats, the mean over the batch

    @classmethod
    def of(
        cls,
        step: int,
        weight: float | Tensor,
        images: Tensor,
        noise: Tensor,
        posterior: Posterior,
        raw: Tensor,
        likelihood: Likelihood,
    ) -> "Batch":
        """Of what the model has made of `images` (B, C, H, W)."""
        if noise.dim() == 3:
            images = images.repeat_interleave(noise.shape[1], dim=0)
        reconstruction = likelihood(images, raw)
        return cls(step, weight, images, noise, posterior, raw, reconstruction, posterior.kl().mean(0))

    def mse(self, likelihood: Likelihood) -> Tensor:
        """() Squared error per pixel."""
        return self.reconstruction.squared_error.mean() / likelihood.pixels

    def loss_with(self, paid: Tensor) -> Tensor:
        """() The reconstruction term + KL weight * what is paid in place of the KL."""
        return self.reconstruction.loss if leaves_out(self.weight) else self.reconstruction.loss + self.weight * paid


def leaves_out(weight: float | Tensor) -> bool:
    """Whether a KL term of that weight is left out: where it is the number 0, since KL may be infinite. Of a tensor
    nothing is asked: the host would wait for the device."""
    return not isinstance(weight, Tensor) and weight == 0


class Context(NamedTuple):
    """What a cure may look at, and act on."""

    subject: Subject
    optimizer: Optimizer
    variance: float  # of a pixel over the training images
    device: torch.device


class Cure:
    """No cure: the loss is the reconstruction term + KL weight * KL, and all parameters step."""

    codes = 1  # K, drawn of each image at each step

    def loss(self, batch: Batch) -> Tensor:
        """() What is minimised, nats per image."""
        return batch.loss_with(batch.kl.sum())

    def holds(self) -> Iterable[Tensor]:
        """The parameters that do not step now."""
        return ()

    def learn(self, batch: Batch, loss: Tensor) -> None:
        """After the step: its batch, and what was minimised."""

    def is_settled(self, step: int) -> bool:
        """Whether what it does at `step` is what it does from then on. Early stopping counts no evaluation before."""
        return True

    def measures(self) -> dict[str, float]:
        """What it shows of itself, by name; in TensorBoard below cure/."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers and truth values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises ValueError where `state` is not what `state_dict` gives."""
        own = self.state_dict()
        untrusted.matches(state, own, "cure")
        for name, value in own.items():
            if isinstance(value, Tensor):
                value.copy_(state[name])
            else:
                setattr(self, name, state[name])


@singledispatch
def build(config: schema.Cure, context: Context) -> Cure:
    """The cure that `config` describes; one whose whole doing is a schedule, a start or a layer does nothing here."""
    return Cure()
