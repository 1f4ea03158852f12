"""One run on several processes: `torchrun --nproc-per-node=N run.py ...`. The leader composes the configuration and
alone writes. The others take their rows of every batch and of the test split, and write nothing.

Gradients are averaged by torch's DistributedDataParallel (Li et al. 2020, arXiv 2006.15704). In a process that is alone
every function here gives back what it is given."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import chain, zip_longest
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vae.runtime.torchrun import world

T = TypeVar("T")
_joined = False  # in a process group of this program's own: in another program's, each process is alone here
PATIENCE = timedelta(days=1)  # for the leader, which may decode images for hours; who has ended is noticed at once


def join() -> None:
    """Meet the other processes, if there are any: before anything else here is called."""
    global _joined
    if world().size > 1 and not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
        _joined = True


def leave() -> None:
    """The end of the work of several processes: all wait for each other. A process that ended while another still held
    a connection to it could take that one down with it."""
    global _joined
    if _joined:
        dist.barrier()
        dist.destroy_process_group()
        _joined = False


def size() -> int:
    return dist.get_world_size() if _joined else 1


def rank() -> int:
    return dist.get_rank() if _joined else 0


def is_leader() -> bool:
    return rank() == 0


def broadcast(content: Any = None) -> Any:
    """The leader's `content`, in every process: plain values and tensors."""
    told = [content]
    if size() > 1:
        dist.broadcast_object_list(told)
    return told[0]


@contextmanager
def leader_first() -> Iterator[None]:
    """The leader goes through the block alone, then the others do: so that a file is downloaded or decoded once."""
    if not is_leader():
        dist.barrier()
    yield
    if is_leader() and size() > 1:
        dist.barrier()


def own_device(name: str) -> str:
    """A GPU of its own for each process of a machine."""
    return f"cuda:{world().local_rank}" if name == "cuda" and size() > 1 else name


def replicated(model: nn.Module, unused: bool) -> nn.Module:
    """A model whose gradients are means over the processes. `unused`: some parameters get no gradient."""
    return nn.parallel.DistributedDataParallel(model, find_unused_parameters=unused) if size() > 1 else model


def share_buffers(model: nn.Module) -> None:
    """The leader's running statistics become those of all processes: each has gathered its own since its last step."""
    if size() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def own_rows(rows: Tensor) -> Tensor:
    """This process's rows of a batch (B, ...), whose B is divisible by the number of processes."""
    return rows.chunk(size())[rank()]


def mean(values: Tensor) -> Tensor:
    """The mean over the processes, through which gradients flow."""
    if size() == 1:
        return values
    total: Tensor = _Sum.apply(values)
    return total / size()


class _Sum(torch.autograd.Function):
    """The sum over the processes. What each of them makes of it depends on the values of all: so gradients are summed
    too."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (gradient,) = gradients
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


def all_rows(rows: Tensor) -> Tensor:
    """The rows (B, ...) of all processes, one process's after another's, through which gradients flow."""
    if size() == 1:
        return rows
    together: Tensor = _Together.apply(rows)
    return together


class _Together(torch.autograd.Function):
    """The rows of all processes, as many from each."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (gradient,) = gradients
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return own_rows(total)


def maximum(number: int) -> int:
    """Over the processes. They all wait for each other."""
    if size() == 1:
        return number
    found = torch.tensor(number)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return int(found)


def own_items(items: Sequence[T]) -> Sequence[T]:
    """What this process does of work that can be done in any order; `gathered` puts the results together."""
    return items[rank() :: size()]


def gathered(items: list[T]) -> list[T]:
    """What all processes made of their items, in the order of the whole."""
    if size() == 1:
        return items
    found: list[list[T]] = [[] for _ in range(size())]
    dist.all_gather_object(found, items)
    return [item for item in chain.from_iterable(zip_longest(*found)) if item is not None]
