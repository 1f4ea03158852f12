"""What the command line gives to every section."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks import machine
from benchmarks.blobs import blobs
from benchmarks.process import ROOT

RESULTS = ROOT / "benchmarks" / "results"
GIGABYTE = 2**30


@dataclass(frozen=True)
class Options:
    root: str | None = None  # directory of full MNIST; None: it is not here
    dataset: str = "auto"  # of throughput: mnist, mnist5k, auto (mnist where it is)
    rounds: int | None = None  # None: each section's own number
    threads: int = machine.cores()
    results: Path = RESULTS
    scratch: Path = Path(tempfile.gettempdir())  # where data larger than memory is put
    large: float = round(1.25 * machine.memory_gib())  # GiB of it
    before: Path | None = None  # another checkout of this project, for sweep
    fresh: bool = False
    smoke: bool = False

    def quick(self) -> list[str]:
        """Overrides that make the end of a run cheap, where only its working is of interest."""
        if not self.smoke:
            return []
        return ["evaluation.marginal_samples=8", "evaluation.probe_images=4", "evaluation.iw_samples=1"]

    def data(self) -> list[str]:
        """Overrides for a few small images, where only the working is of interest; else the default's."""
        if not self.smoke:
            return []
        path = self.results / "blobs.npy"
        self.results.mkdir(parents=True, exist_ok=True)
        return ["dataset=arrays", f"dataset.train={blobs(path, 100, 28).resolve()}"]

    def colour(self) -> str:
        """A .npy of 5,000 images of 64x64 in colour, for the deep network."""
        return str(blobs(self.scratch / "bench_colour.npy", 5_000, 64, channels=3))

    def throughput_root(self) -> str | None:
        return None if self.dataset == "mnist5k" else self.root


def find_mnist(given: str | None) -> str | None:
    """The directory to read MNIST from: the one given, $MNIST_ROOT or data/, where the files are in it."""
    place = Path(given or os.environ.get("MNIST_ROOT") or ROOT / "data").expanduser().resolve()
    return str(place) if list((place / "MNIST" / "raw").glob("train-images-idx3-ubyte*")) else None
