"""Data-parallel training with the numerics of a single process.

Every process holds the whole network and some samples of a batch. Losses and BatchNorm's statistics that a single
process would take over several windows are taken over the windows of all processes, so that losses and gradients are
those of a single process up to rounding. A process alone is a team of one, for which all of this does nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from glraster.errors import DeviceError, UsageError

T = TypeVar("T")

_LONGEST_WAIT = timedelta(hours=2)
"""How long a process waits for the others, of which one may score a large scene. A dead one is noticed at once."""


@dataclass(frozen=True)
class Team:
    """The processes of one training: this one is `rank` of `size`."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and prints."""
        return self.rank == 0

    def part(self, numbers: Sequence[int], chunk: int) -> list[int]:
        """This process's share of a batch, of which every `chunk` samples meet in one loss.

        Raises:
            UsageError: if a chunk cannot be divided evenly.
        """
        chunks = [numbers[i : i + chunk] for i in range(0, len(numbers), chunk)]
        uneven = [len(c) for c in chunks if len(c) % self.size]
        if uneven:
            raise UsageError(
                f"{uneven[0]} windows of a batch of {len(numbers)} cannot be divided evenly among {self.size} "
                "processes: choose another --set batch or sub_batch, or another number of processes"
            )
        own = [len(c) // self.size for c in chunks]
        return [n for c, k in zip(chunks, own, strict=True) for n in c[self.rank * k : (self.rank + 1) * k]]

    def sum(self, x: Tensor) -> Tensor:
        """The sum of the tensors of all processes; its gradient is passed on to each of them."""
        if self.size == 1:
            return x
        total: Tensor = _Sum.apply(x)  # type: ignore[no-untyped-call]
        return total

    def gather(self, x: Tensor) -> Tensor:
        """The tensors (n, ...) of all processes, n of any size, concatenated.

        Every process must compute the same from the result. Its gradient is then complete in each of them, and this
        process's part of it is passed on.
        """
        if self.size == 1:
            return x
        every: Tensor = _Gather.apply(x, self.rank)  # type: ignore[no-untyped-call]
        return every

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace gradients by their sum over all processes."""
        if self.size == 1:
            return
        every = list(parameters)
        present = self.sum(torch.tensor([float(p.grad is not None) for p in every], device=every[0].device))
        for parameter, anywhere in zip(every, present.tolist(), strict=True):
            if anywhere and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [p.grad for p in every if p.grad is not None]
        joined = self.sum(torch.cat([g.flatten() for g in gradients]))
        for gradient, summed in zip(gradients, torch.split(joined, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(summed.view_as(gradient))

    def from_first(self, action: Callable[[], Any]) -> Any:
        """Run an action in the first process and return its result, of JSON values, in all of them.

        If it fails there, the other processes end silently: the first one reports why.
        """
        if self.size == 1:
            return action()
        message: list[object] = [None]
        if self.first:
            try:
                message = [json.dumps(action())]
            finally:
                with _collective():
                    dist.broadcast_object_list(message, src=0)
        else:
            with _collective():
                dist.broadcast_object_list(message, src=0)
        if message[0] is None:
            raise SystemExit(1)
        return json.loads(str(message[0]))

    def first_then_all(self, action: Callable[[], T]) -> T:
        """Run an action in the first process and then, if it succeeded there, in the others."""
        results: list[T] = []
        self.from_first(lambda: results.append(action()))
        return results[0] if self.first else action()

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            with _collective():
                dist.barrier()


ALONE = Team()


@contextmanager
def joined() -> Iterator[Team]:
    """The team of processes that torchrun started; without torchrun a team of one.

    Raises:
        DeviceError: if the processes do not find each other.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    with _collective():
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=_LONGEST_WAIT)
    try:
        yield Team(dist.get_rank(), size)
    finally:
        dist.destroy_process_group()


def own_device(device: torch.device) -> torch.device:
    """The GPU of this process, if several processes share a machine and "cuda" has no number."""
    if device.type != "cuda" or device.index is not None or "LOCAL_RANK" not in os.environ:
        return device
    own = torch.device("cuda", int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    torch.cuda.set_device(own)
    return own


def synchronise(module: nn.Module, team: Team) -> None:
    """Let every BatchNorm in a module take its statistics over the whole team; nothing changes for a team of one."""
    if team.size == 1:
        return
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            norm = TeamNorm(child.num_features, child.eps, child.momentum).to(child.weight.device)
            norm.load_state_dict(child.state_dict())
            norm.team = team
            setattr(module, name, norm)
        else:
            synchronise(child, team)


class TeamNorm(nn.BatchNorm2d):
    """BatchNorm over the samples of all processes, on any device; the same as BatchNorm2d in eval mode.

    Source: Ioffe and Szegedy, Batch Normalization, ICML 2015; the variance is summed about the common mean.
    """

    team: Team = ALONE

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (n, C, h, w)."""
        if not self.training:
            return super().forward(x)
        values, column = x.float(), (1, -1, 1, 1)
        count = self.team.sum(values.new_tensor([values[:, 0].numel()]))
        mean = self.team.sum(values.sum((0, 2, 3))) / count
        centred = values - mean.view(column)
        variance = self.team.sum(centred.square().sum((0, 2, 3))) / count
        if self.track_running_stats:
            self._track(mean.detach(), variance.detach() * (count / (count - 1).clamp(min=1)))
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale.view(column) + self.bias.view(column)).to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum or 0.0)
        self.running_var.lerp_(variance, self.momentum or 0.0)


class RunningStatistics:
    """Joins the running statistics of BatchNorms that see the tiles of one process only.

    The result is that of a single process that saw the tiles of the first process, then those of the second, and so on.
    """

    def __init__(self, module: nn.Module | None, team: Team) -> None:
        modules = module.modules() if module is not None and team.size > 1 else ()
        self._norms = [norm for norm in modules if isinstance(norm, nn.BatchNorm2d) and norm.training]
        self._team = team

    def begin(self) -> None:
        """Save them before a step."""
        if self._norms:
            self._before, self._batches_before = self._values(), self._batches()

    @torch.no_grad()
    def join(self) -> None:
        """Apply the update of every process in turn: each decays what was there and adds its own."""
        if not self._norms:
            return
        own = self._batches() - self._batches_before
        decay = (1 - (self._norms[0].momentum or 0.0)) ** own
        after = self._values()
        steps = self._team.gather(torch.cat([after - decay * self._before, after.new_tensor([decay, own])])[None])
        joined = self._before
        for step in steps:
            joined = joined * step[-2] + step[:-2]
        batches = self._batches_before + round(float(steps[:, -1].sum()))
        parts = iter(torch.split(joined, [n.num_features for n in self._norms for _ in range(2)]))
        for norm in self._norms:
            for buffer in (norm.running_mean, norm.running_var):
                assert buffer is not None
                buffer.copy_(next(parts))
            assert norm.num_batches_tracked is not None
            norm.num_batches_tracked.fill_(batches)

    def _values(self) -> Tensor:
        return torch.cat([x for n in self._norms for x in (n.running_mean, n.running_var) if x is not None])

    def _batches(self) -> int:
        return int(self._norms[0].num_batches_tracked or 0)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004
        return _reduced(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004
        return _reduced(gradient)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rank: int) -> Tensor:
        size = dist.get_world_size()
        counts = x.new_zeros(size, dtype=torch.int64)
        counts[rank] = len(x)
        sizes = [int(n) for n in _reduced(counts).tolist()]
        padded = x.new_zeros((max(sizes), *x.shape[1:]))
        padded[: len(x)] = x
        parts = [torch.empty_like(padded) for _ in sizes]
        with _collective():
            dist.all_gather(parts, padded)
        ctx.own = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
        return torch.cat([part[:n] for part, n in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient[ctx.own], None


def _reduced(x: Tensor) -> Tensor:
    total = x.detach().clone(memory_format=torch.contiguous_format)
    with _collective():
        dist.all_reduce(total)
    return total


@contextmanager
def _collective() -> Iterator[None]:
    try:
        yield
    except (dist.DistError, RuntimeError) as error:
        raise DeviceError(
            "another process of this training ended or was not found; its own message tells why. Go on with --resume"
        ) from error
