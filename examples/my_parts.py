"""One part of each kind, as a user's own module brings it. docs/extending.md shows how to call them."""

import math

import torch
from torch import Tensor, nn

from vae.data.split import Data, Split
from vae.models import links
from vae.models.likelihood import Likelihood
from vae.runtime import parallel
from vae.training.cure import Batch, Context, Cure
from vae.training.schedule import Schedule


class Encoder(nn.Module):
    """Images (B, C, H, W) to mu and raw log sigma, (B, latent_dim) each. The raw value is bounded afterwards."""

    def __init__(self, shape: tuple[int, int, int], latent_dim: int, width: int = 128) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), width), nn.SiLU())
        self.heads = nn.Linear(width, 2 * latent_dim)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mu, raw_log_sigma = self.heads(self.body(images)).chunk(2, dim=1)
        return mu, raw_log_sigma


class Decoder(nn.Module):
    """Codes (B, latent_dim) to raw outputs (B, C, H, W): means, or logits where the objective says so."""

    def __init__(self, shape: tuple[int, int, int], latent_dim: int, width: int = 128) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(latent_dim, width), nn.SiLU(), nn.Linear(width, math.prod(shape)), nn.Unflatten(1, shape)
        )

    def forward(self, codes: Tensor) -> Tensor:
        output: Tensor = self.layers(codes)
        return output


class Laplace(Likelihood):
    """Each pixel is Laplace distributed around the decoder's mean, which forgives outliers: -log p(x|z) is the sum over
    pixels of |x - mean| / scale + log(2 scale)."""

    def __init__(self, shape: tuple[int, int, int], scale: float = 0.2) -> None:
        super().__init__(links.identity, math.prod(shape))
        self.scale = scale

    def nll(self, images: Tensor, raw: Tensor) -> Tensor:
        distance = (images - raw).abs().flatten(1).sum(1)
        return distance / self.scale + self.pixels * math.log(2 * self.scale)


class Staircase(Schedule):
    """The KL weight rises to 1 in equal steps."""

    def __init__(self, stairs: int = 4, length: int = 100) -> None:
        super().__init__(final=1.0)
        self.stairs, self.length = stairs, length

    def weight(self, step: int) -> float:
        return min(1.0, (step - 1) // self.length / self.stairs)


class Allowance(Cure):
    """KL costs nothing up to an allowance, which shrinks in a line to 0: the code is paid for once it is of use."""

    def __init__(self, context: Context, nats: float = 5.0, steps: int = 300) -> None:
        self.nats, self.steps, self.step = nats, steps, 0

    def left(self, step: int) -> float:
        """The allowance in nats."""
        return self.nats * max(0.0, 1 - step / self.steps)

    def is_settled(self, step: int) -> bool:
        return self.left(step) == 0

    def loss(self, batch: Batch) -> Tensor:
        kl = parallel.mean(
            batch.kl.sum()
        )  # of several processes each has a part of the batch: held against it together
        return batch.loss_with((kl - self.left(batch.step)).clamp(min=0))

    def learn(self, batch: Batch, loss: Tensor) -> None:
        self.step = batch.step

    def measures(self) -> dict[str, float]:
        return {"allowance": self.left(self.step)}

    def state_dict(self) -> dict[str, int]:
        return {"step": self.step}


def circles(side: int = 16, train: int = 800, test: int = 200, seed: int = 0) -> Data:
    """Filled circles of different sizes and places; the label says whether a circle is small or large."""
    rng = torch.Generator().manual_seed(seed)

    def draw(count: int) -> Split:
        radius = side * (0.1 + 0.2 * torch.rand(count, 1, 1, generator=rng))
        x, y = (radius + (side - 2 * radius) * torch.rand(count, 1, 1, generator=rng) for _ in range(2))
        place = torch.arange(side) + 0.5
        inside = (place - x).square() + (place[:, None] - y).square() < radius.square()
        return Split(inside[:, None].float(), (radius.flatten() > 0.2 * side).long())

    return Data(draw(train), draw(test))
