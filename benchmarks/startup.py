"""How long until something happens: --help, --cfg job, the end of the first training step; beside importing torch. And
what the first step waits for."""

import re
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from benchmarks import ours
from benchmarks.options import Options
from benchmarks.process import python
from benchmarks.rounds import Goal, Measured, Metrics, Record, median, ratios, spread, table, values

ROUNDS = 5
WANTED = 2.3  # seconds
TORCH, FIRST = "import torch", "first training step"
IMPORTED = re.compile(r"import time: +\d+ \| +(\d+) \| +(\S+)$", re.MULTILINE)  # microseconds, all it imports with it
PACKAGES = {"hydra": "Hydra", "torch": "torch", "vae.output.events": "TensorBoard's records"}
PROFILED = ["-X", "importtime"]
WAITED = "what the first step waits for"
CALLS = {"run.py --help": ["--help"], "run.py --cfg job": ["--cfg", "job"]}


def measure(options: Options) -> None:
    record = Record("startup", options.results, {"threads": options.threads}, options.fresh)
    contestants: dict[str, Callable[[], Metrics]] = {
        TORCH: import_torch,
        **{name: partial(call, arguments) for name, arguments in CALLS.items()},
        FIRST: partial(first_step, options),
        WAITED: partial(waited, options),
    }
    record.alternate(contestants, options.rounds or ROUNDS)
    record.finish()


def import_torch() -> Metrics:
    """Until the import is done, told by the child: what ending a process takes is not in it."""
    with tempfile.TemporaryDirectory() as directory:
        done = python("-c", "import torch, time, json; print(json.dumps(time.time()))", cwd=Path(directory))
    return {"seconds": float(done.stdout.split()[-1]) - done.started, "peak_mib": done.peak_rss_mib}


def call(arguments: list[str]) -> Metrics:
    with tempfile.TemporaryDirectory() as directory:
        return {"seconds": python(ours.program(), *arguments, cwd=Path(directory)).seconds}


def short_run(options: Options, launcher: Sequence[str] = ()) -> ours.Run:
    """Two steps: the first is logged as soon as it is done."""
    here = [f"train.threads={options.threads}", "train.device=cpu", *options.data(), *options.quick()]
    return ours.run("train.steps=2", "train.log_every=1", *here, launcher=launcher)


def first_step(options: Options) -> Metrics:
    """Until the first step is done and logged; the memory is of the whole run of two steps."""
    done = short_run(options)
    return {"seconds": done.wall(ours.STEP, 1) - done.finished.started, "peak_mib": done.finished.peak_rss_mib}


def waited(options: Options) -> Metrics:
    """Seconds of the imports, and from the beginning of the process until the prediction is logged, which the first
    step follows."""
    done = short_run(options, PROFILED)
    imports = {name: int(spent) / 1e6 for spent, name in IMPORTED.findall(done.finished.stderr)}
    found = {label: imports[name] for name, label in PACKAGES.items() if name in imports}
    begun, first = done.wall(ours.LOOP_BEGINS, 1), done.wall(ours.STEP, 1)
    return found | {"until the prediction": begun - done.finished.started, "the first step": first - begun}


def tables(content: Metrics) -> str:
    measured: Measured = content["measured"]
    rows = [
        [
            f"`{name}`" if name != FIRST else name,
            spread(values(measured.get(name, []), "seconds")),
            spread(ratios(measured, name, TORCH, "seconds"), unit="x"),
            spread(values(measured.get(name, []), "peak_mib")),
        ]
        for name in (TORCH, *CALLS, FIRST)
    ]
    said = "Seconds from the start of the process, on mnist5k with conv_vae; peak memory of the whole process."
    parts = [said, table(["until", "seconds", "of importing torch", "peak memory, MiB"], rows)]
    if found := measured.get(WAITED):
        known = [label for label in PACKAGES.values() if values(found, label)]
        shares = ", ".join(f"{label} {spread(values(found, label))}" for label in known)
        until, first = (spread(values(found, key)) for key in ("until the prediction", "the first step"))
        parts.append(
            "What the first step waits for, in seconds, with `python -X importtime` (which itself takes time): the "
            f"imports of {shares}; until the prediction, with configuration, digits and spectrum, {until}; the first "
            f"frame of the film and the first step {first}."
        )
    return "\n\n".join(parts)


def goals(content: Metrics) -> list[Goal]:
    found = median(values(content["measured"].get(FIRST, []), "seconds"))
    return [Goal.at_most(f"the first training step within {WANTED:g} s of the call", found, WANTED, " s")]
