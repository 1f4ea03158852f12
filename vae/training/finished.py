"""A trained run as an object: it encodes images as it met them in its training, decodes codes, draws samples, and
serves as a transformer in a pipeline of scikit-learn."""

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from torch import Tensor

from vae.config import checks
from vae.config.errors import InputError
from vae.config.load import check_allowed
from vae.config.schema import RunConfig
from vae.data import given
from vae.data.fingerprint import Reading
from vae.data.split import Split
from vae.measure import samplers
from vae.measure.evaluation import encode_split
from vae.models.posteriors import Posterior
from vae.models.vae import VAE
from vae.runtime.rng import generator
from vae.training import checkpoint
from vae.training.own_data import own_data

BATCH = 256  # images at a time


class Run(TransformerMixin, BaseEstimator):
    """The run in `directory`, on the CPU and without gradients; `vae.load_run` makes one.

    Images may be Pillow's, arrays, tensors, or paths of files and folders (vae.data.given); they are scaled, cropped
    and made grey as the training images were. `model` is the torch module. It can be pickled, and its copy needs the
    directory no more."""

    def __init__(self, directory: str | Path, allow: Sequence[str] = ()) -> None:
        self.directory = directory
        self.allow = allow

    @cached_property
    def _loaded(self) -> tuple[RunConfig, dict[str, Any], VAE]:
        saved = checkpoint.read(Path(self.directory), self.allow, groups=("model", "objective"))
        return saved.config, saved.parts["data"], saved.model()[0]

    @property
    def config(self) -> RunConfig:
        return self._loaded[0]

    @property
    def model(self) -> VAE:
        return self._loaded[2]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        return self.model.shape

    @property
    def latent_dim(self) -> int:
        return self.model.latent_dim

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the training images' labels, in their order; None where they have none."""
        return Reading.of(self._loaded[1]).classes

    def images(self, images: Any) -> Tensor:
        """Float images (N, C, H, W) as the model sees them; like what `decode` gives, they are for `model`, not to be
        read again. Raises InputError where they cannot be read as the training images were."""
        config, data, model = self._loaded
        return given.images(images, config.dataset, Reading.of(data), model.shape)

    def encode(self, images: Any) -> Posterior:
        """mu and log_sigma (N, d)."""
        return encode_split(self.model, Split(self.images(images)), BATCH)

    def decode(self, z: Any) -> Tensor:
        """Codes (N, d) to mean images (N, C, H, W). Raises InputError for codes of another length."""
        try:
            codes = torch.as_tensor(z).detach().cpu().float()
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"codes: are a {type(z).__name__}; must be numbers, (N, d)") from error
        if codes.shape[-1:] != (self.latent_dim,) or codes.dim() > 2:
            raise InputError(f"codes of shape {tuple(codes.shape)}: the run has {self.latent_dim} dimensions, (N, d)")
        return samplers.decoded(self.model, codes.reshape(-1, self.latent_dim), BATCH)

    def reconstruct(self, images: Any) -> Tensor:
        """The images decoded from their mu, (N, C, H, W)."""
        return self.decode(self.encode(images).mu)

    def sample(self, count: int, seed: int = 0, sampler: str = "prior") -> Tensor:
        """`count` mean images (count, C, H, W), of an autoregressive decoder draws. `sampler`: codes from the prior, or
        from a gaussian or a mixture that is fitted to the codes of the training images, which are read for it. Raises
        InputError."""
        count, seed = checks.whole("count", count, 1), checks.whole("seed", seed, 0)
        if sampler == "prior":
            draw = samplers.prior(self.latent_dim)
        elif sampler in samplers.FITTED:
            draw = samplers.fitted(sampler, self._codes, self.config.seed)
        else:
            raise InputError(f"sampler={sampler}: must be prior or one of {', '.join(samplers.FITTED)}")
        return samplers.decoded(self.model, draw(count, generator(seed, "sample")), BATCH, generator(seed, "pixels"))

    @cached_property
    def _codes(self) -> Tensor:
        """A draw of z for each training image. Raises InputError where they are no longer those of the training."""
        config, data, _ = self._loaded
        check_allowed({"dataset": dataclasses.asdict(config.dataset)}, self.allow)
        return samplers.training_codes(self.model, own_data(config, data).train, BATCH, config.seed)

    def fit(self, images: Any, labels: Any = None) -> Self:
        """Nothing is fitted: it has been trained."""
        return self

    def transform(self, images: Any) -> np.ndarray[Any, Any]:
        """mu of each image, (N, d)."""
        return self.encode(images).mu.numpy()

    def inverse_transform(self, codes: Any) -> np.ndarray[Any, Any]:
        """Mean images (N, C, H, W) of codes (N, d)."""
        return self.decode(codes).numpy()

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray[Any, Any]:
        return np.array([f"mu_{j}" for j in range(self.latent_dim)], dtype=object)

    def __sklearn_is_fitted__(self) -> bool:
        return True


def load_run(directory: str | Path, allow: Sequence[str] = ()) -> Run:
    """The trained run in `directory`.

    A run may name parts from modules of the user's own; those are imported only where `allow` names the module, or one
    above it. Raises `vae.InputError` where there is no checkpoint, where it cannot be read, and where it wants a module
    that is not allowed."""
    run = Run(checks.path("directory", directory), allow)
    run._loaded  # noqa: B018  (raises here, not at the first use)
    return run
