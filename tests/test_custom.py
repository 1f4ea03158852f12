"""Parts of a user's own, called as docs/extending.md says, from a directory that is not this project's."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import QUICK, ROOT, composed
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import vae
from vae.config.errors import InputError
from vae.runtime.commands import explain
from vae.runtime.commands import overrides as called_with
from vae.training.setup import prepare

Program = Callable[..., tuple[int, str, str]]

GAUSSIAN = ["dataset=gaussian", "dataset.train_size=200", "dataset.test_size=40"]
MODEL = ["model=custom", "model.latent_dim=3"]
GOOD = {
    "model.encoder": "parts.Encoder",
    "model.decoder": "parts.Decoder",
    "objective.likelihood": "parts.Squared",
    "anneal.schedule": "parts.Half",
    "cure.rule": "parts.Counting",
    "dataset.data": "parts.squares",
}
PARTS = """
import os
from os import system

import torch
from torch import nn

from vae.data.split import Data, Split
from vae.models import links
from vae.models.likelihood import Likelihood
from vae.training.cure import Cure
from vae.training.schedule import Schedule


class Encoder(nn.Module):
    def __init__(self, shape, latent_dim, heads=2, extra=0, frozen=False, detach=False):
        super().__init__()
        self.layer = nn.Linear(shape[0] * shape[1] * shape[2], heads * (latent_dim + extra))
        self.heads, self.detach = heads, detach
        if frozen:
            self.requires_grad_(False)

    def forward(self, images):
        output = self.layer(images.flatten(1))
        return tuple((output.detach() if self.detach else output).chunk(self.heads, 1))


class Lazy(nn.Module):
    def __init__(self, shape, latent_dim, fails=False):
        super().__init__()
        self.mu, self.log_sigma = nn.LazyLinear(latent_dim), nn.LazyLinear(latent_dim)
        self.fails = fails

    def forward(self, images):
        if self.training and self.fails:
            raise RuntimeError("not while it trains")
        return self.mu(images.flatten(1)), self.log_sigma(images.flatten(1))


class Decoder(nn.Module):
    def __init__(self, shape, latent_dim, height=None, detach=False, cut=False):
        super().__init__()
        channels, own, width = shape
        self.shape, self.detach, self.cut = (channels, height or own, width), detach, cut
        self.layer = nn.Linear(latent_dim, channels * (height or own) * width)

    def forward(self, codes):
        output = self.layer(codes.detach() if self.cut else codes).unflatten(1, self.shape)
        return output.detach() if self.detach else output


class Squared(Likelihood):
    def __init__(self, shape, summed=True, detach=False, scale=1.0):
        super().__init__(links.identity, shape[0] * shape[1] * shape[2])
        self.summed, self.detach, self.scale = summed, detach, scale

    def nll(self, images, raw):
        error = (images - (raw.detach() + 0 * raw if self.detach else raw)).square().flatten(1) * self.scale
        return error.sum(1) if self.summed else error


class Learned(Likelihood):
    def __init__(self, shape):
        super().__init__(links.identity, shape[0] * shape[1] * shape[2])
        self.log_scale = nn.Parameter(torch.zeros(()))

    def nll(self, images, raw):
        return (images - raw).square().flatten(1).sum(1) * (-self.log_scale).exp() + self.pixels * self.log_scale


class Bare(Likelihood):
    def __init__(self, shape):
        torch.nn.Module.__init__(self)

    def nll(self, images, raw):
        return raw.flatten(1).sum(1)


class Fourier(nn.Module):
    # A fixed random matrix that is no part of its state, a tied layer, a mask, and a NaN where it is asked for.

    def __init__(self, shape, latent_dim, broken=False):
        super().__init__()
        pixels = shape[0] * shape[1] * shape[2]
        self.register_buffer("matrix", torch.randn(pixels, 16), persistent=False)
        self.register_buffer("mask", torch.ones(16, dtype=torch.bool))
        self.mu = nn.Linear(16, latent_dim)
        self.tied = self.mu
        self.rates = [rate.item() for rate in torch.linspace(0, 1, 3)]
        self.broken = broken

    def forward(self, images):
        features = torch.sin(images.flatten(1) @ self.matrix) * self.mask
        output = self.mu(features) / (0 if self.broken else 1)
        return output, self.tied(features)


class Forgetful(Schedule):
    def __init__(self):
        super().__init__(1.0)

    def weight(self, step):
        return 1.0

    def state_dict(self):
        return {"n": 3}


class Later(Schedule):
    def __init__(self):
        super().__init__(1.0)

    def weight(self, step):
        return 1.0 if step < 3 else -1.0


class Half(Schedule):
    def __init__(self, final=0.5):
        super().__init__(final)
        self.seen = []

    def weight(self, step):
        return self.final

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]


class Counting(Cure):
    # KL is paid for the more, the longer a tensor and a number remember. `wrong`: what is wrong with it.

    def __init__(self, context, wrong=""):
        self.wrong, self.codes = wrong, 0 if wrong == "codes" else 2
        self.model, self.optimizer, self.before = context.subject.model, context.optimizer, 0
        self.total, self.steps = torch.zeros((), device=context.device), 0

    def loss(self, batch):
        loss = batch.loss_with(batch.kl.sum() * (1 + 0.1 * self.steps + 0.001 * self.total))
        if self.wrong == "raises":
            raise KeyError("nowhere")
        if self.wrong == "late" and batch.step == 3:
            raise RuntimeError("no third step")
        wrong = {"no tensor": loss.item(), "an image": loss + batch.posterior.mu[:, 0], "infinite": loss / 0}
        return (wrong | {"detached": loss.detach(), "no slope": (0 * loss).sqrt()}).get(self.wrong, loss)

    def holds(self):
        return ["encoder"] if self.wrong == "holds" else [*self.model.decoder.parameters()] if self.steps == 2 else []

    def learn(self, batch, loss):
        self.total += loss.detach()
        self.steps += self.nowhere if self.wrong == "learns" else 1
        with torch.no_grad():  # what it does to the model in its trial is undone
            self.optimizer.parameters[0].add_(1e-3)

    def measures(self):
        return {"steps": "many" if self.wrong == "measures" else self.steps}

    def state_dict(self):
        kept = {"forgotten" if self.wrong == "forgets" else "steps": self.steps, "total": self.total}
        nested = {"seen": [self.total, {"best": float("nan")}], "last": torch.tensor([float("nan"), self.steps])}
        if self.wrong == "forgets in a list":
            nested["seen"] = [torch.rand(2), {}]
        if self.wrong == "an array":
            nested["seen"] = torch.tensor([float("nan"), 1]).numpy()
        return kept | (nested if self.wrong in ("", "forgets in a list", "an array") else {})

    def load_state_dict(self, state):
        self.total.copy_(state["total"])
        self.steps = state.get("steps", 0)


def squares(count=40, side=8, channels=1, kind="float", fail=False, classes=None, validation=None):
    if fail:
        raise KeyError("nowhere")
    rng = torch.Generator().manual_seed(0)
    images = torch.rand(count, channels, side, side, generator=rng)
    images = {"float": images, "int": images.long(), "flat": images.flatten(1), "divided": images / 0}[kind]
    labels = torch.arange(count) % 2
    sides = {"wide": Split(torch.rand(4, channels, side, 9)), "none": 5}
    parts = {"classes": classes and tuple(classes), "validation": sides.get(validation)}
    return Data(Split(images, labels), Split(images[:10], labels[:10]), **parts)


def nothing(**given):
    return None
"""


def own_cure(target: str) -> list[str]:
    return ["cure=custom", f"cure.rule._target_={target}"]


def overrides(**targets: str) -> list[str]:
    """A call with all six parts of `parts`, some replaced; keys with __ for dots."""
    chosen = GOOD | {key.replace("__", "."): value for key, value in targets.items()}
    return [
        *(QUICK + MODEL),
        *("objective=custom", "anneal=custom", "cure=custom", "dataset=custom", "evaluation.iw_samples=2"),
        *(f"{key}._target_={value}" for key, value in chosen.items()),
    ]


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module `parts` in the directory of the call."""
    (tmp_path / "parts.py").write_text(PARTS)
    (tmp_path / "broken.py").write_text("import nothing_of_this_name")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "parts", raising=False)


MISTAKES: dict[str, tuple[list[str], str]] = {
    "no target": ([*QUICK, *MODEL], "model.encoder._target_"),
    "no such module": (overrides(model__encoder="nowhere.Encoder"), "nowhere cannot be imported"),
    "a module that fails": (overrides(model__encoder="broken.Encoder"), "nothing_of_this_name"),
    "no such class": (overrides(model__encoder="parts.Encoderr"), "has no class or function Encoderr"),
    "no module at all": (overrides(model__encoder="Encoder"), "must be module.name"),
    "a name of another package": (overrides(anneal__schedule="parts.system"), "system is defined in posix"),
    "a module in a module": (overrides(anneal__schedule="parts.os.system"), "cannot be imported"),
    "an unknown argument": ([*overrides(), "+model.encoder.depth=3"], "unexpected keyword argument 'depth'"),
    "a missing argument": (overrides(anneal__schedule="parts.Decoder"), "missing a required argument"),
    "no network": (overrides(model__decoder="parts.nothing"), "must be a torch.nn.Module"),
    "one head": ([*overrides(), "+model.encoder.heads=1"], "gave a tuple of 1; must give two tensors"),
    "mu too wide": ([*overrides(), "+model.encoder.extra=1"], "mu has shape (2, 4)"),
    "an encoder that takes codes": (overrides(model__encoder="parts.Decoder"), "fails on images of shape"),
    "an encoder that fails in training": (
        [*overrides(model__encoder="parts.Lazy"), "+model.encoder.fails=true"],
        "model.encoder: fails in training mode on shape (2, 1, 8, 8) (RuntimeError: not while it trains)",
    ),
    "images too high": ([*overrides(), "+model.decoder.height=9"], "(2, 1, 9, 8)"),
    "a frozen encoder": ([*overrides(), "+model.encoder.frozen=true"], "model.encoder: none of its parameters"),
    "a detached encoder": ([*overrides(), "+model.encoder.detach=true"], "model.encoder: none of its parameters"),
    "a detached decoder": ([*overrides(), "+model.decoder.detach=true"], "model.decoder: none of its parameters"),
    "a code that is detached": ([*overrides(), "+model.decoder.cut=true"], "model.decoder: the code gets no gradient"),
    "no likelihood": (overrides(objective__likelihood="parts.nothing"), "subclass of vae.models.likelihood"),
    "a loss a pixel": ([*overrides(), "+objective.likelihood.summed=false"], "one number an image"),
    "a loss that is infinite": ([*overrides(), "+objective.likelihood.scale=inf"], "finite"),
    "a loss without gradient": ([*overrides(), "+objective.likelihood.detach=true"], "no gradient"),
    "a link twice": ([*overrides(), "model.output=sigmoid"], "leave model.output out"),
    "no schedule": (overrides(anneal__schedule="parts.nothing"), "subclass of vae.training.schedule"),
    "a negative weight": ([*overrides(), "+anneal.schedule.final=-1"], "final is -1"),
    "a schedule that forgets": (overrides(anneal__schedule="parts.Forgetful"), "no load_state_dict"),
    "no cure": (overrides(cure__rule="parts.nothing"), "must be a subclass of vae.training.cure.Cure"),
    "a cure without a context": (overrides(cure__rule="parts.Half"), "unexpected keyword argument 'context'"),
    **{
        f"a cure: {wrong}": ([*overrides(), f"+cure.rule.wrong={wrong}"], f"cure.rule: {said}")
        for wrong, said in {
            "codes": "codes is 0",
            "raises": "loss(batch) fails (KeyError: 'nowhere')",
            "no tensor": "loss(batch) gave float; must be a tensor of shape ()",
            "an image": "loss(batch) gave a tensor of shape (8,)",
            "infinite": "loss(batch) is inf for the first images",
            "detached": "no parameter of the model gets a gradient",
            "no slope": "the gradient of loss(batch) is not finite",
            "holds": "holds() gave something else than parameters",
            "learns": "learn(batch, loss) fails (AttributeError",
            "measures": "measures() fails (ValueError",
            "forgets": "load_state_dict does not take back forgotten",
            "forgets in a list": "load_state_dict does not take back seen",
        }.items()
    },
    "a cure that keeps an array": (
        [*overrides(), "+cure.rule.wrong=an array"],
        "the state of your own parts cannot be saved and read again",
    ),
    "a cure and an autoencoder": (["model=ae", *own_cure("parts.Counting")], "no KL term to cure"),
    "a cure that says the weight": ([*overrides(), "cure.changes_weight=true"], "both say what the KL weight is"),
    "a likelihood without its base": (overrides(objective__likelihood="parts.Bare"), "must call super().__init__"),
    "numbers that are none": ([*overrides(model__encoder="parts.Fourier"), "+model.encoder.broken=true"], "finite"),
    "a builtin": (overrides(objective__likelihood="builtins.dict"), "subclass of vae.models.likelihood"),
    "allow for a new run": ([*QUICK, "allow=parts"], "goes with resume=, init=, evaluate= and their like"),
    "no data": (overrides(dataset__data="parts.nothing"), "must be a vae.data.split.Data"),
    "data that fail": ([*overrides(), "+dataset.data.fail=true"], "KeyError"),
    "whole numbers for pixels": ([*overrides(), "+dataset.data.kind=int"], "must be a tensor (N, C, H, W)"),
    "flat images": ([*overrides(), "+dataset.data.kind=flat"], "must be a tensor (N, C, H, W)"),
    "pixels that are no numbers": ([*overrides(), "+dataset.data.kind=divided"], "not finite"),
    "one image": ([*overrides(), "+dataset.data.count=1"], "at least 2"),
    "fewer classes than labels": (
        [*overrides(), "+dataset.data.classes=[a]"],
        "dataset.data, train: labels go from 0 to 1, with 1 classes",
    ),
    "classes that are numbers": ([*overrides(), "+dataset.data.classes=[1,2]"], "classes must be None or texts"),
    "validation images of another shape": (
        [*overrides(), "+dataset.data.validation=wide"],
        "data, validation: must be",
    ),
    "validation that is no split": ([*overrides(), "+dataset.data.validation=none"], "validation: is int; must be a"),
    "17 channels": ([*overrides(), "+dataset.data.channels=17"], "1 to 16 are allowed"),
    "an argument without +": ([*overrides(), "model.encoder.extra=0"], "+model.encoder.extra=... adds it"),
}


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_part_that_is_wrong_is_refused_in_one_line(mistake: str, program: Program, tmp_path: Path) -> None:
    arguments, says = MISTAKES[mistake]
    status, out, err = program(*arguments)
    assert (status, out) == (1, "")
    assert err.count("\n") == 1, err
    assert says in err
    assert not (tmp_path / "outputs").exists()


@pytest.mark.usefixtures("parts")
def test_own_parts_train_and_are_resumed_only_where_they_are_allowed(program: Program, tmp_path: Path) -> None:
    for name, steps in (("mine", 4), ("whole", 8)):
        status, out, err = program(*overrides(), f"train.steps={steps}", f"hydra.run.dir={name}")
        assert status == 0, err
    assert "custom_custom finished after 8 steps" in out
    record = json.loads((tmp_path / "mine" / "result.json").read_text())
    assert (record["kl_weight"], record["model"], record["dataset"]) == (0.5, "custom", "custom")
    assert record["advice"][0]["command"] == "python run.py resume=DIR train.steps=1000 allow=parts"
    assert explain(tmp_path / "mine") == "python run.py explain=mine allow=parts"
    for verb in ("resume", "evaluate"):
        for allow in ([], ["allow=part"], ["allow=[other,parts.inner]"]):
            status, _, err = program(f"{verb}=mine", *allow)
            assert status == 1
            assert err.count("\n") == 1
            assert "allow=parts" in err
    with pytest.raises(InputError, match=r"is parts\.Encoder, code that did not come with this program"):
        vae.load_run(tmp_path / "mine")
    assert vae.load_run(tmp_path / "mine", allow=["parts"]).sample(2).shape == (2, 1, 8, 8)
    with pytest.raises(InputError, match=r"code that did not come with this program"):
        vae.diagnose(tmp_path / "mine")
    assert program("evaluate=mine", "allow=parts")[0] == 0
    measured = json.loads((tmp_path / "mine" / "evaluation.json").read_text())
    assert measured["mse"] == pytest.approx(record["mse"], rel=1e-6)
    status, _, err = program("resume=mine", "train.steps=8", "allow=[other,parts]")
    assert status == 0, err
    states = [torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("mine", "whole")]
    assert all(torch.equal(states[0]["model"][key], states[1]["model"][key]) for key in states[0]["model"])


@pytest.mark.usefixtures("parts")
def test_a_diagnosis_imports_no_schedule_or_cure_that_is_not_allowed(program: Program, tmp_path: Path) -> None:
    """Of a run whose network and likelihood are the program's own."""
    for group, part in (
        ("anneal", "anneal.schedule._target_=parts.Half"),
        ("cure", "cure.rule._target_=parts.Counting"),
    ):
        settings = [*QUICK, *GAUSSIAN, "model=linear_vae", f"{group}=custom", part, f"hydra.run.dir={group}"]
        status, _, err = program(*settings)
        assert status == 0, err
        sys.modules.pop("parts", None)
        with pytest.raises(InputError, match=r"code that did not come with this program"):
            vae.diagnose(tmp_path / group)
        assert "parts" not in sys.modules


@pytest.mark.usefixtures("parts")
def test_unusual_networks_are_read_again_and_measured_alike(program: Program, tmp_path: Path) -> None:
    """A random matrix outside the state, tied layers, a bool buffer, `.item()` in the constructor."""
    own = overrides(model__encoder="parts.Fourier", objective__likelihood="parts.Learned")
    assert program(*own, "seed=1", "hydra.run.dir=mine")[0] == 0
    record = json.loads((tmp_path / "mine" / "result.json").read_text())
    status, _, err = program("evaluate=mine", "allow=parts")
    assert status == 0, err
    measured = json.loads((tmp_path / "mine" / "evaluation.json").read_text())
    assert measured["mse"] == pytest.approx(record["mse"], rel=1e-6)
    state = torch.load(tmp_path / "mine" / "checkpoint.pt", weights_only=True)
    assert float(state["likelihood"]["log_scale"]) != 0  # it was trained
    assert program("resume=mine", "train.steps=6", "allow=parts")[0] == 0


@pytest.mark.usefixtures("parts")
def test_a_weight_that_is_wrong_later_ends_the_run_in_one_line(program: Program) -> None:
    status, _, err = program(*overrides(anneal__schedule="parts.Later"))
    assert status == 1
    assert err.splitlines()[-1].startswith("anneal.schedule: weight(3) is -1.0")


@pytest.mark.usefixtures("parts")
def test_a_cure_that_is_wrong_later_ends_the_run_in_one_line(program: Program) -> None:
    status, _, err = program(*overrides(), "+cure.rule.wrong=late")
    assert status == 1
    assert err.splitlines()[-1].startswith("cure.rule: loss(batch) fails (RuntimeError: no third step)")


@pytest.mark.usefixtures("parts")
def test_what_a_cure_of_one_s_own_minimises_is_trained(program: Program, tmp_path: Path) -> None:
    """Codes, loss, memory, what is held and what is shown of it, as the loop has them; its trial leaves no trace."""
    plain = [item for item in overrides() if not item.startswith("cure")]
    for name, settings in (("mine", overrides()), ("plain", plain)):
        assert program(*settings, f"hydra.run.dir={name}")[0] == 0
    mine, plain_run = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("mine", "plain"))
    assert (mine["cure"], plain_run["cure"]) == ("custom", "none")
    state = torch.load(tmp_path / "mine" / "checkpoint.pt", weights_only=True)["cure"]
    assert state["steps"] == 4  # of the run, none of its trial
    assert float(state["total"]) == pytest.approx(4 * mine["training_loss"], rel=0.1)
    assert OmegaConf.load(tmp_path / "mine" / ".hydra" / "config.yaml").cure.rule == {"_target_": "parts.Counting"}
    events = EventAccumulator(str(tmp_path / "mine")).Reload()
    assert [event.value for event in events.Scalars("cure/steps")] == [2.0, 4.0]


@pytest.mark.usefixtures("parts")
def test_an_update_with_a_cure_of_one_s_own_is_no_cuda_graph(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The host decides in it."""
    monkeypatch.chdir(tmp_path)
    own = [*QUICK, *GAUSSIAN, "model=linear_vae", *own_cure("parts.Counting")]
    for settings, capturable in ((own, False), (own[:-2], True)):
        setup = dataclasses.replace(prepare(composed(*settings)), device=torch.device("cuda"))
        assert setup.is_capturable == capturable


EVIL = {"_target_": "parts.Encoder"}


HOSTILE: list[dict[str, Any]] = [
    {"kind": "custom", "name": "x", "likelihood": EVIL},
    {"kind": "custom", "name": "x", "likelihood": "${oc.create:{_target_:parts.Encoder}}"},
    {"kind": "custom", "name": "x", "likelihood": "\\${oc.create:{_target_:parts.Encoder}}"},
    {"kind": "custom", "name": "x", "likelihood": "${model.hidden}"},
    {"kind": "custom", "name": "x", "likelihood": {"_target_": "other.X", "y": (EVIL,)}},
    {"kind": "sse", "name": "x${oc.env:HOME}"},
]


@pytest.mark.usefixtures("parts")
def test_what_a_checkpoint_says_imports_nothing(digits: list[str], program: Program, tmp_path: Path) -> None:
    assert program(*QUICK, *digits, "evaluation.iw_samples=2", "hydra.run.dir=mine")[0] == 0
    path = tmp_path / "mine" / "checkpoint.pt"
    whole = torch.load(path, weights_only=True)
    (tmp_path / "mine" / "checkpoint.previous.pt").unlink(missing_ok=True)
    for objective in HOSTILE:
        hidden = EVIL if objective.get("likelihood") == "${model.hidden}" else whole["config"]["model"]["hidden"]
        model = whole["config"]["model"] | {"hidden": hidden}
        torch.save(whole | {"config": whole["config"] | {"objective": objective, "model": model}}, path)
        for allow in ([], ["other"]):
            with pytest.raises(InputError):
                vae.load_run(tmp_path / "mine", allow=allow)
        for arguments in (["evaluate=mine"], ["resume=mine", "train.steps=8"]):
            status, _, err = program(*arguments)
            assert (status, err.count("\n")) == (1, 1), err
    assert "parts" not in sys.modules


@pytest.mark.usefixtures("parts")
def test_what_a_sweep_s_directory_says_imports_nothing(digits: list[str], program: Program, tmp_path: Path) -> None:
    quick = [*QUICK, *digits, "evaluation.iw_samples=2", "model=mlp_vae"]
    assert program("-m", *quick, "seed=0,1", "hydra.sweep.dir=sweep")[0] == 0
    shutil.rmtree(next((tmp_path / "sweep").glob("1_*")))
    path = tmp_path / "sweep" / "multirun.yaml"
    whole = path.read_text()
    for change, says in (
        ("model.encoder._target_=parts.Encoder", "allow=parts"),
        ("model.encoder={_target_:parts.Encoder}", "allow=parts"),
        ("+hydra.callbacks.x._target_=parts.Encoder", "is no value of a run"),
        ("hydra.run.dir=elsewhere", "is no value of a run"),
        ("run_name=${oc.env:HOME}", "is no value of a run"),
    ):
        composed = yaml.safe_load(whole)
        composed["hydra"]["overrides"]["task"].append(change)
        path.write_text(yaml.safe_dump(composed))
        status, _, err = program("resume=sweep")
        assert status == 1
        assert says in err.splitlines()[-1], change
    assert "parts" not in sys.modules


@pytest.mark.usefixtures("parts")
def test_lazy_networks_have_the_weights_of_their_seed(program: Program, tmp_path: Path) -> None:
    for name in "ab":
        assert program(*overrides(model__encoder="parts.Lazy"), f"hydra.run.dir={name}")[0] == 0
    a, b = (torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["model"] for name in "ab")
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.usefixtures("parts")
def test_the_same_seed_gives_own_networks_the_same_weights(program: Program, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        torch.manual_seed(len(list(tmp_path.iterdir())))
        assert program(*overrides(), f"seed={seed}", f"hydra.run.dir={name}")[0] == 0
    a, b, c = (torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["model"] for name in "abc")
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not all(torch.equal(a[key], c[key]) for key in a)


@pytest.mark.usefixtures("parts")
def test_a_configuration_without_a_checkpoint_is_not_trusted_either(program: Program, tmp_path: Path) -> None:
    assert program(*overrides(), "hydra.run.dir=mine")[0] == 0
    for path in (tmp_path / "mine").glob("*.pt"):
        path.unlink()
    (tmp_path / "mine" / "result.json").unlink()
    status, _, err = program("resume=mine")
    assert status == 1
    assert "allow=parts" in err.splitlines()[-1]


def commands() -> list[str]:
    text = (ROOT / "docs" / "extending.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith("python ../run.py")]


def test_the_commands_of_the_documentation_compose(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that train: each names options, keys and places that there are."""
    monkeypatch.chdir(ROOT / "examples")
    monkeypatch.setattr(sys, "path", list(sys.path))
    new = [line.removeprefix("python ../run.py ").split() for line in commands() if "evaluate=" not in line]
    assert len(new) >= 5
    for arguments in new:
        first = [word.partition(",")[0] for word in arguments if word != "-m"]  # of a sweep its first job
        status, out, err = program(*first, "--cfg", "job")
        assert status == 0, (arguments, err)
        assert "run_name:" in out


@pytest.mark.slow
def test_the_commands_of_the_documentation_run(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a copy of examples/, with fewer steps, in the order in which they stand; one in a process of its own."""
    directory = Path(shutil.copytree(ROOT / "examples", tmp_path / "examples"))
    monkeypatch.chdir(directory)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_parts", raising=False)
    assert len(commands()) >= 6
    quick = [*QUICK, "evaluation.probe_images=8", "evaluation.test_images=100"]
    for line in commands():
        arguments = line.removeprefix("python ../run.py ").split()
        status, _, err = program(*arguments, *([] if arguments[0].startswith("evaluate=") else quick))
        assert status == 0, (line, err)
    (own,) = (line for line in commands() if "+model.encoder.width" in line)
    command = [sys.executable, str(ROOT / "run.py"), *own.removeprefix("python ../run.py ").split(), *quick]
    subprocess.run([*command, "hydra.run.dir=outputs/alone"], cwd=directory, capture_output=True, check=True)
    wide = next((directory / "outputs").glob("*/*_wide_constant/result.json"))
    assert json.loads(wide.read_text())["parameters"] > 2 * 1_767_233


def test_an_option_of_one_s_own_needs_no_python(program: Program, tmp_path: Path) -> None:
    """Only `kind` and values, as a file in a directory of the user's."""
    (tmp_path / "mine" / "model").mkdir(parents=True)
    values = "kind: mlp\nname: tiny\nlatent_dim: 2\nposterior: gaussian\noutput: null\n"
    (tmp_path / "mine" / "model" / "tiny.yaml").write_text(values + "encoder_widths: [4]\ndecoder_widths: [4]\n")
    status, out, err = program("--config-dir", "mine", *QUICK, *GAUSSIAN, "model=tiny", "pictures.report=true")
    assert status == 0, err
    assert "tiny_constant finished" in out
    (report,) = tmp_path.rglob("report.html")
    assert "python run.py --config-dir mine " in report.read_text()
    status, out, err = program("--config-dir", "mine", *GAUSSIAN, "model=tiny", "recommend=true")
    assert out.splitlines()[-1].startswith("python run.py --config-dir mine "), err
    (tmp_path / "mine" / "model" / "tiny.yaml").write_text(values + "encoder_width: [4]\ndecoder_widths: [4]\n")
    status, _, err = program("--config-dir", "mine", "model=tiny")
    assert (status, err) == (1, "model.encoder_width: no such key; did you mean model.encoder_widths?\n")


def test_an_option_of_one_s_own_that_would_not_be_read_is_named(program: Program, tmp_path: Path) -> None:
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "mlp_vae.yaml").write_text("kind: mlp\nname: mlp_vae\n")
    status, out, err = program("--config-dir", "mine", *QUICK, *GAUSSIAN, "model=mlp_vae")
    assert (status, out) == (1, "")
    assert err.startswith("model=mlp_vae: ")
    assert err.endswith(
        "mine/model/mlp_vae.yaml has the name of an option that comes with the program, which is read "
        "instead; give it another name\n"
    )
    assert not (tmp_path / "outputs").exists()
    assert program("--config-dir", "mine", *QUICK, *GAUSSIAN, "model=linear_vae")[0] == 0


@pytest.mark.usefixtures("parts")
def test_what_was_added_is_still_what_the_run_was_called_with(program: Program, tmp_path: Path) -> None:
    """After resume=, so that the report's command and what is advised make the run again."""
    added = ["+model.encoder.extra=0", "+dataset.data.count=40"]
    status, _, err = program(*overrides(), *added, "hydra.run.dir=mine")
    assert status == 0, err
    before = called_with(tmp_path / "mine")
    status, _, err = program("resume=mine", "train.steps=8", "allow=parts")
    assert status == 0, err
    after = called_with(tmp_path / "mine")
    assert before is not None
    assert after == ["train.steps=8" if item == "train.steps=4" else item for item in before]
    other = ["anneal=custom", "anneal.schedule._target_=parts.Half", "+anneal.schedule.final=0.25"]
    status, _, err = program("resume=mine", "train.steps=10", *other, "allow=parts")
    assert status == 0, err
    found = called_with(tmp_path / "mine")
    assert found is not None
    assert {"+model.encoder.extra=0", "+dataset.data.count=40", "+anneal.schedule.final=0.25"} <= set(found)
