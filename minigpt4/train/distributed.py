"""Several processes: who we are, and sums over all of us.

What is trained is small (3 to 60 million numbers) and equal everywhere, so gradients are summed in one flat buffer after
the backward pass. The loss is a sum over supervised tokens divided by their number over all processes, so nothing is ever
averaged per process, and a process whose batch has no pictures simply adds zeros for the projection.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from transformers import PreTrainedModel


@dataclass(frozen=True)
class World:
    """This process among the others."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def leads(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0

    def sum(self, *values: float) -> list[float]:
        """Numbers summed over all processes."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return total.tolist()

    def any(self, flag: bool) -> bool:
        """Whether any process says yes."""
        return self.sum(float(flag))[0] > 0

    def barrier(self) -> None:
        """Wait for all."""
        if self.size > 1:
            dist.barrier()

    def gather(self, value: Any) -> list[Any]:
        """One value from each process, in order."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum the gradients of all processes, in place; one that has none for a parameter adds zeros."""
        if self.size == 1:
            return
        parameters = list(parameters)
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        flat = torch.cat([p.grad.flatten() for p in parameters])  # type: ignore[union-attr]
        dist.all_reduce(flat)
        for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            parameter.grad.copy_(part.view_as(parameter))  # type: ignore[union-attr]


def join_world() -> World:
    """Join the processes that torchrun started, or be alone."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    cuda = torch.cuda.is_available()
    if size == 1:
        return World(device=torch.device("cuda" if cuda else "cpu"))
    _end_with_parent()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if cuda else "gloo")
    return World(dist.get_rank(), dist.get_world_size(), device)


def _end_with_parent() -> None:
    """Have the system stop this process, politely, when torchrun is killed; it would go on alone otherwise (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, int(signal.SIGTERM), 0, 0, 0)  # PR_SET_PDEATHSIG


def leave_world(world: World) -> None:
    """End what `join_world` began."""
    if world.size > 1 and dist.is_initialized():
        dist.destroy_process_group()


def shard_frozen(language_model: PreTrainedModel, trained: Iterable[nn.Parameter], world: World) -> None:
    """Divide the frozen weights of a language model's layers among the processes (FSDP2), gathering each layer when it runs.

    Trained weights stay whole everywhere: they are few, and `World.sum_gradients` keeps them equal.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(world.device.type, (world.size,))
    whole = set(trained)
    layers = next(m for m in language_model.modules() if isinstance(m, nn.ModuleList) and len(m) > 0)
    for layer in layers:
        fully_shard(layer, mesh=mesh, ignored_params={p for p in layer.parameters() if p in whole})
    # The decoder gathers what is outside its layers. The embeddings are also called by themselves, so they stay whole, and
    # so does the head: it may be the same weight.
    called = (language_model.get_input_embeddings(), language_model.get_output_embeddings())
    whole |= {p for module in called for p in module.parameters()}
    fully_shard(language_model.get_decoder(), mesh=mesh, ignored_params=whole)
