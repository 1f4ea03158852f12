"""Sets of real images that no default was tuned to, made of what comes with the installation:

python examples/real_images.py my_images      # writes glyphs, pictograms, photo_crops, digits8 and a folder of icons
python run.py experiment=images dataset=arrays dataset.train=my_images/glyphs.npz
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_digits, load_sample_images

FONTS = Path(get_data_path()) / "fonts" / "ttf"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
SYMBOLS = [*range(0x2190, 0x2200), *range(0x25A0, 0x2700), *range(0x2701, 0x27C0)]  # arrows, shapes, signs, dingbats


def drawn(character: str, font: ImageFont.FreeTypeFont, side: int, shift: tuple[int, int] = (0, 0)) -> np.ndarray:
    """White on black, in the middle but for the shift."""
    image = Image.new("L", (side, side))
    place = (side / 2 + shift[0], side / 2 + shift[1])
    ImageDraw.Draw(image).text(place, character, fill=255, font=font, anchor="mm")
    return np.asarray(image)


def glyphs() -> tuple[np.ndarray, np.ndarray]:
    """Letters and digits in 28x28, three sizes of 22 fonts."""
    fonts = [path for pattern in ("DejaVu*.ttf", "cm*.ttf", "STIXGeneral*.ttf") for path in sorted(FONTS.glob(pattern))]
    fonts = [path for path in fonts if path.stem not in ("cmex10", "cmsy10", "DejaVuSansDisplay", "DejaVuSerifDisplay")]
    images, labels = [], []
    for path in fonts:
        for size in (16, 20, 24):
            font = ImageFont.truetype(str(path), size)
            images += [drawn(letter, font, 28) for letter in LETTERS]
            labels += range(len(LETTERS))
    return np.stack(images), np.array(labels)


def pictograms() -> np.ndarray:
    """Symbols of DejaVu Sans in 32x32, regular and bold, in five places."""
    images = []
    for name in ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf"):
        font = ImageFont.truetype(str(FONTS / name), 24)
        missing = drawn("\uffff", font, 32)
        for code in SYMBOLS:
            if not np.array_equal(drawn(chr(code), font, 32), missing):
                images += [drawn(chr(code), font, 32, shift) for shift in ((0, 0), (2, 0), (-2, 0), (0, 2), (0, -2))]
    return np.stack(images)


def photo_crops(count: int = 6000, side: int = 32) -> np.ndarray:
    """Places of the two photographs that scikit-learn brings, in colour."""
    rng, photos = np.random.default_rng(0), load_sample_images().images
    found = []
    for _ in range(count):
        photo = photos[rng.integers(len(photos))]
        y, x = (rng.integers(size - side) for size in photo.shape[:2])
        found.append(photo[y : y + side, x : x + side])
    return np.stack(found)


def icons(target: Path) -> None:
    """Symbols of DejaVu Sans as people keep icons: PNG files of one colour, transparent around it."""
    rng = np.random.default_rng(0)
    for name in ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf"):
        font = ImageFont.truetype(str(FONTS / name), 56)
        missing = drawn("\uffff", font, 72)
        for code in SYMBOLS:
            shape = drawn(chr(code), font, 72)
            if np.array_equal(shape, missing):
                continue
            for i in range(3):
                colour = np.broadcast_to(rng.integers(0, 200, 3, dtype=np.uint8), (72, 72, 3))
                image = Image.fromarray(np.dstack([colour, shape]))
                image.save(target / f"{Path(name).stem}_{code:04x}_{i}.png")


def main() -> None:
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "my_images")
    target.mkdir(parents=True, exist_ok=True)
    letters, labels = glyphs()
    np.savez(target / "glyphs.npz", images=letters, labels=labels)
    np.savez(target / "pictograms.npz", images=pictograms())
    np.savez(target / "photo_crops.npz", images=photo_crops())
    small = load_digits()
    np.savez(target / "digits8.npz", images=small.images, labels=small.target)
    (target / "icons").mkdir(exist_ok=True)
    icons(target / "icons")


if __name__ == "__main__":
    main()
