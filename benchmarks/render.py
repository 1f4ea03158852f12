"""The tables of docs/performance.md and docs/scaling.md, made from the records: whatever stands between
`<!-- measured: NAME -->` and `<!-- end -->` is replaced."""

import re
from pathlib import Path

from benchmarks import (
    answer,
    gpu,
    growth,
    observing,
    optimizers,
    processes,
    startup,
    sweep,
    throughput,
    time_to_quality,
    turns,
)
from benchmarks.process import ROOT
from benchmarks.rounds import FAILED, Goal, Metrics, read, table

PAGES = [ROOT / "docs" / name for name in ("performance.md", "scaling.md")]
SECTIONS = {
    "throughput": throughput,
    "turns": turns,
    "time_to_quality": time_to_quality,
    "answer": answer,
    "sweep": sweep,
    "processes": processes,
    "observing": observing,
    "startup": startup,
    "growth": growth,
    "optimizers": optimizers,
    "gpu": gpu,
}
SHOWN = ("torch", "torchvision", "numpy", "hydra-core", "tensorboard", "pythae", "pytorch-lightning")
UNMEASURED: Metrics = {"settings": {}, "measured": {}}
BLOCK = re.compile(r"(<!-- measured: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def page(text: str, results: Path) -> str:
    """`text` with its measured blocks filled from the records in `results`."""
    return BLOCK.sub(lambda found: f"{found[1]}\n{block(found[2], results)}\n\n{found[3]}", text)


def block(name: str, results: Path) -> str:
    if name == "machine":
        return machines(results)
    if name == "goals":
        return goals(results)
    if name == "profiles":
        content = read(results, "throughput")
        return throughput.profiles(content) if content else missing("throughput")
    content = read(results, name)
    return section(name, content) if content else missing(name)


def missing(name: str) -> str:
    return f"Not measured yet: `python -m benchmarks {name}`."


def section(name: str, content: Metrics) -> str:
    """The tables of a section, and what went wrong in it."""
    failures = [
        f"- {contestant}, round {number}: {metrics[FAILED]}"
        for contestant, found in content["measured"].items()
        for number, metrics in enumerate(found, start=1)
        if FAILED in metrics
    ]
    parts = [SECTIONS[name].tables(content), "\n".join(failures)]
    if not content["done"]:
        parts.append("Not all rounds are measured yet.")
    return "\n\n".join(part for part in parts if part)


def goals(results: Path) -> str:
    rows: list[list[str]] = []
    for name, module in SECTIONS.items():
        content = read(results, name) or UNMEASURED
        rows += [[name, goal.text, goal.measured, verdict(goal)] for goal in module.goals(content)]
    return table(["section", "goal", "measured", ""], rows)


def verdict(goal: Goal) -> str:
    return {True: "reached", False: "**not reached**", None: "not measured"}[goal.reached]


def machines(results: Path) -> str:
    """Each machine, set of packages and version of the code that was measured, and what on it: one, if all is well."""
    measured: dict[str, list[str]] = {}
    for name in SECTIONS:
        content = read(results, name)
        if content is None:
            continue
        machine = content["machine"]
        packages = ", ".join(f"{name} {machine['packages'][name]}" for name in SHOWN if name in machine["packages"])
        said = (
            f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB of memory, "
            f"{machine['system']}; Python {machine['python']}, {packages}; code {content['code']}"
        )
        when = f"{name} ({content['started'][:10]}, load at its start {content['load_average']:.2f})"
        measured.setdefault(said, []).append(when)
    return "\n".join(f"- {said}: {', '.join(names)}." for said, names in measured.items()) or "Nothing is measured yet."
