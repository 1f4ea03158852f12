"""Pictures keep every pixel, whatever they are stored as."""

import io

import numpy as np
import pytest
import torch
from conftest import composed
from PIL import Image
from torch.nn import functional as F

from vae.data.split import Split
from vae.models import likelihood as likelihoods
from vae.models.vae import VAE
from vae.output.pictures import Album, Film, Page, grid, png


@pytest.mark.parametrize(("coloured", "mode"), [(False, "L"), (True, "RGB")])
def test_colours_are_stored_where_there_are_some(coloured: bool, mode: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    if not coloured:
        pixels[:] = pixels[:, :, :1]
    stored = Image.open(io.BytesIO(png(pixels)))
    assert stored.mode == mode
    assert np.array_equal(np.asarray(stored.convert("RGB")), pixels)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_small_images_are_enlarged_by_a_whole_number(channels: int) -> None:
    rows = torch.rand(2, 3, channels, 9, 7, generator=torch.Generator().manual_seed(0))
    picture, single = grid(rows), grid(rows[:1, :1])
    assert (picture.dtype, picture.shape[2]) == (np.uint8, 3)
    assert np.array_equal(picture[: single.shape[0], : single.shape[1]], single)
    small = torch.from_numpy(picture[::7, ::7].copy())
    again = F.interpolate(small.permute(2, 0, 1)[None].float(), scale_factor=7, mode="nearest")[0]
    assert np.array_equal(picture, again.permute(1, 2, 0).byte().numpy())


def album(channels: int, side: int, columns: int = 5) -> Album:
    images = torch.rand(20, channels, side, side, generator=torch.Generator().manual_seed(0))
    return Album(composed(f"pictures.columns={columns}").pictures, Split(images), latent_dim=2, seed=0)


def a_model(channels: int, side: int) -> VAE:
    config, shape = composed("model=mlp_vae", "model.latent_dim=2"), (channels, side, side)
    return VAE(config.model, likelihoods.build(config.objective, config.model.output, shape), shape, seed=0)


@pytest.mark.parametrize(("channels", "side", "columns"), [(1, 8, 5), (3, 8, 5), (1, 40, 10), (3, 200, 4)])
def test_a_film_that_was_saved_goes_on_as_it_was(channels: int, side: int, columns: int) -> None:
    """Small frames are enlarged at the end, large ones are scaled down at once: the film shows all in one size."""
    book, model = album(channels, side, columns), a_model(channels, side)
    film, again = Film(book), Film(book)
    for step in range(3):
        assert film.takes(last=False)
        film.add(book.page(model), step, weight=step / 3)
    again.load_state_dict(film.state_dict())
    gif = film.gif()
    assert again.gif() == gif
    whole = Image.open(io.BytesIO(gif))
    page: Page = book.page(model)
    height = 18 + 4 + (len(page.images) + len(page.samples)) * page.zoom
    scale = min(1, Film.MAX_SIDE / max(height, page.images.shape[1] * page.zoom))
    assert whole.size == pytest.approx((scale * page.images.shape[1] * page.zoom, scale * height), abs=1)
    assert whole.n_frames == 3  # type: ignore[attr-defined]


def test_a_small_frame_keeps_every_pixel() -> None:
    book, model = album(1, 8), a_model(1, 8)
    film, page = Film(book), book.page(model)
    film.takes(last=False)
    film.add(page, step=7, weight=1)
    shown = np.asarray(Image.open(io.BytesIO(film.gif())).convert("RGB"))
    upper, lower = page.grids().values()
    assert np.array_equal(shown[18 : 18 + len(upper)], upper)
    assert np.array_equal(shown[18 + len(upper) + 4 :], lower)
