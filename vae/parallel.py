"""One run on several processes: `torchrun --nproc-per-node=N run.py ...`. The first process leads: it composes the
configuration and alone writes. The others follow: they are told what to train, take their share of every batch and of
the test split, and write nothing.

Gradients are averaged by torch's DistributedDataParallel (Li et al. 2020, arXiv 2006.15704). In a process that is alone
every function here gives back what it is given."""

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vae import config as conf
from vae.schema import RunConfig

T = TypeVar("T")


class Task(NamedTuple):
    """What `vae.train.train` is called with."""

    config: RunConfig
    directory: Path
    saved: Mapping[str, Any] | None


def size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def leads() -> bool:
    return rank() == 0


def announce(task: Task | None) -> None:
    """The leader's: tell those that follow, if torchrun has started any, what to train; None: that they can go."""
    if not conf.is_leader():
        return
    _join()
    dist.broadcast_object_list([task and (dataclasses.asdict(task.config), str(task.directory), task.saved)])


def tasks() -> Iterator[Task]:
    """A follower's: what the leader announces, until it says that there is no more."""
    _join()
    while True:
        told: list[Any] = [None]
        dist.broadcast_object_list(told)
        if told[0] is None:
            return
        config, directory, saved = told[0]
        yield Task(conf.load(config), Path(directory), saved)


def _join() -> None:
    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")


@contextmanager
def leader_first() -> Iterator[None]:
    """The leader goes through the block alone, then the others do: so that a file is downloaded or decoded once."""
    if not leads():
        dist.barrier()
    yield
    if leads() and size() > 1:
        dist.barrier()


def local(cores: int) -> int:
    """This process's share of the cores of its machine."""
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def local_device(name: str) -> str:
    """A GPU of its own for each process of a machine."""
    return f"cuda:{os.environ['LOCAL_RANK']}" if name == "cuda" and size() > 1 else name


def replicated(model: nn.Module, unused: bool) -> nn.Module:
    """A model whose gradients are means over the processes. `unused`: some parameters get no gradient."""
    return nn.parallel.DistributedDataParallel(model, find_unused_parameters=unused) if size() > 1 else model


def share(rows: Tensor) -> Tensor:
    """This process's rows of a batch (B, ...), whose B is divisible by the number of processes."""
    return rows.chunk(size())[rank()]


def mean(values: Tensor) -> Tensor:
    """The mean over the processes, through which gradients flow."""
    if size() == 1:
        return values
    from torch.distributed.nn.functional import all_reduce

    return all_reduce(values) / size()


def largest(number: int) -> int:
    """Over the processes. They all wait for each other."""
    if size() == 1:
        return number
    found = torch.tensor(number)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return int(found)


def every_other(items: Sequence[T]) -> Sequence[T]:
    """This process's share of work that can be done in any order; `gathered` puts what came of it together."""
    return items[rank() :: size()]


def gathered(items: list[T]) -> list[T]:
    """What all processes made of their shares, in the order of the whole."""
    if size() == 1:
        return items
    found: list[list[T]] = [[] for _ in range(size())]
    dist.all_gather_object(found, items)
    return [item for item in chain.from_iterable(zip_longest(*found)) if item is not None]
