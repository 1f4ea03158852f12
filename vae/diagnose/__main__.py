"""What is wrong with a VAE that was trained elsewhere.

python -m vae.diagnose my_module:load dataset=folder dataset.root=... likelihood=gaussian sigma2=0.5
python -m vae.diagnose my_module:load dataset=mnist5k reconstruction=mse reduction=mean kl_weight=1 report=out

my_module:load is a function without arguments in a module that can be imported from here; it gives encode and decode,
or a model of a kind that is known (docs/diagnose.md). dataset=... and dataset.KEY=... as for run.py. Then what the loss
means: likelihood=, sigma2=, kl_weight=; or how it is written, as for python -m vae.scale: reconstruction=, reduction=,
kl_reduction=, kl_weight=, batch_size=, latent_dim=. Further: pixel_range=-1,1 (of the images that the model wants,
where it is not 0,1), log_variance=true, decoder_gives=mean|logits, device=, seed=, max_images=, name=, probe_images=,
iw_samples=, batch_size= (where no loss is written: of images at a time); report=DIR writes the page."""

import dataclasses
import importlib
import os
import re
import sys
from typing import Any

from vae.cli import shell
from vae.config import checks
from vae.config.errors import InputError
from vae.config.load import at_home
from vae.data.scale import onto
from vae.diagnose.call import diagnose
from vae.runtime.custom import one_line_for
from vae.runtime.terminal import show
from vae.scale.loss import scale

MEANING = ("likelihood", "sigma2")
WRITTEN = ("reconstruction", "reduction", "kl_reduction", "reconstruction_weight")
BESIDE = ("latent_dim", "batch_size")  # what these are averaged over
EITHER = ("kl_weight", "pixel_range")
FURTHER = ("log_variance", "decoder_gives", "device", "seed", "max_images", "probe_images", "iw_samples")
TEXTS = ("name", "report")


def main(arguments: list[str]) -> None:
    place, *rest = arguments
    if not re.fullmatch(r"[\w.]+:\w+", place):
        raise InputError(f"{place}: must be module:function, as in my_module:load, before all else")
    values, left = shell.own_keys(rest, (*MEANING, *WRITTEN, *BESIDE, *EITHER, *FURTHER, *TEXTS), TEXTS)
    if not left:
        raise InputError("dataset: needed, as in dataset=mnist5k, or dataset=folder dataset.root=...")
    report, span = values.pop("report", None), checks.span("pixel_range", values.pop("pixel_range", (0, 1)))
    model = loaded(place)
    data = shell.dataset(left)
    data = dataclasses.replace(data, train=onto(data.train, *span), test=onto(data.test, *span))
    if any(key in values for key in WRITTEN):
        if any(key in values for key in MEANING):
            raise InputError("likelihood, sigma2 say what the loss means, reconstruction, reduction how it is written")
        written = {key: values.pop(key) for key in (*WRITTEN, *BESIDE) if key in values}
        weight = values.pop("kl_weight", 1.0)
        values["loss"] = scale(image_shape=data.test.shape, kl_weight=weight, pixel_range=span, **written)
    elif "latent_dim" in values:
        raise InputError(
            f"latent_dim={values['latent_dim']}: goes with kl_reduction, or another of {', '.join(WRITTEN)}"
        )
    encode, decode = model if isinstance(model, tuple) and len(model) == 2 else (model, None)
    found = diagnose(encode, decode, data, **values)
    show(str(found))
    if report is not None:
        try:
            show(f"page: {os.path.relpath(found.report(at_home(report)))}")
        except OSError as error:
            raise InputError(f"report={report}: cannot be written to ({error.strerror or error})") from error


def loaded(place: str) -> Any:
    """What the function at module:name gives. Raises InputError where that cannot be imported, or fails."""
    module_name, _, name = place.partition(":")
    sys.path.insert(0, os.getcwd())
    with one_line_for(place, "cannot be imported"):
        function = getattr(importlib.import_module(module_name), name, None)
    if not callable(function):
        raise InputError(f"{place}: {module_name} has no function {name}")
    with one_line_for(place, "fails"):
        return function()


if __name__ == "__main__":
    shell.run(main, __doc__)
