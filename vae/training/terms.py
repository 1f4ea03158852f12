"""Cures that are a term of the loss. What a rule says of the batch is said of all processes' images together."""

import torch
from torch import Tensor

from vae.config import schema
from vae.models import heads
from vae.runtime import parallel
from vae.training.cure import Batch, Context, Cure, build


@build.register(schema.FreeBits)
class FreeBits(Cure):
    """KL is paid for from `floor` nats on: sum_g max(floor, KL_g) over groups g of dimensions, KL_g averaged over the
    batch first (Kingma et al. 2016, arXiv 1606.04934, appendix C.8). Below the floor there is no gradient, above it
    that of the KL. Averaged after the max, images with little KL would pay for those with much."""

    def __init__(self, config: schema.FreeBits, context: Context) -> None:
        self.floor, self.group_size = config.floor, config.group_size

    def loss(self, batch: Batch) -> Tensor:
        groups = parallel.mean(batch.kl).unflatten(0, (-1, self.group_size)).sum(1)
        return batch.loss_with(groups.clamp(min=self.floor).sum())


@build.register(schema.Capacity)
class Capacity(Cure):
    """gamma |KL - C| in place of KL, with C rising in a line from 0 (Burgess et al. 2018, arXiv 1804.03599, eq. 8). KL
    is averaged over the batch before it is held against C: image by image all would be driven to the same KL."""

    def __init__(self, config: schema.Capacity, context: Context) -> None:
        self.capacity, self.steps, self.gamma = config.capacity, config.steps, config.gamma
        self.step = 0

    def at(self, step: int) -> float:
        """C in nats."""
        return self.capacity * min(1.0, step / self.steps)

    def is_settled(self, step: int) -> bool:
        return step >= self.steps

    def loss(self, batch: Batch) -> Tensor:
        off = parallel.mean(batch.kl.sum()) - self.at(batch.step)
        return batch.loss_with(self.gamma * off.abs())

    def learn(self, batch: Batch, loss: Tensor) -> None:
        self.step = batch.step

    def measures(self) -> dict[str, float]:
        return {"capacity": self.at(self.step)}

    def state_dict(self) -> dict[str, int]:
        return {"step": self.step}


@build.register(schema.MuForcing)
class MuForcing(Cure):
    """+ strength * max(0, floor - mean |mu - mean mu|^2): the means must vary over the images (Liu et al. 2019, arXiv
    1905.10072, "mu-forcing", with floors from 1.5 to 3). With a strength above 1/2 the floor is worth more than the KL
    that it costs."""

    def __init__(self, config: schema.MuForcing, context: Context) -> None:
        self.floor, self.strength = config.floor, config.strength

    def loss(self, batch: Batch) -> Tensor:
        mu = batch.posterior.mu
        variance = parallel.mean((mu - parallel.mean(mu.mean(0))).square().mean(0)).sum()
        return super().loss(batch) + self.strength * (self.floor - variance).clamp(min=0)


@build.register(schema.MMD)
class MMD(Cure):
    """(1 - alpha) KL + (alpha + lambda - 1) MMD(q(z), p(z)) in place of KL, the "InfoVAE" (Zhao, Song and Ermon 2019,
    arXiv 1706.02262, eq. 6). lambda = 1000 brings the aggregate posterior to the prior; with lambda below 1 - alpha the
    MMD would be driven up, which the configuration refuses."""

    def __init__(self, config: schema.MMD, context: Context) -> None:
        self.kept, self.weight = 1 - config.alpha, config.alpha + config.lam - 1

    def loss(self, batch: Batch) -> Tensor:
        z = parallel.all_rows(batch.posterior.sample(batch.noise))
        return batch.loss_with(self.kept * batch.kl.sum() + self.weight * mmd_to_prior(z))


def mmd_to_prior(z: Tensor) -> Tensor:
    """() The squared maximum mean discrepancy between the distribution that codes z (B, d) were drawn from and N(0, I),
    for the kernel k(a, b) = exp(-|a - b|^2 / (2 d)): unbiased, so 0 in the mean where they are the same (Gretton et al.
    2012, lemma 6). Expectations over the prior are exact, E k(z, p) = (1 + 1/d)^(-d/2) exp(-|z|^2 / (2 (d + 1))) and E
    k(p, p) = (1 + 2/d)^(-d/2): no codes of it are drawn."""
    count, d = z.shape
    squares = z.square().sum(1)
    distances = squares[:, None] + squares - 2 * z @ z.T
    kernel = torch.exp(-distances / (2 * d))
    among = (kernel.sum() - kernel.diagonal().sum()) / (count * (count - 1))
    to_prior = (1 + 1 / d) ** (-d / 2) * torch.exp(-squares / (2 * (d + 1))).mean()
    return among - 2 * to_prior + (1 + 2 / d) ** (-d / 2)


@build.register(schema.Scale)
class Scale(Cure):
    """The KL of what the encoder gave, while the decoder gets it stretched (vae.models.heads.Scale, which has the
    source): the loss is no ELBO of this model, and pays for less than the decoder reads."""

    def __init__(self, config: schema.Scale, context: Context) -> None:
        head = context.subject.model.head
        assert isinstance(head, heads.Scale)
        self.head = head

    def loss(self, batch: Batch) -> Tensor:
        return batch.loss_with(self.head.unscaled(batch.posterior).kl().mean(0).sum())
