"""What is asked of a model wherever one is measured or drawn: codes for images, images for codes. The networks that are
trained here are such models (vae.models.vae), and so is what was trained elsewhere (vae.models.foreign)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from torch import Generator, Tensor, nn

from vae.models.links import Link
from vae.models.posteriors import Posterior


class LatentModel(Protocol):
    """q(z|x) and p(x|z) of images of `shape` (C, H, W) with codes of `latent_dim` numbers; the symbols are those of
    vae.models.vae.VAE, which says what each method gives."""

    @property
    def shape(self) -> tuple[int, int, int]: ...
    @property
    def latent_dim(self) -> int: ...
    @property
    def is_dirac(self) -> bool: ...
    @property
    def has_code(self) -> bool: ...
    @property
    def is_autoregressive(self) -> bool: ...
    @property
    def link(self) -> Link: ...
    @property
    def training(self) -> bool: ...

    def encode(self, images: Tensor, /) -> Posterior: ...
    def raw(self, z: Tensor, images: Tensor | None = None) -> Tensor: ...
    def decode(self, z: Tensor, same_chance: bool = False, rng: Generator | None = None) -> Tensor: ...
    def parameters(self) -> Iterator[nn.Parameter]: ...
    def eval(self) -> Any: ...
    def train(self, mode: bool = True) -> Any: ...


@contextmanager
def in_eval_mode(*modules: LatentModel | nn.Module) -> Iterator[None]:
    """So that looking at a model in the middle of its training leaves its running statistics alone, and asks no other
    process for its batch."""
    was_training = [module.training for module in modules]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for module, mode in zip(modules, was_training, strict=True):
            module.train(mode)
