"""Counting a forward pass on the meta device: what autograd keeps with CUDA's autocast, operations, the most memory.

Each storage counts once. Autocast computes convolutions and matrix products in the type of the computation, and
normalisation in float32, but for the frozen UNet's, which is in its own type; attention keeps what a flash kernel
keeps.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

NARROW = (F.conv2d, F.linear, F.scaled_dot_product_attention, torch.matmul, torch.bmm)
"""What autocast computes in the type of the computation."""
WIDE = (F.group_norm, F.layer_norm)
"""What it computes in float32 where the weights are trained; frozen ones are the base's, see `targets.precision`."""


class Flash(torch.autograd.Function):
    """Keeps what a flash kernel for attention keeps: q, k, v, the output and the log-sum-exp. Computes nothing."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Each is B heads L d."""
        out = torch.empty_like(q)
        ctx.save_for_backward(q, k, v, out, torch.empty(q.shape[:-1], dtype=torch.float32, device=q.device))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:  # noqa: ARG004, only the shapes matter
        """As many gradients as there were inputs."""
        return tuple(torch.empty_like(one) for one in ctx.saved_tensors[:3])


class Autocast(TorchFunctionMode):
    """CUDA's autocast on the meta device, which has none."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.cast: dict[int, Tensor] = {}
        """Address of a parameter -> its copy, made once in a forward pass."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is F.scaled_dot_product_attention:
            return Flash.apply(*(self.to(one, self.dtype) for one in args[:3]))
        wanted = self.dtype if func in NARROW else torch.float32 if func in WIDE and trained(args, kwargs) else None
        if wanted is None:
            return func(*args, **kwargs)
        return func(
            *(self.to(one, wanted) for one in args), **{name: self.to(one, wanted) for name, one in kwargs.items()}
        )

    def to(self, value: Any, dtype: torch.dtype) -> Any:
        """A tensor of floats in this type; anything else as it is."""
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.dtype == dtype:
            return value
        if not isinstance(value, nn.Parameter):
            return value.to(dtype)
        if id(value) not in self.cast:
            self.cast[id(value)] = value.to(dtype)
        return self.cast[id(value)]


def trained(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a function's weights are."""
    return any(isinstance(one, nn.Parameter) and one.requires_grad for one in (*args, *kwargs.values()))


@dataclass(frozen=True)
class Storage:
    """A piece of memory that autograd keeps."""

    memory: torch.UntypedStorage
    """Held, so that no address is used twice."""
    owners: set[nn.Module | None]
    """The blocks in whose forward pass it is kept; None: outside of them."""


class Counter:
    """Counts a forward pass, block by block."""

    def __init__(self, parameters: Iterable[Tensor], blocks: Sequence[nn.Module]) -> None:
        self.weights = {key(parameter) for parameter in parameters}
        self.blocks = blocks
        self.storages: dict[int, Storage] = {}
        self.inputs: dict[nn.Module, set[int]] = {}
        self.flops: dict[nn.Module, int] = {}
        self.current: nn.Module | None = None

    def pack(self, tensor: Tensor) -> Tensor:
        """Called for each tensor that is kept."""
        if key(tensor) not in self.weights:
            self.note(tensor).owners.add(self.current)
        return tensor

    def note(self, tensor: Tensor) -> Storage:
        """Its storage."""
        return self.storages.setdefault(key(tensor), Storage(tensor.untyped_storage(), set()))

    @contextmanager
    def counting(self, operations: FlopCounterMode | None = None) -> Generator[None]:
        """While the forward pass runs: its memory, and the operations of each block if a counter is given."""

        def begin(block: nn.Module, inputs: tuple[Any, ...]) -> None:
            self.current = block
            tensors = [value for value in inputs if isinstance(value, Tensor)]
            self.inputs[block] = {key(tensor) for tensor in tensors if self.note(tensor)}
            self.flops[block] = -operations.get_total_flops() if operations else 0

        def end(block: nn.Module, _: Any, __: Any) -> None:
            self.current = None
            self.flops[block] += operations.get_total_flops() if operations else 0

        handles = [block.register_forward_pre_hook(begin) for block in self.blocks]
        handles += [block.register_forward_hook(end) for block in self.blocks]
        with saved_tensors_hooks(self.pack, lambda tensor: tensor):
            yield
        for handle in handles:
            handle.remove()

    def kept(self, recomputed: Iterable[nn.Module] = (), *, without: Iterable[Tensor] = ()) -> int:
        """Bytes that are kept if these blocks keep their inputs only."""
        gone = set(recomputed)
        needed = {address for block in gone for address in self.inputs.get(block, ())} - self.weights
        left_out = {key(tensor) for tensor in without}
        return sum(
            storage.memory.nbytes()
            for address, storage in self.storages.items()
            if address not in left_out and (storage.owners - gone or address in needed)
        )

    def largest(self, blocks: Iterable[nn.Module]) -> int:
        """Bytes that one of these blocks keeps at most."""
        return max((self.of(block) for block in blocks), default=0)

    def of(self, block: nn.Module) -> int:
        """Bytes that it keeps."""
        return sum(one.memory.nbytes() for one in self.storages.values() if block in one.owners)


class Peak(TorchDispatchMode):
    """The most memory, in bytes, that what is made in here takes at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, int] = {}
        """Address of a storage -> its bytes."""
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        before = {key(one) for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)}
        out = func(*args, **(kwargs or {}))
        for one in tree_leaves(out):
            if isinstance(one, Tensor) and key(one) not in self.alive and key(one) not in before:
                self.alive[key(one)] = one.untyped_storage().nbytes()
                weakref.finalize(one.untyped_storage(), self.alive.pop, key(one))
        self.bytes = max(self.bytes, sum(self.alive.values()))
        return out


def key(tensor: Tensor) -> int:
    """Of a tensor's storage: on the meta device they have no address."""
    return tensor.untyped_storage()._cdata  # pyright: ignore[reportPrivateUsage]
