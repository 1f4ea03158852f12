"""What a run runs on: the memory that it takes, and whether there is enough, the versions that it uses."""

import ctypes
import sys
from importlib import metadata

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def peak_memory_mib() -> float | None:
    """The most memory that the process has held: of the GPU where it used one, else of the host. None where the
    system does not say."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 2**20
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def keep_freed_memory() -> None:
    """Let the allocator keep what a training step frees, for the next one. glibc gives the end of its heap back to the
    system at once and takes it again page by page: over a thousand page faults a step of the conv networks. Elsewhere,
    nothing."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no glibc
        return
    mallopt(M_MMAP_THRESHOLD, 32 * 2**20)  # glibc's own greatest; setting one of the two ends its adapting of both
    mallopt(M_TRIM_THRESHOLD, 256 * 2**20)


def versions() -> str:
    packages = ("torch", "torchvision", "hydra-core", "tensorboard")
    python = ".".join(map(str, sys.version_info[:3]))
    return ", ".join([f"python {python}", *(f"{package} {metadata.version(package)}" for package in packages)])


def is_out_of_memory(error: BaseException) -> bool:
    """torch has a type of its own for GPUs alone; on the CPU it says so in the message of a RuntimeError."""
    said = ("can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in said)
    )
