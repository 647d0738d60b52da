"""Control-LoRA: a ControlNet whose copied layers are the model's own plus products of thin matrices.

    W' = W + up down        (Hu et al., arXiv 2106.09685, equation 3)

W belongs to the model under control and is only looked at, at each call: no copy of it is kept, and what is done to it
(LoRAs, offloading) holds here as well. Zero convolutions, hint encoder, normalisations and biases are the file's.

Shapes: O outputs, I inputs (of a convolution: channels times the kernel's area), r rank.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import FamilyMismatchError
from .attention import CrossAttention
from .backend import Backend
from .config import UNetConfig
from .controlnet import ControlNet
from .hint_encoder import HintEncoderKind

Weights = tuple[Tensor, Tensor | None]
"""A layer's weight and bias."""
Read = Callable[[nn.Module, Tensor], AbstractContextManager[Weights]]
"""(layer, x) -> the layer's weights in the dtype and on the device of x, valid inside the `with`."""
FIRST = "input_blocks.0.0"
"""May have more inputs in the model: those that inpaint see a mask and a picture after the latent's channels."""


@contextmanager
def read_plainly(layer: nn.Module, x: Tensor) -> Generator[Weights, None, None]:
    """For torch's own layers."""
    found = dict(layer.named_parameters(recurse=False))
    yield found["weight"].to(x), found["bias"].to(x) if "bias" in found else None


class Borrowed(nn.Module):
    """A layer of the model that the file leaves as it is."""

    def __init__(self, like: nn.Module) -> None:
        super().__init__()
        self.shape = like.get_parameter("weight").shape
        self.reference: weakref.ref[nn.Module] | None = None
        """Weak: the model owns the layer, and may go any time."""

    @property
    def base(self) -> nn.Module:
        """The model's layer; raises RuntimeError when there is none."""
        layer = self.reference() if self.reference else None
        if layer is None:
            raise RuntimeError("A Control-LoRA has no weights of its own: bind it to a model before each run.")
        return layer

    def forward(self, x: Tensor) -> Tensor:
        """x is what the model's layer takes."""
        return self.base(x)


class LowRank(Borrowed):
    """A fully connected layer or a convolution: the model's weight plus `up` (O r) times `down` (r I)."""

    def __init__(self, like: nn.Linear | nn.Conv2d, rank: int, backend: Backend, read: Read, *, bias: bool) -> None:
        super().__init__(like)
        self.read = read
        self.up = backend.linear(rank, self.shape[0], bias=bias)
        """Also holds the bias of the sum; without one the model's stays."""
        self.down = backend.linear(self.shape[1:].numel(), rank, bias=False)
        self.geometry = (like.stride[0], int(like.padding[0])) if isinstance(like, nn.Conv2d) else None

    def forward(self, x: Tensor) -> Tensor:
        """x is B ... I or B C H W, as the model's layer takes it."""
        read = self.read
        with read(self.base, x) as (weight, bias), read(self.up, x) as (up, own), read(self.down, x) as (down, _):
            weight = weight[:, : self.shape[1]] + torch.mm(up, down).reshape(self.shape)
            bias = bias if own is None else own
            return F.conv2d(x, weight, bias, *self.geometry) if self.geometry else F.linear(x, weight, bias)


class ControlLoRA(ControlNet):
    """A ControlNet that has to be bound to a model before it is used."""

    def __init__(
        self,
        config: UNetConfig,
        tensors: Mapping[str, Tensor],
        backend: Backend | None = None,
        *,
        hint_channels: int = 3,
        hint_encoder_kind: HintEncoderKind = "released",
        read: Read = read_plainly,
        low_rank: type[LowRank] = LowRank,
    ) -> None:
        """`tensors` are those of `files.control_lora.network_tensors`; only names and shapes count here.

        `low_rank` may compute the sum in another order, such as for training.
        """
        backend = backend or Backend()
        skeleton = Backend(device="meta", attention=backend.attention)
        super().__init__(config, skeleton, hint_channels=hint_channels, hint_encoder_kind=hint_encoder_kind)
        for name, layer in list(self.named_modules()):
            if "weight" in dict(layer.named_parameters(recurse=False)):
                parent, _, last = name.rpartition(".")
                made = partial(low_rank, backend=backend, read=read)
                self.get_submodule(parent).add_module(last, substitute(name, layer, tensors, backend, made))
        found = dict(self.named_modules())
        self.borrowed = {name: layer for name, layer in found.items() if isinstance(layer, Borrowed)}
        self.attentions = {name: layer for name, layer in found.items() if isinstance(layer, CrossAttention)}

    def bind(self, base: nn.Module, *, name: str = "This Control-LoRA") -> None:
        """Take the missing weights from `base`, a UNet under LDM's names; any number of times.

        Raises FamilyMismatchError when a layer of it is missing or of another shape.
        """
        layers = dict(base.named_modules())
        for key, layer in self.borrowed.items():
            layer.reference = weakref.ref(fitting(key, layer, layers, name))
        for key, layer in self.attentions.items():
            layer.heads = layers[key].heads  # pyright: ignore[reportAttributeAccessIssue], the file does not tell

    @property
    def bound(self) -> bool:
        """Whether all the model's layers that it needs are there."""
        references = (layer.reference for layer in self.borrowed.values())
        return all(reference is not None and reference() is not None for reference in references)


def substitute(
    name: str, like: nn.Module, tensors: Mapping[str, Tensor], backend: Backend, low_rank: Callable[..., LowRank]
) -> nn.Module:
    """What stands in the network for a layer of `like`'s kind and size, according to what the file holds of it."""
    up = tensors.get(f"{name}.up.weight")
    if up is not None and isinstance(like, nn.Linear | nn.Conv2d):
        return low_rank(like, up.shape[1], bias=f"{name}.up.bias" in tensors)
    return own(like, backend) if f"{name}.weight" in tensors else Borrowed(like)


def own(like: nn.Module, backend: Backend) -> nn.Module:
    """A layer of the same kind and size from the backend."""
    match like:
        case nn.Linear():
            bias = "bias" in dict(like.named_parameters())
            return backend.linear(like.in_features, like.out_features, bias=bias)
        case nn.Conv2d():
            size, stride, padding = like.kernel_size[0], like.stride[0], int(like.padding[0])
            return backend.conv2d(like.in_channels, like.out_channels, size, stride=stride, padding=padding)
        case nn.GroupNorm():
            return backend.group_norm(like.num_channels, eps=like.eps)
        case nn.LayerNorm():
            return backend.layer_norm(like.normalized_shape[0])
        case _:
            raise TypeError(f"A ControlNet has no layers of type {type(like).__name__}.")


def fitting(key: str, layer: Borrowed, base: Mapping[str, nn.Module], name: str) -> nn.Module:
    """The base's layer for `layer`, or FamilyMismatchError that names weight and shapes."""
    found = base.get(key)
    weight: Tensor | None = getattr(found, "weight", None)
    shape, wanted = () if weight is None else tuple(weight.shape), tuple(layer.shape)
    # Only a low-rank layer can leave out inputs.
    seen = (*shape[:1], *wanted[1:2], *shape[2:]) if key == FIRST and isinstance(layer, LowRank) else shape
    if found is None or seen != wanted or shape[1:2] < wanted[1:2]:
        has = "none" if weight is None else f"one of shape {shape}"
        raise FamilyMismatchError(
            f"{name} changes {key}.weight of shape {wanted}, and the model has {has}. "
            "Use it with a model of the family that it was made for."
        )
    return found
