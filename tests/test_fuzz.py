"""Whatever it is given, the program works or says in one line why not: settings, data, checkpoints, run directories.

A few hundred inputs that are always the same; with FUZZ=1 (`make test-fuzz`) more than ten thousand by chance."""

import copy
import dataclasses
import io
import json
import logging
import math
import os
import shutil
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
import yaml
from conftest import QUICK, ROOT, composed, save_digits
from hypothesis import HealthCheck, Phase, example, given, settings
from PIL import Image
from scipy.io import savemat

from vae.cli import launch
from vae.config import schema
from vae.config.errors import InputError
from vae.config.load import flat
from vae.data import archives, readers
from vae.data.split import Data, Split
from vae.output.recorder import Recorder
from vae.report import measures, page, runs
from vae.report.groups import differences, together
from vae.runtime import directory as names
from vae.runtime.terminal import printable
from vae.training import checkpoint
from vae.training.loop import train
from vae.training.setup import Setup, prepare

FULL = os.environ.get("FUZZ") == "1"
DEADLINE = 20.0  # seconds of computing; what takes longer hangs
COUNTS: Counter[str] = Counter()


def examples(short: int, full: int) -> Any:
    return settings(
        max_examples=full if FULL else short,
        derandomize=not FULL,
        database=None,
        deadline=None,
        print_blob=True,
        phases=[Phase.explicit, Phase.generate, *([Phase.shrink] if FULL else [])],
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="module", autouse=True)
def _counted() -> Iterator[None]:
    logging.disable()  # warnings of what is lost, a line for each input
    yield
    logging.disable(logging.NOTSET)
    if FULL:
        said = "\n".join(f"{count:6} {kind}" for kind, count in sorted(COUNTS.items()))
        total = sum(count for kind, count in COUNTS.items() if ":" not in kind)
        print(f"\n{said}\n{total} inputs, each used or refused in one line")


@pytest.fixture(autouse=True)
def _denormals() -> None:
    """Hypothesis draws denormal numbers too. A run has its process take them for 0."""
    torch.set_flush_denormal(False)


@contextmanager
def one_line_at_most(kind: str, *errors: type[Exception]) -> Iterator[None]:
    """What happens in here works, or ends in one of these errors with one line; it is quiet, and comes to an end."""
    started = time.process_time()
    COUNTS[kind] += 1
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            yield
            COUNTS[f"{kind}: used"] += 1
        except errors as error:
            said = printable(str(error))  # as the program does at its end
            COUNTS[f"{kind}: refused"] += 1
        else:
            said = "used"
    assert len(said.splitlines()) == 1, said
    assert not warned, [str(warning.message) for warning in warned]
    assert time.process_time() - started < DEADLINE


KEYS = [
    *flat(dataclasses.asdict(composed("dataset=folder", "dataset.root=x"))),
    *(
        "model",
        "objective",
        "anneal",
        "cure",
        "cure.floor",
        "dataset",
        "train",
        "experiment",
        "evaluate",
        "resume",
        "pictures",
    ),
    *(
        "anneal.threshold",
        "anneal.steps",
        "model.encoder_widths",
        "dataset.train",
        "objective.sigma2",
        "hydra/launcher",
    ),
]
PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, -1, 2**31, 2**63, 2**64, 10**400, -(10**30)]),
    st.floats(),
    st.text(max_size=30),
    st.sampled_from(
        ["", "..", "/", "../../x", "<b>x</b>", "\x1b[2J", "a\nb", "\u202e", "\ud800", "a,b", "conv_vae", "$x"]
    ),
)
TREES = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
WRITTEN = st.one_of(
    PLAIN.map(str),
    PLAIN.map(repr),
    TREES.map(repr),
    st.text(alphabet="[]{}(),:=\"'\\$~+-.0123456789eE ainf\x00\x1b\n", max_size=20),
    st.sampled_from(
        [
            *(
                "${seed}",
                "${x}",
                "${oc.env:HOME}",
                "${..seed}",
                "${run_name}",
                "null",
                "nan",
                "1e999",
                "???",
                "[" * 500,
            ),
            *("range(0,9)", "choice(1,2)", "glob(*)", "interval(0,1)", "sort(3,1)", "int(1.5)", "{a:" * 99, "9" * 5000),
        ]
    ),
)
OVERRIDES = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["", "", "+", "++", "~"]), st.sampled_from(KEYS), st.just("="), WRITTEN).map("".join),
        st.tuples(st.sampled_from(["", "+", "~"]), st.text(max_size=10), st.sampled_from(["=", "", "@"]), WRITTEN).map(
            "".join
        ),
    ),
    min_size=1,
    max_size=3,
)


def mutated(draw: st.DrawFn, content: bytes) -> bytes:
    """`content` cut off, with bytes changed, with a part left out or put in; or something else."""
    kind = draw(st.sampled_from(["cut", "flip", "flip", "drop", "put", "other", "zeros"]))
    at = draw(st.integers(0, len(content)))
    match kind:
        case "cut":
            return content[:at]
        case "flip":
            changed = bytearray(content)
            for _ in range(draw(st.integers(1, 8))):
                changed[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
            return bytes(changed)
        case "drop":
            return content[:at] + content[at + draw(st.integers(1, 64)) :]
        case "put":
            return content[:at] + draw(st.binary(max_size=64)) + content[at:]
        case "zeros":
            return content[:at] + bytes(len(content) - at)
    return draw(st.binary(max_size=300))


mutations = st.composite(mutated)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    directory = tmp_path_factory.mktemp("base")
    overrides = [*QUICK, *save_digits(directory / "digits.npz"), *SMALL]
    chosen = composed(*overrides)
    train(chosen, directory / "run")
    (directory / "run" / ".hydra").mkdir()
    (directory / "run" / ".hydra" / "config.yaml").write_text(yaml.safe_dump(dataclasses.asdict(chosen)))
    (directory / "run" / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(overrides))
    return directory


SMALL = [
    "model=mlp_vae",
    "model.encoder_widths=[8]",
    "model.decoder_widths=[8]",
    "anneal=delayed",
    "anneal.threshold=10",
]


class Begun(BaseException):
    """The settings can be used: here the run begins."""


class Refused(Exception):
    """The program ended with a line."""


def begin(*arguments: Any) -> NoReturn:
    raise Begun


@examples(8, 1500)
@given(overrides=OVERRIDES)
@example(overrides=["evaluate=False"])
@example(overrides=["resume=3"])
def test_settings(overrides: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    import run

    directory = tmp_path_factory.getbasetemp() / "settings"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    overrides = [item for item in overrides if not item.startswith("-") and item]
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, one_line_at_most("settings", Refused):
        patch.chdir(directory)
        patch.setattr("sys.argv", [str(ROOT / "run.py"), *overrides])
        for verb in ("train.train_new", "evaluate.evaluate", "resume.resume_run"):
            patch.setattr(f"vae.cli.{verb}", begin)
        patch.setattr("sys.stdout", out)
        patch.setattr("sys.stderr", err)
        try:
            launch.run(run.main)
        except Begun:
            return
        except SystemExit as stop:
            said = stop.code
        else:
            raise AssertionError("neither begun nor refused")
        assert (out.getvalue(), err.getvalue(), list(directory.iterdir())) == ("", "", []), said
        raise Refused(said)


IMAGES = np.random.default_rng(0).integers(0, 255, (6, 8, 8), dtype=np.uint8)


def saved_arrays(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def saved_array(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


@st.composite
def lying_headers(draw: st.DrawFn) -> bytes:
    """A .npy file whose header says what it likes."""
    side = st.sampled_from([0, 1, 2, 3, 8, -1, 10**6, 10**12, 2**63])
    shape = tuple(draw(st.lists(side, max_size=5)))
    kind = draw(st.sampled_from(["|u1", "<f4", "<f8", ">f2", "|O", "<U9", "<c16", "|b1", "<M8[s]", "|V8", "nonsense"]))
    header = f"{{'descr': '{kind}', 'fortran_order': {draw(st.booleans())}, 'shape': {shape}, }}".encode()
    header += b" " * (63 - (len(header) + 10) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + draw(st.binary(max_size=500))


@st.composite
def array_files(draw: st.DrawFn) -> bytes:
    kind = draw(st.sampled_from(["npy", "npz", "header", "dtype"]))
    if kind == "header":
        return draw(lying_headers())
    if kind == "dtype":
        types = ["float16", "float32", "float64", "int8", "bool", "complex64", "object", "U3", "uint8", "longdouble"]
        shape = draw(st.lists(st.sampled_from([0, 1, 2, 3, 4, 8]), max_size=5))
        array = np.zeros(shape, draw(st.sampled_from(types)))
        if array.size and array.dtype.kind == "f":
            array.flat[0] = draw(st.floats(width=16))
        return saved_array(array)
    labels = np.arange(6)
    return draw(mutations(saved_array(IMAGES) if kind == "npy" else saved_arrays(images=IMAGES, labels=labels)))


@examples(100, 6000)
@given(content=array_files(), name=st.sampled_from(["a.npy", "a.npz"]))
def test_array_files(content: bytes, name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(content)
    with one_line_at_most("array files", InputError):
        assert_usable(readers.load(schema.Arrays(name="arrays", test_fraction=0.5, split_seed=0, train=str(path))))


def assert_usable(found: Data) -> None:
    for split in (found.train, found.test):
        batch = split.batch(slice(None))
        assert batch.isfinite().all()
        assert batch.min() >= 0
        assert batch.max() <= 1


@st.composite
def image_files(draw: st.DrawFn) -> tuple[str, bytes]:
    formats = {
        "png": ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"],
        "jpeg": ["L", "RGB", "CMYK"],
        "gif": ["L", "P", "RGB"],
        "tiff": ["1", "L", "LA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I", "F", "I;16"],
        "webp": ["RGB", "RGBA"],
        "bmp": ["1", "L", "P", "RGB"],
        "ppm": ["1", "L", "RGB"],
    }
    kind = draw(st.sampled_from(sorted(formats)))
    mode = draw(st.sampled_from(formats[kind]))
    size = draw(st.sampled_from([(8, 8), (8, 8), (1, 1), (8, 9), (300, 2)]))
    file = io.BytesIO()
    Image.new(mode, size, 1).save(file, kind)
    content = file.getvalue()
    return kind, draw(mutations(content)) if draw(st.booleans()) else content


@examples(60, 1500)
@given(
    files=st.lists(image_files(), min_size=1, max_size=2),
    options=st.fixed_dictionaries(
        {
            "size": st.sampled_from([None, 8, [8, 6]]),
            "fit": st.sampled_from(["crop", "pad", "stretch"]),
            "grayscale": st.booleans(),
            "background": st.sampled_from([None, "white", "#123456"]),
            "range": st.sampled_from(["auto", [0, 100]]),
            "frames": st.sampled_from(["first", "all"]),
            "skip_broken": st.booleans(),
        }
    ),
)
def test_image_folders(
    files: list[tuple[str, bytes]], options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.getbasetemp() / "images"
    for path in (root, Path(f"{root}-cache")):
        shutil.rmtree(path, ignore_errors=True)
    root.mkdir()
    for i in range(4):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(root / f"{i}.png")
    for i, (kind, content) in enumerate(files):
        (root / f"x{i}.{kind}").write_bytes(content)
    config = schema.Folder(
        name="folder",
        test_fraction=0.5,
        split_seed=0,
        root=str(root),
        cache=f"{root}-cache",
        max_megapixels=1,
        **options,
    )
    with one_line_at_most("image folders", InputError):
        assert_usable(readers.load(config))


@examples(6, 300)
@given(kind=st.sampled_from(["amat", "mat"]), data=st.data())
def test_published_archives(kind: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / f"binarized_mnist_train.{kind}"
    if kind == "amat":
        content = b"\n".join(b" ".join(b"01"[i % 2 :][:1] for i in range(784)) for _ in range(3))
    else:
        file = io.BytesIO()
        savemat(file, {"data": np.zeros((784, 3)), "testdata": np.ones((784, 2)), "target": np.eye(3)})
        content = file.getvalue()
    path.write_bytes(data.draw(mutations(content)) if data.draw(st.booleans()) else content)
    with one_line_at_most("published archives", InputError):
        if kind == "amat":
            assert archives.amat(path).shape[1:] == (1, 28, 28)
        else:
            (train, _), (test, _) = archives.omniglot(path)
            assert_usable(Data(Split(train), Split(test)))


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places inside nested dicts and lists."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from paths(inner, (*path, key))


TENSORS = st.sampled_from(
    [
        torch.zeros(()),
        torch.zeros(4, 4),
        torch.zeros(1).expand(10**9),
        torch.zeros(3, dtype=torch.complex64),
        torch.zeros(2, 2).to_sparse(),
        torch.full((2,), math.nan),
        torch.zeros(0),
    ]
)


def altered(content: Any, draw: Callable[[Any], Any]) -> Any:
    """A copy with one to three places changed, taken away or added to."""
    content = copy.deepcopy(content)
    for _ in range(draw(st.integers(1, 3))):
        places = list(paths(content))
        if not places:
            break
        *path, last = places[draw(st.integers(0, len(places) - 1))]
        parent = content
        for key in path:
            parent = parent[key]
        match draw(st.sampled_from(["change", "change", "delete", "add"])):
            case "change":
                parent[last] = draw(TREES | TENSORS)
            case "delete":
                del parent[last]
            case "add" if isinstance(parent, dict):
                parent[draw(PLAIN.filter(lambda value: value == value))] = draw(TREES | TENSORS)
    return content


@pytest.fixture(scope="module")
def resumable(base: Path) -> Setup:
    """What a run that is resumed gives its checkpoint to."""
    return prepare(checkpoint.read(base / "run").config)


def restore(directory: Path, resumable: Setup) -> None:
    """All that load_run and resume= do with a checkpoint, up to the first step."""
    saved = checkpoint.read(directory)
    saved.model()[0].sample(1)
    resumable.parts.restore(saved)
    final, clock = resumable.schedule.final, resumable.clock
    Recorder(resumable.subject, directory / "resumed", final, clock, saved.recorder).close()


def content(directory: Path) -> Any:
    return torch.load(directory / names.CHECKPOINT, weights_only=True)


@examples(60, 1500)
@given(draw=st.data())
def test_checkpoints_of_other_content(
    draw: st.DataObject, base: Path, resumable: Setup, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.getbasetemp() / "altered"
    directory.mkdir(exist_ok=True)
    torch.save(altered(content(base / "run"), draw.draw), directory / names.CHECKPOINT)
    with one_line_at_most("checkpoints of other content", InputError):
        restore(directory, resumable)


@examples(20, 500)
@given(draw=st.data())
def test_checkpoints_of_format_4_of_other_content(
    draw: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.getbasetemp() / "altered4"
    directory.mkdir(exist_ok=True)
    torch.save(altered(content(ROOT / "tests/fixtures/format4"), draw.draw), directory / names.CHECKPOINT)
    with one_line_at_most("checkpoints of format 4 of other content", InputError):
        checkpoint.read(directory).model()[0].sample(1)


@examples(20, 1000)
@given(draw=st.data())
def test_damaged_checkpoints(
    draw: st.DataObject, base: Path, resumable: Setup, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.getbasetemp() / "damaged"
    directory.mkdir(exist_ok=True)
    damaged = draw.draw(mutations((base / "run" / names.CHECKPOINT).read_bytes()))
    (directory / names.CHECKPOINT).write_bytes(damaged)
    with one_line_at_most("damaged checkpoints", InputError):
        restore(directory, resumable)


@examples(6, 1000)
@given(draw=st.data())
def test_run_directories(draw: st.DataObject, base: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The report of a whole run and one of which a file is damaged or says something else; one in ten is drawn."""
    root = tmp_path_factory.getbasetemp() / "reported"
    shutil.rmtree(root, ignore_errors=True)
    for name in ("first", "second"):
        shutil.copytree(base / "run", root / name)
    target = root / "first"
    files = sorted(
        path for path in target.rglob("*") if path.suffix in (".json", ".npz", ".yaml") or "tfevents" in path.name
    )
    path = draw.draw(st.sampled_from(files))
    if path.suffix == ".json" and draw.draw(st.booleans()):
        path.write_text(json.dumps(altered(json.loads(path.read_text()), drawn_plain(draw))))
    elif path.suffix == ".yaml" and draw.draw(st.booleans()):
        path.write_text(yaml.dump(altered(yaml.safe_load(path.read_text()), drawn_plain(draw))))
    elif path.suffix == ".npz" and draw.draw(st.booleans()):
        with np.load(path) as arrays:
            history = dict(arrays)
        history[draw.draw(st.sampled_from(sorted(history)))] = np.array(draw.draw(st.lists(st.floats(), max_size=3)))
        path.write_bytes(saved_arrays(**history))
    else:
        path.write_bytes(draw.draw(mutations(path.read_bytes())))
    with one_line_at_most("run directories"):
        found = runs.find([root])
        assert len(found) == 2 or path.name == "config.yaml"
        groups = together(found)
        measures.plain(groups), differences(found), page.summary(found).to_csv().encode()
        if draw.draw(st.integers(0, 9 if FULL else 19)) == 0:
            text = page.write(found, root, page.heading(found)).read_text()
            assert "<b>x</b>" not in text


def drawn_plain(draw: st.DataObject) -> Callable[[Any], Any]:
    """Draws without tensors, which neither JSON nor YAML can hold."""

    def drawn(strategy: Any) -> Any:
        value = draw.draw(strategy)
        return None if isinstance(value, torch.Tensor) else value

    return drawn
