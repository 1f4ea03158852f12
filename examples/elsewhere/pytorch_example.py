"""The VAE of PyTorch's examples (github.com/pytorch/examples, vae/main.py), in a plain loop: its own loss, then the
mistake that most people make, and what the diagnosis advises against it.

python examples/elsewhere/pytorch_example.py [steps]"""

import sys

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import vae
from vae.data.readers import embedded_digits
from vae.data.split import hold_out


class VAE(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(784, 400)
        self.fc21 = nn.Linear(400, 20)
        self.fc22 = nn.Linear(400, 20)
        self.fc3 = nn.Linear(20, 400)
        self.fc4 = nn.Linear(400, 784)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h1 = F.relu(self.fc1(x))
        return self.fc21(h1), self.fc22(h1)

    def reparameterize(self, mu: Tensor, logvar: Tensor) -> Tensor:
        std = torch.exp(0.5 * logvar)
        return mu + torch.randn_like(std) * std

    def decode(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.fc4(F.relu(self.fc3(z))))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mu, logvar = self.encode(x.view(-1, 784))
        return self.decode(self.reparameterize(mu, logvar)), mu, logvar


def kl_of(mu: Tensor, logvar: Tensor) -> Tensor:
    """Summed over dimensions, averaged over the batch."""
    return -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp(), dim=1).mean()


def trained(images: Tensor, steps: int, kl_weight: float | None = None) -> VAE:
    """With the example's own loss, or, where there is a `kl_weight`, with the mean squared error and that weight."""
    torch.manual_seed(0)
    model = VAE()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for step in range(steps):
        batch = images[torch.randperm(len(images), generator=torch.Generator().manual_seed(step))[:128]]
        recon, mu, logvar = model(batch)
        if kl_weight is None:
            loss = F.binary_cross_entropy(recon, batch.view(-1, 784), reduction="sum") / len(batch) + kl_of(mu, logvar)
        else:
            loss = F.mse_loss(recon, batch.view(-1, 784)) + kl_weight * kl_of(mu, logvar)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def main(steps: int = 600) -> dict[str, vae.diagnose.Diagnosis]:
    data = hold_out(embedded_digits(), 0.2, 0)
    train, test = (split.batch(slice(0, len(split))) for split in (data.train, data.test))

    found = {"own loss": vae.diagnose(trained(train, steps), test, train=train, likelihood="bernoulli")}

    loss = vae.scale("mse", "mean", (1, 28, 28), kl_reduction="batchmean", kl_weight=1.0)
    print(f"F.mse_loss + KL:\n{loss}\n")
    found["mean and sum"] = vae.diagnose(trained(train, steps, loss.kl_weight), test, train=train, loss=loss)

    weight = found["mean and sum"].advised_weight
    assert weight is not None
    loss = vae.scale("mse", "mean", (1, 28, 28), kl_weight=weight)
    found["as advised"] = vae.diagnose(trained(train, steps, weight), test, train=train, loss=loss)

    for name, diagnosis in found.items():
        print(f"--- {name}\n{diagnosis}\n")
    return found


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
