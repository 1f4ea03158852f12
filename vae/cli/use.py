"""What a finished run is for: `encode=`, `reconstruct=`, `sample=` and `interpolate=`, each with a run's directory,
into which it writes. Images come from the run's own dataset, or from what dataset=... says, read as for a training."""

import io
import logging
import os
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor

from vae.cli import failures
from vae.cli.evaluate import check_shape
from vae.cli.session import Job
from vae.config import schema
from vae.config.errors import InputError
from vae.config.load import allowed_modules, is_below, revise
from vae.config.schema import TABLES, RunConfig
from vae.data import readers, scale
from vae.data.split import Data, Split
from vae.measure import samplers
from vae.models.vae import VAE
from vae.output.pictures import Picture, encoded, grid, in_colour
from vae.runtime import directory as names
from vae.runtime import files
from vae.runtime.machine import choose_device, configure_process
from vae.runtime.rng import generator
from vae.runtime.terminal import Progress, show
from vae.training import checkpoint
from vae.training.checkpoint import Checkpoint
from vae.training.own_data import own_data

log = logging.getLogger(__name__)

CHANGEABLE = ("dataset", "seed", "train.device", "train.threads", "evaluation.batch_size", "pictures")
MAX_SHOWN = 100  # images in a grid


@dataclass(frozen=True)
class _Bench:
    """A finished run, and the images to use it on."""

    directory: Path
    config: RunConfig
    model: VAE
    saved: Checkpoint
    call: RunConfig
    has_images: bool  # the call says something of the images, which may be others then

    def data(self, to_fit: bool = False) -> Data:
        """The run's own, in its splits, or others. These are undivided where they bring no splits of their own: nothing
        that is cut out of them now was held out when the run was trained. `to_fit`: the codes of the training images
        are asked for. Raises InputError where these have changed."""
        try:
            data = own_data(self.config, self.saved.parts["data"])
        except InputError as error:  # they are not what the run has met, or cannot be read so
            if to_fit and not self.has_images:
                raise
            data = self._others()
            if not self.has_images:
                log.warning("%s; all images that are there now are used", error)
        data = data.to(next(self.model.parameters()).device)
        check_shape(self.directory, self.model.shape, data, self.config.dataset)
        scale.check(data, f"dataset={self.config.dataset.name}", to_learn=False)
        return data

    def _others(self) -> Data:
        dataset, before, reading = self.config.dataset, self.saved.config.dataset, self.saved.reading
        if isinstance(dataset, schema.HoldOut):
            return readers.whole_alike(dataset, before, reading)
        return readers.load_alike(dataset, before, reading)

    def batches(self, total: int, what: str) -> Iterator[slice]:
        """Rows of a batch each, with progress."""
        progress = Progress(what, total)
        try:
            for start in range(0, total, self.config.evaluation.batch_size):
                rows = slice(start, min(total, start + self.config.evaluation.batch_size))
                yield rows
                progress.update(rows.stop, {})
        finally:
            progress.close()

    def picture(self, rows: Tensor) -> Picture:
        """Images (R, K, C, H, W) as a grid."""
        return grid(rows.cpu(), self.config.pictures.gamma)


def use(verb: str, job: Job, call: RunConfig, composed: DictConfig) -> None:
    """Raises InputError where the run cannot be read, or the images are not for its network."""
    directory = job.directory
    with failures.machine_errors(directory):
        saved = checkpoint.read(directory, allowed_modules(call))
        config = revise(saved.config, composed, job.keys, CHANGEABLE)
        configure_process(config.train.threads)
        model, _ = saved.model()
        has_images = any(is_below(key, ("dataset",)) for key in job.keys)
        bench = _Bench(directory, config, model.to(choose_device(config.train.device)), saved, call, has_images)
        with torch.no_grad():
            path = _USES[verb](bench)
    folder = path.with_suffix("")
    files_too = f", and {sum(1 for _ in folder.glob('*.png'))} files in {os.path.relpath(folder)}"
    show(f"{verb}: {os.path.relpath(path)}{files_too if folder.is_dir() else ''}")


def _encode(bench: _Bench) -> Path:
    """A row an image: its file, where it has one, its split, its place in it, its label, mu and sigma. Images that are
    in no split have none, and their place among all."""
    data, model = bench.data(), bench.model
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    if data.is_undivided:
        splits = {"": data.train}
    table: dict[str, list[object]] = {"file": [], "split": [], "place": [], "label": []}
    codes = []
    for name, split in splits.items():
        if split is None:
            continue
        table["file"] += list(split.sources or [""] * len(split))
        table["split"] += [name] * len(split)
        table["place"] += range(len(split))
        table["label"] += _labels(split, data.classes)
        for rows in bench.batches(len(split), f"encoding {name or 'images'}"):
            posterior = model.encode(split.batch(rows))
            codes.append(torch.cat([posterior.mu, posterior.log_sigma.exp()], 1).cpu())
    return _save_table(bench, table, torch.cat(codes))


def _labels(split: Split, classes: tuple[str, ...] | None) -> list[object]:
    if split.labels is None:
        return [""] * len(split)
    labels = split.labels.tolist()
    return list(labels) if classes is None else [classes[label] for label in labels]


def _save_table(bench: _Bench, table: dict[str, list[object]], codes: Tensor) -> Path:
    """`codes`: mu and sigma of each image, (N, 2 d)."""
    import pandas as pd  # half a second

    for name in ("file", "label"):  # names of files and folders that are no UTF-8, which no table can hold
        table[name] = [_as_text(value) if isinstance(value, str) else value for value in table[name]]
    kind, d, numbers = bench.call.use.format or TABLES[0], bench.model.latent_dim, codes.numpy()
    if kind not in TABLES:
        raise InputError(f"format={kind}: encode= writes one of {', '.join(TABLES)}")
    path = bench.directory / f"codes.{kind}"
    buffer = io.BytesIO()
    if kind == "npz":
        content = {name: np.array([str(value) for value in values]) for name, values in table.items()}
        content["place"] = np.array(table["place"], dtype=np.int64)
        content |= {"mu": numbers[:, :d], "sigma": numbers[:, d:]}
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:  # np.savez has an argument `file` of its own
            for name, array in content.items():
                with archive.open(f"{name}.npy", "w") as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
    else:
        columns = [*(f"mu_{j}" for j in range(d)), *(f"sigma_{j}" for j in range(d))]
        frame = pd.concat([pd.DataFrame(table), pd.DataFrame(numbers, columns=columns)], axis=1)
        if kind == "csv":
            frame.to_csv(buffer, index=False, float_format="%.6g")
        else:
            try:
                frame.astype({"label": str}).to_parquet(buffer, index=False)
            except ImportError as error:
                raise InputError(f"format=parquet: {error}; pip install '.[arrays]' brings what writes it") from error
    files.replace(path, buffer.getvalue())
    return path


def _as_text(name: str) -> str:
    return name.encode(errors="backslashreplace").decode()


def _reconstruct(bench: _Bench) -> Path:
    """The first `n` test images (of others, images), each with its reconstruction below it, and each of these as
    a file."""
    data, model = bench.data(), bench.model
    count = min(bench.call.use.n, len(data.test))
    if count < bench.call.use.n:
        log.info("reconstruct: n=%d, and there are %d images to show: all of them", bench.call.use.n, count)
    folder = _empty(bench.directory / names.RECONSTRUCTED)
    shown, pixels = [], generator(0, "pixels")  # as in the pictures of a training
    for rows in bench.batches(count, "reconstructing"):
        images = data.test.batch(rows)
        means = model.decode(model.encode(images).mu, rng=pixels)
        for place, image in enumerate(means, start=rows.start):
            source = Path(data.test.sources[place]).stem if data.test.sources else ""
            _save_image(folder / f"{place:05d}{'_' if source else ''}{source}.png", image)
        shown += list(zip(images, means, strict=True))
    pairs = shown[: MAX_SHOWN // 2]
    columns = min(bench.config.pictures.columns, len(pairs))
    pairs = pairs[: len(pairs) // columns * columns]
    rows = torch.stack([torch.stack(pair) for pair in pairs]).unflatten(0, (-1, columns)).transpose(1, 2).flatten(0, 1)
    return _save_picture(bench.directory / f"{names.RECONSTRUCTED}.png", bench.picture(rows))


def _sample(bench: _Bench) -> Path:
    """`n` images as files, and the first hundred of them as a grid."""
    model, call = bench.model, bench.call.use
    rng, pixels = (generator(bench.config.seed, name) for name in ("sample", "pixels"))
    sampler = samplers.prior(model.latent_dim)
    if call.sampler != "prior":
        codes = samplers.training_codes(
            model, bench.data(to_fit=True).train, bench.config.evaluation.batch_size, bench.config.seed
        )
        sampler = samplers.fitted(call.sampler, codes, bench.config.seed)
    folder = _empty(bench.directory / names.SAMPLES)
    codes = sampler(call.n, rng).to(next(model.parameters()).device)
    shown = []
    for rows in bench.batches(call.n, "sampling"):
        images = model.decode(codes[rows], rng=pixels)
        for place, image in enumerate(images, start=rows.start):
            _save_image(folder / f"{place:05d}.png", image)
        shown += list(images[: max(0, MAX_SHOWN - rows.start)])
    columns = min(bench.config.pictures.columns, len(shown))
    rows = torch.stack(shown[: len(shown) // columns * columns]).unflatten(0, (-1, columns))
    return _save_picture(bench.directory / f"{names.SAMPLES}.png", bench.picture(rows))


def _interpolate(bench: _Bench) -> Path:
    """A row of images on the line between the mu of two of these, with these at its ends."""
    data, model = bench.data(), bench.model
    first, second = bench.call.use.between
    if max(first, second) >= len(data.test):
        kind = "images" if data.is_undivided else "test images"
        raise InputError(f"between=[{first},{second}]: there are {len(data.test)} {kind}, from 0 on")
    ends = data.test.batch(torch.tensor([first, second]))
    mu = model.encode(ends).mu
    columns = bench.config.pictures.columns
    steps = torch.linspace(0, 1, columns, device=mu.device)[:, None]
    between = model.decode(mu[:1] + steps * (mu[1:] - mu[:1]), same_chance=True)
    row = torch.cat([ends[:1], between, ends[1:]])
    return _save_picture(bench.directory / f"{names.INTERPOLATION}.png", bench.picture(row[None]))


_USES: dict[str, Callable[[_Bench], Path]] = {
    "encode": _encode,
    "reconstruct": _reconstruct,
    "sample": _sample,
    "interpolate": _interpolate,
}


def _empty(folder: Path) -> Path:
    """The folder without the images of an earlier call. Raises InputError where it is a link: what lies there is not
    the run's."""
    if folder.is_symlink():
        raise InputError(f"{folder}: is a link to another place; remove it")
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.png"):
        path.unlink()
    return folder


def _save_image(path: Path, image: Tensor) -> None:
    """(C, H, W), as it is where a PNG can be: grey, colours, colours with opacity."""
    channels = image.shape[0]
    shown = image if channels in (1, 3, 4) else in_colour(image)
    array = (shown.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    Image.fromarray(array[:, :, 0] if channels == 1 else array).save(path)


def _save_picture(path: Path, picture: Picture) -> Path:
    files.replace(path, encoded(Image.fromarray(picture), "PNG"))
    return path
