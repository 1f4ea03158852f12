"""How time and memory grow with the number of images, their pixels, the runs of a sweep and of a report; and training
on more data than memory holds."""

import math
import os
import re
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import ours
from benchmarks.blobs import blobs
from benchmarks.options import GIGABYTE, Options
from benchmarks.process import python
from benchmarks.rounds import FAILED, Goal, Measured, Metrics, Record, median, spread, table, values

ROUNDS = 3
TIMES = (1, 2, 4, 8)
IMAGES = 10_000  # times 1, 2, 4, 8
SIDES = (28, 40, 56, 80)  # pixels 1, 2.04, 4 and 8.16 times, both sides divisible by 4
LIMIT = 2 * GIGABYTE
LARGE_SIDE = 64  # an image is then one page of memory
SMALL, LARGE = "a fortieth", "all"  # of the images of the large file
CAN_FORGET = hasattr(os, "posix_fadvise")  # what the system has in memory of a file
LINEAR = 1.1  # max exponent that counts as linear
MANY, MANY_SECONDS, MANY_MIB = 1000, 60, 500  # runs in one report, and what that may take
REPORT_OF_MANY = "many runs in a report"
MODELS = {"images": "mlp_vae", "pixels": "conv_vae"}


def measure(options: Options) -> None:
    times, images = (TIMES[:2], 100) if options.smoke else (TIMES, IMAGES)
    steps = 4 if options.smoke else 300
    settings = {"images": images, "steps": steps, "threads": options.threads, "large_gib": options.large}
    record = Record("growth", options.results, settings, options.fresh)
    contestants: dict[str, Callable[[], Metrics]] = {}
    for factor, side in zip(times, SIDES, strict=False):
        contestants[f"images {factor}"] = partial(train, options, steps, images * factor, 28, "mlp_vae")
        contestants[f"pixels {factor}"] = partial(train, options, steps, images, side, "conv_vae")
        contestants[f"sweep {factor}"] = partial(sweep, options, factor)
        contestants[f"report {factor}"] = partial(report, options, factor)
    contestants[REPORT_OF_MANY] = partial(report_of_copies, options, 4 if options.smoke else MANY)
    record.alternate(contestants, options.rounds or ROUNDS)
    beyond_memory(options, record, 2 * steps)
    record.finish()


def train(options: Options, steps: int, images: int, side: int, model: str) -> Metrics:
    with tempfile.TemporaryDirectory(dir=options.scratch) as directory:
        paths = [blobs(Path(directory) / "train.npy", images, side), blobs(Path(directory) / "test.npy", 100, side)]
        return training(options, steps, model, paths)


def training(
    options: Options,
    steps: int,
    model: str,
    paths: list[Path],
    prefix: list[str] | None = None,
    limit: Callable[[], None] | None = None,
) -> Metrics:
    """Time per step in the second half of a short run that observes nothing, start-up, peak memory."""
    done = ours.run(
        *("dataset=arrays", f"dataset.train={paths[0]}", f"dataset.test={paths[1]}", f"model={model}"),
        *(f"train.steps={steps + 1}", f"train.log_every={steps // 2}", f"train.eval_every={steps + 1}"),
        "pictures.gif_every=0",
        *(f"train.threads={options.threads}", "train.device=cpu", *options.quick()),
        prefix=prefix or [],
        limit=limit,
    )
    return {
        "step_seconds": done.seconds(steps // 2, steps) / (steps - steps // 2),
        "start_seconds": done.wall(ours.LOOP_BEGINS, 1) - done.finished.started,
        "peak_mib": done.finished.peak_rss_mib,
        "anonymous_mib": done.finished.peak_anon_mib,
    }


def several(options: Options, runs: int, directory: Path) -> Metrics:
    """Small runs one after the other in one process, seed by seed."""
    done = python(
        *(ours.program(), "-m", *options.data(), f"seed=range({runs})", "model=mlp_vae", "hydra.sweep.dir=sweep"),
        *(f"train.steps={2 if options.smoke else 50}", "train.eval_every=25"),
        *(f"train.threads={options.threads}", "train.device=cpu", *options.quick()),
        cwd=directory,
    )
    return {"seconds": done.seconds, "peak_mib": done.peak_rss_mib, "anonymous_mib": done.peak_anon_mib}


def sweep(options: Options, runs: int) -> Metrics:
    with tempfile.TemporaryDirectory() as directory:
        return several(options, runs, Path(directory))


def report(options: Options, runs: int) -> Metrics:
    """The report of so many runs, alone."""
    with tempfile.TemporaryDirectory() as directory:
        several(options, runs, Path(directory))
        done = python("-m", "vae.report", "sweep", "--output", "report", cwd=Path(directory))
    return {"seconds": done.seconds, "peak_mib": done.peak_rss_mib, "anonymous_mib": done.peak_anon_mib}


def report_of_copies(options: Options, runs: int) -> Metrics:
    """The report of so many runs: copies of two, each with a seed of its own, without their checkpoints."""
    with tempfile.TemporaryDirectory(dir=options.scratch) as directory:
        several(options, 2, Path(directory))
        made = sorted(path for path in (Path(directory) / "sweep").iterdir() if path.is_dir())
        for number in range(len(made), runs):
            source = made[number % len(made)]
            copied = source.with_name(f"{number}_seed={number}")
            shutil.copytree(source, copied, ignore=shutil.ignore_patterns("*.pt"))
            for path in (copied / ".hydra" / "config.yaml", copied / "result.json"):
                path.write_text(re.sub(r'^( *"?seed"?: )\d+', rf"\g<1>{number}", path.read_text(), flags=re.MULTILINE))
        done = python("-m", "vae.report", "sweep", "--output", "report", cwd=Path(directory))
    return {"seconds": done.seconds, "peak_mib": done.peak_rss_mib, "anonymous_mib": done.peak_anon_mib}


def beyond_memory(options: Options, record: Record, steps: int) -> None:
    """A file that is larger than the machine's memory, and one that is not."""
    size = 2**22 if options.smoke else int(options.large * GIGABYTE)
    free = shutil.disk_usage(options.scratch).free
    if free < 1.2 * size:
        print(
            f"growth: {options.scratch} has no room for {size / GIGABYTE:g} GiB; choose --scratch or --large",
            flush=True,
        )
        return
    count = size // LARGE_SIDE**2
    prefix, limit, how = memory_limit()
    record.content["limit"], record.content["cold"] = how, CAN_FORGET
    with tempfile.TemporaryDirectory(dir=options.scratch) as directory:
        path = Path(directory)
        test = blobs(path / "test.npy", 100, LARGE_SIDE)
        small = blobs(path / "small.npy", max(200, count // 40), LARGE_SIDE)
        large = blobs(path / "large.npy", count, LARGE_SIDE)
        train = partial(training, options, steps, "conv_vae")
        contestants: dict[str, Callable[[], Metrics]] = {
            SMALL: partial(cold, [small, test], train),
            LARGE: partial(cold, [large, test], partial(train, prefix=prefix, limit=limit)),
        }
        record.alternate(contestants, options.rounds or ROUNDS)


def cold(paths: list[Path], train: Callable[[list[Path]], Metrics]) -> Metrics:
    """Trained on files of which nothing is in memory, where the system can be told so."""
    for path in paths if CAN_FORGET else ():
        with path.open("rb") as file:
            os.fdatasync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return train(paths)


def memory_limit() -> tuple[list[str], Callable[[], None] | None, str]:
    """A hard limit of LIMIT bytes: the command that sets it, or what the child calls, and its description.

    A control group counts the pages of mapped files too, and takes them back first; RLIMIT_DATA counts anonymous
    memory alone, all that a process has reserved."""
    prefix = ["systemd-run", "--quiet", "--scope", "-p", f"MemoryMax={LIMIT}", "-p", "MemorySwapMax=0"]
    for command in (prefix, [prefix[0], "--user", *prefix[1:]]):
        if (
            shutil.which(prefix[0])
            and not subprocess.run([*command, "true"], capture_output=True, check=False).returncode
        ):
            return command, None, "a control group, page cache included"
    return [], partial(resource.setrlimit, resource.RLIMIT_DATA, (LIMIT, LIMIT)), "RLIMIT_DATA: anonymous memory alone"


def grown(measured: Measured, kind: str, key: str) -> list[tuple[int, float]]:
    """(factor, median) of a metric."""
    found = [(int(name.split()[1]), median(values(measured[name], key))) for name in measured if name.startswith(kind)]
    return [(factor, value) for factor, value in found if value is not None]


def exponent(points: list[tuple[int, float]]) -> float | None:
    """a of value ~ factor^a between the ends: 0 constant, 1 linear."""
    if len(points) < 2:
        return None
    (first, low), (last, high) = points[0], points[-1]
    return math.log(high / low) / math.log(last / first)


GROWING = {
    ("images", "step_seconds"): "time per step",
    ("images", "start_seconds"): "start-up",
    ("images", "peak_mib"): "peak memory",
    ("pixels", "step_seconds"): "time per step",
    ("pixels", "start_seconds"): "start-up",
    ("pixels", "peak_mib"): "peak memory",
    ("sweep", "seconds"): "wall time",
    ("sweep", "peak_mib"): "peak memory",
    ("report", "seconds"): "wall time",
    ("report", "peak_mib"): "peak memory",
}


def tables(content: Metrics) -> str:
    measured: Measured = content["measured"]
    settings = content["settings"]
    rows = []
    for (kind, key), what in GROWING.items():
        points = grown(measured, kind, key)
        unit = "MiB" if key.endswith("mib") else "s"
        name = kind if kind in MODELS else f"runs in a {kind}"
        power = exponent(points)
        shown = [f"{value:.3g} {unit}" for _, value in points]
        rows.append([name, what, *shown, *["–"] * (len(TIMES) - len(shown)), "–" if power is None else f"{power:.2f}"])
    said = (
        f"Medians. Images from {settings['images']:,} of 28x28 (mlp_vae); pixels from 28x28 at {settings['images']:,} "
        "images (conv_vae), in a .npy. The exponent is that between x1 and x8, of the whole, with what a run of any "
        "size takes: 0 is constant, 1 is linear."
    )
    if many := measured.get(REPORT_OF_MANY, []):
        said += (
            f" A report of {MANY:,} runs takes {spread(values(many, 'seconds'))} s and "
            f"{spread(values(many, 'peak_mib'))} MiB of memory."
        )
    parts = [said, table(["what grows", "measure", *(f"x{factor}" for factor in TIMES), "exponent"], rows)]
    if LARGE in measured:
        parts.append(larger(content))
    return "\n\n".join(parts)


def larger(content: Metrics) -> str:
    rows = []
    size = content["settings"]["large_gib"]
    for name, gib in ((SMALL, size / 40), (LARGE, size)):
        found = content["measured"].get(name, [])
        rates = [ours.BATCH / seconds for seconds in values(found, "step_seconds")]
        memory = [spread(values(found, key)) for key in ("start_seconds", "peak_mib", "anonymous_mib")]
        failed = [metrics[FAILED] for metrics in found if FAILED in metrics]
        told = spread(rates) if rates else f"failed: {failed[-1] if failed else '–'}"
        rows.append([f"{gib:.3g} GiB", told, *memory])
    cold = " Nothing of either file is in memory when the run begins." if content.get("cold") else ""
    said = (
        f"Two .npy files of 64x64 images, conv_vae; the machine has {content['machine']['memory_gib']:g} GiB of memory "
        f"and the run on the large file may hold at most 2 GiB ({content['limit']}).{cold} Resident memory holds pages "
        "of the file that the system takes back when it needs them; anonymous memory is the process's own."
    )
    head = ["file", "images/s", "start-up, s", "peak resident, MiB", "peak anonymous, MiB"]
    return f"{said}\n\n{table(head, rows)}"


def goals(content: Metrics) -> list[Goal]:
    measured: Measured = content["measured"]
    found = []
    for (kind, key), what in GROWING.items():
        text = f"{what} at most linear in {kind if kind in MODELS else f'the runs of a {kind}'} (exponent)"
        found.append(Goal.at_most(text, exponent(grown(measured, kind, key)), LINEAR))
    many = measured.get(REPORT_OF_MANY, [])
    for key, most, unit in (("seconds", MANY_SECONDS, " s"), ("peak_mib", MANY_MIB, " MiB")):
        text = f"a report of {MANY:,} runs takes at most {most}{unit}"
        found.append(Goal.at_most(text, median(values(many, key)), most, unit))
    return found
