"""The process and the device that a run uses: threads, allocator, determinism, memory, versions."""

import ctypes
import logging
import os
import sys
from functools import cache
from importlib import metadata

import torch

from vae.config.errors import InputError
from vae.runtime import cores, parallel
from vae.runtime.torchrun import world

log = logging.getLogger(__name__)

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def peak_memory_mib(device: torch.device) -> float | None:
    """The most memory that the process has held: on a GPU since `count_memory`, on a CPU since it began. None where
    the system does not say."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def count_memory(device: torch.device) -> None:
    """Begin to look for the most memory that is held on a GPU."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def configure_process(threads: int = 0) -> None:
    """Everything that a run sets for its whole process, before torch computes anything.

    Denormal numbers count as 0: Adam's first moment of a weight without a gradient decays into them, and arithmetic on
    them is a hundred times slower. Each thread has that flag of its own and takes it from the thread that makes it,
    so it is set before torch makes its threads. `threads`: 0 for this process's share. The rest makes CUDA
    deterministic."""
    there = os.cpu_count() or threads
    if threads > there:
        log.warning(
            "train.threads=%d: more than the %d cores of this machine, so each step takes longer", threads, there
        )
    torch.set_flush_denormal(True)
    _keep_freed_memory()
    torch.set_num_threads(threads or own_threads())
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    if torch.cuda.is_available():  # what runs on the CPU is deterministic, and would become slower
        torch.use_deterministic_algorithms(True)


def own_threads() -> int:
    """This process's share of the machine: of its physical cores what a launcher leaves to each of its workers. joblib,
    Ray and the user say it as OMP_NUM_THREADS, Slurm as SLURM_CPUS_PER_TASK. The processes of torchrun, which sets the
    first to 1 whatever there is, share the cores among themselves."""
    own = cores.share(world().local_size)
    if world().size > 1:
        return own
    granted = [os.environ.get(name, "") for name in ("OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK")]
    return min([own, *(int(number) for number in granted if number.isdecimal() and int(number) > 0)])


def choose_device(name: str) -> torch.device:
    """The device that train.device names; auto: a GPU where there is one. Raises InputError where it cannot compute in
    double precision, as the diagnostics do, or is not there."""
    chosen = "cuda" if name == "auto" and torch.cuda.is_available() else "cpu" if name == "auto" else name
    try:
        device = torch.device(parallel.own_device(chosen))
        torch.zeros(1, device=device, dtype=torch.float64)
    except Exception as error:  # torch raises RuntimeError, AssertionError or NotImplementedError
        reason = str(error).splitlines()[0]
        raise InputError(f"train.device={name}: not usable here ({reason}); try auto or cpu") from error
    if device.type == "meta":
        raise InputError(f"train.device={name}: computes nothing; try auto or cpu")
    return device


def choose_precision(name: str, device: torch.device) -> str:
    """fp32 or bf16, as train.precision names it; auto: bf16 where `device` is known to have arithmetic for it."""
    return ("bf16" if computes_bfloat16(device) else "fp32") if name == "auto" else name


def check_precision(name: str, device: torch.device) -> None:
    """Say so where training in this precision takes longer than in fp32."""
    if name == "bf16" and computes_bfloat16(device) is False:
        log.warning(
            "train.precision=bf16: this %s emulates bfloat16, so each step takes longer than with "
            "train.precision=fp32; auto takes the faster one",
            "processor" if device.type == "cpu" else "GPU",
        )


@cache
def computes_bfloat16(device: torch.device) -> bool | None:
    """Whether `device` has arithmetic of its own for bfloat16. Elsewhere torch emulates it, which takes longer than
    float32. None where torch does not say."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):
        return None
    found = torch.cpu.get_capabilities()
    return any(found.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))  # of x86, x86, ARM


def _keep_freed_memory() -> None:
    """Let the allocator keep what a training step frees, for the next one. glibc gives the end of its heap back to the
    system at once and takes it again page by page: over a thousand page faults a step of the conv networks. Elsewhere
    this does nothing."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no glibc
        return
    mallopt(M_MMAP_THRESHOLD, 32 * 2**20)  # glibc's own maximum; setting one of the two ends its adapting of both
    mallopt(M_TRIM_THRESHOLD, 256 * 2**20)


def versions() -> str:
    packages = ("torch", "torchvision", "hydra-core", "tensorboard")
    python = ".".join(map(str, sys.version_info[:3]))
    return ", ".join([f"python {python}", *(f"{package} {metadata.version(package)}" for package in packages)])


def is_out_of_memory(error: BaseException) -> bool:
    """torch has a type of its own for GPUs alone; on the CPU it says so in the message of a RuntimeError."""
    said = ("can't allocate memory", "not enough memory", "Storage size calculation overflowed")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in said)
    )
