"""`vae.load_run`: images of every kind encode as the program encodes them; scikit-learn and pickle take the run."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import QUICK, composed
from PIL import Image
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import vae
from vae.training.loop import train

Program = Callable[..., tuple[int, str, str]]
SMALL = ["model=mlp_vae", "model.encoder_widths=[16]", "model.decoder_widths=[16]", "model.latent_dim=3"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Of many sizes, in two folders."""
    rng = np.random.default_rng(0)
    for i in range(24):
        path = tmp_path / "photos" / ("ant", "bee")[i % 2] / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (20 + i, 30, 3), dtype=np.uint8)).save(path)
    return tmp_path / "photos"


def made(tmp_path: Path, *overrides: str) -> vae.Run:
    train(composed(*QUICK, *SMALL, *overrides), tmp_path / "run")
    return vae.load_run(tmp_path / "run")


def codes(program: Program, directory: Path) -> dict[str, list[float]]:
    """mu of each file, as encode= gives them."""
    assert program(f"encode={directory}")[0] == 0
    table = pd.read_csv(directory / "codes.csv")
    return {row.file: [row.mu_0, row.mu_1, row.mu_2] for row in table.itertuples()}


def test_files_images_and_arrays_are_read_as_in_training(
    photos: Path, program: Program, tmp_path: Path, monkeypatch: Any
) -> None:
    folder = ["dataset=folder", f"dataset.root={photos}", "dataset.size=[8,12]", "dataset.grayscale=true"]
    run = made(tmp_path, *folder, f"dataset.cache={tmp_path}/cache")
    assert run.classes == ("ant", "bee")
    assert run.shape == (1, 8, 12)
    expected = codes(program, tmp_path / "run")
    assert len(expected) == 24
    for path, mu in expected.items():
        with Image.open(path) as image:
            array = np.asarray(image)
            for form in (path, Path(path), image, array):
                assert run.encode(form).mu[0].tolist() == pytest.approx(mu, abs=1e-4)
    whole = run.encode(photos).mu
    in_order = [expected[path] for path in sorted(expected)]
    assert np.abs(whole.numpy() - in_order).max() < 1e-4
    several = [Image.open(path) for path in sorted(expected)[:3]]
    assert run.transform(several).shape == (3, 3)
    assert run.reconstruct(photos / "ant").shape == (12, 1, 8, 12)


def test_deep_files_keep_the_trainings_black_and_white(tmp_path: Path, program: Program) -> None:
    """12 bits in 16: a darker folder is read with the same range."""
    rng = np.random.default_rng(0)
    for name, top in (("train", 4000), ("dark", 200)):
        (tmp_path / name).mkdir()
        for i in range(24):
            values = rng.integers(0, top, (8, 8), dtype=np.uint16)
            Image.fromarray(values).save(tmp_path / name / f"{i:02d}.png")
    folder = ["dataset=folder", "dataset.grayscale=true", "dataset.root=train"]
    assert program(*QUICK, *SMALL, *folder, "hydra.run.dir=run")[0] == 0
    run = vae.load_run("run")
    dark = sorted((tmp_path / "dark").iterdir())
    assert float(run.images(dark).max()) == pytest.approx(199 / 4095, abs=0.003)
    status, _, err = program("encode=run", "dataset.root=dark")
    assert status == 0, err
    table = pd.read_csv(tmp_path / "run" / "codes.csv")
    by_file = table.sort_values("file")[["mu_0", "mu_1", "mu_2"]].to_numpy()
    assert np.abs(run.transform(tmp_path / "dark") - by_file).max() < 1e-4


@pytest.mark.parametrize("kind", ["int16", "float32", "bool", "uint8"])
def test_arrays_keep_the_trainings_range(kind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = {
        "int16": rng.integers(-900, 3000, (40, 8, 8)).astype(np.int16),
        "float32": rng.uniform(-1, 1, (40, 8, 8)).astype(np.float32),
        "bool": rng.integers(0, 2, (40, 8, 8)).astype(bool),
        "uint8": rng.integers(0, 255, (40, 8, 8), dtype=np.uint8),
    }[kind]
    np.save(tmp_path / "images.npy", values)
    run = made(tmp_path, "dataset=arrays", f"dataset.train={tmp_path}/images.npy")
    low, high = float(values.min()), float(values.max())
    given = {"uint8": (0, 255), "float32": (-1, 1)}.get(kind, (low, high))
    expected = (values[:5].astype(float) - given[0]) / (given[1] - given[0])
    assert np.abs(run.images(values[:5])[:, 0].numpy() - expected).max() < 1e-6
    one = values[0] if kind == "bool" else np.clip(values[0], low / 2, None).astype(values.dtype)
    assert run.transform(one).shape == (1, 3)
    assert run.transform(values.reshape(40, -1)).tolist() == run.transform(values).tolist()


def test_binary_images_stay_binary(digits: list[str], tmp_path: Path) -> None:
    run = made(tmp_path, *digits, "dataset.binarize=threshold", "objective=bernoulli")
    grey = np.linspace(0, 255, 64).astype(np.uint8).reshape(8, 8)
    grey = np.resize(grey, run.shape[1:])
    assert run.images(grey).unique().tolist() == [0, 1]


def test_in_a_pipeline(digits: list[str], tmp_path: Path) -> None:
    run = made(tmp_path, *digits, "model.latent_dim=3")
    images = np.random.default_rng(0).random((30, *run.shape), dtype=np.float32)
    labels = np.arange(30) % 3
    pipeline = make_pipeline(run, LogisticRegression()).fit(images, labels)
    assert pipeline.predict(images).shape == (30,)
    assert clone(run).transform(images).tolist() == run.transform(images).tolist()
    assert run.inverse_transform(run.transform(images)).shape == (30, *run.shape)
    assert list(run.get_feature_names_out()) == ["mu_0", "mu_1", "mu_2"]


def test_a_pickled_run_needs_its_directory_no_more(digits: list[str], tmp_path: Path) -> None:
    run = made(tmp_path, *digits)
    images = torch.rand(4, *run.shape)
    before, content = run.encode(images), pickle.dumps(run)
    (tmp_path / "run").rename(tmp_path / "gone")
    after = pickle.loads(content)
    assert torch.equal(after.encode(images).mu, before.mu)
    assert torch.equal(after.sample(3, seed=1), run.sample(3, seed=1))


def test_samplers(digits: list[str], tmp_path: Path) -> None:
    run = made(tmp_path, *digits)
    drawn = {kind: run.sample(5, seed=2, sampler=kind) for kind in ("prior", "gaussian")}
    assert all(images.shape == (5, *run.shape) for images in drawn.values())
    assert not torch.equal(drawn["prior"], drawn["gaussian"])


PIXELCNN = ["model=pixelcnn_vae", "objective=bernoulli", "model.latent_dim=2", "model.encoder_widths=[8]"]


def test_samples_of_a_decoder_that_draws_go_by_the_seed_and_not_by_the_batch(
    digits: list[str], tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a code, so that nothing but the decoder's own draws differs."""
    small = [*QUICK, *digits, *PIXELCNN, "model.channels=4", "model.posterior=none", "evaluation.batch_size=6"]
    assert program(*small, "dataset.binarize=threshold", "hydra.run.dir=run")[0] == 0
    run = vae.load_run("run")
    first, other = (run.sample(12, seed=seed) for seed in (0, 1))
    assert not torch.equal(first, other)
    monkeypatch.setattr("vae.training.finished.BATCH", 5)
    assert torch.equal(run.sample(12, seed=1), other)
    assert program("sample=run", "n=12", "seed=1")[0] == 0
    files = sorted((tmp_path / "run" / "samples").iterdir())
    assert np.array_equal([np.asarray(Image.open(path)) for path in files], other[:, 0].numpy() * 255)


def test_samples_are_decoded_a_batch_at_a_time(
    digits: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = made(tmp_path, *digits)
    whole, sizes = run.model.sample(10, seed=3), list[int]()
    monkeypatch.setattr("vae.training.finished.BATCH", 4)
    run.model.decoder.register_forward_hook(lambda module, given, images: sizes.append(len(images)))
    assert torch.allclose(run.sample(10, seed=3), whole, atol=1e-6)
    assert sizes == [4, 4, 2]


def test_mistakes_are_told(digits: list[str], tmp_path: Path) -> None:
    run = made(tmp_path, *digits)
    height, width = run.shape[1:]
    with pytest.raises(vae.InputError, match="the run has images of shape"):
        run.encode(np.zeros((2, height + 1, width), np.uint8))
    with pytest.raises(vae.InputError, match="values from 0 to 300"):
        run.encode(np.full((height, width), 300.0) * (np.arange(width) > 0))
    with pytest.raises(vae.InputError, match="no such file"):
        run.encode("nowhere.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(vae.InputError, match=r"broken\.png"):
        run.encode(tmp_path / "broken.png")
    with pytest.raises(vae.InputError, match="transparent"):
        run.encode(Image.new("RGBA", (width, height)))
    with pytest.raises(vae.InputError, match="resize it"):
        run.encode(Image.new("L", (width + 2, height)))


def test_binary_runs_read_what_their_files_had(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65535, (40, 8, 8), dtype=np.uint16)
    np.save(tmp_path / "images.npy", values)
    data = ["dataset=arrays", f"dataset.train={tmp_path}/images.npy", "dataset.binarize=threshold"]
    run = made(tmp_path, *data, "objective=bernoulli")
    expected = values[:5] / 65535 >= 0.5
    assert (run.images(values[:5])[:, 0].numpy() == expected).all()
    assert (run.images((values[:5] // 257).astype(np.uint8))[:, 0].numpy() == (values[:5] // 257 / 255 >= 0.5)).all()
    assert (run.images(values[:5].astype(">u2"))[:, 0].numpy() == expected).all()


def test_an_image_that_is_handed_over_stays_as_it_is(photos: Path, tmp_path: Path) -> None:
    folder = ["dataset=folder", f"dataset.root={photos}", "dataset.size=8", f"dataset.cache={tmp_path}/cache"]
    run = made(tmp_path, *folder)
    Image.new("RGB", (400, 400), "red").save(tmp_path / "large.jpg")
    with Image.open(tmp_path / "large.jpg") as image:
        run.encode(image)
        assert (image.size, image.mode) == ((400, 400), "RGB")
    with pytest.raises(vae.InputError, match="the run has 3 dimensions"):
        run.decode(np.zeros((2, 6)))
    with pytest.raises(vae.InputError, match="must be prior or one of gaussian, mixture"):
        run.sample(2, sampler="posterior")
    for count in ("a", 0, 1.5):
        with pytest.raises(vae.InputError, match=f"^count={count}: must be a whole number, at least 1"):
            run.sample(count)  # type: ignore[arg-type]
    with pytest.raises(vae.InputError, match="codes: are a str"):
        run.decode("a")
    with pytest.raises(vae.InputError, match="directory=3: must be a path"):
        vae.load_run(3)  # type: ignore[arg-type]
    run.sample(2, sampler="gaussian")
    assert pickle.loads(pickle.dumps(run)).sample(2, sampler="gaussian").shape == (2, 3, 8, 8)


def test_tensors_are_read_as_arrays_are(tmp_path: Path) -> None:
    """Floats from -1 to 1, also of another precision and where none is negative."""
    values = np.random.default_rng(0).uniform(-1, 1, (40, 8, 8)).astype(np.float32)
    np.save(tmp_path / "images.npy", values)
    run = made(tmp_path, "dataset=arrays", f"dataset.train={tmp_path}/images.npy")
    for some in (values[:3], np.abs(values[:3]), values[:3].astype(np.float64)):
        for form in (some, torch.from_numpy(some), list(some), [torch.from_numpy(one) for one in some]):
            assert np.abs(run.images(form)[:, 0].numpy() - (some + 1) / 2).max() < 1e-6
    for wrong in (values * 255, np.float32([2]) * values):
        for form in (wrong, torch.from_numpy(wrong)):
            with pytest.raises(vae.InputError, match=r"the run's were -1 \(black\) to 1 \(white\); scale or clip them"):
                run.encode(form)
    for value in (np.nan, np.inf):
        with pytest.raises(vae.InputError, match="not finite"):
            run.encode(torch.full((8, 8), value))


def test_what_lies_outside_the_runs_range_is_refused(digits: list[str], tmp_path: Path) -> None:
    run = made(tmp_path, *digits, "dataset.binarize=threshold", "objective=bernoulli")
    grey = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    before = grey.copy()
    assert torch.equal(run.images(torch.from_numpy(grey))[0, 0], torch.from_numpy(grey >= 0.5).float())
    assert np.array_equal(grey, before)
    for wrong in (grey * 255, grey * 2 - 1, (grey * 255).astype(np.int64)):
        for form in (wrong, torch.from_numpy(wrong)):
            with pytest.raises(
                vae.InputError, match=r"with values from .* hand over 8-bit images, or floats in \[0, 1\]"
            ):
                run.encode(form)


def test_a_window_cuts_off_as_in_training(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(-1000, 3000, (40, 8, 8)).astype(np.float32)
    np.save(tmp_path / "images.npy", values)
    run = made(tmp_path, "dataset=arrays", f"dataset.train={tmp_path}/images.npy", "dataset.range=[-100,300]")
    assert np.abs(run.images(values[:2])[:, 0].numpy() - ((values[:2] + 100) / 400).clip(0, 1)).max() < 1e-6


def test_pixels_without_brightness_are_taken_as_they_are(tmp_path: Path) -> None:
    train(
        composed(*QUICK, "dataset=gaussian", "dataset.train_size=64", "dataset.test_size=64", "model=linear_vae"),
        tmp_path / "run",
    )
    run = vae.load_run(tmp_path / "run")
    images = 5 * torch.randn(4, *run.shape)
    assert torch.equal(run.images(images), images)
    assert torch.equal(run.images(images.numpy()), images)


def test_photos_in_arrays_of_any_layout_and_size(photos: Path, tmp_path: Path) -> None:
    folder = ["dataset=folder", f"dataset.root={photos}", "dataset.size=8", f"dataset.cache={tmp_path}/cache"]
    run = made(tmp_path, *folder)
    array = np.random.default_rng(0).integers(0, 255, (2, 20, 30, 3), dtype=np.uint8)
    expected = run.images([Image.fromarray(image) for image in array])
    first = np.ascontiguousarray(array.transpose(0, 3, 1, 2))
    for one in (array[:1], array[0], first[:1], first[0], torch.from_numpy(first[0])):
        assert torch.equal(run.images(one), expected[:1])
    assert torch.equal(run.images(first), expected)
    assert torch.equal(run.images([array[0], first[1], array[0, :, :20]])[:2], expected)


def test_frames_and_links_are_read_as_in_training(photos: Path, tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((8, 8), level, np.uint8)) for level in (0, 51, 102)]
    (tmp_path / "far").mkdir()
    frames[0].save(tmp_path / "far" / "z.tif", save_all=True, append_images=frames[1:])
    (photos / "far").symlink_to(tmp_path / "far", target_is_directory=True)
    folder = ["dataset=folder", f"dataset.root={photos}", "dataset.size=8", f"dataset.cache={tmp_path}/cache"]
    run = made(tmp_path, *folder, "dataset.follow_links=true", "dataset.frames=all")
    assert run.images(photos).shape[0] == 27
    assert run.images(photos / "far" / "z.tif")[:, 0, 0, 0].tolist() == pytest.approx([0, 0.2, 0.4])
