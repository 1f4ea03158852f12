"""What a loss really weighs.

python -m vae.scale reconstruction=mse reduction=mean image_shape=3,64,64 kl_weight=0.00025
python -m vae.scale reconstruction=mse reduction=mean kl_weight=1 latent_dim=20 dataset=mnist5k

reconstruction=mse|half_mse|l1|bce, reduction= and kl_reduction=sum|mean|batchmean|batchsum (of an image's numbers and
of the batch; batchmean sums over the one and averages over the other), image_shape=C,H,W, latent_dim=, kl_weight=,
batch_size=, pixel_range=black,white, reconstruction_weight=; dataset=... and dataset.KEY=... as for run.py say where
these data, their black and white put at pixel_range, collapse; beta= and sigma= ask for the KL weight to write for
them."""

from vae.cli import shell
from vae.runtime.terminal import show
from vae.scale.loss import scale

KEYS = (
    "reconstruction",
    "reduction",
    "image_shape",
    "kl_reduction",
    "latent_dim",
    "kl_weight",
    "pixel_range",
    "batch_size",
    "reconstruction_weight",
)
WANTED = ("beta", "sigma")


def main(arguments: list[str]) -> None:
    values, left = shell.own_keys(arguments, (*KEYS, *WANTED))
    wanted = {name: float(values.pop(name)) for name in WANTED if name in values}
    images = shell.dataset(left).train if left else None
    found = scale(**values, images=images)
    show(str(found))
    if wanted:
        asked = ", ".join(f"{name} = {value:g}" for name, value in wanted.items())
        show(f"{'for ' + asked:<25} KL weight {found.weight_for(**wanted):.3g}")


if __name__ == "__main__":
    shell.run(main, __doc__)
