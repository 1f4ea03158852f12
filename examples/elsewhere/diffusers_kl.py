"""An AutoencoderKL of diffusers, whose codes are maps: with random weights, trained briefly with the KL weight of
diffusers' own script (1e-6 beside the summed squared error, examples/research_projects/autoencoderkl), and with one
that puts the code out.

pip install diffusers; python examples/elsewhere/diffusers_kl.py [steps]"""

import sys

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F

import vae
from vae.data.readers import embedded_digits
from vae.data.split import hold_out


def untrained() -> AutoencoderKL:
    """Codes of 4 channels on a quarter of the sides."""
    torch.manual_seed(0)
    return AutoencoderKL(
        in_channels=1,
        out_channels=1,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 16, 16),
        norm_num_groups=4,
        latent_channels=4,
        layers_per_block=1,
        mid_block_add_attention=False,
    )


def trained(images: Tensor, steps: int, kl_weight: float) -> AutoencoderKL:
    model = untrained()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(steps):
        batch = images[torch.randperm(len(images), generator=torch.Generator().manual_seed(step))[:32]]
        posterior = model.encode(batch).latent_dist
        reconstruction = model.decode(posterior.sample()).sample
        error = F.mse_loss(reconstruction, batch, reduction="sum") / len(batch)
        loss = error + kl_weight * posterior.kl().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def main(steps: int = 200) -> dict[str, vae.diagnose.Diagnosis]:
    data = hold_out(embedded_digits(), 0.2, 0)
    # As latent diffusion has them: from -1 to 1.
    train, test = (split.batch(slice(0, len(split))) * 2 - 1 for split in (data.train, data.test))
    how = {"max_images": 200, "probe_images": 32, "iw_samples": 8}  # its networks are slow on a CPU
    found = {"random weights": vae.diagnose(untrained(), test, likelihood="gaussian", sigma2=0.5, **how)}
    for kl_weight in (1e-6, 100.0):
        loss = vae.scale("mse", "batchmean", (1, 28, 28), kl_weight=kl_weight, pixel_range=(-1, 1))
        model = trained(train, steps, kl_weight)
        found[f"KL weight {kl_weight:g}"] = vae.diagnose(model, test, train=train[:1000], loss=loss, **how)
    for name, diagnosis in found.items():
        print(f"--- {name}\n{diagnosis}\n")
    return found


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
