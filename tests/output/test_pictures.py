"""Pictures keep every pixel, whatever they are stored as."""

import io

import numpy as np
import pytest
from PIL import Image

from vae.output.pictures import png


@pytest.mark.parametrize(("coloured", "mode"), [(False, "L"), (True, "RGB")])
def test_colours_are_stored_where_there_are_some(coloured: bool, mode: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    if not coloured:
        pixels[:] = pixels[:, :, :1]
    stored = Image.open(io.BytesIO(png(Image.fromarray(pixels))))
    assert stored.mode == mode
    assert np.array_equal(np.asarray(stored.convert("RGB")), pixels)
