"""What docs/published.md holds our numbers against: the published programs' loops, written out in plain PyTorch, and a
mixture of Bernoulli distributions, on the binary digits of `dataset=binary_mnist`. Nothing here trains through vae/.

python examples/published.py kingma_mlp DIR     # DIR: dataset.root, the directory with MNIST's files
python examples/published.py vae_400_40 DIR
python examples/published.py bernoulli_mixture DIR

The two networks of the first one also stand here as parts for model=custom, with torch's own first weights.
"""

import argparse
import inspect
import itertools
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from torch import Tensor, nn
from torch.nn import functional as F

from vae.config.load import load
from vae.data import readers

CONF = Path(__file__).parents[1] / "conf"
PIXELS = 784
OPTIONS = ("steps", "lr", "layers", "components")  # that a program may have


def digits(root: str) -> tuple[Tensor, Tensor]:
    """The 50,000 images of training and the 10,000 of the test, (N, 784), each pixel 0 or 1."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        values = compose("config", ["dataset=binary_mnist"])
    values.dataset.root = root
    config = load(values)
    data = readers.load(config.dataset)
    return data.train.images.flatten(1) / 255.0, data.test.images.flatten(1) / 255.0


def dense(*widths: int) -> list[nn.Module]:
    """Layers of these widths, from the inputs to the outputs, with rectifiers between them."""
    layers = [[nn.Linear(before, after), nn.ReLU()] for before, after in itertools.pairwise(widths)]
    return list(itertools.chain(*layers))[:-1]


class Encoder(nn.Module):
    """784-256-256-128 for model=custom: images (B, C, H, W) to mu and raw log sigma, (B, latent_dim) each."""

    def __init__(self, shape: tuple[int, int, int], latent_dim: int, softplus: bool = True) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), *dense(math.prod(shape), 256, 256, 2 * latent_dim))
        self.softplus = softplus

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mu, raw = self.net(images).chunk(2, dim=1)
        return mu, (F.softplus(raw) + 1e-8).log() if self.softplus else raw


class Decoder(nn.Module):
    """128-256-256-784 for model=custom: codes (B, latent_dim) to logits (B, C, H, W)."""

    def __init__(self, shape: tuple[int, int, int], latent_dim: int) -> None:
        super().__init__()
        self.net = nn.Sequential(*dense(latent_dim, 256, 256, math.prod(shape)), nn.Unflatten(1, shape))

    def forward(self, codes: Tensor) -> Tensor:
        logits: Tensor = self.net(codes)
        return logits


def nll_of(images: Tensor, logits: Tensor) -> Tensor:
    """-log p(x|z) of each image, nats. images (..., 784) and logits (..., 784) broadcast."""
    images, logits = torch.broadcast_tensors(images, logits)
    return F.binary_cross_entropy_with_logits(logits, images, reduction="none").sum(-1)


def log_weights(images: Tensor, mu: Tensor, sigma: Tensor, decode: Callable[[Tensor], Tensor], samples: int) -> Tensor:
    """log p(x|z) + log p(z) - log q(z|x) of drawn codes, (B, samples), nats: their mean is the ELBO."""
    q = torch.distributions.Normal(mu[:, None], sigma[:, None])
    z = q.rsample((samples,)).movedim(0, 1).squeeze(2)
    log_ratio = torch.distributions.Normal(0.0, 1.0).log_prob(z) - q.log_prob(z)
    return log_ratio.sum(-1) - nll_of(images[:, None], decode(z))


Encode = Callable[[Tensor], tuple[Tensor, Tensor]]


@torch.no_grad()
def bounds(test: Tensor, encode: Encode, decode: Callable[[Tensor], Tensor], samples: int) -> tuple[float, float]:
    """The ELBO and the importance-weighted bound on log p(x) of so many samples, nats."""
    elbo, bound = [], []
    for images in test.split(100):
        weights = log_weights(images, *encode(images), decode, samples)
        elbo.append(weights.mean(1))
        bound.append(weights.logsumexp(1) - math.log(samples))
    return torch.cat(elbo).mean().item(), torch.cat(bound).mean().item()


def train(
    images: Tensor,
    batch_size: int,
    steps: int,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None,
    loss: Callable[[Tensor], Tensor],
    elbo: Callable[[], float],
    every: int,
) -> None:
    step, started = 0, time.monotonic()
    while step < steps:
        for batch in torch.randperm(len(images)).split(batch_size)[: steps - step]:
            optimizer.zero_grad()
            loss(images[batch]).backward()
            optimizer.step()
            step += 1
            if step % every == 0 or step == steps:
                print(f"step {step}  test ELBO {elbo():.2f}  {time.monotonic() - started:.0f} s", flush=True)
        if scheduler is not None:
            scheduler.step()


def kingma_mlp(images: Tensor, test: Tensor, steps: int = 65_000) -> dict[str, float]:
    """As altosaar/variational-autoencoder trains: sigma by softplus, the KL drawn with the code, the loss summed over
    the batch."""
    encoder = nn.Sequential(*dense(PIXELS, 256, 256, 256))
    decoder = nn.Sequential(*dense(128, 256, 256, PIXELS))

    def encode(batch: Tensor) -> tuple[Tensor, Tensor]:
        mu, raw = encoder(batch).chunk(2, dim=1)
        return mu, F.softplus(raw)

    def loss(batch: Tensor) -> Tensor:
        return -log_weights(batch, *encode(batch), decoder, 1).sum()

    optimizer = torch.optim.RMSprop([*encoder.parameters(), *decoder.parameters()], lr=1e-3, centered=True)
    train(images, 128, steps, optimizer, None, loss, lambda: bounds(test, encode, decoder, 1)[0], 5_000)
    elbo, bound = bounds(test, encode, decoder, 128)
    return {"test ELBO": elbo, "log p(x), K = 128": bound}


def vae_400_40(
    images: Tensor, test: Tensor, steps: int = 250_000, lr: float = 1e-4, layers: int = 1
) -> dict[str, float]:
    """As pythae's benchmark trains: the KL in closed form, the mean over the batch, a falling rate. Its script has, but
    does not run, lines for a second hidden layer of both networks."""
    hidden = [400] * layers
    encoder = nn.Sequential(*dense(PIXELS, *hidden, 80))
    decoder = nn.Sequential(*dense(40, *hidden, PIXELS))

    def encode(batch: Tensor) -> tuple[Tensor, Tensor]:
        mu, log_variance = encoder(batch).chunk(2, dim=1)
        return mu, (0.5 * log_variance).exp()

    def loss(batch: Tensor) -> Tensor:
        mu, sigma = encode(batch)
        kl = 0.5 * (mu**2 + sigma**2 - 1 - 2 * sigma.log()).sum(1)
        return (nll_of(batch, decoder(mu + sigma * torch.randn_like(mu))) + kl).mean()

    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=lr)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [200, 350], gamma=10 ** (-1 / 5))
    train(images, 100, steps, optimizer, scheduler, loss, lambda: bounds(test, encode, decoder, 1)[0], 12_500)
    elbo, bound = bounds(test, encode, decoder, 200)
    return {"test ELBO": elbo, "NLL, K = 200": -bound}


@torch.no_grad()
def bernoulli_mixture(images: Tensor, test: Tensor, steps: int = 200, components: int = 10) -> dict[str, float]:
    """How hard the images are, without any network: the test NLL of a mixture fitted by EM, whose every step is exact.
    A tenth of an image that is on and one that is off are added to each component, so that no pixel is certain."""
    rates, shares = 0.25 + 0.5 * torch.rand(components, PIXELS), torch.full((components,), 1 / components)

    def joint(batch: Tensor) -> Tensor:
        return batch @ rates.log().T + (1 - batch) @ (1 - rates).log().T + shares.log()

    for _ in range(steps):
        owners = joint(images).softmax(1)
        count = owners.sum(0)
        rates, shares = (owners.T @ images + 0.1) / (count[:, None] + 0.2), count / len(images)
    return {"test NLL": -joint(test).logsumexp(1).mean().item()}


if __name__ == "__main__":
    programs = {function.__name__: function for function in (kingma_mlp, vae_400_40, bernoulli_mixture)}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", choices=programs)
    parser.add_argument("root", metavar="DIR")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lr", type=float, help="of vae_400_40")
    parser.add_argument("--layers", type=int, help="of vae_400_40, hidden ones")
    parser.add_argument("--components", type=int, help="of bernoulli_mixture")
    asked = parser.parse_args()
    program = programs[asked.program]
    own = {name: value for name, value in vars(asked).items() if name in OPTIONS and value is not None}
    for name in own.keys() - inspect.signature(program).parameters:
        parser.error(f"--{name} is no option of {asked.program}")
    torch.set_flush_denormal(True)
    torch.manual_seed(asked.seed)
    found = program(*digits(str(Path(asked.root).resolve())), **own)
    print("  ".join(f"{name}: {value:.2f}" for name, value in found.items()))
