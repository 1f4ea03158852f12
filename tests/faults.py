"""`make test-faults`: runs of the program that are killed, stopped and starved of disk space at moments of chance, and
resumed until they finish; each must then be the twin of its undisturbed self (tests/twins.py).

Each attempt is a process of its own, forked from one that has imported torch, so that it begins at once where a user's
begins after seconds of imports. It does what `python run.py` does; one in twenty is a fresh `python run.py`. More than
half of the signals come at a step of the training, a quarter just before a file operation in the run's directory, which
is drawn by its number, the others at any moment: so the short phases of a run are met as often as the long ones. All
draws are functions of --seed."""

import argparse
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # a process with threads cannot be forked well

import sklearn.linear_model
import sklearn.pipeline  # noqa: F401  (all imported for the children)
import torch
from conftest import PUBLISHED_CURES, ROOT, save_digits
from hydra.core.plugins import Plugins
from PIL import Image
from torch import Tensor
from twins import assert_twins

import run
from vae.cli import launch, resume  # noqa: F401
from vae.runtime import directory as names
from vae.training import checkpoint, loop

MODELS = {
    "conv_vae": ["model=conv_vae", "model.channels=[4,8]", "model.hidden=16"],
    "mlp_vae": ["model=mlp_vae", "model.encoder_widths=[16]", "model.decoder_widths=[16]"],
    "ae": ["model=ae", "model.channels=[4,8]", "model.hidden=16"],
    "linear_vae": ["model=linear_vae"],
    "pixelcnn_vae": [
        *("model=pixelcnn_vae", "model.channels=4", "model.kernels=[3,3]", "model.encoder_widths=[16]"),
        *("model.map_hidden=8", "objective=bernoulli", "dataset.binarize=dynamic"),
    ],
}
CURES = {name: [] for name in PUBLISHED_CURES if name != "none"} | {
    "aggressive": ["cure.max_inner=3", "cure.compare_every=2"],
    "inverse_lipschitz": ["cure.widths=[8,8]"],
    "iwae": ["cure.samples=2"],
}
SCHEDULES = {
    "constant": [],
    "delayed": ["anneal.threshold=10", "anneal.observe_every=3", "anneal.rate=0.05"],
    "linear": ["anneal.steps=15"],
    "sigmoid": ["anneal.midpoint=10", "anneal.steepness=0.5"],
    "cyclical": ["anneal.cycles=2"],
    "no_kl": [],
}
VARIANTS = [
    [],
    ["train.precision=bf16"],
    ["objective=optimal_gaussian"],
    ["train.lr_schedule=cosine", "train.warmup_steps=5"],
    ["train.checkpoint_every=1", "objective=bernoulli"],
    ["train.optimizer=sgd", "train.lr=1e-4", "train.max_grad_norm=1"],
]
SETTINGS = [
    *("train.steps=24", "train.batch_size=8", "train.log_every=2", "train.eval_every=6", "train.checkpoint_every=4"),
    *("train.device=cpu", "train.threads=1", "pictures.gif_every=3", "pictures.columns=4"),
    "pictures.report=false",  # it is made of what a run has left, after its end: one killed meanwhile has none
    *("evaluation.iw_samples=2", "evaluation.probe_images=8", "evaluation.marginal_samples=16"),
]
IMPORTS = 3.0  # seconds, about, until a fresh process trains
MAX_SECONDS = 600.0  # seconds an attempt may take: beyond it hangs


def cases() -> list[list[str]]:
    """Every model, schedule, cure, precision, optimiser and rate schedule, in a few runs of a few steps each."""
    pairs = [(model, schedule) for schedule in SCHEDULES for model in ("conv_vae", "mlp_vae")]
    pairs += [("linear_vae", "sigmoid"), ("pixelcnn_vae", "constant"), ("pixelcnn_vae", "linear")]
    found = [[*MODELS[model], f"anneal={schedule}", *SCHEDULES[schedule]] for model, schedule in pairs]
    found.append(MODELS["ae"])
    for number, (cure, values) in enumerate(CURES.items()):
        model = ("conv_vae", "mlp_vae")[number % 2]
        found.append([*MODELS[model], f"cure={cure}", *values])
    return found


def settings(number: int) -> list[str]:
    """The overrides of run `number`: the cases in turn, each pass over them with other variants."""
    every = cases()
    variant = VARIANTS[(number + number // len(every)) % len(VARIANTS)]
    chosen = [*SETTINGS, *variant, *every[number % len(every)]]  # of two objectives the case's counts
    last = {item.partition("=")[0]: item for item in chosen}
    return [*last.values(), f"seed={number}"]


@dataclass
class Life:
    """How one attempt ended."""

    status: int  # as subprocess has it: negative for a signal that nothing caught
    said: str  # stderr
    seconds: float
    operations: int  # on files in the run's directory


@dataclass
class Tally:
    """What happened to one run."""

    counts: Counter[str] = field(default_factory=Counter)
    problem: str = ""


class Operations:
    """Counts what this process does to the names in a directory, and ends it before operation number `last`."""

    EVENTS = ("open", "os.rename", "os.remove", "os.truncate", "os.mkdir", "os.rmdir")

    def __init__(self, directory: Path, last: int | None) -> None:
        self.directory, self.last, self.count = str(directory), last, 0

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in self.EVENTS and str(arguments[0]).startswith(self.directory):
            self.count += 1
            if self.count == self.last:
                os.kill(os.getpid(), signal.SIGKILL)


def attempt(
    directory: Path,
    arguments: list[str],
    number: int = 0,
    after: float = MAX_SECONDS,
    before: int | None = None,
    step: int | None = None,
) -> Life:
    """Run the program in a forked process. Send it signal `number` after so many seconds, or at a `step` of its
    training, or kill it before so many file operations."""
    log, count = (Path(tempfile.gettempdir()) / f"{os.getpid()}.{name}" for name in ("log", "count"))
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        status = 99
        try:
            if step is not None:
                loop.update = _signalled(number, step)
            status = _program(directory, arguments, log, count, before)
        finally:
            os._exit(status)
    code = None
    while code is None and time.monotonic() - started < after:
        time.sleep(0.001)
        pid, waited = os.waitpid(child, os.WNOHANG)
        code = os.waitstatus_to_exitcode(waited) if pid else None
    if code is None:
        os.kill(child, number or signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert number, f"no end after {MAX_SECONDS:.0f} s: {arguments}"
    operations = int(count.read_text()) if before is None and code == 0 else 0
    return Life(code, log.read_text(), time.monotonic() - started, operations)


def _signalled(number: int, at: int) -> Callable[..., Tensor]:
    """The update of the loop, before which this process gets a signal at step `at`."""
    update = loop.update

    def signalled(setup: Any, step: int, *given: Any) -> Tensor:
        if step == at:
            os.kill(os.getpid(), number)
        return update(setup, step, *given)

    return signalled


def _program(directory: Path, arguments: list[str], log: Path, count: Path, before: int | None) -> int:
    """What `python run.py` does, in this process: its exit status."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.chdir(directory.parent)
    sys.argv = [str(ROOT / "run.py"), *arguments]
    operations = Operations(directory, before)
    sys.addaudithook(operations)
    status: Any = 0
    try:
        launch.run(run.main)
    except SystemExit as stop:
        status = stop.code or 0
    except BaseException:
        traceback.print_exc()
        status = 1
    if isinstance(status, str):
        print(status, file=sys.stderr)
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    count.write_text(str(operations.count))
    return int(status)


def fresh(directory: Path, arguments: list[str], after: float) -> Life:
    """As `attempt`, in a `python run.py` from its first import on."""
    command = [sys.executable, str(ROOT / "run.py"), *arguments]
    started = time.monotonic()
    with subprocess.Popen(command, cwd=directory.parent, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            _, said = process.communicate(timeout=after)
        except subprocess.TimeoutExpired:
            process.kill()
            _, said = process.communicate()
        return Life(process.returncode, said.decode(), time.monotonic() - started, 0)


def begun(directory: Path) -> bool:
    """Whether resume= has something to continue. Hydra writes overrides.yaml last."""
    return (directory / names.OVERRIDES).is_file()


def stage(directory: Path) -> str:
    """How far a run had come when it was killed."""
    if not begun(directory):
        return "before the run had its configuration"
    if list(directory.glob(f".{names.CHECKPOINT}.*")):
        return "while a checkpoint was written"
    if not (directory / names.CHECKPOINT).is_file():
        return "in training, or before it, with no checkpoint yet"
    if (directory / names.RESULT).is_file():
        return "after result.json"
    done = checkpoint.read(directory)
    return "after the last step" if done.step == done.config.train.steps else "in training, after a checkpoint"


def left(directory: Path) -> float:
    """About which fraction of a whole life the next attempt takes: it starts, resumes from its checkpoint, and ends."""
    if not begun(directory) or not (directory / names.CHECKPOINT).is_file():
        return 1.0
    done = checkpoint.read(directory)
    return max(1 - done.step / done.config.train.steps, 0.4)


def ahead(directory: Path) -> tuple[int, int]:
    """The first and the last step that the next attempt makes, or would make if there were any left."""
    steps = next(int(item.partition("=")[2]) for item in SETTINGS if item.startswith("train.steps="))
    if not begun(directory) or not (directory / names.CHECKPOINT).is_file():
        return 1, steps
    return min(checkpoint.read(directory).step + 1, steps), steps


def way_on(directory: Path, overrides: list[str]) -> list[str]:
    """What a user types next."""
    if begun(directory):
        return [f"resume={directory}"]
    if directory.exists():
        refused = attempt(directory, [f"resume={directory}"])
        assert refused.status == 1, refused.said
        assert refused.said.count("\n") == 1, refused.said
        for path in sorted(directory.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        directory.rmdir()
    return [*overrides, f"hydra.run.dir={directory}"]


def disturbed(directory: Path, overrides: list[str], whole: Life, chance: random.Random, ends: int) -> Counter[str]:
    """Run until it is finished, with at most `ends` interruptions; how many of which kind there were."""
    counts: Counter[str] = Counter()
    while ends and not (directory / names.RESULT).is_file():
        arguments = way_on(directory, overrides)
        kinds = {
            "kill at a step": 35,
            "terminate at a step": 20,
            "kill": 10,
            "kill before": 25,
            "terminate": 5,
            "fresh": 5,
        }
        kind = chance.choices([*kinds], [*kinds.values()])[0]
        fraction = chance.uniform(0, chance.choice((0.5, 1.0)) * left(directory))
        moment = fraction * whole.seconds
        if kind.endswith("at a step"):
            number = signal.SIGKILL if kind.startswith("kill") else signal.SIGTERM
            life = attempt(directory, arguments, number, step=chance.randint(*ahead(directory)))
        elif kind == "kill":
            life = attempt(directory, arguments, signal.SIGKILL, moment)
        elif kind == "terminate":
            life = attempt(directory, arguments, signal.SIGTERM, moment)
        elif kind == "fresh":
            life = fresh(directory, arguments, chance.uniform(0, IMPORTS) + moment)
        else:
            life = attempt(directory, arguments, before=1 + int(fraction * whole.operations))
        if life.status == 0:
            break
        ends -= 1
        if life.status == -signal.SIGKILL:
            counts["kills"] += 1
            counts["kills of a fresh process" if kind == "fresh" else "kills of a forked process"] += 1
            counts[f"killed {stage(directory)}"] += 1
        else:
            assert kind.startswith("terminate"), life.said
            counts["terminated"] += 1
            counts[check_terminated(directory, life)] += 1
    if not (directory / names.RESULT).is_file() or life_is_open(directory):
        last = attempt(directory, way_on(directory, overrides))
        assert last.status == 0, last.said
    return counts


def life_is_open(directory: Path) -> bool:
    """A run that was killed after its result.json has nothing left to do, and resume= says so."""
    said = attempt(directory, [f"resume={directory}"])
    assert said.status == 1, said.said
    assert "has finished its" in said.said
    return False


def check_terminated(directory: Path, life: Life) -> str:
    """SIGTERM in the loop: status 143, and a checkpoint of the step that the last line names."""
    if life.status == -signal.SIGTERM:
        return "terminated outside the loop"
    assert life.status == 128 + signal.SIGTERM, (life.status, life.said)
    last = life.said.splitlines()[-1]
    assert last.startswith(f"stopped after step {checkpoint.read(directory).step} and saved"), last
    return "terminated in the loop, with a checkpoint of that step"


@contextmanager
def small_disk(directory: Path, size: int) -> Iterator[None]:
    """A file system of `size` bytes at `directory`; needs root."""
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "faults", str(directory)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(directory)], check=True)


def full_disk(directory: Path, overrides: list[str], whole: Path, chance: random.Random) -> Counter[str]:
    """Run on a disk that is too small by a part drawn by chance; give it more space, and resume."""
    disk = directory.parent / f"{directory.name}_disk"
    place = disk / "run"
    needed = sum(path.stat().st_size for path in whole.rglob("*") if path.is_file())
    with small_disk(disk, 4096 + chance.randint(0, needed)):
        life = attempt(place, [*overrides, f"hydra.run.dir={place}"])
        if life.status == 0:
            return Counter({"runs for which the disk was large enough": 1})
        assert life.status == 1, (life.status, life.said)
        assert "Traceback" not in life.said, life.said
        last = life.said.splitlines()[-1]
        assert "No space left on device" in last, life.said
        assert str(disk) in last, last
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        at = f"disk full {stage(place)}"
        again = attempt(place, way_on(place, overrides))
        assert again.status == 0, again.said
        assert_twins(whole, place)
    return Counter({"full disks": 1, at: 1})


def rehearse(number: int, seed: int, root: Path, ends: int, disks: int) -> Tally:
    """Run `number` undisturbed, disturbed by `ends` interruptions, and on `disks` disks that are too small."""
    tally = Tally()
    chance = random.Random(f"{seed}/{number}")
    overrides = [*save_digits(root / f"{number}.npz"), *settings(number)]
    first, second = root / f"{number}_whole", root / f"{number}_disturbed"
    try:
        whole = attempt(first, [*overrides, f"hydra.run.dir={first}"])
        assert whole.status == 0, whole.said
        tally.counts += disturbed(second, overrides, whole, chance, ends)
        assert_twins(first, second)
        tally.counts["runs"] += 1
        for i in range(disks):
            tally.counts += full_disk(root / f"{number}_full{i}", overrides, first, chance)
    except Exception:
        tally.problem = f"run {number}, --seed {seed}: {' '.join(overrides)}\n{traceback.format_exc()}"
    return tally


def _rehearse(call: tuple[int, int, Path, int, int]) -> Tally:
    return rehearse(*call)


def main() -> None:
    parser = argparse.ArgumentParser(description="Interrupt runs, resume them, compare them with undisturbed ones.")
    parser.add_argument("--runs", type=int, default=len(cases()))
    parser.add_argument("--ends", type=int, default=15, help="interruptions of a run, at most")
    parser.add_argument("--disks", type=int, default=2, help="full disks for each run (needs root)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", type=int, help="repeat the run of this number alone")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    Image.init()
    Plugins.instance()
    disks = arguments.disks if os.geteuid() == 0 else 0
    numbers = range(arguments.runs) if arguments.only is None else [arguments.only]
    with tempfile.TemporaryDirectory() as directory:
        calls = [(number, arguments.seed, Path(directory), arguments.ends, disks) for number in numbers]
        tempfile.tempdir = directory
        with multiprocessing.get_context("fork").Pool(arguments.workers) as pool:
            tallies = []
            for tally in pool.imap(_rehearse, calls):
                tallies.append(tally)
                print(
                    f"{len(tallies)} of {len(numbers)} runs, {sum(t.counts['kills'] for t in tallies)} kills",
                    flush=True,
                )
    for tally in tallies:
        if tally.problem:
            print(tally.problem, file=sys.stderr)
    total = sum((tally.counts for tally in tallies), Counter())
    print(f"seed {arguments.seed}: {total['kills']} kills over {total['runs']} runs", end="")
    print(", all bit-identical" if not any(tally.problem for tally in tallies) else ", NOT ALL WELL")
    print(json.dumps(dict(sorted(total.items())), indent=2))
    sys.exit(any(tally.problem for tally in tallies))


if __name__ == "__main__":
    main()
