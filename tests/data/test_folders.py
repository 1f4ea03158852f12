"""Folders of files of every kind: read as they were meant, said, or refused by name."""

import io
import logging
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import composed
from PIL import Image

from vae.config import schema
from vae.config.errors import InputError
from vae.data import folders, pixels, readers
from vae.data.split import Data, Split

RNG = np.random.default_rng(0)


def load(root: Path, *overrides: str) -> Data:
    where = [f"dataset.root={root}", f"dataset.cache={root.parent / 'cache'}"]
    data = readers.load(composed("dataset=folder", *where, *overrides).dataset)
    logging.getLogger("notes").info("%s", " ".join(f"dataset=folder: {note}" for note in data.notes))
    return data


def levels(data: Data) -> list[float]:
    """The first pixel's first channel of all images, 0 to 255, in order of brightness."""
    both = torch.cat([part.batch(slice(None)) for part in (data.train, data.test)])
    return sorted((both[:, 0, 0, 0] * 255).round().tolist())


def save(path: Path, array: np.ndarray[Any, Any], **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def grey(level: int, size: tuple[int, int] = (8, 8)) -> np.ndarray[Any, Any]:
    return np.full(size, level, np.uint8)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Six grey images."""
    for i in range(6):
        save(tmp_path / "images" / f"{i}.png", grey(10 * i))
    return tmp_path / "images"


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


@pytest.mark.parametrize(("many", "is_terminal", "shown"), [(6, True, True), (7, True, False), (6, False, False)])
def test_progress_is_for_a_terminal(
    many: int, is_terminal: bool, shown: bool, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a log file would keep of it are lines over lines."""
    monkeypatch.setattr(folders, "MANY", many)
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: is_terminal)
    monkeypatch.setattr("sys.stderr", stream)
    assert len(load(root).train) == 4
    for what in ("looking at images", "decoding images"):
        assert (what in stream.getvalue()) == shown


def black_on_nothing() -> np.ndarray[Any, Any]:
    """A black square on a transparent ground."""
    image = np.zeros((8, 8, 4), np.uint8)
    image[2:6, 2:6, 3] = 255
    return image


@pytest.mark.parametrize("kind", ["rgba", "palette", "grey and alpha"])
def test_a_black_drawing_on_transparency_never_becomes_a_black_image(kind: str, root: Path, said: Any) -> None:
    image = Image.fromarray(black_on_nothing())
    if kind == "palette":
        opaque = Image.new("P", (8, 8), 0)
        opaque.putpalette([0, 0, 0, 0, 0, 0])
        opaque.paste(1, (2, 2, 6, 6))
        opaque.save(root / "z.png", transparency=0)
    else:
        image.convert("RGBA" if kind == "rgba" else "LA").save(root / "z.png")
    with pytest.raises(InputError, match=r"1 image is transparent in places: .*z\.png; .*dataset\.background"):
        load(root)
    for background, level in (("white", 255), ("'#ff8800'", 255), ("black", 0)):
        data = load(root, f"dataset.background={background}")
        assert levels(data) == sorted([0, 10, 20, 30, 40, 50, level])
        whole = torch.cat([part.batch(slice(None)) for part in (data.train, data.test)])
        assert float(whole[:, :, 3, 3].min()) == 0  # the square itself stays black
    assert "1 put on black" in said.text


def test_an_alpha_channel_without_transparency_is_no_transparency(root: Path) -> None:
    Image.fromarray(grey(99)).convert("RGBA").save(root / "z.png")
    assert levels(load(root)) == [0, 10, 20, 30, 40, 50, 99]


DEEP: dict[str, tuple[np.ndarray[Any, Any], list[float], str]] = {
    "16 bits": (np.array([0, 257 * 10, 65535], np.uint16), [0, 10, 255], "from 0 (black) to 65535 (white)"),
    "12 bits in 16": (np.array([0, 2048, 4095], np.uint16), [0, 128, 255], "to 4095 (white)"),
    "8 bits in 16": (np.array([0, 7, 255], np.uint16), [0, 7, 255], "to 255 (white)"),
    "signed, of a CT": (np.array([-1000, 0, 3000], np.int32), [0, 64, 255], "from -1000 (black) to 3000 (white)"),
    "32 bits with 0..255": (np.array([0, 7, 255], np.int32), [0, 7, 255], "to 255 (white)"),
    "floats in [0, 1]": (np.array([0, 0.5, 1], np.float32), [0, 128, 255], "to 1 (white)"),
    "floats with 0..255": (np.array([0, 7, 255], np.float32), [0, 7, 255], "to 255 (white)"),
}


@pytest.mark.parametrize("kind", DEEP)
def test_files_of_more_than_8_bits(kind: str, tmp_path: Path, said: Any) -> None:
    values, expected, line = DEEP[kind]
    for i, value in enumerate([*values, values[1]]):
        save(tmp_path / "images" / f"{i}.tif", np.full((8, 8), value))
    assert levels(load(tmp_path / "images", "dataset.grayscale=true")) == sorted([*expected, expected[1]])
    assert line in said.text


def save_deep_png(path: Path, array: np.ndarray[Any, Any]) -> None:
    """(H, W, 2 to 4) of 16 bits, which Pillow does not write."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width, channels = array.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        content += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    path.write_bytes(content)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_pngs_in_deep_colour_are_refused(channels: int, root: Path) -> None:
    """Pillow would read the upper 8 of 16 bits, which are black where 12 are used."""
    save_deep_png(root / "z.png", np.full((8, 8, channels), 2048, np.uint16))
    with pytest.raises(InputError, match=r"z\.png \(has several channels of 16 bits, .* dataset=arrays\)"):
        load(root, "dataset.range=[0,4095]")
    assert len(levels(load(root, "dataset.skip_broken=true"))) == 6
    settings = composed("dataset=folder", "dataset.root=x").dataset
    assert isinstance(settings, schema.Folder)
    with Image.open(root / "z.png") as image, pytest.raises(pixels.Unreadable, match="several channels of 16 bits"):
        pixels.read_opened(image, settings, (0, 4095))


def test_a_pixel_of_16_bits_has_no_channel_of_16(root: Path) -> None:
    """Five bits of blue, six of green, five of red, as in a BMP."""
    rows = np.full((8, 8), 0xFFFF, "<u2").tobytes()
    header = struct.pack("<2sIIIIiiHHIIIIII", b"BM", 66 + len(rows), 0, 66, 40, 8, 8, 1, 16, 3, len(rows), 0, 0, 0, 0)
    (root / "z.bmp").write_bytes(header + struct.pack("<III", 0xF800, 0x7E0, 0x1F) + rows)
    assert levels(load(root))[-1] == 255


def test_tiffs_in_deep_colour_are_refused(root: Path) -> None:
    entries = [(256, 3, 1, 8), (257, 3, 1, 8), (258, 3, 3, 134), (259, 3, 1, 1), (262, 3, 1, 2)]
    entries += [(273, 4, 1, 140), (277, 3, 1, 3), (278, 3, 1, 8), (279, 4, 1, 384), (284, 3, 1, 1)]
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    content = struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + directory + bytes(4)
    content += struct.pack("<HHH", 16, 16, 16) + np.full(192, 4095, "<u2").tobytes()
    (root / "z.tif").write_bytes(content)
    with pytest.raises(InputError, match=r"z\.tif \(has several channels of 16 bits, "):
        load(root, "dataset.range=[0,4095]")


@pytest.mark.parametrize("content", [b"P6\n8 8\n4095\n" + 192 * b"\x0f\xff", b"P3\n8 8\n4095\n" + 192 * b"4095 "])
def test_ppms_in_deep_colour_are_refused(content: bytes, root: Path) -> None:
    (root / "z.ppm").write_bytes(content)
    with pytest.raises(InputError, match=r"z\.ppm \(has several channels of 16 bits, "):
        load(root, "dataset.range=[0,4095]")


@pytest.mark.parametrize("given", [[], ["dataset.range=[0,4095]"]])
def test_the_values_of_a_pgm_are_its_own(given: list[str], tmp_path: Path, said: Any) -> None:
    """Pillow stretches them to 16 bits."""
    (tmp_path / "images").mkdir()
    for i, value in enumerate((0, 1000, 2048, 4095)):
        pixels_of = np.full((8, 8), value, ">u2").tobytes()
        (tmp_path / "images" / f"{i}.pgm").write_bytes(b"P5\n8 8\n4095\n" + pixels_of)
    assert levels(load(tmp_path / "images", *given)) == [0, 62, 128, 255]
    assert "4 of more than 8 bits, brought to 8 from 0 (black) to 4095 (white)" in said.text
    settings = composed("dataset=folder", "dataset.root=x").dataset
    assert isinstance(settings, schema.Folder)
    with Image.open(tmp_path / "images" / "1.pgm") as image:
        assert pixels.read_opened(image, settings, (0, 4095)).pixels.max() == 62


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_deep_files_in_which_0_is_white_are_refused(kind: type, root: Path) -> None:
    """As films are scanned. Pillow turns round those of 8 bits alone."""
    for deep, name in ((np.uint8, "y.tif"), (kind, "z.tif")):
        save(root / name, np.full((8, 8), 100, deep))
        entry = struct.pack("<HHI", 262, 3, 1)
        content = bytearray((root / name).read_bytes())
        content[content.index(entry) + len(entry)] = 0  # was 1, for black
        (root / name).write_bytes(content)
    with pytest.raises(InputError, match=r"1 image cannot be read: .*z\.tif \(.* of which 0 is white; save it with 0"):
        load(root)
    (root / "z.tif").unlink()
    assert levels(load(root))[-1] == 155


@pytest.mark.parametrize("span", ["auto", "[0,1]"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_broken(value: float, span: str, tmp_path: Path) -> None:
    for i, level in enumerate([0, 0.5, 1, 1]):
        image = np.full((8, 8), level, np.float32)
        image[3, 3] = value if i == 1 else level
        save(tmp_path / "images" / f"{i}.tif", image)
    with pytest.raises(InputError, match=r"1 image cannot be read: .*1\.tif \(has values that are not finite\)"):
        load(tmp_path / "images", f"dataset.range={span}")


def test_a_file_of_many_frames_is_opened_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = [Image.fromarray(np.full((8, 8), level, np.uint16)) for level in range(0, 40960, 1024)]
    pages[0].save(root / "z.tif", save_all=True, append_images=pages[1:])
    opened, real = [], Image.open
    monkeypatch.setattr(Image, "open", lambda path, *rest: opened.append(Path(path).name) or real(path, *rest))
    assert len(levels(load(root, "dataset.frames=all"))) == 46
    assert opened.count("z.tif") == 3  # for its header, its values and its pixels


def test_a_range_of_one_s_own(tmp_path: Path) -> None:
    for i, value in enumerate([0, 1000, 1500, 2000, 3000]):
        save(tmp_path / "images" / f"{i}.tif", np.full((8, 8), value, np.uint16))
    assert levels(load(tmp_path / "images", "dataset.range=[1000,2000]")) == [0, 0, 128, 255, 255]


def test_8_bits_beside_16_keep_their_own_scale(tmp_path: Path) -> None:
    for i, value in enumerate([0, 30000, 65535]):
        save(tmp_path / "images" / f"{i}.png", np.full((8, 8), value, np.uint16))
    save(tmp_path / "images" / "z.png", grey(200))
    assert levels(load(tmp_path / "images")) == [0, 117, 200, 255]


def test_only_a_split_that_has_deep_files_says_so(tmp_path: Path, said: Any) -> None:
    for i in range(4):
        save(tmp_path / "images" / "train" / f"{i}.png", grey(40 * i))
    save(tmp_path / "images" / "test" / "0.png", np.full((8, 8), 30000, np.uint16))
    load(tmp_path / "images")
    assert "1 of more than 8 bits" in said.text
    assert "0 of more than 8 bits" not in said.text


@pytest.mark.parametrize("suffix", ["gif", "tif"])
def test_frames_are_taken_or_named_as_dropped(suffix: str, root: Path, said: Any) -> None:
    frames = [Image.fromarray(grey(level)) for level in (100, 150, 200)]
    frames[0].save(root / f"z.{suffix}", save_all=True, append_images=frames[1:])
    assert levels(load(root))[-1] == 100
    assert "of 1 file with several frames the first, 2 dropped" in said.text
    assert levels(load(root, "dataset.frames=all"))[-3:] == [100, 150, 200]
    assert "all frames of a file are in the same split" in said.text


def test_frames_of_few_files_are_in_both_splits_and_said(tmp_path: Path, said: Any) -> None:
    frames = [Image.fromarray(grey(level)) for level in range(0, 250, 10)]
    (tmp_path / "images").mkdir()
    frames[0].save(tmp_path / "images" / "0.gif", save_all=True, append_images=frames[1:])
    assert len(levels(load(tmp_path / "images", "dataset.frames=all"))) == 25
    assert "frames of one file are in both splits, since there are fewer than four files" in said.text


def test_hidden_files_are_never_read_and_counted(root: Path, said: Any) -> None:
    for name in ("._0.png", ".ipynb_checkpoints/a.png", "__MACOSX/b.png", ".hidden.png"):
        save(root / name, grey(255))
    (root / "notes.txt").write_text("mine")
    assert levels(load(root)) == [0, 10, 20, 30, 40, 50]
    assert "left out: 4 hidden files and folders and 1 file of another kind (1 .txt)" in said.text
    assert load(root).train.labels is None  # such folders are no classes


def test_broken_files_are_named_at_once_and_can_be_left_out(root: Path, said: Any) -> None:
    (root / "3b.png").write_bytes((root / "3.png").read_bytes()[:-30])
    (root / "empty.jpg").write_bytes(b"")
    (root / "text.gif").write_text("no image")
    with pytest.raises(InputError) as refused:
        load(root)
    message = str(refused.value)
    assert message.startswith(f"{root}: 3 images cannot be read: ")
    assert all(name in message for name in ("3b.png (", "empty.jpg (", "text.gif (", "dataset.skip_broken=true"))
    (made,) = (root.parent / "cache").rglob("*.npy")
    inode = made.stat().st_ino
    data = load(root, "dataset.skip_broken=true")
    assert levels(data) == [0, 10, 20, 30, 40, 50]
    assert made.stat().st_ino == inode  # what was decoded before the refusal serves
    assert "3 that cannot be read left out" in said.text


def test_nothing_but_broken_files(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for i in range(7):
        (tmp_path / "images" / f"{i}.png").write_text("no image")
    with pytest.raises(InputError, match=r"none of its 7 images can be read: .* and 2 more"):
        load(tmp_path / "images", "dataset.skip_broken=true")


def test_a_broken_image_in_a_split_of_labelled_ones(tmp_path: Path) -> None:
    for i in range(8):
        save(tmp_path / "images" / "ab"[i % 2] / f"{i}.png", grey(i))
    (tmp_path / "images" / "a" / "0.png").write_text("no image")
    data = load(tmp_path / "images", "dataset.skip_broken=true", "dataset.test_fraction=0.3")
    for part in (data.train, data.test):
        assert part.labels is not None
        assert (part.batch(slice(None))[:, 0, 0, 0] * 255).round().long().remainder(2).tolist() == part.labels.tolist()
    assert data.classes == ("a", "b")


@pytest.mark.parametrize(
    ("names", "test", "validation"),
    [
        (("train", "test"), "test", None),
        (("Training", "TESTING"), "TESTING", None),
        (("train", "val"), "val", None),
        (("train", "valid", "test"), "test", "valid"),
        (("TRAIN", "Validation", "Test"), "Test", "Validation"),
    ],
)
def test_splits_by_their_folders(names: tuple[str, ...], test: str, validation: str | None, tmp_path: Path) -> None:
    for place, name in enumerate(names):
        for i in range(4):
            save(tmp_path / "images" / name / "ab"[i % 2] / f"{i}.png", grey(10 * place + i))
    data = load(tmp_path / "images")

    def first(part: Split | None) -> int:
        assert part is not None
        return int(part.batch(slice(0, 1))[0, 0, 0, 0] * 255 + 0.5)

    assert len(data.train) == len(data.test) == 4
    assert first(data.train) == 0
    assert first(data.test) == 10 * names.index(test)
    if validation is None:
        assert data.validation is None
    else:
        assert first(data.validation) == 10 * names.index(validation)
    assert data.test.labels is not None
    assert data.test.labels.tolist() == [0, 0, 1, 1]


def test_two_folders_that_are_the_same_split(tmp_path: Path) -> None:
    for name in ("train", "val", "valid"):
        save(tmp_path / "images" / name / "0.png", grey(0))
    with pytest.raises(InputError, match="val and valid are both its validation split"):
        load(tmp_path / "images")


def test_a_folder_called_train_alone_is_a_class(tmp_path: Path) -> None:
    for name in ("train", "plane"):
        for i in range(4):
            save(tmp_path / "images" / name / f"{i}.png", grey(i))
    assert load(tmp_path / "images").classes == ("plane", "train")


def test_links(root: Path, tmp_path: Path) -> None:
    save(tmp_path / "elsewhere" / "far.png", grey(200))
    (root / "again.png").symlink_to(root / "5.png")
    (root / "sub").mkdir()
    (root / "sub" / "up").symlink_to(root, target_is_directory=True)  # a circle
    (root / "6").symlink_to(root / "sub", target_is_directory=True)
    assert levels(load(root)).count(50) == 2
    (root / "out").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    with pytest.raises(InputError, match=r"out: a link that leads out .* dataset\.follow_links=true"):
        load(root)
    assert levels(load(root, "dataset.follow_links=true"))[-1] == 200


def test_a_split_that_is_a_link_out_of_the_folder(tmp_path: Path) -> None:
    for i in range(4):
        save(tmp_path / "secret" / f"{i}.png", grey(i))
        save(tmp_path / "images" / "test" / f"{i}.png", grey(i))
    (tmp_path / "images" / "train").symlink_to(tmp_path / "secret", target_is_directory=True)
    with pytest.raises(InputError, match=r"train: a link that leads out of .* dataset\.follow_links=true"):
        load(tmp_path / "images")
    assert len(load(tmp_path / "images", "dataset.follow_links=true").train) == 4
    (tmp_path / "images" / "train").unlink()
    (tmp_path / "images" / "train").symlink_to(tmp_path / "images" / "test", target_is_directory=True)
    assert len(load(tmp_path / "images").train) == 4


def test_what_lies_beside_the_splits_is_named(tmp_path: Path, said: Any) -> None:
    for name in ("train", "test", "extra"):
        for i in range(2):
            save(tmp_path / "images" / name / f"{i}.png", grey(i))
    (tmp_path / "images" / "labels.csv").touch()
    (tmp_path / "images" / ".hidden").mkdir()
    load(tmp_path / "images")
    assert "left out, beside test/ and train/: extra/, labels.csv" in said.text


def test_a_cache_at_home(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    load(root, "dataset.cache='~/cache'")
    assert list((tmp_path / "home" / "cache").rglob("*.npy"))


def test_a_large_scan_is_no_bomb_below_the_limit(root: Path) -> None:
    save(root / "large.png", grey(222, (1200, 1000)))
    assert levels(load(root, "dataset.size=8"))[-1] == 222
    with pytest.raises(InputError, match=r"large\.png \(1000x1200 pixels, above dataset\.max_megapixels=1\)"):
        load(root, "dataset.size=8", "dataset.max_megapixels=1")


@pytest.mark.parametrize(
    ("fit", "bright"),
    [("crop", 1.0), ("pad", 0.5), ("stretch", 1.0)],
)
def test_other_shapes(fit: str, bright: float, tmp_path: Path, said: Any) -> None:
    """Wide white images to squares: cropped they are white, padded half black."""
    for i in range(4):
        save(tmp_path / "images" / f"{i}.png", grey(255, (8, 16)))
    data = load(tmp_path / "images", "dataset.size=[8,8]", f"dataset.fit={fit}")
    assert data.train.shape == (3, 8, 8)
    assert float(data.train.batch(slice(None)).mean()) == pytest.approx(bright, abs=0.01)
    assert f"4 scaled to 8x8, 4 of them {fit}" in said.text.replace("cropped", "crop").replace("padded", "pad")


def test_a_size_that_is_no_square(root: Path) -> None:
    assert load(root, "dataset.size=[4,12]").train.shape == (3, 4, 12)


def test_files_of_several_sizes_are_counted(root: Path) -> None:
    save(root / "a.png", grey(1, (9, 7)))
    save(root / "b.png", grey(1, (9, 7)))
    with pytest.raises(InputError, match=r"2 sizes: 8x8 \(6, as .*0\.png\), 7x9 \(2, as .*a\.png\); set dataset\.size"):
        load(root)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("dataset.size=[8,8,8]", r"one number, or \[height,width\]"),
        ("dataset.size=[8,2]", "4 to 4096"),
        ("dataset.size=big", "4 to 4096"),
        ("dataset.range=[5,1]", "black below white"),
        ("dataset.range=[1]", "black below white"),
        ("dataset.range=7", "must be auto"),
        ("dataset.range=none", "must be auto"),
        ("dataset.range=[auto,4095]", "must be auto"),
        ("dataset.background=nocolour", "white, black, or a colour"),
        ("dataset.fit=zoom", "one of crop, pad, stretch"),
    ],
)
def test_settings_that_mean_nothing(override: str, says: str, root: Path) -> None:
    with pytest.raises(InputError, match=says):
        load(root, override)


@pytest.mark.parametrize("name", ["with space", "ümläut", "[brackets]", "quote's", "漢字", "a=b", "tilde~"])
def test_names_of_any_kind(name: str, tmp_path: Path) -> None:
    for i in range(4):
        save(tmp_path / name / f"{i} {name}.png", grey(i))
    config = composed("dataset=folder", "dataset.root=x", f"dataset.cache={tmp_path}/cache").dataset
    config.root = str(tmp_path / name)  # type: ignore[attr-defined]
    assert levels(readers.load(config)) == [0, 1, 2, 3]


def test_what_was_done_is_said_again_when_the_cache_is_used(root: Path, said: Any) -> None:
    for _ in range(2):
        said.clear()
        load(root, "dataset.size=4")
        assert "dataset=folder: 6 images below" in said.text
        assert "6 scaled to 4x4" in said.text


def test_splits_have_black_and_white_in_common(tmp_path: Path) -> None:
    for name, values in (("train", (0, 4000, 2000, 10)), ("test", (0, 900, 400, 10))):
        for i, value in enumerate(values):
            save(tmp_path / "images" / name / f"{i}.tif", np.full((8, 8), value, np.uint16))
    data = load(tmp_path / "images")
    assert float(data.train.batch(slice(None)).max()) == pytest.approx(4000 / 4095, abs=0.002)
    assert float(data.test.batch(slice(None)).max()) == pytest.approx(900 / 4095, abs=0.002)


def test_one_folder_however_it_is_written(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(root)
    (made,) = (root.parent / "cache").rglob("*.npy")
    inode = made.stat().st_ino
    monkeypatch.chdir(root.parent)
    readers.load(composed("dataset=folder", "dataset.root=images", f"dataset.cache={root.parent}/cache").dataset)
    assert made.stat().st_ino == inode


def test_a_list_of_files_that_is_long(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept of a folder does not grow with its files' names."""
    for i in range(30):
        save(root / f"{'x' * 200}{i}.png", grey(i))
    monkeypatch.setattr("vae.runtime.files.TEXT_LIMIT", 1000)
    assert len(load(root).train) + len(load(root).test) == 36
    (told,) = (root.parent / "cache").rglob("*.json")
    assert told.stat().st_size < 1000


def test_pages_of_a_file_are_no_bombs_either(root: Path) -> None:
    pages = [Image.fromarray(grey(5)), Image.fromarray(grey(9, (1500, 1000)))]
    pages[0].save(root / "z.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(InputError, match=r"z\.tif \(1000x1500 pixels, above"):
        load(root, "dataset.size=8", "dataset.frames=all", "dataset.max_megapixels=1")


def test_a_suffix_that_lies_is_found(root: Path) -> None:
    Image.fromarray(np.full((8, 8), 40000, np.uint16)).save(root / "z.png")
    (root / "z.png").rename(root / "z.jpg")
    with pytest.raises(InputError, match=r"z\.jpg \(has more than 8 bits"):
        load(root)


@pytest.mark.parametrize("kind", ["L", "LA", "1", "I;16", "P"])
def test_a_folder_of_grey_files_is_told_of_the_channel_that_it_needs(kind: str, root: Path, said: Any) -> None:
    for path in root.iterdir():
        image = Image.open(path)
        image = Image.fromarray(np.asarray(image).astype(np.uint16)) if kind == "I;16" else image
        (image.quantize(4) if kind == "P" else image if kind == "I;16" else image.convert(kind)).save(path)
    data = load(root)
    assert (data.is_grey, data.train.shape) == (True, (3, 8, 8))
    assert "6 in grey given three equal channels" in said.text
    assert "all images are grey: trained with dataset.grayscale=true they have one channel" in said.text
    assert ("6 converted from 1 bit" in said.text) is (kind == "1")
    one = load(root, "dataset.grayscale=true")
    assert (one.is_grey, one.train.shape, levels(one)) == (False, (1, 8, 8), levels(data))
    save(root / "z.png", np.full((8, 8, 3), (200, 0, 0), np.uint8))
    said.clear()
    assert not load(root).is_grey
    assert "6 in grey given three" in said.text
    assert "all images are grey" not in said.text


def test_inks_are_converted_and_counted(root: Path, said: Any) -> None:
    Image.new("CMYK", (8, 8), (255, 0, 0, 0)).save(root / "z.jpg")
    load(root)
    assert "1 converted from CMYK" in said.text


def test_colours_that_are_dropped_are_counted(root: Path, said: pytest.LogCaptureFixture) -> None:
    """Files in colour, also those of a palette or a camera's; not those that are grey in whatever form."""
    colour = np.zeros((8, 8, 3), np.uint8)
    colour[..., 0] = 200
    save(root / "a.png", colour)
    save(root / "b.jpg", colour)
    Image.fromarray(colour).quantize(4).save(root / "c.gif")
    Image.fromarray(grey(90)).quantize(4).save(root / "d.gif")
    film = [Image.fromarray(np.tile(np.arange(level, level + 8, dtype=np.uint8), (8, 1))) for level in (90, 150)]
    film[0].save(root / "e.gif", save_all=True, append_images=film[1:])  # Pillow gives the second in RGB
    load(root, "dataset.grayscale=true", "dataset.frames=all")
    assert "12 images" in said.text
    assert "3 in colour made grey (dataset.grayscale=true)" in said.text
