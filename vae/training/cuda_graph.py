"""An update of the weights as one CUDA graph. The networks of this field are small: on a GPU, starting the kernels of
an update takes several times as long as what they compute. A graph starts them all at once (NVIDIA, CUDA C++
Programming Guide, "CUDA Graphs"), with the results of the same kernels to the bit. (Without a graph the learning rate
is a double, here it is a float.)"""

from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor

WARMUP = 3  # updates made one kernel after the other, so that libraries have chosen theirs before they are captured


Update = Callable[[int, Tensor, Tensor, float, float], Tensor]
"""A step of that number on images, with noise, KL weight and learning rate: the row of its measures."""


class CapturedUpdate:
    """`update` captured at its fourth call, and replayed from then on. What changes from step to step is copied into
    tensors that the graph reads. Without a KL term the kernels are others, so that there can be two graphs."""

    def __init__(self, update: Callable[..., Tensor], device: torch.device) -> None:
        self.update, self.device = update, device
        self.stream = torch.cuda.Stream(device)
        self.weight, self.rate = torch.zeros(2, device=device).unbind()
        self.images = self.noise = torch.empty(0, device=device)
        self.made: Counter[bool] = Counter()
        self.graphs: dict[bool, tuple[torch.cuda.CUDAGraph, Tensor]] = {}

    def __call__(self, step: int, images: Tensor, noise: Tensor, weight: float, rate: float, /) -> Tensor:
        if not self.made:
            self.images, self.noise = torch.empty_like(images), torch.empty_like(noise)
        self.images.copy_(images)
        self.noise.copy_(noise)
        self.weight.fill_(weight)
        self.rate.fill_(rate)
        with_kl = weight != 0
        self.made[with_kl] += 1
        if self.made[with_kl] <= WARMUP:
            self.stream.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(self.stream):
                row = self._one(step, with_kl)
            torch.cuda.current_stream(self.device).wait_stream(self.stream)
            return row
        if with_kl not in self.graphs:
            graph = torch.cuda.CUDAGraph()
            # thread_local: threads that read images may go on copying them
            with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
                row = self._one(step, with_kl)
            self.graphs[with_kl] = graph, row
        graph, row = self.graphs[with_kl]
        graph.replay()
        return row

    def _one(self, step: int, with_kl: bool) -> Tensor:
        return self.update(step, self.images, self.noise, self.weight if with_kl else 0.0, self.rate)
