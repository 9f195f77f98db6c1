"""The training step as one CUDA graph: recorded once, and replayed for each batch. What `--compile graph` does.

A GPU then waits for Python no more, which launches hundreds of small operations a step. All that a replay reads and
writes lies where it lay when the step was recorded: the batch and the learning rates are copied there, and the losses
are overwritten each time. Random numbers go on from replay to replay as they do from step to step.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.optim import Optimizer

from train.run import RunError

WARM_UP = 3  # plain steps before: convolutions are chosen, optimisers make their moments


class Graph:
    """Takes a step in its place: `graph(step, *batch)`, always with the same step and batches of one size.

    A state is to be loaded before the first step, for it puts other tensors in the place of the optimisers' own.
    """

    def __init__(self, device: torch.device, *optimizers: Optimizer):
        self.graph, self.stream = torch.cuda.CUDAGraph(), torch.cuda.Stream(device)
        self.optimizers, self.steps = optimizers, 0
        self.batch: list[Tensor] = []
        self.losses: dict[str, Tensor] = {}
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group |= {"lr": torch.tensor(group["lr"], dtype=torch.float32, device=device), "capturable": True}

    def __call__(self, step: Callable[..., dict[str, Tensor]], *batch: Tensor) -> dict[str, Tensor]:
        """The losses of the step; to be copied before the next one."""
        self.batch = self.batch or [torch.empty_like(x) for x in batch]
        for own, given in zip(self.batch, batch):
            if own.shape != given.shape:
                raise RunError(
                    f"a batch is {tuple(given.shape)}, and those before it were {tuple(own.shape)}: a CUDA graph takes "
                    "but one size. Leave out --compile graph."
                )
            own.copy_(given)
        self.steps += 1
        if self.steps > WARM_UP:
            self.graph.replay()
            return self.losses
        with beside(self.stream):
            losses = detached(step(*self.batch))
        if self.steps == WARM_UP:
            self.record(step)
        return losses

    def record(self, step: Callable[..., dict[str, Tensor]]) -> None:
        """Runs nothing on the GPU, so that weights and averages stay as they are."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)  # gradients are to lie in the graph's own memory
        # Meanwhile the loader's thread may pin memory, which the default mode forbids to all threads.
        with torch.cuda.graph(self.graph, stream=self.stream, capture_error_mode="thread_local"):
            self.losses = detached(step(*self.batch))


@contextmanager
def beside(stream: torch.cuda.Stream) -> Iterator[None]:
    """On another stream, after all that was asked before and before all that is asked then."""
    current = torch.cuda.current_stream(stream.device)
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        yield
    current.wait_stream(stream)


def detached(losses: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without what the backward pass left behind, which belongs to the stream of its step."""
    return {name: loss.detach() for name, loss in losses.items()}


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """The learning rate of the next step; a replay reads it from a tensor."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
