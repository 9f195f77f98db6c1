"""One training in several processes, as `torchrun` and `accelerate launch` start them, on one machine or on many.

Every process holds the whole networks and works on its own part of each batch. Gradients, losses and the statistics of
batch norms are averaged over the processes before anything is changed by them, so that all networks stay equal, and
equal to those of one process with the whole batch. The first process alone reads and writes the run folder.

Not DistributedDataParallel: it wants one forward and one backward of one module in turn, while a step of a GAN calls
the discriminator three times, reads activations inside it, and passes gradients through it that are not its own. As in
StyleGAN2-ADA's training loop (Karras et al., arXiv 2006.06676), gradients are averaged after the backward pass.
In a single process all this does nothing.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

T = TypeVar("T")


def own_device(name: str) -> torch.device:
    """That of this process: of several on one machine each has a GPU of its own."""
    device = torch.device(name)
    several = int(os.environ.get("WORLD_SIZE", 1)) > 1
    return torch.device("cuda", int(os.environ["LOCAL_RANK"])) if several and device.type == "cuda" else device


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Joins the other processes, if the environment of torchrun tells of any. device: see `own_device`.

    After an error nobody is waited for: the launcher ends the others as soon as one process has ended badly.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or dist.is_initialized():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # gloo too, so that `anybody` does not wait for the GPU. Long, for the others wait while the first one fits a latent
    # space or validates.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timedelta(hours=2))
    yield
    wait()
    dist.destroy_process_group()


def count() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def first() -> bool:
    """Whether this is the process that writes."""
    return rank() == 0


def say(words: str) -> None:
    """Once, not once a process."""
    if first():
        print(words)


def from_first(make: Callable[[], T]) -> T:
    """What `make` returns in the first process, where alone it is called, for all of them."""
    box = [make() if first() else None]
    if count() > 1:
        dist.broadcast_object_list(box)
    return box[0]


def wait() -> None:
    """Until all processes are here."""
    if count() > 1:
        dist.barrier()


def anybody(yes: bool) -> bool:
    """Whether any process says yes; the same answer in all of them."""
    return bool(average(torch.tensor(float(yes))))


def own_dice(seed: int, step: int) -> None:
    """Throws the dice of this process and step anew: else all processes would draw the same dropout and noise."""
    if count() > 1:
        torch.manual_seed(int(np.random.SeedSequence((seed, step, rank())).generate_state(1)[0]))


@torch.no_grad()
def average(tensor: Tensor) -> Tensor:
    """The mean over the processes; the same bits in all of them."""
    if count() == 1:
        return tensor
    total = tensor.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total / count()


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """To be called between `backward` and the optimiser's step; in one message, since small ones are slow."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if count() == 1 or not gradients:
        return
    flat = average(torch.cat([gradient.flatten() for gradient in gradients]))
    for gradient, mean in zip(gradients, flat.split([gradient.numel() for gradient in gradients])):
        gradient.copy_(mean.view_as(gradient))


def mean_losses(losses: dict[str, Tensor | float]) -> dict[str, Tensor | float]:
    """The mean of each loss over the processes, without its gradient. What is a mere float is the same in all."""
    own = {name: loss.detach().float() for name, loss in losses.items() if isinstance(loss, Tensor)}
    return losses | dict(zip(own, average(torch.stack(list(own.values()))).unbind()))


def gather(tensor: Tensor) -> Tensor:
    """The parts of all processes, one below the other."""
    if count() == 1:
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(count())]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


# --- Batch norm --------------------------------------------------------------------------------------


class Average(torch.autograd.Function):
    """`average`, with the gradient of all processes' losses."""

    @staticmethod
    def forward(ctx, tensor: Tensor) -> Tensor:
        return average(tensor)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return average(gradient)


class SharedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the parts of all processes, on any device; torch's SyncBatchNorm knows GPUs only."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        pixels = x.float()
        mean = Average.apply(pixels.mean(dim=(0, 2, 3)))[:, None, None]  # (C, 1, 1)
        variance = Average.apply((pixels - mean).square().mean(dim=(0, 2, 3)))[:, None, None]
        total = count() * x.numel() / x.shape[1]
        with torch.no_grad():
            self.running_mean.lerp_(mean.flatten(), self.momentum)
            self.running_var.lerp_(variance.flatten() * total / (total - 1), self.momentum)
            self.num_batches_tracked += 1
        scale = self.weight[:, None, None] * (variance + self.eps).rsqrt()
        return ((pixels - mean) * scale + self.bias[:, None, None]).to(x.dtype)


def share_norms(network: nn.Module) -> None:
    """Lets the batch norms of a network see the whole batch, not just the part of their process.

    Instance norms look at one picture at a time, and need nothing. Parameters, their names and their values stay.
    """
    if count() == 1:
        return
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.BatchNorm2d:
                if next(network.parameters()).device.type == "cuda":
                    shared = nn.SyncBatchNorm.convert_sync_batchnorm(child)
                else:
                    shared = SharedBatchNorm2d(child.num_features, child.eps, child.momentum)
                    shared._parameters, shared._buffers = child._parameters, child._buffers
                setattr(parent, name, shared)


# --- Accumulation ------------------------------------------------------------------------------------


def in_parts(count: int, network: nn.Module, function: Callable, *batch: Tensor) -> Tensor | list[Tensor]:
    """`function(*batch)`, which calls the network on so many parts of the batch, one after the other.

    What the backward pass needs of a part is computed again when it comes there, so that only one part at a time takes
    memory. The second time throws the same dice and leaves the running statistics of batch norms alone.
    """
    if count == 1:
        return function(*batch)
    parts = zip(*(tensor.chunk(count) for tensor in batch))
    twice = {"use_reentrant": False, "context_fn": lambda: (nullcontext(), without_tracking(network))}
    results = [checkpoint(function, *part, **twice) for part in parts]
    if isinstance(results[0], Tensor):
        return torch.cat(results)
    return [torch.cat(tensors) for tensors in zip(*results)]


@contextmanager
def without_tracking(network: nn.Module) -> Iterator[None]:
    """Batch norms take the statistics of their batch and do not remember them."""
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, tracked) in zip(norms, before):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(tracked)
