"""`encode=`, `reconstruct=`, `sample=` and `interpolate=` on small runs, from another directory than the run's."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import QUICK
from PIL import Image

import vae
from vae.data import readers

Program = Callable[..., tuple[int, str, str]]


def opened(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as image:
        return np.array(image)


SMALL = ["model=mlp_vae", "model.encoder_widths=[16]", "model.decoder_widths=[16]", "model.latent_dim=3"]


def of_two_kinds(directory: Path) -> list[str]:
    """Save a folder of two kinds of images: the settings of a run on them."""
    rng = np.random.default_rng(0)
    for i in range(24):
        path = directory / ("ant", "bee")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (8, 10, 3), dtype=np.uint8)).save(path)
    return [*SMALL, "dataset=folder", f"dataset.root={directory}"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return of_two_kinds(tmp_path_factory.mktemp("folder") / "images")


@pytest.fixture
def run(folder: list[str], finished: Callable[..., Path]) -> Path:
    return finished("mine", *folder)


def test_encode(run: Path, program: Program) -> None:
    status, out, err = program("encode=mine")
    assert status == 0, err
    assert out.endswith("encode: mine/codes.csv\n")
    table = pd.read_csv(run / "codes.csv")
    assert list(table.columns) == [
        "file",
        "split",
        "place",
        "label",
        *(f"{kind}_{j}" for kind in ("mu", "sigma") for j in range(3)),
    ]
    assert len(table) == 24
    assert set(table["split"]) == {"train", "test"}
    assert all(Path(row.file).parent.name == row.label for row in table.itertuples())
    model = vae.load_run(run)
    for row in table.itertuples():
        image = torch.from_numpy(opened(Path(row.file))).permute(2, 0, 1)[None] / 255
        posterior = model.encode(image)
        assert posterior.mu[0].tolist() == pytest.approx([row.mu_0, row.mu_1, row.mu_2], abs=1e-4)
        assert posterior.log_sigma.exp()[0].tolist() == pytest.approx([row.sigma_0, row.sigma_1, row.sigma_2], abs=1e-4)


@pytest.mark.parametrize("kind", ["npz", "parquet"])
def test_encode_into_other_tables(kind: str, run: Path, program: Program) -> None:
    assert program("encode=mine", f"format={kind}")[0] == 0
    assert program("encode=mine")[0] == 0
    csv = pd.read_csv(run / "codes.csv")
    if kind == "npz":
        with np.load(run / "codes.npz") as content:
            assert content["mu"][:, 1].tolist() == pytest.approx(csv["mu_1"].tolist(), abs=1e-4)
            assert content["label"].tolist() == csv["label"].tolist()
            assert content["place"].tolist() == csv["place"].tolist()
    else:
        table = pd.read_parquet(run / "codes.parquet")
        assert table["mu_1"].tolist() == pytest.approx(csv["mu_1"].tolist(), abs=1e-4)


def test_names_that_are_no_utf_8(program: Program, finished: Callable[..., Path], tmp_path: Path) -> None:
    root = tmp_path / "latin"
    try:
        os.makedirs(os.fsencode(root / "caf") + b"\xe9")
    except OSError:
        pytest.skip("names are UTF-8 here")
    rng = np.random.default_rng(0)
    for i in range(12):
        name = os.fsdecode(os.fsencode(root) + b"/caf\xe9/\xfc%d.png" % i)
        Image.fromarray(rng.integers(0, 255, (8, 10), dtype=np.uint8)).save(name)
    run = finished("mine", *SMALL, "dataset=folder", f"dataset.root={root}")
    for kind, read in (("csv", pd.read_csv), ("npz", np.load), ("parquet", pd.read_parquet)):
        status, _, err = program("encode=mine", f"format={kind}")
        assert status == 0, err
        table: Any = read(run / f"codes.{kind}")
        assert set(table["label"]) == {"caf\\udce9"}
        assert all("caf\\udce9/\\udcfc" in name for name in table["file"])
    assert vae.load_run(run).transform(root).shape == (12, 3)


def test_encode_other_images(run: Path, program: Program, tmp_path: Path) -> None:
    images = np.random.default_rng(1).integers(0, 255, (6, 8, 10, 3), dtype=np.uint8)
    np.save(tmp_path / "other.npy", images)
    status, _, err = program("encode=mine", "dataset=arrays", "dataset.train=other.npy")
    assert status == 0, err
    table = pd.read_csv(run / "codes.csv")
    assert list(table["place"]) == list(range(6))  # the rows of the file
    assert table["split"].isna().all()
    model = vae.load_run(run)
    assert table["mu_1"].tolist() == pytest.approx(model.transform(images)[:, 1].tolist(), abs=1e-4)
    assert program("reconstruct=mine", "dataset=arrays", "dataset.train=other.npy")[0] == 0
    assert len(list((run / "reconstructed").glob("*.png"))) == 6
    np.save(tmp_path / "wrong.npy", images[:, :6])
    status, out, err = program("encode=mine", "dataset=arrays", "dataset.train=wrong.npy")
    assert (status, out) == (1, "")
    assert "trained on images of shape (3, 8, 10)" in err


def mu(run: Path) -> np.ndarray[Any, Any]:
    """Of a table of three dimensions."""
    return pd.read_csv(run / "codes.csv")[["mu_0", "mu_1", "mu_2"]].to_numpy()


@pytest.mark.parametrize(("more", "alike"), [([], True), (["dataset.fit=stretch"], False)])
def test_other_images_are_read_as_the_run_s(more: list[str], alike: bool, program: Program, tmp_path: Path) -> None:
    """The run's own option brings where they lie; what is given besides is this call's."""
    rng = np.random.default_rng(0)
    for name, count in (("mine", 24), ("other", 6)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(count):
            image = Image.fromarray(rng.integers(0, 255, (9, (9, 16)[i % 2], 3), dtype=np.uint8))
            image.save(tmp_path / "images" / name / f"{i}.png")
    own = ["dataset.size=8", "dataset.fit=pad", "dataset.grayscale=true"]
    where = ["dataset=folder", "dataset.root=images/mine"]
    assert program(*QUICK, *SMALL, *where, *own, "hydra.run.dir=run")[0] == 0
    status, _, err = program("encode=run", "dataset=folder", "dataset.root=images/other", *more)
    assert status == 0, err
    codes = vae.load_run("run").transform("images/other")
    assert np.allclose(mu(tmp_path / "run"), codes, atol=1e-4) == alike
    for verb in ("reconstruct", "interpolate", "evaluate"):
        status, _, err = program(f"{verb}=run", "dataset=folder", "dataset.root=images/other")
        assert status == 0, err


@pytest.mark.parametrize("option", [[], ["dataset=arrays"]])
@pytest.mark.parametrize(("white", "given"), [(16, ["dataset.range=[0,16]"]), (255, [])])
def test_numbers_mean_what_they_meant_in_training(
    white: int, given: list[str], option: list[str], program: Program, tmp_path: Path
) -> None:
    """Where they alone do not tell: floats from 0 to 15."""
    images = np.random.default_rng(0).integers(0, white + 1, (40, 8, 8)).astype(np.float32)
    np.save(tmp_path / "mine.npy", images)
    np.save(tmp_path / "other.npy", np.minimum(images[:9], 15))
    where = ["dataset=arrays", "dataset.train=mine.npy"]
    assert program(*QUICK, *SMALL, *where, *given, "hydra.run.dir=run")[0] == 0
    status, _, err = program("encode=run", *option, "dataset.train=other.npy")
    assert status == 0, err
    assert np.allclose(mu(tmp_path / "run"), vae.load_run("run").transform(np.minimum(images[:9], 15)), atol=1e-4)


def test_the_key_of_a_file_is_not_that_of_another(program: Program, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (40, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "mine.npz", scans=images)
    np.savez(tmp_path / "other.npz", images=images[:9])
    where = ["dataset=arrays", "dataset.train=mine.npz", "dataset.key=scans"]
    assert program(*QUICK, *SMALL, *where, "hydra.run.dir=run")[0] == 0
    assert program("encode=run", "dataset.train=other.npz")[0] == 0
    assert np.allclose(mu(tmp_path / "run"), vae.load_run("run").transform(images[:9]), atol=1e-4)


def test_arrays_have_not_the_range_of_a_run_on_files(program: Program, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "deep").mkdir()
    for i in range(24):
        Image.fromarray(rng.integers(0, 4096, (8, 8)).astype(np.uint16)).save(tmp_path / "deep" / f"{i}.png")
    where = ["dataset=folder", "dataset.root=deep", "dataset.grayscale=true"]
    assert program(*QUICK, *SMALL, *where, "hydra.run.dir=run")[0] == 0
    images = rng.integers(0, 256, (9, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "other.npy", images)
    assert program("encode=run", "dataset=arrays", "dataset.train=other.npy")[0] == 0
    assert np.allclose(mu(tmp_path / "run"), vae.load_run("run").transform(images), atol=1e-4)


def test_the_run_s_own_images_have_changed(program: Program, tmp_path: Path) -> None:
    """No others are taken for them without a word, and a sampler is not fitted to others."""
    images = np.random.default_rng(0).integers(0, 255, (60, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "mine.npy", images)
    assert program(*QUICK, *SMALL, "dataset=arrays", "dataset.train=mine.npy", "hydra.run.dir=run")[0] == 0
    np.save(tmp_path / "mine.npy", images[:50])
    says = "not the data that the run began with (train split: images was 54, is 45)"
    status, out, err = program("sample=run", "sampler=gaussian")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert says in err
    assert not (tmp_path / "run" / "samples").exists()
    for verb in ("encode", "reconstruct"):
        status, _, err = program(f"{verb}=run")
        assert status == 0, err
        assert [line for line in err.splitlines() if says in line and "all images that are there now are used" in line]
    for arguments in (["sample=run"], ["sample=run", "sampler=gaussian", "dataset.train=mine.npy"]):
        status, _, err = program(*arguments)
        assert status == 0, err
        assert says not in err
    (tmp_path / "mine.npy").unlink()
    for arguments in (["encode=run"], ["sample=run", "sampler=gaussian"]):
        status, out, err = program(*arguments)
        assert (status, out, err.count("\n")) == (1, "", 1)


def test_splits_are_named_of_images_in_them(run: Path, program: Program, folder: list[str], tmp_path: Path) -> None:
    """Those of the run wherever they lie; images that are drawn into other splits were trained on, and may not be
    called test images."""
    root = Path(folder[-1].partition("=")[2])
    names = {}
    for place in (root, shutil.copytree(root, tmp_path / "moved")):
        assert program("encode=mine", f"dataset.root={place}")[0] == 0
        table = pd.read_csv(run / "codes.csv")
        names[place] = dict(zip(table["file"].map(os.path.basename), table["split"], strict=True))
    assert names[root] == names[tmp_path / "moved"]
    assert set(names[root].values()) == {"train", "test"}
    status, _, err = program("encode=mine", "dataset.split_seed=7")
    assert status == 0, err
    assert pd.read_csv(run / "codes.csv")["split"].isna().all()
    one = tmp_path / "one"
    one.mkdir()
    shutil.copy(next(root.rglob("*.png")), one)
    status, _, err = program("encode=mine", f"dataset.root={one}")
    assert status == 0, err
    assert len(pd.read_csv(run / "codes.csv")) == 1
    np.save(tmp_path / "one.npy", np.zeros((1, 8, 10, 3), np.uint8))
    assert program("encode=mine", "dataset=arrays", "dataset.train=one.npy")[0] == 0
    assert len(pd.read_csv(run / "codes.csv")) == 1


def test_other_images_come_without_the_runs_own_labels_and_tests(program: Program, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (24, 8, 8), dtype=np.uint8)
    for name in ("mine", "mine_test", "other"):
        np.save(tmp_path / f"{name}.npy", images)
    np.save(tmp_path / "kinds.npy", np.arange(24) % 2)
    own = ["dataset.labels=kinds.npy", "dataset.test=mine_test.npy", "dataset.test_labels=kinds.npy"]
    assert program(*QUICK, *SMALL, "dataset=arrays", "dataset.train=mine.npy", *own, "hydra.run.dir=run")[0] == 0

    def table(*overrides: str) -> pd.DataFrame:
        status, _, err = program("encode=run", *overrides)
        assert status == 0, err
        return pd.read_csv(tmp_path / "run" / "codes.csv")

    assert len(table()) == 48
    other = table("dataset.train=other.npy")
    assert len(other) == 24
    assert other["label"].isna().all()
    given = table("dataset.train=other.npy", "dataset.labels=kinds.npy")
    assert len(given) == 24
    assert given["label"].notna().all()
    assert table("dataset.test=other.npy")["label"].isna().sum() == 24


@pytest.mark.parametrize("sampler", ["prior", "gaussian"])
def test_sample(sampler: str, run: Path, program: Program) -> None:
    status, out, err = program("sample=mine", "n=130", f"sampler={sampler}")
    assert status == 0, err
    assert out.endswith("sample: mine/samples.png, and 130 files in mine/samples\n")
    files = sorted((run / "samples").glob("*.png"))
    assert len(files) == 130
    assert opened(files[0]).shape == (8, 10, 3)
    before = [path.read_bytes() for path in files]
    assert program("sample=mine", "n=130", f"sampler={sampler}")[0] == 0
    assert [path.read_bytes() for path in files] == before
    assert program("sample=mine", "n=5", "seed=4")[0] == 0
    after = sorted((run / "samples").glob("*.png"))
    assert len(after) == 5  # none is left of the call before
    assert after[0].read_bytes() != before[0]


def test_too_few_codes_for_a_mixture(run: Path, program: Program) -> None:
    status, out, err = program("sample=mine", "sampler=mixture")
    assert (status, out) == (1, "")
    assert "too few to fit 10 components of 3 dimensions to (from 40 on)" in err


def test_reconstruct(run: Path, program: Program) -> None:
    drawn_in_training = (run / "reconstructions.png").read_bytes()
    assert program("reconstruct=mine", "n=2")[0] == 0
    assert (run / "reconstructions.png").read_bytes() == drawn_in_training
    files = sorted((run / "reconstructed").glob("*.png"))
    assert len(files) == 2
    model = vae.load_run(run)
    config = vae.training.checkpoint.read(run).config
    test = readers.load(config.dataset).test
    means = model.decode(model.encode(test.batch(slice(0, 2))).mu)
    for path, mean in zip(files, means, strict=True):
        assert np.abs(opened(path) / 255 - mean.clamp(0, 1).permute(1, 2, 0).numpy()).max() < 0.003
    assert opened(run / "reconstructed.png").shape[0] > 8


def test_interpolate(run: Path, program: Program) -> None:
    assert program("interpolate=mine", "between=[0,1]")[0] == 0
    assert (run / "interpolation.png").exists()
    status, _, err = program("interpolate=mine", "between=[0,99]")
    assert status == 1
    assert "there are 2 test images" in err


def test_images_drawn_pixel_by_pixel(digits: list[str], program: Program, tmp_path: Path) -> None:
    small = ["model=pixelcnn_vae", "model.channels=4", "model.kernels=[3]", "model.encoder_widths=[8]"]
    binary = ["objective=bernoulli", "dataset.binarize=static"]
    assert program(*QUICK, *digits, *small, *binary, "hydra.run.dir=mine")[0] == 0
    for verb in ("sample", "reconstruct", "interpolate", "encode"):
        status, _, err = program(f"{verb}=mine", "evaluation.batch_size=7")
        assert status == 0, err
    files = sorted((tmp_path / "mine" / "samples").glob("*.png"))
    assert len({path.read_bytes() for path in files}) > 90  # each its own chance, over batches too


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["sample=nowhere"], "sample=nowhere: no such directory"),
        (["sample=mine", "encode=mine"], "are one at a time"),
        (["sample=report.html"], "sample=report.html: is a file; name the run's directory"),
        (["sample=mine", "n=0"], "n=0: must be at least 1 and at most 1000000"),
        (["sample=mine", "n=many"], "n=many: must be a whole number, at least 1"),
        (["encode=mine", "n=3"], "n=3: goes with reconstruct=DIR and sample=DIR"),
        (["n=3"], "n=3: goes with reconstruct=DIR and sample=DIR"),
        (["encode=mine", "sampler=prior"], "sampler=prior: goes with sample=DIR"),
        (["sample=mine", "sampler=posterior"], "one of prior, gaussian, mixture"),
        (["sample=mine", "format=xls"], "format=xls: goes with encode=DIR and export=DIR"),
        (["encode=mine", "format=xls"], "format=xls: encode= writes one of csv, npz, parquet"),
        (["interpolate=mine", "between=0,1"], "between=0,1: is several values; a list is 'between=[0,1]'"),
        (["interpolate=mine", "between=[1]"], "the places of two images"),
        (["sample=mine", "model.latent_dim=4"], "cannot be changed"),
        (["-m", "sample=mine,mine"], "takes one directory"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], says: str, run: Path, program: Program) -> None:
    (run.parent / "report.html").touch()
    status, out, err = program(*arguments)
    assert (status, out) == (1, "")
    assert says in err
    assert err.count("\n") == 1, err
    assert not (run / "samples").exists()


def test_a_fitted_gaussian_has_the_codes_moments() -> None:
    from vae.measure import samplers

    rng = torch.Generator().manual_seed(0)
    codes = torch.randn(5000, 2, generator=rng) @ torch.tensor([[2.0, 1.0], [0.0, 0.5]]) + torch.tensor([3.0, -1.0])
    drawn = samplers.fitted("gaussian", codes, 0)(20_000, rng)
    assert drawn.mean(0).tolist() == pytest.approx(codes.mean(0).tolist(), abs=0.05)
    assert torch.allclose(drawn.T.cov(), codes.T.cov(), atol=0.15)
    two = torch.cat([codes, codes + 20])
    mixed = samplers.fitted("mixture", two, 0)(2000, rng)
    assert float((mixed[:, 0] > 13).float().mean()) == pytest.approx(0.5, abs=0.05)
    assert not ((mixed[:, 0] > 10) & (mixed[:, 0] < 13)).float().mean() > 0.02


def test_a_run_brings_its_own_option_along(program: Program, tmp_path: Path, monkeypatch: Any) -> None:
    """One value of the run's dataset is given, from another directory; all others are the run's."""
    run = tmp_path / "mine"
    assert program(*QUICK, *of_two_kinds(tmp_path / "images"), "hydra.run.dir=mine")[0] == 0
    images = tmp_path / "moved; it's here" / "images"
    images.parent.mkdir()
    (tmp_path / "images").rename(images)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    quoted = str(images).replace("'", "\\'")
    status, _, err = program("encode=../mine", f"dataset.root='{quoted}'")
    assert status == 0, err
    assert len(pd.read_csv(run / "codes.csv")) == 24
    status, _, err = program("resume=../mine", f"dataset.root='{quoted}'", "train.steps=45")
    assert status == 0, err
    assert vae.training.checkpoint.read(run).config.dataset.root == str(images)
    status, _, err = program("evaluate=../mine")
    assert status == 0, err
    status, _, err = program("encode=../mine", "dataset.size=9")
    assert status == 1
    assert "trained on images of shape (3, 8, 10), dataset=folder has (3, 9, 9)" in err


def test_relative_paths_are_found_from_elsewhere(program: Program, tmp_path: Path, monkeypatch: Any) -> None:
    np.save(tmp_path / "mine.npy", np.random.default_rng(0).integers(0, 255, (40, 8, 8), dtype=np.uint8))
    assert program(*QUICK, *SMALL, "dataset=arrays", "dataset.train=mine.npy", "hydra.run.dir=run")[0] == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for verb in ("evaluate", "encode"):
        status, _, err = program(f"{verb}=../run")
        assert status == 0, err
    assert program("resume=../run", "train.steps=45")[0] == 0


@pytest.mark.parametrize("name", ["it's (here), 50% a=b", '~Bücher 図 say "y" [1] back\\slash'])
def test_paths_as_a_shell_gives_them(name: str, program: Program, tmp_path: Path) -> None:
    place = tmp_path / name
    place.mkdir()
    np.save(place / "mine.npy", np.random.default_rng(0).integers(0, 255, (40, 8, 8), dtype=np.uint8))
    for file in (f"{name}/mine.npy", f"{place}/mine.npy"):
        run = f"hydra.run.dir={place}/run{len(file)}"
        status, _, err = program(*QUICK, *SMALL, "dataset=arrays", f"dataset.train={file}", run)
        assert status == 0, err
    (directory, *_) = place.glob("run*")
    for verb in ("sample", "evaluate", "resume"):
        more = ["train.steps=6"] if verb == "resume" else []
        status, _, err = program(f"{verb}={directory}", *more)
        assert status == 0, err


@pytest.mark.parametrize(
    "verb", ["evaluate", "resume", "explain", "encode", "reconstruct", "sample", "interpolate", "export"]
)
def test_a_run_that_exists_has_its_directory(verb: str, run: Path, program: Program) -> None:
    """Another one would be worked on, or left empty."""
    other = shutil.copytree(run, run.with_name("other"))
    before = {path: path.stat().st_mtime_ns for path in other.rglob("*")}
    for place in ("other", "new"):
        status, out, err = program(f"{verb}=mine", f"hydra.run.dir={place}")
        assert (status, out) == (1, "")
        assert err == f"hydra.run.dir: {verb}= writes into the run's directory; leave it out\n"
    assert {path: path.stat().st_mtime_ns for path in other.rglob("*")} == before
    assert not run.with_name("new").exists()


def test_what_makes_no_run_has_no_directory(program: Program, folder: list[str], tmp_path: Path) -> None:
    status, out, err = program("recommend=true", *folder[-2:], "hydra.run.dir=new")
    assert (status, out) == (1, "")
    assert err == "hydra.run.dir: recommend=true makes no run; leave it out\n"
    assert not (tmp_path / "new").exists()


def test_a_folder_that_is_a_link_is_left_alone(run: Path, program: Program, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "mine.png").write_bytes(b"mine")
    (run / "samples").symlink_to(tmp_path / "pictures")
    status, _, err = program("sample=mine", "n=3")
    assert status == 1
    assert "is a link to another place" in err
    assert (tmp_path / "pictures" / "mine.png").exists()
