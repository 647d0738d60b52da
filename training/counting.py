"""Counting the memory of a forward pass on the meta device: what autograd keeps, with CUDA's autocast.

Each storage counts once. Autocast computes convolutions and matrix products in the type of the computation, and
normalisation in float32; attention keeps what a flash kernel keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode

NARROW = (F.conv2d, F.linear, F.scaled_dot_product_attention, torch.matmul, torch.bmm)
"""What autocast computes in the type of the computation."""
WIDE = (F.group_norm, F.layer_norm)
"""What it computes in float32."""


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
        wanted = self.dtype if func in NARROW else torch.float32 if func in WIDE else None
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


class Kept:
    """The storages that autograd keeps while it is in use, and what each watched block adds to them."""

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self.weights = {key(parameter) for parameter in parameters}
        self.storages: dict[int, torch.UntypedStorage] = {}
        """Held, so that no address is used twice."""
        self.blocks: dict[nn.Module, int] = {}

    def pack(self, tensor: Tensor) -> Tensor:
        """Called for each tensor that is kept."""
        if key(tensor) not in self.weights:
            self.storages.setdefault(key(tensor), tensor.untyped_storage())
        return tensor

    def total(self, without: Iterable[Tensor] = ()) -> int:
        """Bytes."""
        left_out = {key(tensor) for tensor in without}
        return sum(storage.nbytes() for address, storage in self.storages.items() if address not in left_out)

    @contextmanager
    def watching(self, blocks: Sequence[nn.Module]) -> Generator[None]:
        """Note what each block adds."""

        def begin(block: nn.Module, _: Any) -> None:
            self.blocks[block] = -self.total()

        def end(block: nn.Module, _: Any, __: Any) -> None:
            self.blocks[block] += self.total()

        handles = [block.register_forward_pre_hook(begin) for block in blocks]
        handles += [block.register_forward_hook(end) for block in blocks]
        with saved_tensors_hooks(self.pack, lambda tensor: tensor):
            yield
        for handle in handles:
            handle.remove()


def key(tensor: Tensor) -> int:
    """Of a tensor's storage: on the meta device they have no address."""
    return tensor.untyped_storage()._cdata  # pyright: ignore[reportPrivateUsage]
