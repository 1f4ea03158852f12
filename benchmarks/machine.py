"""What was measured, and on what: the processor, the memory, the packages, the code."""

import hashlib
import os
import platform
import re
from importlib import metadata
from pathlib import Path
from typing import Any

from joblib import cpu_count

from benchmarks.process import ROOT

MEASURED = ("vae", "conf", "run.py")  # the code that a record is of


def cores() -> int:
    """Physical ones, as train.threads=0 takes them."""
    return int(cpu_count(only_physical_cores=True))


def describe() -> dict[str, Any]:
    packages = {item.metadata["Name"]: item.version for item in metadata.distributions() if item.metadata["Name"]}
    return {
        "processor": processor(),
        "cores": cores(),
        "memory_gib": memory_gib(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": dict(sorted(packages.items(), key=lambda item: item[0].lower())),
    }


def memory_gib() -> float:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)


def processor() -> str:
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def code(checkout: Path = ROOT) -> str:
    """A digest of what is measured: two versions are never mixed in one record."""
    places = [checkout / name for name in MEASURED]
    files = [path for place in places for path in [place, *place.rglob("*")] if path.is_file()]
    digest = hashlib.sha256()
    for path in sorted(path for path in files if path.suffix in (".py", ".yaml", ".html")):
        digest.update(f"{path.relative_to(checkout)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:12]
