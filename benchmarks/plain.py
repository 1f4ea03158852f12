"""The plain way: the networks of conv_vae and mlp_vae and a training loop in the manner of the PyTorch VAE example
(github.com/pytorch/examples, vae/main.py), written without any of this project's code. `python -m benchmarks.plain`
times it in a process of its own; the peers of benchmarks.peers train the same networks."""

import argparse
import contextlib
import itertools
import json
import time
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import datasets, transforms

from benchmarks.stopwatch import stopwatch

LATENT = 32
BATCH = 64


class Encoder(nn.Module):
    """(B, 1, 28, 28) to mu and log sigma, (B, 32) each, log sigma bounded to (-10, 2)."""

    def __init__(self, body: nn.Module, width: int) -> None:
        super().__init__()
        self.body = body
        self.mu = nn.Linear(width, LATENT)
        self.log_sigma = nn.Linear(width, LATENT)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(images)
        raw = self.log_sigma(features).float()
        bound = torch.where(raw < 0, 10.0, 2.0)
        return self.mu(features).float(), bound * torch.tanh(raw / bound)


class PlainVAE(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        if name == "deep":  # conv_vae with channels=null, on 64x64 colour images
            widths = [3, 64, 64, 128]
            down = [[nn.Conv2d(a, b, 4, 2, 1), nn.ReLU()] for a, b in itertools.pairwise(widths)]
            body = nn.Sequential(*itertools.chain(*down), nn.Flatten(), nn.Linear(8192, 256), nn.ReLU())
            self.encoder = Encoder(body, 256)
            up = [[nn.ReLU(), nn.ConvTranspose2d(b, a, 4, 2, 1)] for a, b in itertools.pairwise(widths)]
            self.decoder = nn.Sequential(
                *(nn.Linear(LATENT, 256), nn.ReLU(), nn.Linear(256, 8192)),
                *(nn.ReLU(), nn.Unflatten(1, (128, 8, 8))),
                *list(itertools.chain(*reversed(up)))[1:],
            )
        elif name == "conv_vae":
            body = nn.Sequential(
                nn.Conv2d(1, 64, 4, 2, 1),
                nn.ReLU(),
                nn.Conv2d(64, 64, 4, 2, 1),
                nn.ReLU(),
                nn.Flatten(),
                nn.Linear(3136, 256),
                nn.ReLU(),
            )
            self.encoder = Encoder(body, 256)
            self.decoder = nn.Sequential(
                nn.Linear(LATENT, 256),
                nn.ReLU(),
                nn.Linear(256, 3136),
                nn.ReLU(),
                nn.Unflatten(1, (64, 7, 7)),
                nn.ConvTranspose2d(64, 64, 4, 2, 1),
                nn.ReLU(),
                nn.ConvTranspose2d(64, 1, 4, 2, 1),
            )
        else:
            body = nn.Sequential(nn.Flatten(), nn.Linear(784, 500), nn.ReLU(), nn.Linear(500, 500), nn.ReLU())
            self.encoder = Encoder(body, 500)
            self.decoder = nn.Sequential(
                nn.Linear(LATENT, 500), nn.ReLU(), nn.Linear(500, 784), nn.Unflatten(1, (1, 28, 28))
            )
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.get_parameter("bias"))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The reconstruction, mu and log sigma."""
        mu, log_sigma = self.encoder(images)
        z = mu + torch.randn_like(mu) * log_sigma.exp()
        return self.decoder(z).float(), mu, log_sigma


def loss_function(output: Tensor, images: Tensor, mu: Tensor, log_sigma: Tensor, kl_weight: float = 1.0) -> Tensor:
    """Sum of squared errors + KL, nats per image."""
    error = F.mse_loss(output, images, reduction="sum")
    kl = -0.5 * torch.sum(1 + 2 * log_sigma - mu.pow(2) - (2 * log_sigma).exp())
    return (error + kl_weight * kl) / len(images)


class Digits(Dataset[tuple[Tensor, int]]):
    """Arrays read as torchvision's own datasets read theirs: a PIL image each, then the transform."""

    def __init__(self, images: np.ndarray[Any, Any]) -> None:
        self.images = images  # uint8 (N, H, W) or (N, H, W, C)
        self.transform = transforms.ToTensor()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), 0


def digits(root: str | None, train: bool) -> Any:
    """MNIST from `root`, the images of a .npy, or the embedded digits, which torchvision does not have."""
    if root is not None and root.endswith(".npy"):
        return Digits(np.load(root))
    if root is not None:
        return datasets.MNIST(root, train=train, transform=transforms.ToTensor())
    from vae.data.readers import embedded_digits
    from vae.data.split import hold_out

    data = hold_out(embedded_digits(), 0.2, 0)
    return Digits((data.train if train else data.test).images[:, 0].numpy())


def loader(root: str | None, train: bool = True) -> DataLoader[tuple[Tensor, int]]:
    return DataLoader(digits(root, train), batch_size=BATCH, shuffle=train)


def autocast(precision: str, device: str) -> contextlib.AbstractContextManager[Any]:
    return torch.autocast(device, torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()


def update(model: PlainVAE, optimizer: torch.optim.Optimizer, images: Tensor, precision: str) -> float:
    """One step: its loss."""
    optimizer.zero_grad()
    with autocast(precision, images.device.type):
        output, mu, log_sigma = model(images)
    loss = loss_function(output, images, mu, log_sigma)
    loss.backward()
    said = loss.item()
    optimizer.step()
    return said


def throughput(arguments: argparse.Namespace) -> None:
    model = PlainVAE(arguments.model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    batches, watch = loader(arguments.root), stopwatch(arguments)
    model.train()
    while True:
        train_loss = 0.0
        for images, _ in batches:
            train_loss += update(model, optimizer, images, arguments.precision)
            if watch.tick(len(images)):
                return watch.answer()


def quality(arguments: argparse.Namespace) -> None:
    """Train the autoencoder (no KL term, z still sampled) until its test MSE is at most `until_mse`."""
    began = time.time()
    model = PlainVAE("conv_vae")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    batches, held_out = loader(arguments.root), loader(arguments.root, train=False)
    step, evaluating, curve = 0, 0.0, []
    while True:
        for images, _ in batches:
            optimizer.zero_grad()
            output, mu, log_sigma = model(images)
            loss = loss_function(output, images, mu, log_sigma, kl_weight=0)
            loss.backward()
            loss.item()
            optimizer.step()
            step += 1
            if step % arguments.eval_every == 0:
                start = time.time()
                mse = test_mse(model, held_out)
                evaluating += time.time() - start
                curve.append([step, time.time(), mse])
                if mse <= arguments.until_mse or step >= arguments.cap:
                    print(json.dumps({"began": began, "curve": curve, "evaluating": evaluating}))
                    return


@torch.no_grad()
def test_mse(model: PlainVAE, held_out: DataLoader[tuple[Tensor, int]]) -> float:
    """A pixel's squared error over the whole test split, z sampled."""
    error = pixels = 0.0
    for images, _ in held_out:
        error += F.mse_loss(model(images)[0], images, reduction="sum").item()
        pixels += images.numel()
    return error / pixels


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser()
    options.add_argument("--model", default="conv_vae")
    options.add_argument("--precision", default="fp32")
    options.add_argument("--threads", type=int, required=True)
    options.add_argument("--root")
    options.add_argument("--warmup", type=int)
    options.add_argument("--steps", type=int)
    options.add_argument(
        "--turns", action="store_true", help="instead of both: as many steps as a line of stdin says, and again"
    )
    options.add_argument("--until-mse", type=float, help="train the autoencoder until it is this good")
    options.add_argument("--eval-every", type=int)
    options.add_argument("--cap", type=int, help="steps after which to give up")
    return options


def main() -> None:
    arguments = parser().parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.until_mse is not None:
        quality(arguments)
    else:
        throughput(arguments)


if __name__ == "__main__":
    main()
