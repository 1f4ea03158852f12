"""The command lines beside run.py, in this process."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from conftest import QUICK, trained
from PIL import Image

from vae.cli import shell
from vae.diagnose import __main__ as diagnose
from vae.scale import __main__ as scale

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def called(module: ModuleType, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["python -m", *arguments])
        capsys.readouterr()
        try:
            shell.run(module.main, module.__doc__)
            status: object = 0
        except SystemExit as stop:
            status = stop.code
        out, err = capsys.readouterr()
        return (1, out, str(status)) if isinstance(status, str) else (int(status or 0), out, err)  # type: ignore[call-overload]

    return called


def test_a_table_of_what_a_loss_weighs(call: Call) -> None:
    status, out, _ = call(scale, "reduction=mean", "image_shape=3,64,64", "kl_weight=0.00025", "beta=1", "sigma=0.1")
    assert status == 0
    assert "t = beta sigma^2          1.54" in out
    assert "for beta = 1, sigma = 0.1 KL weight 1.63e-06" in out
    assert call(scale, "reduction=batchmean", "image_shape=3,256,256", "kl_weight=1e-6")[1].count("5e-07") == 1
    long = call(scale, "reduction=mean", "image_shape=3,64,64", "beta=0.0625", "sigma=0.0625")[1]
    assert "for beta = 0.0625, sigma = 0.0625 KL weight" in long


@pytest.mark.parametrize("module", [scale, diagnose])
def test_examples_of_the_help_are_lines_to_copy(module: ModuleType, call: Call) -> None:
    examples = [line for line in call(module, "--help")[1].splitlines() if line.startswith("python -m")]
    assert len(examples) == 2
    assert not any("python" in line[1:] for line in examples)


def test_a_dataset_is_put_into_the_pixel_range(call: Call, digits: list[str]) -> None:
    """Twice as wide, four times the eigenvalue."""
    data = [item for item in digits if item.startswith("dataset")]
    edges = [
        float(call(scale, "reduction=mean", "latent_dim=2", span, *data)[1].split("KL weight ")[1].split()[0])
        for span in ("pixel_range=0,1", "pixel_range=-1,1")
    ]
    assert edges[1] == pytest.approx(4 * edges[0], rel=0.01)


@pytest.mark.parametrize("name", ["my pics (2025)", "bücher", "~/pics"])
def test_a_path_is_taken_as_a_shell_gives_it(
    name: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "no_model.py").write_text("load = lambda: None")
    folder = Path(name).expanduser() if name.startswith("~") else tmp_path / name
    folder.mkdir(parents=True)
    for number in range(8):
        Image.new("L", (4, 4), 30 * number).save(folder / f"{number}.png")
    status, out, err = call(scale, "dataset=folder", f"dataset.root={name}", "reduction=mean")
    assert status == 0, err
    assert "collapse is stable from" in out
    assert "no encode and decode" in call(diagnose, "no_model:load", "dataset=folder", f"dataset.root={name}")[2]


def test_where_a_dataset_collapses(call: Call) -> None:
    spectrum = ["dataset=gaussian", "dataset.spectrum=[4,1,0.5,0.1]", "dataset.train_size=5000", "dataset.test_size=10"]
    status, out, err = call(scale, "reduction=batchmean", "pixel_range=-20,20", "latent_dim=2", *spectrum)
    assert status == 0, err
    edge = float(out.split("collapse is stable from   KL weight ")[1].split()[0])
    assert edge == pytest.approx(8, rel=0.1)  # the largest eigenvalue, about 4, over sigma^2 = 1/2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["reducton=mean"], "reducton=mean: must be KEY=VALUE with one of reconstruction"),
        (["reduction"], "reduction: must be KEY=VALUE"),
        (["image_shape=1,28,28", "reduction=avg"], "reduction=avg: must be one of sum, mean"),
        (["dataset=nosuch"], "nosuch"),
        (["reduction=mean"], "image_shape: needed"),
    ],
)
def test_a_mistake_in_a_loss_is_one_line(call: Call, arguments: list[str], said: str) -> None:
    status, _, err = call(scale, *arguments)
    assert status == 1
    assert said in err
    assert "\n" not in err


MODULE = """
from types import SimpleNamespace
import vae
def load():
    return vae.load_run("run")
def pair():
    model = load()
    return lambda images: tuple(model.encode((images + 1) / 2)), lambda z: model.decode(z) * 2 - 1
def told():
    model = load()
    def encoder(images):
        return {"embedding": model.encode(images).mu, "log_covariance": 2 * model.encode(images).log_sigma}
    config = SimpleNamespace(reconstruction_loss="mse")
    return SimpleNamespace(model_config=config, encoder=encoder, decoder=model.decode)  # as pythae's
def broken():
    raise OSError("no weights")
"""


def test_a_model_of_one_s_own_module(call: Call, digits: list[str], tmp_path: Path) -> None:
    few_steps = "evaluation.thresholds.unfinished_steps=2"
    record = trained(tmp_path / "run", *digits, *QUICK, "model=mlp_vae", few_steps)
    (tmp_path / "own_model.py").write_text(MODULE)
    data = [item for item in digits if item.startswith("dataset")]
    told = ["likelihood=gaussian", "sigma2=0.5", "iw_samples=2", "probe_images=16"]
    status, out, err = call(diagnose, "own_model:load", *data, *told, "report=page (1)", "name=2025")
    assert status == 0, err
    assert f"KL is {record['kld']:.3g}" in " ".join(out.split())
    assert (tmp_path / "page (1)" / "report.html").exists()
    # The same model for images from -1 to 1: the squared error is four times as large, and so is sigma^2.
    wide = call(diagnose, "own_model:pair", *data, "likelihood=gaussian", "sigma2=2", "pixel_range=-1,1", *told[2:])
    assert wide[0] == 0, wide[2]
    assert re.findall(r"KL is \S+", wide[1]) == re.findall(r"KL is \S+", out) != []
    written = ["reconstruction=mse", "reduction=batchmean", "kl_weight=1", *told[2:]]
    assert call(diagnose, "own_model:load", *data, *written)[1].splitlines()[:2] == out.splitlines()[:2]
    # How many images there are at a time says nothing of the loss, which a model may say itself.
    own = call(diagnose, "own_model:told", *data, *told[2:], "name=a")
    assert own[0] == 0, own[2]
    assert call(diagnose, "own_model:told", *data, *told[2:], "name=a", "batch_size=500") == own
    assert call(diagnose, "own_model:load", *data, *told, "batch_size=500")[1].splitlines()[:2] == out.splitlines()[:2]
    for arguments, said in (
        (["own_model:load"], "dataset: needed"),
        (["own_model:nosuch", *data], "own_model has no function nosuch"),
        (["nosuch:load", *data], "cannot be imported"),
        (["own_model:broken", *data], "own_model:broken: fails (OSError: no weights)"),
        ([*data, "own_model:load"], "must be module:function"),
        (["own_model:load", *data, "sigma2=0.5", "reduction=mean"], "say what the loss means"),
        (["own_model:load", *data, *told, "pixel_range=1"], "pixel_range=1: must be (black, white)"),
        (["own_model:load", *data, *told, "pixel_range=low,white"], "pixel_range=['low', 'white']: must be (black"),
        (["own_model:load", *data, *told, "pixel_range=0,x"], "pixel_range=[0, 'x']: must be (black, white)"),
        (["own_model:load", *data, *told, "latent_dim=6"], "latent_dim=6: goes with kl_reduction"),
    ):
        status, _, err = call(diagnose, *arguments)
        assert (status, "\n" in err) == (1, False)
        assert said in err
